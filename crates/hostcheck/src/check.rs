//! A family's cases, one after the other, on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use iced_x86::{Code, Decoder, Formatter, Instruction, NasmFormatter};
use x86defs::vector;

use crate::case::{Case, Mode, Outcome};
use crate::catalogue::{self, Family};
use crate::compare;
use crate::generate::{self, Generator};
use crate::guest::Guest;
use crate::native;

/// Differences after which there are enough examples.
const ENOUGH: usize = 400;

/// What to check.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Instructions to draw from.
    pub family: Family,
    /// Seed of all cases.
    pub seed: u64,
    /// Number of the first case.
    pub first: u64,
    /// Number of cases.
    pub count: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases run.
    pub cases: u64,
    /// Instructions in them.
    pub instructions: u64,
    /// Cases that ended with an exception on the host.
    pub exceptions: u64,
    /// Features that the host lacks.
    pub lacking: BTreeSet<String>,
    /// Encodings that the software CPU does not implement: #UD there, but not on the host.
    pub missing: BTreeSet<String>,
    /// By the first instruction that differs: how often, and an example.
    pub differences: BTreeMap<String, (usize, String)>,
}

/// Both sides.
struct Sides {
    read_only: Vec<u8>,
    long: Guest,
    compat: Guest,
}

impl Sides {
    fn new() -> Self {
        let read_only = Generator::read_only();
        let (long, compat) = (Guest::new(Mode::Long64, &read_only), Guest::new(Mode::Compat32, &read_only));
        Self { read_only, long, compat }
    }

    fn run(&mut self, case: &Case) -> (Outcome, Outcome) {
        let host = native::run(case, &self.read_only);
        let guest = match case.mode {
            Mode::Long64 => &mut self.long,
            Mode::Compat32 => &mut self.compat,
        };
        (host, guest.run(case))
    }

    fn differ(&mut self, case: &Case) -> bool {
        let (host, guest) = self.run(case);
        !compare::differences(case, &host, &guest).is_empty()
    }

    /// Whether an encoding is #UD in the guest although the host executes it.
    fn is_missing(&mut self, code: Code) -> bool {
        [Mode::Long64, Mode::Compat32].into_iter().filter_map(|mode| Generator::probe(code, mode)).any(|case| {
            let (host, guest) = self.run(&case);
            let undefined = |outcome: &Outcome| outcome.exception.is_some_and(|found| found.vector == vector::UD);
            undefined(&guest) && !undefined(&host)
        })
    }
}

/// Run a plan.
pub fn check(plan: &Plan) -> Report {
    let mut report = Report::default();
    let mut sides = Sides::new();
    let missing = sort_out(plan.family, &mut sides, &mut report);
    let mut generator =
        Generator::new(plan.family, plan.seed, |code| catalogue::is_comparable(code) && !missing.contains(&code));
    if generator.is_empty() {
        return report;
    }
    for number in plan.first..plan.first + plan.count {
        let case = generator.case(number);
        let (host, guest) = sides.run(&case);
        report.cases += 1;
        report.instructions += case.len() as u64;
        report.exceptions += u64::from(host.exception.is_some());
        if compare::differences(&case, &host, &guest).is_empty() {
            continue;
        }
        let (culprit, text) = explain(plan, number, &case, &mut sides);
        let entry = report.differences.entry(culprit).or_insert((0, text));
        entry.0 += 1;
        if report.differences.values().map(|entry| entry.0).sum::<usize>() >= ENOUGH {
            break;
        }
    }
    report
}

/// Note what the host lacks, and what the software CPU does; the latter is the result.
fn sort_out(family: Family, sides: &mut Sides, report: &mut Report) -> BTreeSet<Code> {
    let mut missing = BTreeSet::new();
    for mode in [Mode::Long64, Mode::Compat32] {
        for code in catalogue::encodings(family, mode) {
            if !catalogue::host_has(code) {
                let lacks = code.cpuid_features().iter().filter(|&&feature| !crate::host::has(feature));
                report.lacking.extend(lacks.map(|feature| format!("{feature:?}")));
            } else if !missing.contains(&code) && sides.is_missing(code) {
                missing.insert(code);
                report.missing.insert(format!("{code:?}"));
            }
        }
    }
    missing
}

/// The instruction after which the sides first differ, and all about it.
fn explain(plan: &Plan, number: u64, case: &Case, sides: &mut Sides) -> (String, String) {
    let count = (0..=case.len()).find(|&count| sides.differ(&case.prefix(count))).unwrap_or(case.len());
    let shortest = case.prefix(count);
    let (host, guest) = sides.run(&shortest);
    let (before, _) = sides.run(&case.prefix(count.saturating_sub(1)));
    let culprit = count.checked_sub(1).map_or("(no instruction)".into(), |last| name_of(case, last));
    let mut text = String::new();
    let _ = writeln!(
        text,
        "HOSTCHECK_FAMILY={} HOSTCHECK_SEED={} HOSTCHECK_FIRST={number} HOSTCHECK_COUNT=1",
        plan.family.name(),
        plan.seed
    );
    let _ = writeln!(text, "{:?}{}, {count} of {} instructions:", case.mode, stepping(case), case.len());
    text.push_str(&disassemble(&shortest));
    text.push_str("before the last one, on the host:\n");
    text.push_str(&compare::describe(&before));
    text.push_str("differences:\n");
    for line in compare::differences(&shortest, &host, &guest) {
        let _ = writeln!(text, "    {line}");
    }
    (culprit, text)
}

fn stepping(case: &Case) -> &'static str {
    if case.stepped { ", stepped" } else { "" }
}

fn decode(case: &Case, item: usize) -> Vec<Instruction> {
    let item = &case.items[item];
    let bytes = &case.code[item.start..item.end];
    let ip = case.state.rip + item.start as u64;
    Decoder::with_ip(case.mode.bits(), bytes, ip, generate::decoder_options()).into_iter().collect()
}

fn name_of(case: &Case, item: usize) -> String {
    decode(case, item).first().map_or(String::new(), |instr| format!("{:?}", instr.code()))
}

fn disassemble(case: &Case) -> String {
    let mut formatter = NasmFormatter::new();
    let mut text = String::new();
    for item in 0..case.len() {
        for instr in decode(case, item) {
            let start = (instr.ip() - case.state.rip) as usize;
            let bytes = &case.code[start..start + instr.len()];
            let _ = write!(text, "    {:x}: {bytes:02x?} ", instr.ip());
            formatter.format(&instr, &mut text);
            text.push('\n');
        }
    }
    text
}

impl Report {
    /// The report in words.
    pub fn summary(&self, family: Family) -> String {
        let mut text = format!(
            "{}: {} cases, {} instructions, {} exceptions, {} differences\n",
            family.name(),
            self.cases,
            self.instructions,
            self.exceptions,
            self.differences.values().map(|entry| entry.0).sum::<usize>(),
        );
        if !self.lacking.is_empty() {
            let _ = writeln!(text, "skipped, the host lacks: {}", join(&self.lacking));
        }
        if !self.missing.is_empty() {
            let _ = writeln!(text, "skipped, not implemented: {}", join(&self.missing));
        }
        for (culprit, (count, example)) in &self.differences {
            let _ = writeln!(text, "\n{culprit}: {count} differences, for example\n{example}");
        }
        text
    }
}

fn join(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
