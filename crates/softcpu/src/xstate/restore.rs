//! XRSTOR and XRSTORS: SDM vol. 1 sections 13.8 and 13.12.

use super::area::Area;
use super::component::{AT_AVX, AT_PKRU, AVX, HEADER, Layout, PKRU, SSE, X87};
use super::legacy::{self, Region};
use super::save::{ALIGNMENT, COMPACTED};
use super::{check_enabled, lane_from_bytes, mask, registers_in};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Stop};
use crate::vector::state::{MXCSR_INIT, VectorState};
use crate::x87::state::Fpu;

/// CPUID leaf 0xD.1 EAX: XSAVEC, and with it the compacted format.
const HAS_COMPACTED: u32 = 1 << 1;

/// What an area's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// XSTATE_BV.
    present: u64,
    /// XCOMP_BV without its highest bit, in the compacted format.
    compacted: Option<u64>,
}

impl Header {
    /// Read a header; `None` if it is not allowed. `enabled`: the components that may be in it.
    fn parse(bytes: &[u8; HEADER], enabled: u64, knows_compacted: bool) -> Option<Self> {
        let [present, format, reserved @ ..]: [u64; 8] = bytemuck::cast(*bytes);
        let compacted = format & COMPACTED != 0;
        let components = format & !COMPACTED;
        let sound = if compacted {
            knows_compacted && components & !enabled == 0 && present & !components == 0 && reserved == [0; 6]
        } else {
            // Of the standard format only the first eight of the reserved bytes are looked at.
            format == 0 && reserved[0] == 0 && present & !enabled == 0
        };
        sound.then_some(Self { present, compacted: compacted.then_some(components) })
    }
}

/// XRSTOR.
pub fn xrstor(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    check_enabled(cpu)?;
    let enabled = cpu.xcr0;
    restore(cpu, env, op, enabled, false)
}

/// XRSTORS.
pub fn xrstors(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    check_enabled(cpu)?;
    if cpu.cpl != 0 {
        return Err(cpu.gp0());
    }
    let enabled = cpu.xcr0 | cpu.xss();
    restore(cpu, env, op, enabled, true)
}

fn restore(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, enabled: u64, must_be_compacted: bool) -> Step {
    let area = Area::new(cpu, op, ALIGNMENT, false)?;
    let (region, header) = area.load_fixed(cpu, env)?;
    let knows_compacted = cpu.features.xsave_eax & HAS_COMPACTED != 0;
    let header = Header::parse(&header, enabled, knows_compacted)
        .filter(|header| header.compacted.is_some() || !must_be_compacted)
        .ok_or_else(|| cpu.gp0())?;

    let asked = mask(cpu) & enabled;
    let loaded = asked & header.present;
    let mut vector = cpu.vector;
    restore_vectors(cpu, env, &area, &region, header, asked, &mut vector)?;
    let layout = header.layout(cpu);
    let pkru = match (asked & PKRU != 0, loaded & PKRU != 0) {
        (false, _) => cpu.pkru,
        (true, false) => 0,
        (true, true) => u32::from_le_bytes(area.load(cpu, env, layout.place(AT_PKRU))?),
    };

    cpu.vector = vector;
    if asked & X87 != 0 {
        cpu.fpu = if loaded & X87 != 0 { legacy::load_x87(&region, op.size == 8) } else { Fpu::INITIAL };
    }
    if cpu.pkru != pkru {
        cpu.pkru = pkru;
        // Entries of the TLB stand for rights that the keys gave.
        cpu.tlb.flush();
    }
    Ok(Flow::Sync)
}

impl Header {
    fn layout(self, cpu: &Cpu) -> Layout {
        self.compacted.map_or_else(|| Layout::standard(&cpu.features), Layout::compacted)
    }
}

/// SSE, AVX and MXCSR. Outside 64-bit mode the upper eight registers stay (SDM vol. 1 section 13.5.2 and 13.5.3).
fn restore_vectors(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    area: &Area,
    region: &Region,
    header: Header,
    asked: u64,
    vector: &mut VectorState,
) -> Result<(), Stop> {
    let registers = registers_in(cpu);
    let loaded = asked & header.present;
    // In the standard format MXCSR is loaded with either of SSE and AVX, whether they are or not; compacted, it is SSE's.
    let (with_mxcsr, init_mxcsr) = match header.compacted {
        None => (asked & (SSE | AVX) != 0, false),
        Some(_) => (loaded & SSE != 0, asked & !loaded & SSE != 0),
    };
    if with_mxcsr {
        vector.mxcsr = legacy::load_mxcsr(cpu, region).ok_or_else(|| cpu.gp0())?;
    } else if init_mxcsr {
        vector.mxcsr = MXCSR_INIT;
    }
    if loaded & SSE != 0 {
        legacy::load_xmm(vector, registers, region);
    } else if asked & SSE != 0 {
        (0..registers).for_each(|i| vector.set_xmm(i, [0; 2]));
    }
    if asked & AVX != 0 {
        let mut uppers = [[0; 16]; 16];
        if loaded & AVX != 0 {
            let place = header.layout(cpu).place(AT_AVX);
            uppers = bytemuck::cast(area.load::<256>(cpu, env, place)?);
        }
        set_uppers(vector, registers, &uppers);
    }
    Ok(())
}

/// Replace the upper halves of the first `registers` YMM registers.
pub fn set_uppers(vector: &mut VectorState, registers: u8, uppers: &[[u8; 16]; 16]) {
    for (i, upper) in (0..registers).zip(uppers) {
        vector.set_ymm(i, [vector.xmm(i), lane_from_bytes(upper)]);
    }
}
