//! Whether CPUID announces what an instruction needs.

use iced_x86::{Code, CpuidFeature as F, DecoderOptions, Instruction, Mnemonic};

use crate::features::Features;

const fn has(word: u32, bit: u32) -> bool {
    word >> bit & 1 != 0
}

/// How bytes are to be read: encodings that mean something else to CPUs without a feature, and where vendors differ.
pub fn decoder_options(features: &Features) -> u32 {
    let mut options = DecoderOptions::NO_WBNOINVD;
    if features.amd {
        options |= DecoderOptions::AMD;
    }
    // Without BMI1 and LZCNT the prefix is ignored: TZCNT is BSF, LZCNT is BSR.
    if !has(features.l7_ebx, 3) {
        options |= DecoderOptions::NO_MPFX_0FBC;
    }
    if !has(features.x1_ecx, 5) {
        options |= DecoderOptions::NO_MPFX_0FBD;
    }
    options
}

/// Whether all features are announced that the instruction needs. Those that every CPU with the instruction's mode has, and
/// those whose handlers look for themselves, count as announced.
pub fn is_announced(instr: &Instruction, features: &Features) -> bool {
    if features.amd && is_register_prefetch(instr.code()) {
        return false;
    }
    is_hint(instr.mnemonic()) || instr.cpuid_features().iter().all(|&feature| announced(feature, features))
}

/// PREFETCHh was a reserved NOP before it came with SSE (SDM vol. 2 PREFETCHh).
fn is_hint(mnemonic: Mnemonic) -> bool {
    matches!(mnemonic, Mnemonic::Prefetchnta | Mnemonic::Prefetcht0 | Mnemonic::Prefetcht1 | Mnemonic::Prefetcht2)
}

/// PREFETCHW and its kin with a register: #UD on AMD (APM vol. 3, PREFETCH), reserved NOPs on Intel.
fn is_register_prefetch(code: Code) -> bool {
    matches!(code, Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D | Code::Reservednop_rm64_r64_0F0D)
}

fn announced(feature: F, f: &Features) -> bool {
    match feature {
        F::INTEL8086
        | F::INTEL8086_ONLY
        | F::INTEL186
        | F::INTEL286
        | F::INTEL386
        | F::INTEL486
        | F::X64
        | F::CPUID
        | F::MULTIBYTENOP
        | F::PAUSE
        | F::RDPMC
        | F::SMM
        // Which of VMCALL and VMMCALL works is up to the silicon.
        | F::VMX
        | F::SVM
        // ENDBR and RDSSP, which are NOPs without CET; CLDEMOTE likewise.
        | F::PREFETCHW
        | F::CET_IBT
        | F::CET_SS
        | F::CLDEMOTE => true,
        F::FPU | F::FPU287 | F::FPU387 => has(f.l1_edx, 0),
        F::TSC => has(f.l1_edx, 4),
        F::MSR => has(f.l1_edx, 5),
        F::CX8 => has(f.l1_edx, 8),
        F::SEP => has(f.l1_edx, 11),
        F::CMOV => has(f.l1_edx, 15),
        F::CLFSH => has(f.l1_edx, 19),
        F::MONITOR => has(f.l1_ecx, 3),
        F::CMPXCHG16B => has(f.l1_ecx, 13),
        F::MOVBE => has(f.l1_ecx, 22),
        F::POPCNT => has(f.l1_ecx, 23),
        F::XSAVE => has(f.l1_ecx, 26),
        F::MMX => has(f.l1_edx, 23),
        F::SSE => has(f.l1_edx, 25),
        F::SSE2 => has(f.l1_edx, 26),
        F::FXSR => has(f.l1_edx, 24),
        F::SSE3 => has(f.l1_ecx, 0),
        F::PCLMULQDQ => has(f.l1_ecx, 1),
        F::SSSE3 => has(f.l1_ecx, 9),
        F::FMA => has(f.l1_ecx, 12),
        F::SSE4_1 => has(f.l1_ecx, 19),
        F::SSE4_2 => has(f.l1_ecx, 20),
        F::AES => has(f.l1_ecx, 25),
        F::AVX => has(f.l1_ecx, 28),
        F::F16C => has(f.l1_ecx, 29),
        F::RDRAND => has(f.l1_ecx, 30),
        F::FSGSBASE => has(f.l7_ebx, 0),
        F::BMI1 => has(f.l7_ebx, 3),
        F::AVX2 => has(f.l7_ebx, 5),
        F::BMI2 => has(f.l7_ebx, 8),
        F::INVPCID => has(f.l7_ebx, 10),
        F::RDSEED => has(f.l7_ebx, 18),
        F::ADX => has(f.l7_ebx, 19),
        F::SMAP => has(f.l7_ebx, 20),
        F::CLFLUSHOPT => has(f.l7_ebx, 23),
        F::CLWB => has(f.l7_ebx, 24),
        F::SHA => has(f.l7_ebx, 29),
        F::PKU => has(f.l7_ecx, 3),
        F::GFNI => has(f.l7_ecx, 8),
        F::VAES => has(f.l7_ecx, 9),
        F::VPCLMULQDQ => has(f.l7_ecx, 10),
        F::RDPID => has(f.l7_ecx, 22),
        F::XSAVEOPT => has(f.xsave_eax, 0),
        F::XSAVEC => has(f.xsave_eax, 1),
        F::XSAVES => has(f.xsave_eax, 3),
        F::SSE4A => has(f.x1_ecx, 6),
        F::LZCNT => has(f.x1_ecx, 5),
        F::SYSCALL => has(f.x1_edx, 11),
        F::RDTSCP => has(f.x1_edx, 27),
        _ => false,
    }
}
