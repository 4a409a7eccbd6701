//! Handlers of the moves between vector registers, MMX registers, general registers and memory.

use iced_x86::Mnemonic as M;

use super::operands::segment;
use super::vector_integer::lanewise;
use super::vector_operands::VectorOperands;
use crate::exec::form::Place;
use crate::mmx;
use crate::op::Handler;
use crate::vector::compare::{self, Elements, Signs};
use crate::vector::{element, gather, masked, moves, shuffle};

/// (E/R)DI.
const RDI: u8 = 7;

/// A whole register; `aligned`: memory must be.
fn whole(v: &mut VectorOperands<'_, '_>, aligned: bool) -> Handler {
    let direction = v.direction();
    moves::handler(v.encoded, direction, aligned)
}

/// Element `imm` of the register in operand 1, of `size` bytes, to operand 0.
fn extract(v: &mut VectorOperands<'_, '_>, size: u8) -> Handler {
    let target = v.target();
    if v.is_mmx() { mmx::extract_of(target, size) } else { element::extract(v.encoded, target, size) }
}

/// A store of the quadword `number` of operand 1.
fn store_quadword(v: &mut VectorOperands<'_, '_>, number: u64) -> Handler {
    v.operands.op.imm = number;
    extract(v, 8)
}

/// Element `imm` of operand 0, of `size` bytes, from the last operand; other elements are kept, or become zero.
fn insert(v: &mut VectorOperands<'_, '_>, size: u8, keep: bool) -> Handler {
    let source = v.sources();
    if v.is_mmx() { mmx::insert_of(source, size, keep) } else { element::insert(v.encoded, source, size, keep) }
}

/// MOVD and MOVQ, in any direction.
fn low_element(v: &mut VectorOperands<'_, '_>, size: u8) -> Handler {
    if v.is_memory(0) || v.is_general(0) {
        extract(v, size)
    } else if v.is_general(1) {
        insert(v, size, false)
    } else {
        lanewise::<shuffle::Movq>(v)
    }
}

/// MOVSS and MOVSD: a store, a load that clears the rest, or a merge.
fn scalar<K: crate::vector::lanewise::Kernel>(v: &mut VectorOperands<'_, '_>, size: u8) -> Handler {
    if v.is_memory(0) {
        extract(v, size)
    } else if v.is_memory(1) {
        lanewise::<shuffle::Movq>(v)
    } else {
        lanewise::<K>(v)
    }
}

fn movmsk<S: Signs>(v: &mut VectorOperands<'_, '_>) -> Handler {
    v.target();
    compare::movmsk_of::<S>(v.encoded)
}

/// VMASKMOVPS and its kin: destination, mask, source.
fn masked(v: &mut VectorOperands<'_, '_>, size: u8) -> Handler {
    let stores = v.is_memory(0);
    if stores {
        v.operands.op.src = v.register(2);
    } else {
        v.operands.op.dst = v.register(0);
    }
    v.operands.op.extra = v.register(1);
    masked::handler(v.encoded, size, stores)
}

/// MASKMOVDQU and MASKMOVQ: the memory operand is at (E/R)DI.
fn masked_bytes(v: &mut VectorOperands<'_, '_>) -> Handler {
    v.operands.op.base = RDI;
    v.operands.op.seg = segment(v.operands.instr.memory_segment());
    v.operands.op.src = v.register(1);
    v.operands.op.extra = v.register(2);
    if v.is_mmx() { masked::maskmovq } else { masked::maskmovdqu(v.encoded) }
}

/// VGATHERDPS and its kin: destination, vector of addresses, mask.
fn gather(v: &mut VectorOperands<'_, '_>, size: u8, index_size: u8) -> Handler {
    let instr = v.operands.instr;
    let (index, target) = (instr.memory_index(), instr.op_register(0));
    let elements = (target.size() / usize::from(size)).min(index.size() / usize::from(index_size));
    v.operands.op.imm = elements as u64;
    v.operands.op.dst = v.register(0);
    v.operands.op.src = index.number() as u8;
    v.operands.op.extra = v.register(2);
    gather::handler(size, index_size)
}

/// The handler, if it is one of these.
pub fn select(v: &mut VectorOperands<'_, '_>) -> Option<Handler> {
    Some(match v.mnemonic() {
        M::Movaps | M::Vmovaps | M::Movapd | M::Vmovapd | M::Movdqa | M::Vmovdqa => whole(v, true),
        M::Movups | M::Vmovups | M::Movupd | M::Vmovupd | M::Movdqu | M::Vmovdqu => whole(v, false),
        M::Movntps | M::Vmovntps | M::Movntpd | M::Vmovntpd | M::Movntdq | M::Vmovntdq => whole(v, true),
        M::Movntdqa | M::Vmovntdqa => whole(v, true),
        M::Lddqu | M::Vlddqu => whole(v, false),
        M::Movd | M::Vmovd => low_element(v, 4),
        M::Movq | M::Vmovq => low_element(v, 8),
        M::Movntq | M::Movntsd => extract(v, 8),
        M::Movntss => extract(v, 4),
        M::Movq2dq => {
            v.target();
            mmx::movq2dq
        }
        M::Movdq2q => {
            v.target();
            mmx::movdq2q
        }
        M::Movss | M::Vmovss => scalar::<shuffle::Movss>(v, 4),
        M::Movsd | M::Vmovsd => scalar::<shuffle::Movsd>(v, 8),
        M::Movlps | M::Vmovlps | M::Movlpd | M::Vmovlpd => match v.is_memory(0) {
            true => store_quadword(v, 0),
            false => lanewise::<shuffle::Movsd>(v),
        },
        M::Movhps | M::Vmovhps | M::Movhpd | M::Vmovhpd => match v.is_memory(0) {
            true => store_quadword(v, 1),
            false => lanewise::<shuffle::Movlhps>(v),
        },
        M::Movlhps | M::Vmovlhps => lanewise::<shuffle::Movlhps>(v),
        M::Movhlps | M::Vmovhlps => lanewise::<shuffle::Movhlps>(v),
        M::Pextrb | M::Vpextrb => extract(v, 1),
        M::Pextrw | M::Vpextrw => extract(v, 2),
        M::Pextrd | M::Vpextrd | M::Extractps | M::Vextractps => extract(v, 4),
        M::Pextrq | M::Vpextrq => extract(v, 8),
        M::Pinsrb | M::Vpinsrb => insert(v, 1, true),
        M::Pinsrw | M::Vpinsrw => insert(v, 2, true),
        M::Pinsrd | M::Vpinsrd => insert(v, 4, true),
        M::Pinsrq | M::Vpinsrq => insert(v, 8, true),
        M::Pmovmskb if v.is_mmx() => {
            v.target();
            mmx::pmovmskb
        }
        M::Pmovmskb | M::Vpmovmskb => movmsk::<Elements<i8, 16>>(v),
        M::Movmskps | M::Vmovmskps => movmsk::<Elements<i32, 4>>(v),
        M::Movmskpd | M::Vmovmskpd => movmsk::<Elements<i64, 2>>(v),
        M::Vextractf128 | M::Vextracti128 => masked::extract_lane_to(v.target() != Place::Register),
        M::Vmaskmovps | M::Vpmaskmovd => masked(v, 4),
        M::Vmaskmovpd | M::Vpmaskmovq => masked(v, 8),
        M::Maskmovdqu | M::Vmaskmovdqu | M::Maskmovq => masked_bytes(v),
        M::Vgatherdps | M::Vpgatherdd => gather(v, 4, 4),
        M::Vgatherqps | M::Vpgatherqd => gather(v, 4, 8),
        M::Vgatherdpd | M::Vpgatherdq => gather(v, 8, 4),
        M::Vgatherqpd | M::Vpgatherqq => gather(v, 8, 8),
        M::Vzeroall => masked::vzero::<true>,
        M::Vzeroupper => masked::vzero::<false>,
        _ => return None,
    })
}
