//! Handlers of the vector and MMX instructions that do not depend on MXCSR: arithmetic, shifts, shuffles. Moves have a table of
//! their own ([`super::vector_moves`]).

use iced_x86::Mnemonic as M;

use super::vector_operands::VectorOperands;
use crate::exec::form::Place;
use crate::mmx;
use crate::op::Handler;
use crate::vector::compute::{self, Across, Compute, LowHalf, UnalignedOnAmd, WithThird};
use crate::vector::lanewise::Lanes;
use crate::vector::shift::{ByCount, ByImmediate, Shift};
use crate::vector::{
    across, aes, arithmetic, bitfield, compare, galois, lanewise, logic, sha, shift, shuffle, strings,
};

/// Two sources, lane by lane; with MMX registers, their halves of lanes.
pub fn lanewise<K: lanewise::Kernel>(v: &mut VectorOperands<'_, '_>) -> Handler {
    let source = v.sources();
    if v.is_mmx() {
        mmx::handler::<mmx::Low<K>>(source, v.size())
    } else {
        lanewise::handler::<K>(v.encoded, source, v.size())
    }
}

/// As [`lanewise`], but with MMX the two sources are one lane.
fn joined<K: lanewise::Kernel>(v: &mut VectorOperands<'_, '_>) -> Handler {
    if !v.is_mmx() {
        return lanewise::<K>(v);
    }
    let source = v.sources();
    mmx::handler::<mmx::Joined<K>>(source, v.size())
}

/// As [`lanewise`], of the upper halves.
fn high<K: lanewise::Kernel>(v: &mut VectorOperands<'_, '_>) -> Handler {
    if !v.is_mmx() {
        return lanewise::<K>(v);
    }
    let source = v.sources();
    mmx::handler::<mmx::High<K>>(source, v.size())
}

/// As [`lanewise`], of the lower halves.
fn low<K: lanewise::Kernel>(v: &mut VectorOperands<'_, '_>) -> Handler {
    if v.is_mmx() {
        return lanewise::<K>(v);
    }
    let source = v.sources();
    compute::handler::<LowHalf<Lanes<K>>>(v.encoded, source, v.size())
}

/// As [`lanewise`], but MMX has its own function.
fn apart<K: lanewise::Kernel, X: mmx::Mmx>(v: &mut VectorOperands<'_, '_>) -> Handler {
    if !v.is_mmx() {
        return lanewise::<K>(v);
    }
    let source = v.sources();
    mmx::handler::<X>(source, v.size())
}

/// Two sources, across lanes.
pub fn whole<W: compute::Whole>(v: &mut VectorOperands<'_, '_>) -> Handler {
    let source = v.sources();
    compute::handler::<Across<W>>(v.encoded, source, v.size())
}

/// A shift of all elements by one count.
fn shift<S: Shift>(v: &mut VectorOperands<'_, '_>) -> Handler {
    if v.has_immediate() {
        return lanewise::<ByImmediate<S>>(v);
    }
    if v.is_mmx() {
        return lanewise::<ByCount<S>>(v);
    }
    let source = v.sources();
    compute::handler::<LowHalf<Across<ByCount<S>>>>(v.encoded, source, v.size())
}

/// Three sources, the third of which is a register.
fn ternary<T: compute::Ternary>(v: &mut VectorOperands<'_, '_>) -> Handler {
    let source = v.three_sources();
    compute::handler::<WithThird<T>>(v.encoded, source, v.size())
}

fn test<T: compare::Tested>(v: &mut VectorOperands<'_, '_>) -> Handler {
    let source = v.sources();
    compare::test_of::<T>(v.encoded, source)
}

fn text<L: strings::Lengths, const INDEX: bool>(v: &mut VectorOperands<'_, '_>) -> Handler {
    let source = v.sources();
    strings::handler::<L, INDEX>(v.encoded, source)
}

fn insertps(v: &mut VectorOperands<'_, '_>) -> Handler {
    let source = v.sources();
    match source {
        Place::Register => lanewise::handler::<shuffle::Insertps>(v.encoded, source, v.size()),
        Place::Memory(_) => lanewise::handler::<shuffle::Insertps32>(v.encoded, source, v.size()),
    }
}

/// The handler, if it is one of these.
pub fn select(v: &mut VectorOperands<'_, '_>) -> Option<Handler> {
    arithmetic(v).or_else(|| shuffles(v)).or_else(|| across_lanes(v)).or_else(|| special(v))
}

/// Logic, arithmetic, comparisons and shifts.
fn arithmetic(v: &mut VectorOperands<'_, '_>) -> Option<Handler> {
    Some(match v.mnemonic() {
        M::Andps | M::Vandps | M::Andpd | M::Vandpd | M::Pand | M::Vpand => lanewise::<logic::And>(v),
        M::Andnps | M::Vandnps | M::Andnpd | M::Vandnpd | M::Pandn | M::Vpandn => lanewise::<logic::Andn>(v),
        M::Orps | M::Vorps | M::Orpd | M::Vorpd | M::Por | M::Vpor => lanewise::<logic::Or>(v),
        M::Xorps | M::Vxorps | M::Xorpd | M::Vxorpd | M::Pxor | M::Vpxor => lanewise::<logic::Xor>(v),
        M::Paddb | M::Vpaddb => lanewise::<arithmetic::Paddb>(v),
        M::Paddw | M::Vpaddw => lanewise::<arithmetic::Paddw>(v),
        M::Paddd | M::Vpaddd => lanewise::<arithmetic::Paddd>(v),
        M::Paddq | M::Vpaddq => lanewise::<arithmetic::Paddq>(v),
        M::Psubb | M::Vpsubb => lanewise::<arithmetic::Psubb>(v),
        M::Psubw | M::Vpsubw => lanewise::<arithmetic::Psubw>(v),
        M::Psubd | M::Vpsubd => lanewise::<arithmetic::Psubd>(v),
        M::Psubq | M::Vpsubq => lanewise::<arithmetic::Psubq>(v),
        M::Paddsb | M::Vpaddsb => lanewise::<arithmetic::Paddsb>(v),
        M::Paddsw | M::Vpaddsw => lanewise::<arithmetic::Paddsw>(v),
        M::Paddusb | M::Vpaddusb => lanewise::<arithmetic::Paddusb>(v),
        M::Paddusw | M::Vpaddusw => lanewise::<arithmetic::Paddusw>(v),
        M::Psubsb | M::Vpsubsb => lanewise::<arithmetic::Psubsb>(v),
        M::Psubsw | M::Vpsubsw => lanewise::<arithmetic::Psubsw>(v),
        M::Psubusb | M::Vpsubusb => lanewise::<arithmetic::Psubusb>(v),
        M::Psubusw | M::Vpsubusw => lanewise::<arithmetic::Psubusw>(v),
        M::Pmullw | M::Vpmullw => lanewise::<arithmetic::Pmullw>(v),
        M::Pmulld | M::Vpmulld => lanewise::<arithmetic::Pmulld>(v),
        M::Pmulhw | M::Vpmulhw => lanewise::<arithmetic::Pmulhw>(v),
        M::Pmulhuw | M::Vpmulhuw => lanewise::<arithmetic::Pmulhuw>(v),
        M::Pmulhrsw | M::Vpmulhrsw => lanewise::<arithmetic::Pmulhrsw>(v),
        M::Pmuludq | M::Vpmuludq => lanewise::<arithmetic::Pmuludq>(v),
        M::Pmuldq | M::Vpmuldq => lanewise::<arithmetic::Pmuldq>(v),
        M::Pmaddwd | M::Vpmaddwd => lanewise::<arithmetic::Pmaddwd>(v),
        M::Pmaddubsw | M::Vpmaddubsw => lanewise::<arithmetic::Pmaddubsw>(v),
        M::Pavgb | M::Vpavgb => lanewise::<arithmetic::Pavgb>(v),
        M::Pavgw | M::Vpavgw => lanewise::<arithmetic::Pavgw>(v),
        M::Psadbw | M::Vpsadbw => lanewise::<arithmetic::Psadbw>(v),
        M::Mpsadbw | M::Vmpsadbw => lanewise::<arithmetic::Mpsadbw>(v),
        M::Phminposuw | M::Vphminposuw => lanewise::<arithmetic::Phminposuw>(v),
        M::Pminub | M::Vpminub => lanewise::<arithmetic::Pminub>(v),
        M::Pminuw | M::Vpminuw => lanewise::<arithmetic::Pminuw>(v),
        M::Pminud | M::Vpminud => lanewise::<arithmetic::Pminud>(v),
        M::Pminsb | M::Vpminsb => lanewise::<arithmetic::Pminsb>(v),
        M::Pminsw | M::Vpminsw => lanewise::<arithmetic::Pminsw>(v),
        M::Pminsd | M::Vpminsd => lanewise::<arithmetic::Pminsd>(v),
        M::Pmaxub | M::Vpmaxub => lanewise::<arithmetic::Pmaxub>(v),
        M::Pmaxuw | M::Vpmaxuw => lanewise::<arithmetic::Pmaxuw>(v),
        M::Pmaxud | M::Vpmaxud => lanewise::<arithmetic::Pmaxud>(v),
        M::Pmaxsb | M::Vpmaxsb => lanewise::<arithmetic::Pmaxsb>(v),
        M::Pmaxsw | M::Vpmaxsw => lanewise::<arithmetic::Pmaxsw>(v),
        M::Pmaxsd | M::Vpmaxsd => lanewise::<arithmetic::Pmaxsd>(v),
        M::Pabsb | M::Vpabsb => lanewise::<arithmetic::Pabsb>(v),
        M::Pabsw | M::Vpabsw => lanewise::<arithmetic::Pabsw>(v),
        M::Pabsd | M::Vpabsd => lanewise::<arithmetic::Pabsd>(v),
        M::Psignb | M::Vpsignb => lanewise::<arithmetic::Psignb>(v),
        M::Psignw | M::Vpsignw => lanewise::<arithmetic::Psignw>(v),
        M::Psignd | M::Vpsignd => lanewise::<arithmetic::Psignd>(v),
        M::Phaddw | M::Vphaddw => joined::<arithmetic::Phaddw>(v),
        M::Phaddd | M::Vphaddd => joined::<arithmetic::Phaddd>(v),
        M::Phaddsw | M::Vphaddsw => joined::<arithmetic::Phaddsw>(v),
        M::Phsubw | M::Vphsubw => joined::<arithmetic::Phsubw>(v),
        M::Phsubd | M::Vphsubd => joined::<arithmetic::Phsubd>(v),
        M::Phsubsw | M::Vphsubsw => joined::<arithmetic::Phsubsw>(v),
        M::Pcmpeqb | M::Vpcmpeqb => lanewise::<compare::Pcmpeqb>(v),
        M::Pcmpeqw | M::Vpcmpeqw => lanewise::<compare::Pcmpeqw>(v),
        M::Pcmpeqd | M::Vpcmpeqd => lanewise::<compare::Pcmpeqd>(v),
        M::Pcmpeqq | M::Vpcmpeqq => lanewise::<compare::Pcmpeqq>(v),
        M::Pcmpgtb | M::Vpcmpgtb => lanewise::<compare::Pcmpgtb>(v),
        M::Pcmpgtw | M::Vpcmpgtw => lanewise::<compare::Pcmpgtw>(v),
        M::Pcmpgtd | M::Vpcmpgtd => lanewise::<compare::Pcmpgtd>(v),
        M::Pcmpgtq | M::Vpcmpgtq => lanewise::<compare::Pcmpgtq>(v),
        M::Psllw | M::Vpsllw => shift::<shift::Psllw>(v),
        M::Pslld | M::Vpslld => shift::<shift::Pslld>(v),
        M::Psllq | M::Vpsllq => shift::<shift::Psllq>(v),
        M::Psrlw | M::Vpsrlw => shift::<shift::Psrlw>(v),
        M::Psrld | M::Vpsrld => shift::<shift::Psrld>(v),
        M::Psrlq | M::Vpsrlq => shift::<shift::Psrlq>(v),
        M::Psraw | M::Vpsraw => shift::<shift::Psraw>(v),
        M::Psrad | M::Vpsrad => shift::<shift::Psrad>(v),
        M::Pslldq | M::Vpslldq => lanewise::<shift::Pslldq>(v),
        M::Psrldq | M::Vpsrldq => lanewise::<shift::Psrldq>(v),
        M::Vpsllvd => lanewise::<shift::Vpsllvd>(v),
        M::Vpsllvq => lanewise::<shift::Vpsllvq>(v),
        M::Vpsrlvd => lanewise::<shift::Vpsrlvd>(v),
        M::Vpsrlvq => lanewise::<shift::Vpsrlvq>(v),
        M::Vpsravd => lanewise::<shift::Vpsravd>(v),
        _ => return None,
    })
}

/// Shuffles, packs and blends within lanes.
fn shuffles(v: &mut VectorOperands<'_, '_>) -> Option<Handler> {
    Some(match v.mnemonic() {
        M::Pshufb | M::Vpshufb => apart::<shuffle::Pshufb, mmx::Pshufb>(v),
        M::Palignr | M::Vpalignr => apart::<shuffle::Palignr, mmx::Palignr>(v),
        M::Pshufw => {
            let source = v.sources();
            mmx::handler::<mmx::Pshufw>(source, v.size())
        }
        M::Pshufd | M::Vpshufd => lanewise::<shuffle::Pshufd>(v),
        M::Pshuflw | M::Vpshuflw => lanewise::<shuffle::Pshuflw>(v),
        M::Pshufhw | M::Vpshufhw => lanewise::<shuffle::Pshufhw>(v),
        M::Shufps | M::Vshufps => lanewise::<shuffle::Shufps>(v),
        M::Shufpd | M::Vshufpd => lanewise::<shuffle::Shufpd>(v),
        M::Pblendw | M::Vpblendw => lanewise::<shuffle::Pblendw>(v),
        M::Blendps | M::Vblendps => lanewise::<shuffle::Blendps>(v),
        M::Blendpd | M::Vblendpd => lanewise::<shuffle::Blendpd>(v),
        M::Movddup | M::Vmovddup => lanewise::<shuffle::Movddup>(v),
        M::Movsldup | M::Vmovsldup => lanewise::<shuffle::Movsldup>(v),
        M::Movshdup | M::Vmovshdup => lanewise::<shuffle::Movshdup>(v),
        M::Vpblendd => lanewise::<shuffle::Blendps>(v),
        M::Packsswb | M::Vpacksswb => joined::<shuffle::Packsswb>(v),
        M::Packssdw | M::Vpackssdw => joined::<shuffle::Packssdw>(v),
        M::Packuswb | M::Vpackuswb => joined::<shuffle::Packuswb>(v),
        M::Packusdw | M::Vpackusdw => joined::<shuffle::Packusdw>(v),
        M::Punpcklbw | M::Vpunpcklbw => low::<shuffle::Punpcklbw>(v),
        M::Punpcklwd | M::Vpunpcklwd => low::<shuffle::Punpcklwd>(v),
        M::Punpckldq | M::Vpunpckldq | M::Unpcklps | M::Vunpcklps => low::<shuffle::Punpckldq>(v),
        M::Punpcklqdq | M::Vpunpcklqdq | M::Unpcklpd | M::Vunpcklpd => low::<shuffle::Punpcklqdq>(v),
        M::Punpckhbw | M::Vpunpckhbw => high::<shuffle::Punpckhbw>(v),
        M::Punpckhwd | M::Vpunpckhwd => high::<shuffle::Punpckhwd>(v),
        M::Punpckhdq | M::Vpunpckhdq | M::Unpckhps | M::Vunpckhps => high::<shuffle::Punpckhdq>(v),
        M::Punpckhqdq | M::Vpunpckhqdq | M::Unpckhpd | M::Vunpckhpd => lanewise::<shuffle::Punpckhqdq>(v),
        M::Insertps | M::Vinsertps => insertps(v),
        M::Pblendvb | M::Vpblendvb => ternary::<shuffle::Pblendvb>(v),
        M::Blendvps | M::Vblendvps => ternary::<shuffle::Blendvps>(v),
        M::Blendvpd | M::Vblendvpd => ternary::<shuffle::Blendvpd>(v),
        M::Vpermilps if v.has_immediate() => lanewise::<shuffle::VpermilpsImmediate>(v),
        M::Vpermilpd if v.has_immediate() => lanewise::<shuffle::VpermilpdImmediate>(v),
        M::Vpermilps => lanewise::<shuffle::Vpermilps>(v),
        M::Vpermilpd => lanewise::<shuffle::Vpermilpd>(v),
        _ => return None,
    })
}

/// What goes across lanes.
fn across_lanes(v: &mut VectorOperands<'_, '_>) -> Option<Handler> {
    Some(match v.mnemonic() {
        M::Vpermq | M::Vpermpd => whole::<across::Vpermq>(v),
        M::Vpermd | M::Vpermps => whole::<across::Vpermd>(v),
        M::Vperm2f128 | M::Vperm2i128 => whole::<across::Vperm2f128>(v),
        M::Vinsertf128 | M::Vinserti128 => whole::<across::Vinsertf128>(v),
        M::Vpbroadcastb => whole::<across::Vpbroadcastb>(v),
        M::Vpbroadcastw => whole::<across::Vpbroadcastw>(v),
        M::Vpbroadcastd | M::Vbroadcastss => whole::<across::Vpbroadcastd>(v),
        M::Vpbroadcastq | M::Vbroadcastsd => whole::<across::Vpbroadcastq>(v),
        M::Vbroadcastf128 | M::Vbroadcasti128 => whole::<across::Vbroadcastf128>(v),
        M::Pmovsxbw | M::Vpmovsxbw => whole::<across::Pmovsxbw>(v),
        M::Pmovsxbd | M::Vpmovsxbd => whole::<across::Pmovsxbd>(v),
        M::Pmovsxbq | M::Vpmovsxbq => whole::<across::Pmovsxbq>(v),
        M::Pmovsxwd | M::Vpmovsxwd => whole::<across::Pmovsxwd>(v),
        M::Pmovsxwq | M::Vpmovsxwq => whole::<across::Pmovsxwq>(v),
        M::Pmovsxdq | M::Vpmovsxdq => whole::<across::Pmovsxdq>(v),
        M::Pmovzxbw | M::Vpmovzxbw => whole::<across::Pmovzxbw>(v),
        M::Pmovzxbd | M::Vpmovzxbd => whole::<across::Pmovzxbd>(v),
        M::Pmovzxbq | M::Vpmovzxbq => whole::<across::Pmovzxbq>(v),
        M::Pmovzxwd | M::Vpmovzxwd => whole::<across::Pmovzxwd>(v),
        M::Pmovzxwq | M::Vpmovzxwq => whole::<across::Pmovzxwq>(v),
        M::Pmovzxdq | M::Vpmovzxdq => whole::<across::Pmovzxdq>(v),
        _ => return None,
    })
}

/// EXTRQ and INSERTQ: a second immediate byte if there is a first one.
fn bit_field<C: Compute>(v: &mut VectorOperands<'_, '_>) -> Handler {
    let source = v.sources();
    v.operands.op.imm = if v.has_immediate() {
        let instr = v.operands.instr;
        bitfield::IMMEDIATE | u64::from(instr.immediate8()) | u64::from(instr.immediate8_2nd()) << 8
    } else {
        0
    };
    compute::handler::<C>(v.encoded, source, v.size())
}

/// SHA: the operand needs no alignment on AMD's CPUs.
fn hash<K: lanewise::Kernel>(v: &mut VectorOperands<'_, '_>) -> Handler {
    let source = v.sources();
    compute::handler::<UnalignedOnAmd<Lanes<K>>>(v.encoded, source, v.size())
}

/// Flags, strings, cryptography.
fn special(v: &mut VectorOperands<'_, '_>) -> Option<Handler> {
    Some(match v.mnemonic() {
        M::Extrq => bit_field::<bitfield::Extrq>(v),
        M::Insertq => bit_field::<bitfield::Insertq>(v),
        M::Ptest | M::Vptest => test::<compare::Every>(v),
        M::Vtestps => test::<compare::Signs32>(v),
        M::Vtestpd => test::<compare::Signs64>(v),
        M::Pcmpistri | M::Vpcmpistri => text::<strings::Implicit, true>(v),
        M::Pcmpistrm | M::Vpcmpistrm => text::<strings::Implicit, false>(v),
        M::Pcmpestri | M::Vpcmpestri => text::<strings::Explicit32, true>(v),
        M::Pcmpestrm | M::Vpcmpestrm => text::<strings::Explicit32, false>(v),
        M::Pcmpestri64 | M::Vpcmpestri64 => text::<strings::Explicit64, true>(v),
        M::Pcmpestrm64 | M::Vpcmpestrm64 => text::<strings::Explicit64, false>(v),
        M::Aesenc | M::Vaesenc => lanewise::<aes::Aesenc>(v),
        M::Aesenclast | M::Vaesenclast => lanewise::<aes::Aesenclast>(v),
        M::Aesdec | M::Vaesdec => lanewise::<aes::Aesdec>(v),
        M::Aesdeclast | M::Vaesdeclast => lanewise::<aes::Aesdeclast>(v),
        M::Aesimc | M::Vaesimc => lanewise::<aes::Aesimc>(v),
        M::Aeskeygenassist | M::Vaeskeygenassist => lanewise::<aes::Aeskeygenassist>(v),
        M::Pclmulqdq | M::Vpclmulqdq => lanewise::<galois::Pclmulqdq>(v),
        M::Gf2p8mulb | M::Vgf2p8mulb => lanewise::<galois::Gf2p8mulb>(v),
        M::Gf2p8affineqb | M::Vgf2p8affineqb => lanewise::<galois::Gf2p8affineqb>(v),
        M::Gf2p8affineinvqb | M::Vgf2p8affineinvqb => lanewise::<galois::Gf2p8affineinvqb>(v),
        M::Sha1rnds4 => hash::<sha::Sha1rnds4>(v),
        M::Sha1nexte => hash::<sha::Sha1nexte>(v),
        M::Sha1msg1 => hash::<sha::Sha1msg1>(v),
        M::Sha1msg2 => hash::<sha::Sha1msg2>(v),
        M::Sha256msg1 => hash::<sha::Sha256msg1>(v),
        M::Sha256msg2 => hash::<sha::Sha256msg2>(v),
        M::Sha256rnds2 => {
            let source = v.three_sources();
            compute::handler::<UnalignedOnAmd<WithThird<sha::Sha256rnds2>>>(v.encoded, source, v.size())
        }
        _ => return None,
    })
}
