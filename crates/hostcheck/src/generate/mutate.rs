//! Machine code that is not quite as an encoder makes it.

use iced_x86::Mnemonic;

use crate::random::Random;

/// Prefixes that may go before an instruction without making it invalid by themselves.
const PREFIXES: [u8; 13] = [0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x65, 0x40, 0x44, 0x48, 0x4F];

/// Put a prefix in front, which may mean nothing, or make another instruction.
pub fn add_prefix(random: &mut Random, bytes: &mut Vec<u8>) {
    bytes.insert(0, random.pick(&PREFIXES));
}

/// Change something of what comes before the operands.
pub fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    const LOCK: u8 = 0xF0;
    match random.below(10) {
        0 => bytes.insert(0, LOCK),
        1 => add_prefix(random, bytes),
        2 => {
            add_prefix(random, bytes);
            add_prefix(random, bytes);
        }
        // Prefixes, a VEX prefix or the opcode, and ModRM behind it.
        _ => {
            let at = random.below(bytes.len().min(5) as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
    }
}

/// Whether bytes that are no valid instruction may be one to the host all the same: on opmask registers (KAND and its kin, of
/// AVX-512), with a bit set that CPUs ignore; VPERMQ and VPERMPD with W = 0, which AMD's CPUs execute; anything behind the EVEX
/// prefix; VMCALL and VMMCALL, which a hypervisor beneath the host may carry out whatever prefix they have.
pub fn may_be_executed(bytes: &[u8]) -> bool {
    let is_hypercall = |bytes: &[u8]| matches!(bytes, [0x0F, 0x01, 0xC1 | 0xD9]);
    if bytes.windows(3).any(is_hypercall) {
        return true;
    }
    // VEX of two bytes (map 0F), or of three with map 0F or 0F3A, wherever legacy prefixes end.
    bytes.windows(4).take(5).any(|bytes| match *bytes {
        [0x62, ..] => true,
        [0xC5, _, opcode, _] => is_opmask_in_0f(opcode),
        [0xC4, map, _, opcode] => match map & 0x1F {
            1 => is_opmask_in_0f(opcode),
            3 => matches!(opcode, 0x00 | 0x01 | 0x30..=0x33),
            _ => false,
        },
        _ => false,
    })
}

fn is_opmask_in_0f(opcode: u8) -> bool {
    matches!(opcode, 0x41..=0x4B | 0x90..=0x93 | 0x98 | 0x99)
}

/// VPEXTRD and VPINSRD with W = 1, outside 64-bit mode: #UD on AMD's CPUs, while Intel's manual has W ignored there.
pub fn is_wide_element(mnemonic: Mnemonic, bytes: &[u8]) -> bool {
    let wide = bytes.windows(3).any(|bytes| bytes[0] == 0xC4 && bytes[2] & 0x80 != 0);
    wide && matches!(mnemonic, Mnemonic::Vpextrd | Mnemonic::Vpinsrd)
}
