//! The software CPU beside the processor that we sit on. See `docs/testing-against-hardware.md`.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use hostcheck::catalogue::Family;
use hostcheck::check::{Plan, check};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Cases that a plain test run takes.
const SHORT: u64 = 20_000;

fn family(family: Family) {
    match std::env::var("HOSTCHECK_FAMILY") {
        Ok(wanted) if wanted == family.name() => {}
        Err(_) => {}
        _ => return,
    }
    let plan = Plan {
        family,
        seed: number("HOSTCHECK_SEED", 1),
        first: number("HOSTCHECK_FIRST", 0),
        count: number("HOSTCHECK_COUNT", SHORT),
    };
    let report = check(&plan);
    println!("{}", report.summary(family));
    assert!(report.differences.is_empty(), "the guest differs from the host: see above");
}

macro_rules! families {
    ($($name:ident = $family:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            family(Family::$family);
        })*
    };
}

families! {
    integer = Integer,
    string = String,
    bmi = Bmi,
    x87 = X87,
    mmx = Mmx,
    sse = Sse,
    sse_float = SseFloat,
    avx = Avx,
    avx_float = AvxFloat,
    crypto = Crypto,
    encoding = Encoding,
}
