//! The host bridge's programmable attribute map: who answers from 768 KiB to 1 MiB, RAM or firmware's image. Intel 440FX data
//! sheet 290549 section 3.2.19.

use std::any::Any;
use std::hash::Hasher;

use guestmem::{GuestMemory, SHADOW_BASE};

use super::config::ConfigSpace;
use super::function::{Context, Device};

/// The map's first register, and how many there are.
pub const PAM: usize = 0x59;
pub const PAM_BYTES: usize = 7;
/// Bits that exist: two areas in each register, of which the first has but one.
pub const PAM_WRITABLE: [u8; PAM_BYTES] = [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33];

const READS_RAM: u8 = 1 << 0;
const WRITES_RAM: u8 = 1 << 1;
const KIB: u64 = 1 << 10;
/// An area of the registers behind the first, in their order from [`SHADOW_BASE`].
const AREA: u64 = 16 * KIB;
/// The area of the first register.
const BIOS_BASE: u64 = 0xF_0000;
const BIOS_SIZE: u64 = 64 * KIB;

/// The function, whose state is all in configuration space.
pub struct HostBridge;

impl Device for HostBridge {
    fn read(&mut self, _: usize, _: u32, _: usize, _: &Context<'_>) -> u64 {
        0
    }

    fn write(&mut self, _: usize, _: u32, _: usize, _: u64, _: &Context<'_>) {}

    fn config_written(&mut self, config: &ConfigSpace, offset: usize, size: usize, context: &Context<'_>) {
        if offset < PAM + PAM_BYTES && offset + size > PAM {
            apply(config, context.memory);
        }
    }

    fn reset(&mut self) {}

    fn hash_state(&self, _: &mut dyn Hasher) {}

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Let memory be as the registers say.
fn apply(config: &ConfigSpace, memory: &GuestMemory) {
    let set = |gpa, len, bits: u8| memory.set_shadow(gpa, len, bits & READS_RAM != 0, bits & WRITES_RAM != 0);
    set(BIOS_BASE, BIOS_SIZE, config.byte(PAM) >> 4);
    let areas = (PAM + 1..PAM + PAM_BYTES).flat_map(|register| [config.byte(register), config.byte(register) >> 4]);
    for (gpa, bits) in (SHADOW_BASE..).step_by(AREA as usize).zip(areas) {
        set(gpa, AREA, bits);
    }
}
