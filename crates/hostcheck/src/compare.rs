//! Where two outcomes differ, in words.

use std::fmt::Write;

use x86defs::{rflags, vector};

use crate::case::{Case, Exception, Item, Outcome, State};
use crate::layout::{PAGE, SCRATCH};
use crate::xsave::Xsave;

const NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// FSW.C1, which says whether a result was rounded up.
const C1: u16 = 1 << 9;
/// FSW.ES: the pointers to instruction and operand mean something.
const ES: u16 = 1 << 7;

/// What an access to memory can raise.
const MEMORY_FAULTS: [u8; 4] = [vector::SS, vector::GP, vector::PF, vector::AC];

/// What differs, a line each.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn compare<T: PartialEq>(&mut self, name: &str, host: T, guest: T, show: impl Fn(T) -> String) {
        if host != guest {
            self.0.push(format!("{name}: host {}, guest {}", show(host), show(guest)));
        }
    }
}

/// What differs, one line each; empty if nothing that is defined does.
pub fn differences(case: &Case, host: &Outcome, guest: &Outcome) -> Vec<String> {
    let mut lines = Lines::default();
    let item = case.item_at(host.state.rip);
    let seen = |outcome: &Outcome| outcome.exception.map(|exception| reported(item, exception));
    lines.compare("exception", seen(host), seen(guest), |exception| format!("{exception:x?}"));
    lines.compare("rip", host.state.rip, guest.state.rip, |rip| format!("{rip:#x}"));
    for (number, name) in NAMES.iter().enumerate() {
        lines.compare(name, host.state.regs[number], guest.state.regs[number], |value| format!("{value:#018x}"));
    }
    let defined = |state: &State| state.rflags & !item.undefined_flags;
    lines.compare("rflags", defined(&host.state), defined(&guest.state), flags);
    if host.state.xsave != guest.state.xsave {
        extended(item, &host.state.xsave, &guest.state.xsave, &mut lines);
    }
    if host.memory != guest.memory {
        memory(&host.memory, &guest.memory, &mut lines);
    }
    lines.0
}

/// An exception as far as the manual defines it and the host's kernel shows it: which byte of a large operand a page fault is
/// reported for is up to the CPU, and whether the kernel's half of the address space is mapped is hidden (all of it seems to be).
fn reported(item: &Item, exception: Exception) -> Exception {
    const PRESENT: u32 = 1;
    if item.unordered && MEMORY_FAULTS.contains(&exception.vector) {
        return Exception { vector: vector::PF, error_code: None, address: None };
    }
    let address = exception.address.map(|address| if item.large_operand { address & !(PAGE - 1) } else { address });
    let hidden = exception.address.is_some_and(|address| address >> 63 != 0);
    let error_code = exception.error_code.map(|code| if hidden { code | PRESENT } else { code });
    Exception { address, error_code, ..exception }
}

/// The first bytes that differ.
fn memory(host: &[u8], guest: &[u8], lines: &mut Lines) {
    let mut wrong = host.iter().zip(guest).enumerate().filter(|(_, (host, guest))| host != guest);
    let Some((first, _)) = wrong.next() else { return };
    let last = wrong.next_back().map_or(first, |(last, _)| last);
    let range = first..(last + 1).min(first + 32);
    let name = format!("memory at {:#x}..={:#x}", SCRATCH + first as u64, SCRATCH + last as u64);
    lines.compare(&name, &host[range.clone()], &guest[range], |bytes| format!("{bytes:02x?}"));
}

/// x87, SSE and AVX state.
fn extended(item: &Item, host: &Xsave, guest: &Xsave, lines: &mut Lines) {
    let word = |value: u64| format!("{value:#06x}");
    let rounding = if item.approximate { C1 } else { 0 };
    let status = |image: &Xsave| u64::from(image.fsw() & !item.undefined_conditions & !rounding);
    lines.compare("fcw", host.fcw().into(), guest.fcw().into(), word);
    lines.compare("fsw", status(host), status(guest), word);
    lines.compare("ftw", host.ftw().into(), guest.ftw().into(), word);
    if host.fsw() & ES != 0 {
        lines.compare("fop", host.fop().into(), guest.fop().into(), word);
        lines.compare("fip", host.fip(), guest.fip(), word);
        lines.compare("fdp", host.fdp(), guest.fdp(), word);
    }
    for i in 0..8 {
        if !(item.approximate && within_an_ulp(host.st(i), guest.st(i))) {
            lines.compare(&format!("st{i}"), host.st(i), guest.st(i), x87);
        }
    }
    lines.compare("mxcsr", host.mxcsr().into(), guest.mxcsr().into(), word);
    let vector = |value: u128| format!("{value:032x}");
    for i in 0..16 {
        lines.compare(&format!("xmm{i}"), host.xmm(i), guest.xmm(i), vector);
        lines.compare(&format!("ymm{i} high"), host.ymm_high(i), guest.ymm_high(i), vector);
    }
}

/// Whether two x87 numbers of the same sign are neighbours.
fn within_an_ulp(a: (u64, u16), b: (u64, u16)) -> bool {
    const SIGN: u16 = 0x8000;
    // Without the integer bit, which is as the exponent says, neighbours differ by one.
    let ordered = |(significand, sign_exponent): (u64, u16)| {
        u128::from(sign_exponent & !SIGN) << 63 | u128::from(significand & (u64::MAX >> 1))
    };
    (a.1 ^ b.1) & SIGN == 0 && ordered(a).abs_diff(ordered(b)) <= 1
}

fn x87((significand, sign_exponent): (u64, u16)) -> String {
    format!("{sign_exponent:04x}_{significand:016x}")
}

/// Flags by name.
pub fn flags(value: u64) -> String {
    const NAMED: [(u64, &str); 11] = [
        (rflags::OF, "of"),
        (rflags::SF, "sf"),
        (rflags::ZF, "zf"),
        (rflags::AF, "af"),
        (rflags::PF, "pf"),
        (rflags::CF, "cf"),
        (rflags::DF, "df"),
        (rflags::TF, "tf"),
        (rflags::NT, "nt"),
        (rflags::AC, "ac"),
        (rflags::ID, "id"),
    ];
    let mut text = format!("{value:#x}");
    for (_, name) in NAMED.iter().filter(|(bit, _)| value & bit != 0) {
        let _ = write!(text, " {name}");
    }
    text
}

/// A state as text; of x87 and vectors what is not as FNINIT leaves it.
pub fn describe(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (number, name) in NAMES.iter().enumerate() {
        let end = if number % 4 == 3 { '\n' } else { ' ' };
        let _ = write!(text, "    {name:3} {:016x}{end}", outcome.state.regs[number]);
    }
    let image = &outcome.state.xsave;
    let _ = writeln!(text, "    rflags {}", flags(outcome.state.rflags));
    let (fcw, fsw, ftw, mxcsr) = (image.fcw(), image.fsw(), image.ftw(), image.mxcsr());
    let _ = writeln!(text, "    fcw {fcw:04x} fsw {fsw:04x} ftw {ftw:02x} mxcsr {mxcsr:04x}");
    for i in (0..8).filter(|&i| image.st(i) != (0, 0)) {
        let _ = writeln!(text, "    st{i} {}", x87(image.st(i)));
    }
    for i in (0..16).filter(|&i| image.xmm(i) | image.ymm_high(i) != 0) {
        let _ = writeln!(text, "    ymm{i} {:032x}_{:032x}", image.ymm_high(i), image.xmm(i));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours() {
        let top = 1 << 63;
        for (a, b, near) in [
            ((top, 0x3FFF), (top, 0x3FFF), true),
            ((top, 0x3FFF), (top + 1, 0x3FFF), true),
            ((top, 0x3FFF), (top + 2, 0x3FFF), false),
            ((u64::MAX, 0x3FFE), (top, 0x3FFF), true),
            ((top, 0x3FFF), (top, 0xBFFF), false),
            ((top, 0x4000), (top, 0x3FFF), false),
        ] {
            assert_eq!(within_an_ulp(a, b), near, "{a:x?} {b:x?}");
        }
    }
}
