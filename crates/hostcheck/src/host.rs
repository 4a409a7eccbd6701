//! What the processor that we sit on has, by CPUID, and the guest's CPUID made from it.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use iced_x86::CpuidFeature as F;
use softcpu::{CpuidEntry, CpuidTable, HostVendor};
use x86defs::cpuid as bit;

/// What CPUID answers. Each question is put once: where the host is a virtual machine, it takes tens of microseconds.
fn leaf(leaf: u32, subleaf: u32) -> [u32; 4] {
    type Answers = BTreeMap<(u32, u32), [u32; 4]>;
    static KNOWN: Mutex<Answers> = Mutex::new(Answers::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    *known.entry((leaf, subleaf)).or_insert_with(|| {
        let result = __cpuid_count(leaf, subleaf);
        [result.eax, result.ebx, result.ecx, result.edx]
    })
}

fn bit_of(leaf_number: u32, register: usize, bit: u32) -> bool {
    let range = leaf_number & 0x8000_0000;
    leaf(range, 0)[0] >= leaf_number && leaf(leaf_number, 0)[register] >> bit & 1 != 0
}

/// Whether the host has what an instruction needs, of the features that families draw from.
pub fn has(feature: F) -> bool {
    const EBX: usize = 1;
    const ECX: usize = 2;
    const EDX: usize = 3;
    match feature {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 | F::MULTIBYTENOP | F::PAUSE => {
            true
        }
        F::FPU | F::FPU287 | F::FPU387 => bit_of(1, EDX, 0),
        F::CX8 => bit_of(1, EDX, 8),
        F::CMOV => bit_of(1, EDX, 15),
        F::MMX => bit_of(1, EDX, 23),
        F::FXSR => bit_of(1, EDX, 24),
        F::SSE => bit_of(1, EDX, 25),
        F::SSE2 => bit_of(1, EDX, 26),
        F::SSE3 => bit_of(1, ECX, 0),
        F::PCLMULQDQ => bit_of(1, ECX, 1),
        F::SSSE3 => bit_of(1, ECX, 9),
        F::FMA => bit_of(1, ECX, 12),
        F::CMPXCHG16B => bit_of(1, ECX, 13),
        F::SSE4_1 => bit_of(1, ECX, 19),
        F::SSE4_2 => bit_of(1, ECX, 20),
        F::MOVBE => bit_of(1, ECX, 22),
        F::POPCNT => bit_of(1, ECX, 23),
        F::AES => bit_of(1, ECX, 25),
        F::AVX => bit_of(1, ECX, 28) && xsave_components() & 4 != 0,
        F::F16C => bit_of(1, ECX, 29),
        F::BMI1 => bit_of(7, EBX, 3),
        F::AVX2 => bit_of(7, EBX, 5),
        F::BMI2 => bit_of(7, EBX, 8),
        F::ADX => bit_of(7, EBX, 19),
        F::SHA => bit_of(7, EBX, 29),
        F::GFNI => bit_of(7, ECX, 8),
        F::VAES => bit_of(7, ECX, 9),
        F::VPCLMULQDQ => bit_of(7, ECX, 10),
        F::LZCNT => bit_of(0x8000_0001, ECX, 5),
        F::SSE4A => bit_of(0x8000_0001, ECX, 6),
        F::PREFETCHW => bit_of(0x8000_0001, ECX, 8),
        _ => false,
    }
}

/// Whether the host has one of the instructions that save and restore the whole state.
pub fn has_image_instruction(name: &str) -> bool {
    const XSAVEOPT: u32 = 0;
    const XSAVEC: u32 = 1;
    let of_xsave = |bit: u32| leaf(0xD, 1)[0] >> bit & 1 != 0;
    match name {
        "xsaveopt" => of_xsave(XSAVEOPT),
        "xsavec" => of_xsave(XSAVEC),
        _ => true,
    }
}

/// Whether MXCSR.MM exists.
pub fn has_misaligned_sse() -> bool {
    bit_of(0x8000_0001, 2, 7)
}

/// Of x87, SSE and AVX state, what XSAVE is enabled for.
///
/// # Panics
///
/// If the host has no XSAVE, which the comparison relies on.
pub fn xsave_components() -> u32 {
    const OSXSAVE: u32 = 27;
    assert!(bit_of(1, 2, OSXSAVE), "the host has no XSAVE");
    #[expect(unsafe_code, reason = "an intrinsic")]
    // SAFETY: XSAVE is enabled.
    let enabled = unsafe { read_xcr0() };
    (enabled & crate::xsave::COMPONENTS) as u32
}

#[expect(unsafe_code, reason = "an intrinsic")]
#[target_feature(enable = "xsave")]
unsafe fn read_xcr0() -> u64 {
    // SAFETY: the caller says that XSAVE is enabled.
    unsafe { _xgetbv(0) }
}

/// Whose the host is, as far as instructions differ.
pub fn vendor() -> HostVendor {
    // "Auth"enticAMD and "Hygo"nGenuine.
    if [0x6874_7541, 0x6F67_7948].contains(&leaf(0, 0)[1]) { HostVendor::Amd } else { HostVendor::Intel }
}

/// What the guest is told: what the host says.
pub fn cpuid() -> CpuidTable {
    let all = |number| CpuidEntry { leaf: number, subleaf: None, registers: leaf(number, 0) };
    let mut entries: Vec<_> = [0, 1, 7, 0x8000_0000, 0x8000_0001, 0x8000_0008].map(all).into();
    entries.extend([0, 1, 2].map(|sub| CpuidEntry { leaf: 0xD, subleaf: Some(sub), registers: leaf(0xD, sub) }));
    // The host may be a guest itself.
    entries[1].registers[2] &= !bit::L1_ECX_HYPERVISOR;
    CpuidTable::new(entries)
}
