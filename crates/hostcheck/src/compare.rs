//! Where two outcomes differ, in words.

use std::fmt::Write;

use x86defs::rflags;

use crate::case::{Case, Outcome};
use crate::layout::SCRATCH;

const NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// What differs, one line each; empty if nothing that is defined does.
pub fn differences(case: &Case, host: &Outcome, guest: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, host: String, guest: String| {
        if host != guest {
            lines.push(format!("{name}: host {host}, guest {guest}"));
        }
    };
    line("exception", format!("{:x?}", host.exception), format!("{:x?}", guest.exception));
    line("rip", format!("{:#x}", host.state.rip), format!("{:#x}", guest.state.rip));
    for (number, name) in NAMES.iter().enumerate() {
        line(name, format!("{:#018x}", host.state.regs[number]), format!("{:#018x}", guest.state.regs[number]));
    }
    let undefined = case.item_at(host.state.rip).undefined_flags;
    line("rflags", flags(host.state.rflags & !undefined), flags(guest.state.rflags & !undefined));
    let memory = host.memory.iter().zip(&guest.memory).enumerate();
    let mut wrong = memory.filter(|(_, (host, guest))| host != guest);
    if let Some((offset, _)) = wrong.next() {
        let last = wrong.next_back().map_or(offset, |(last, _)| last);
        let range = offset..(last + 1).min(offset + 32);
        line(
            &format!("memory at {:#x}..={:#x}", SCRATCH + offset as u64, SCRATCH + last as u64),
            format!("{:02x?}", &host.memory[range.clone()]),
            format!("{:02x?}", &guest.memory[range]),
        );
    }
    lines
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

/// A state as text.
pub fn describe(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (number, name) in NAMES.iter().enumerate() {
        let end = if number % 4 == 3 { '\n' } else { ' ' };
        let _ = write!(text, "    {name:3} {:016x}{end}", outcome.state.regs[number]);
    }
    let _ = writeln!(text, "    rflags {}", flags(outcome.state.rflags));
    text
}
