//! The legacy region, 512 bytes: SDM vol. 2 FXSAVE, APM vol. 2 section 11.4.4.

use softfloat::X80;
use x86defs::cpuid;

use super::component::LEGACY;
use super::{lane_from_bytes, lane_to_bytes};
use crate::cpu::Cpu;
use crate::vector::state::{VectorState, mxcsr_mask};
use crate::x87::state::{Fpu, Pointer};

/// The region.
pub type Region = [u8; LEGACY];

/// Control words and pointers of x87.
pub const ENVIRONMENT: std::ops::Range<usize> = 0..24;
/// MXCSR and the mask of its bits.
pub const MXCSR: std::ops::Range<usize> = 24..32;
/// ST(0)–ST(7).
pub const STACK: std::ops::Range<usize> = 32..160;
/// The first XMM register.
const XMM: usize = 160;

/// Where the first `registers` XMM registers are.
pub fn xmm(registers: u8) -> std::ops::Range<usize> {
    XMM..XMM + 16 * usize::from(registers)
}

/// How instruction and data pointers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointers {
    /// Offsets of 64 bits and no selectors (REX.W), or of 32 bits with selectors.
    pub wide: bool,
    /// They are stored as they are; otherwise as zeros, and FOP too.
    pub known: bool,
    /// Selectors are stored as they are; otherwise as zeros.
    pub selectors: bool,
}

impl Pointers {
    /// Everything, for whoever looks from outside.
    pub const ALL: Self = Self { wide: true, known: true, selectors: true };

    /// As the CPU stores them. AMD's CPUs give them away only with an error that waits (APM vol. 2 section 11.4.4.1), zeros
    /// otherwise since Zen 2; the CPU may say that it knows no selectors (SDM vol. 1 section 8.1.8).
    pub fn of(cpu: &Cpu, wide: bool) -> Self {
        Self {
            wide,
            known: !cpu.features.amd || cpu.fpu.pending(),
            selectors: cpu.features.l7_ebx & cpuid::L7_EBX_NO_FCS_FDS == 0,
        }
    }
}

fn put<const N: usize>(region: &mut Region, at: usize, bytes: [u8; N]) {
    region[at..at + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(region: &Region, at: usize) -> [u8; N] {
    std::array::from_fn(|i| region[at + i])
}

/// Write x87's part.
pub fn save_x87(fpu: &Fpu, pointers: Pointers, region: &mut Region) {
    put(region, 0, fpu.control().to_le_bytes());
    put(region, 2, fpu.status().to_le_bytes());
    put(region, 4, [fpu.abridged_tags(), 0]);
    if pointers.known {
        put(region, 6, fpu.opcode().to_le_bytes());
        save_pointer(fpu.instruction, pointers, region, 8);
        save_pointer(fpu.data, pointers, region, 16);
    }
    for i in 0..8 {
        put(region, STACK.start + 16 * usize::from(i), fpu.st(i).to_bytes());
    }
}

fn save_pointer(pointer: Pointer, pointers: Pointers, region: &mut Region, at: usize) {
    if pointers.wide {
        put(region, at, pointer.offset.to_le_bytes());
    } else {
        put(region, at, (pointer.offset as u32).to_le_bytes());
        put(region, at + 4, if pointers.selectors { pointer.selector.to_le_bytes() } else { [0; 2] });
    }
}

/// What x87's part holds. Reserved bits of FCW are dropped, and FSW.ES follows from flags and masks, as in silicon.
pub fn load_x87(region: &Region, wide: bool) -> Fpu {
    let mut fpu = Fpu::INITIAL;
    fpu.set_control(u16::from_le_bytes(get(region, 0)));
    fpu.set_status(u16::from_le_bytes(get(region, 2)));
    fpu.set_abridged_tags(region[4]);
    fpu.set_opcode(u16::from_le_bytes(get(region, 6)));
    fpu.instruction = load_pointer(region, wide, 8);
    fpu.data = load_pointer(region, wide, 16);
    for i in 0..8 {
        fpu.set_st(i, X80::from_bytes(get(region, STACK.start + 16 * usize::from(i))));
    }
    fpu
}

fn load_pointer(region: &Region, wide: bool, at: usize) -> Pointer {
    if wide {
        return Pointer { offset: u64::from_le_bytes(get(region, at)), selector: 0 };
    }
    let offset = u32::from_le_bytes(get(region, at)).into();
    Pointer { offset, selector: u16::from_le_bytes(get(region, at + 4)) }
}

/// Write MXCSR and its mask.
pub fn save_mxcsr(cpu: &Cpu, region: &mut Region) {
    put(region, MXCSR.start, cpu.vector.mxcsr.to_le_bytes());
    put(region, MXCSR.start + 4, mxcsr_mask(&cpu.features).to_le_bytes());
}

/// MXCSR; `None` if bits are set that the CPU has not.
pub fn load_mxcsr(cpu: &Cpu, region: &Region) -> Option<u32> {
    let mxcsr = u32::from_le_bytes(get(region, MXCSR.start));
    (mxcsr & !mxcsr_mask(&cpu.features) == 0).then_some(mxcsr)
}

/// Write the first `registers` XMM registers.
pub fn save_xmm(vector: &VectorState, registers: u8, region: &mut Region) {
    for i in 0..registers {
        put(region, XMM + 16 * usize::from(i), lane_to_bytes(vector.xmm(i)));
    }
}

/// Replace the first `registers` XMM registers.
pub fn load_xmm(vector: &mut VectorState, registers: u8, region: &Region) {
    for i in 0..registers {
        vector.set_xmm(i, lane_from_bytes(&get(region, XMM + 16 * usize::from(i))));
    }
}
