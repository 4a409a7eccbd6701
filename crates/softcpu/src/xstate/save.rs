//! XSAVE, XSAVEOPT, XSAVEC, XSAVES: SDM vol. 1 sections 13.7 and 13.9 to 13.11.

use super::area::Area;
use super::component::{AT_AVX, AT_PKRU, AVX, BEHIND, EXTENDED, LEGACY, Layout, PKRU, SSE, X87};
use super::legacy::{self, Pointers};
use super::{check_enabled, lane_to_bytes, mask, registers_in};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Op, Step};

/// XCOMP_BV: the area is compacted.
pub const COMPACTED: u64 = 1 << 63;
/// Areas are multiples of it.
pub const ALIGNMENT: u64 = 64;

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Everything that is asked for, in the standard format.
    Plain,
    /// What is in use, in the standard format. (That it is as the last XRSTOR left it would be another reason to leave it out,
    /// which a CPU may ignore.)
    Optimized,
    /// What is in use, compacted.
    Compacted,
    /// The same, with the supervisor's components.
    Supervisor,
}

/// XSAVE.
pub fn xsave(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    save(cpu, env, op, Kind::Plain)
}

/// XSAVEOPT.
pub fn xsaveopt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    save(cpu, env, op, Kind::Optimized)
}

/// XSAVEC.
pub fn xsavec(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    save(cpu, env, op, Kind::Compacted)
}

/// XSAVES.
pub fn xsaves(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    save(cpu, env, op, Kind::Supervisor)
}

fn save(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, kind: Kind) -> Step {
    check_enabled(cpu)?;
    if kind == Kind::Supervisor && cpu.cpl != 0 {
        return Err(cpu.gp0());
    }
    let area = Area::new(cpu, op, ALIGNMENT, true)?;
    let registers = registers_in(cpu);
    let enabled = cpu.xcr0 | if kind == Kind::Supervisor { cpu.xss() } else { 0 };
    let asked = mask(cpu) & enabled;
    let compact = matches!(kind, Kind::Compacted | Kind::Supervisor);

    let in_use = if compact { cpu.in_use_with_mxcsr(registers) } else { cpu.in_use(registers) };
    let saved = if kind == Kind::Plain { asked } else { asked & in_use };
    let (header, layout) = if compact {
        ([asked & in_use, asked | COMPACTED], Layout::compacted(asked))
    } else {
        let old = u64::from_le_bytes(area.load(cpu, env, LEGACY as u64)?);
        ([old & !asked | asked & in_use, 0], Layout::standard(&cpu.features))
    };
    // In the standard format MXCSR goes with either of SSE and AVX, used or not (SDM vol. 1 section 13.5.2).
    let with_mxcsr = if compact { saved & SSE != 0 } else { asked & (SSE | AVX) != 0 };

    let mut region = [0; LEGACY];
    legacy::save_x87(&cpu.fpu, Pointers::of(cpu, op.size == 8), &mut region);
    legacy::save_mxcsr(cpu, &mut region);
    legacy::save_xmm(&cpu.vector, registers, &mut region);
    let header: [u8; 16] = bytemuck::cast(header);
    let uppers: [[u8; 16]; 16] = std::array::from_fn(|i| lane_to_bytes(cpu.vector.ymm(i as u8)[1]));
    let uppers = &uppers.as_flattened()[..16 * usize::from(registers)];
    let pkru = u64::from(cpu.pkru).to_le_bytes();
    let only_if = |wanted: bool, bytes| if wanted { bytes } else { &[][..] };
    area.store(
        cpu,
        env,
        &[
            (0, EXTENDED),
            (layout.place(AT_AVX), if saved & AVX != 0 { BEHIND[AT_AVX].size } else { 0 }),
            (layout.place(AT_PKRU), if saved & PKRU != 0 { BEHIND[AT_PKRU].size } else { 0 }),
        ],
        &[
            (legacy::ENVIRONMENT.start as u64, only_if(saved & X87 != 0, &region[legacy::ENVIRONMENT])),
            (legacy::MXCSR.start as u64, only_if(with_mxcsr, &region[legacy::MXCSR])),
            (legacy::STACK.start as u64, only_if(saved & X87 != 0, &region[legacy::STACK])),
            (legacy::xmm(0).start as u64, only_if(saved & SSE != 0, &region[legacy::xmm(registers)])),
            (LEGACY as u64, &header[..if compact { 16 } else { 8 }]),
            (layout.place(AT_AVX), only_if(saved & AVX != 0, uppers)),
            (layout.place(AT_PKRU), only_if(saved & PKRU != 0, &pkru)),
        ],
    )
}
