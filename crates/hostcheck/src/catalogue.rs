//! Which instructions there are: families, drawn from the table of all encodings that `iced-x86` knows.

use iced_x86::{Code, CpuidFeature as F, EncodingKind, FlowControl, Mnemonic as M, OpCodeInfo, OpCodeOperandKind as K};

use softcpu::HostVendor;

use crate::case::Mode;
use crate::host;

/// A group of instructions that are generated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// General registers: arithmetic, logic, shifts, moves, stack, branches within a sequence.
    Integer,
    /// MOVS, CMPS, SCAS, LODS, STOS with and without repetition.
    String,
    /// BMI1, BMI2, ADX, LZCNT, POPCNT, MOVBE, CRC32.
    Bmi,
    /// x87.
    X87,
    /// MMX, and what came to it with SSE.
    Mmx,
    /// Legacy SSE without arithmetic on floating point.
    Sse,
    /// Legacy SSE that depends on MXCSR.
    SseFloat,
    /// VEX-encoded, without arithmetic on floating point.
    Avx,
    /// VEX-encoded, depending on MXCSR; with FMA and F16C.
    AvxFloat,
    /// AES, SHA, carry-less multiplication, Galois fields.
    Crypto,
    /// Of all the others, with damage: a prefix too many, a bit of prefix, opcode or ModRM flipped. Much of it is invalid.
    Encoding,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 11] = [
        Self::Integer,
        Self::String,
        Self::Bmi,
        Self::X87,
        Self::Mmx,
        Self::Sse,
        Self::SseFloat,
        Self::Avx,
        Self::AvxFloat,
        Self::Crypto,
        Self::Encoding,
    ];

    /// As `HOSTCHECK_FAMILY` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::String => "string",
            Self::Bmi => "bmi",
            Self::X87 => "x87",
            Self::Mmx => "mmx",
            Self::Sse => "sse",
            Self::SseFloat => "sse-float",
            Self::Avx => "avx",
            Self::AvxFloat => "avx-float",
            Self::Crypto => "crypto",
            Self::Encoding => "encoding",
        }
    }

    /// Whether floating-point values make interesting operands.
    pub fn is_float(self) -> bool {
        matches!(self, Self::X87 | Self::SseFloat | Self::AvxFloat)
    }
}

/// Encodings of a family in a mode, whether or not the host has them.
pub fn encodings(family: Family, mode: Mode) -> Vec<Code> {
    let belongs = |own: Family| own == family || family == Family::Encoding;
    Code::values().filter(|&code| family_of(code).is_some_and(belongs) && in_mode(code.op_code(), mode)).collect()
}

/// Whether the host has all that an encoding needs.
pub fn host_has(code: Code) -> bool {
    code.cpuid_features().iter().all(|&feature| host::has(feature))
}

/// Whether the host has an encoding, and the software CPU claims to do as this host does. Approximations of reciprocals are each
/// vendor's own, and the software CPU has AMD's.
pub fn is_comparable(code: Code) -> bool {
    let reciprocal = matches!(
        code.mnemonic(),
        M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss | M::Vrcpps | M::Vrcpss | M::Vrsqrtps | M::Vrsqrtss
    );
    host_has(code) && (!reciprocal || host::vendor() == HostVendor::Amd)
}

fn in_mode(op: &OpCodeInfo, mode: Mode) -> bool {
    match mode {
        Mode::Long64 => op.mode64(),
        Mode::Compat32 => op.mode32() && op.compatibility_mode(),
    }
}

/// The family that an encoding belongs to; none if it is not for sequences.
pub fn family_of(code: Code) -> Option<Family> {
    let op = code.op_code();
    if !op.is_instruction() || op.decoder_option() != 0 || !op.cpl3() || op.is_privileged() || op.is_input_output() {
        return None;
    }
    if !matches!(op.encoding(), EncodingKind::Legacy | EncodingKind::VEX) || is_excluded(code) {
        return None;
    }
    let features = code.cpuid_features();
    let needs = |feature| features.contains(&feature);
    let vector = op.op_kinds().iter().any(|&kind| is_vector(kind));
    if [F::AES, F::PCLMULQDQ, F::SHA, F::GFNI, F::VAES, F::VPCLMULQDQ].into_iter().any(needs) {
        return Some(Family::Crypto);
    }
    if [F::FPU, F::FPU287, F::FPU387].into_iter().any(needs) || code.mnemonic() == M::Fisttp {
        return Some(Family::X87);
    }
    if [F::BMI1, F::BMI2, F::ADX, F::LZCNT, F::POPCNT, F::MOVBE].into_iter().any(needs) || code.mnemonic() == M::Crc32 {
        return Some(Family::Bmi);
    }
    let float = is_float(code.mnemonic());
    if op.encoding() == EncodingKind::VEX {
        let known = features.iter().all(|feature| [F::AVX, F::AVX2, F::FMA, F::F16C].contains(feature));
        return known.then_some(if float { Family::AvxFloat } else { Family::Avx });
    }
    if features
        .iter()
        .any(|feature| [F::SSE, F::SSE2, F::SSE3, F::SSSE3, F::SSE4_1, F::SSE4_2, F::SSE4A, F::MMX].contains(feature))
    {
        let mmx = needs(F::MMX) || op.op_kinds().iter().any(|kind| [K::mm_reg, K::mm_rm, K::mm_or_mem].contains(kind));
        return Some(match (float, mmx, vector) {
            (true, ..) => Family::SseFloat,
            (_, true, _) => Family::Mmx,
            _ => Family::Sse,
        });
    }
    let integer = [F::INTEL8086, F::INTEL186, F::INTEL286, F::INTEL386, F::INTEL486, F::X64, F::CMOV, F::CX8];
    let integer = features.iter().all(|f| integer.contains(f) || [F::CMPXCHG16B, F::MULTIBYTENOP].contains(f));
    let family = if code.is_string_instruction() { Family::String } else { Family::Integer };
    (integer && code.flow_control() == FlowControl::Next).then_some(family)
}

fn is_vector(kind: K) -> bool {
    matches!(
        kind,
        K::mm_or_mem
            | K::mm_reg
            | K::mm_rm
            | K::xmm_or_mem
            | K::xmm_reg
            | K::xmm_rm
            | K::xmm_vvvv
            | K::ymm_or_mem
            | K::ymm_reg
            | K::ymm_rm
            | K::ymm_vvvv
    )
}

/// Not for sequences: what reads or changes state that the two sides do not share (descriptor tables, the processor's
/// tables of segments, the whole of the extended state), or that goes elsewhere.
fn is_excluded(code: Code) -> bool {
    let op = code.op_code();
    let loads_segment = op.op_count() > 0 && op.op0_kind() == K::seg_reg;
    let pops_segment = op.op_count() > 0 && [K::es, K::ss, K::ds, K::fs, K::gs].contains(&op.op0_kind());
    let from_segment = matches!(code.mnemonic(), M::Push | M::Mov);
    (loads_segment || (pops_segment && !from_segment))
        || matches!(
            code.mnemonic(),
            M::Lar
                | M::Lsl
                | M::Verr
                | M::Verw
                | M::Sldt
                | M::Str
                | M::Sgdt
                | M::Sidt
                | M::Smsw
                | M::Lds
                | M::Les
                | M::Lfs
                | M::Lgs
                | M::Lss
                // Interrupt flag and privilege: #GP here, but virtual interrupts elsewhere.
                | M::Cli
                | M::Sti
                // Their own sequences, since what is popped must be known.
                | M::Popf
                | M::Popfd
                | M::Popfq
                // What writes and reads images of the whole state.
                | M::Fxsave
                | M::Fxsave64
                | M::Fxrstor
                | M::Fxrstor64
        )
}

/// Whether the result depends on MXCSR, or changes it.
fn is_float(mnemonic: M) -> bool {
    let name = format!("{mnemonic:?}").to_lowercase();
    if ["ldmxcsr", "stmxcsr", "vldmxcsr", "vstmxcsr"].contains(&name.as_str()) {
        return true;
    }
    let name = name.strip_prefix('v').unwrap_or(&name);
    const STEMS: [&str; 19] = [
        "add", "sub", "mul", "div", "sqrt", "min", "max", "cmp", "comis", "ucomis", "rcp", "rsqrt", "round", "cvt",
        "hadd", "hsub", "dp", "fm", "fnm",
    ];
    let suffixed = ["ps", "pd", "ss", "sd"].iter().any(|suffix| name.ends_with(suffix));
    // CMPSS compares in 32 predicates that have names of their own; conversions end as they like.
    (name.starts_with("cvt") || suffixed) && STEMS.iter().any(|stem| name.starts_with(stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_hold_what_they_say() {
        for (code, family) in [
            (Code::Add_rm64_r64, Some(Family::Integer)),
            (Code::Enterq_imm16_imm8, Some(Family::Integer)),
            (Code::Movsb_m8_m8, Some(Family::String)),
            (Code::VEX_Pdep_r32_r32_rm32, Some(Family::Bmi)),
            (Code::Crc32_r32_rm8, Some(Family::Bmi)),
            (Code::Fsin, Some(Family::X87)),
            (Code::Fisttp_m16int, Some(Family::X87)),
            (Code::Fcmovb_st0_sti, Some(Family::X87)),
            (Code::Paddb_mm_mmm64, Some(Family::Mmx)),
            (Code::Pshufb_mm_mmm64, Some(Family::Mmx)),
            (Code::Cvtpi2ps_xmm_mmm64, Some(Family::SseFloat)),
            (Code::Movsd_xmm_xmmm64, Some(Family::Sse)),
            (Code::Insertq_xmm_xmm_imm8_imm8, Some(Family::Sse)),
            (Code::Movntss_m32_xmm, Some(Family::Sse)),
            (Code::Cmppd_xmm_xmmm128_imm8, Some(Family::SseFloat)),
            (Code::Addsubps_xmm_xmmm128, Some(Family::SseFloat)),
            (Code::Ldmxcsr_m32, Some(Family::SseFloat)),
            (Code::VEX_Vandps_xmm_xmm_xmmm128, Some(Family::Avx)),
            (Code::VEX_Vfnmadd132ss_xmm_xmm_xmmm32, Some(Family::AvxFloat)),
            (Code::VEX_Vcvtph2ps_xmm_xmmm64, Some(Family::AvxFloat)),
            (Code::VEX_Vaesenc_ymm_ymm_ymmm256, Some(Family::Crypto)),
            (Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er, None),
            (Code::Syscall, None),
            (Code::Rdtsc, None),
            (Code::Cpuid, None),
            (Code::Mov_Sreg_rm16, None),
            (Code::Popw_DS, None),
            (Code::In_AL_imm8, None),
            (Code::Jmp_rm64, None),
            (Code::Xsave_mem, None),
            (Code::Int_imm8, None),
            (Code::Popfq, None),
        ] {
            assert_eq!(family_of(code), family, "{code:?}");
        }
    }

    #[test]
    fn every_family_has_instructions() {
        for family in Family::ALL {
            assert!(!encodings(family, Mode::Long64).is_empty(), "{}", family.name());
        }
    }
}
