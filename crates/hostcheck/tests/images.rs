//! FXSAVE, XSAVE and their kin beside the processor that we sit on. See `docs/testing-against-hardware.md`.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use hostcheck::case::Mode;
use hostcheck::compare::{describe, differences};
use hostcheck::generate::{Generator, images};
use hostcheck::guest::Guest;
use hostcheck::{host, native};

/// The mask of MXCSR's bits in an image: hosts have one more than the guest.
const MXCSR_MASK: std::ops::Range<usize> = 28..32;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn images() {
    let read_only = Generator::read_only();
    let (mut long, mut compat) = (Guest::new(Mode::Long64, &read_only), Guest::new(Mode::Compat32, &read_only));
    let (seed, first, count) =
        (number("HOSTCHECK_SEED", 1), number("HOSTCHECK_FIRST", 0), number("HOSTCHECK_COUNT", 20_000));
    for number in first..first + count {
        let Some((case, image)) = images::case(seed, number, host::has_image_instruction) else { continue };
        let mut on_host = native::run(&case, &read_only);
        let mut on_guest = if case.mode == Mode::Long64 { long.run(&case) } else { compat.run(&case) };
        if image.saves {
            for outcome in [&mut on_host, &mut on_guest] {
                let at = MXCSR_MASK.start + image.offset..MXCSR_MASK.end + image.offset;
                if let Some(mask) = outcome.memory.get_mut(at) {
                    mask.fill(0);
                }
            }
        }
        let differences = differences(&case, &on_host, &on_guest);
        assert!(
            differences.is_empty(),
            "HOSTCHECK_SEED={seed} HOSTCHECK_FIRST={number} HOSTCHECK_COUNT=1\n{:?} {image:x?} {:02x?} with mask {}\n{:02x?}\n\
             host:\n{}guest:\n{}differences:\n{}",
            case.mode,
            case.code,
            case.state.regs[0],
            case.memory.get(image.offset + 512..image.offset + 576),
            describe(&on_host),
            describe(&on_guest),
            differences.join("\n")
        );
    }
}
