//! The registers as gdb sees them: their order and width in its packets, and where each comes from.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use gdbstub::arch::{self, Arch};
use vcpu::Register;
use x86defs::msr;

use crate::target::Debuggee;

/// Offsets in the legacy region of an XSAVE image (SDM vol. 1 table 13-1), and of XSTATE_BV behind it.
const IMAGE_FOP: usize = 6;
const IMAGE_FIP: usize = 8;
const IMAGE_FCS: usize = 12;
const IMAGE_FDP: usize = 16;
const IMAGE_FDS: usize = 20;
const IMAGE_ST: usize = 32;
const IMAGE_XMM: usize = 160;
const IMAGE_XSTATE_BV: usize = 512;
/// x87 and SSE are in use.
const LEGACY_IN_USE: u8 = 0b11;

/// Where a register comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Register(Register),
    Msr(u32),
    /// Bytes of the XSAVE image, from this offset.
    Image(usize),
}

/// A register of the description.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    bits: usize,
    kind: &'static str,
    source: Source,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.bits / 8
    }
}

/// A feature of the description, which gdb knows by its name, or just shows.
struct Feature {
    name: &'static str,
    /// Definitions of types that the registers use.
    types: &'static str,
    entries: Vec<Entry>,
}

const FLAGS: &str = concat!(
    r#"<flags id="i386_eflags" size="4"><field name="" start="22" end="31"/><field name="CF" start="0" end="0"/>"#,
    r#"<field name="" start="1" end="1"/><field name="PF" start="2" end="2"/><field name="AF" start="4" end="4"/>"#,
    r#"<field name="ZF" start="6" end="6"/><field name="SF" start="7" end="7"/><field name="TF" start="8" end="8"/>"#,
    r#"<field name="IF" start="9" end="9"/><field name="DF" start="10" end="10"/><field name="OF" start="11" end="11"/>"#,
    r#"<field name="IOPL" start="12" end="13"/><field name="NT" start="14" end="14"/><field name="RF" start="16" end="16"/>"#,
    r#"<field name="VM" start="17" end="17"/><field name="AC" start="18" end="18"/><field name="VIF" start="19" end="19"/>"#,
    r#"<field name="VIP" start="20" end="20"/><field name="ID" start="21" end="21"/></flags>"#,
);
const VECTORS: &str = concat!(
    r#"<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>"#,
    r#"<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>"#,
    r#"<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>"#,
    r#"<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>"#,
    r#"<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>"#,
    r#"<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>"#,
);

fn features() -> Vec<Feature> {
    use Register as R;
    let entry = |name: &str, bits, kind, source| Entry { name: name.to_owned(), bits, kind, source };
    let number =
        |bits, kind: &'static str| move |register: &R| entry(register.name(), bits, kind, Source::Register(*register));
    let general = [R::Rax, R::Rbx, R::Rcx, R::Rdx, R::Rsi, R::Rdi].map(|r| number(64, "int64")(&r));
    let pointers = [R::Rbp, R::Rsp].map(|r| number(64, "data_ptr")(&r));
    let extended = [R::R8, R::R9, R::R10, R::R11, R::R12, R::R13, R::R14, R::R15].map(|r| number(64, "int64")(&r));
    let place = [number(64, "code_ptr")(&R::Rip), entry("eflags", 32, "i386_eflags", Source::Register(R::Rflags))];
    let segments = [R::Cs, R::Ss, R::Ds, R::Es, R::Fs, R::Gs].map(|r| number(32, "int32")(&r));
    let stack = (0..8).map(|n| entry(&format!("st{n}"), 80, "i387_ext", Source::Image(IMAGE_ST + 16 * n)));
    let x87 = [
        entry("fctrl", 32, "int", Source::Register(R::Fcw)),
        entry("fstat", 32, "int", Source::Register(R::Fsw)),
        entry("ftag", 32, "int", Source::Register(R::Ftw)),
        entry("fiseg", 32, "int", Source::Image(IMAGE_FCS)),
        entry("fioff", 32, "int", Source::Image(IMAGE_FIP)),
        entry("foseg", 32, "int", Source::Image(IMAGE_FDS)),
        entry("fooff", 32, "int", Source::Image(IMAGE_FDP)),
        entry("fop", 32, "int", Source::Image(IMAGE_FOP)),
    ];
    let xmm = (0..16).map(|n| entry(&format!("xmm{n}"), 128, "vec128", Source::Image(IMAGE_XMM + 16 * n)));
    let mxcsr = number(32, "int")(&R::Mxcsr);
    let bases = [R::FsBase, R::GsBase].map(|r| number(64, "int64")(&r));
    let kernel_gs = entry("k_gs_base", 64, "int64", Source::Msr(msr::KERNEL_GS_BASE));
    let system = [R::Cr0, R::Cr2, R::Cr3, R::Cr4, R::Cr8, R::Efer, R::GdtrBase, R::IdtrBase, R::TrBase]
        .map(|r| number(64, "int64")(&r));
    vec![
        Feature {
            name: "org.gnu.gdb.i386.core",
            types: FLAGS,
            entries: (general.into_iter())
                .chain(pointers)
                .chain(extended)
                .chain(place)
                .chain(segments)
                .chain(stack)
                .chain(x87)
                .collect(),
        },
        Feature { name: "org.gnu.gdb.i386.sse", types: VECTORS, entries: xmm.chain([mxcsr]).collect() },
        Feature { name: "org.gnu.gdb.i386.segments", types: "", entries: bases.to_vec() },
        Feature { name: "paravirt.system", types: "", entries: [kernel_gs].into_iter().chain(system).collect() },
    ]
}

static FEATURES: LazyLock<Vec<Feature>> = LazyLock::new(features);
static DESCRIPTION: LazyLock<String> = LazyLock::new(describe);

fn entries() -> impl Iterator<Item = &'static Entry> {
    FEATURES.iter().flat_map(|feature| &feature.entries)
}

/// The target description (gdb manual, appendix "Target Descriptions").
fn describe() -> String {
    let mut xml =
        String::from(r#"<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">"#);
    xml.push_str("<architecture>i386:x86-64</architecture>");
    for feature in FEATURES.iter() {
        // Writing to a String cannot fail.
        let _ = write!(xml, r#"<feature name="{}">{}"#, feature.name, feature.types);
        for Entry { name, bits, kind, .. } in &feature.entries {
            let _ = write!(xml, r#"<reg name="{name}" bitsize="{bits}" type="{kind}"/>"#);
        }
        xml.push_str("</feature>");
    }
    xml.push_str("</target>");
    xml
}

/// x86-64, with what a hypervisor sees beside the program's registers.
pub enum X86 {}

impl Arch for X86 {
    type Usize = u64;
    type Registers = Registers;
    type BreakpointKind = usize;
    type RegId = RegisterNumber;

    fn target_description_xml() -> Option<&'static str> {
        Some(DESCRIPTION.as_str())
    }
}

/// The number of a register in the description.
#[derive(Clone, Copy, Debug)]
pub struct RegisterNumber(usize);

impl arch::RegId for RegisterNumber {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let entry = entries().nth(id)?;
        Some((Self(id), NonZeroUsize::new(entry.bytes())))
    }
}

/// All registers of a vCPU, as they stand in a packet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registers(Vec<u8>);

impl arch::Registers for Registers {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        let before: usize = entries().take_while(|entry| entry.name != "rip").map(Entry::bytes).sum();
        self.0.get(before..before + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().for_each(|&byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

impl Registers {
    /// Those of a vCPU.
    pub fn read(debuggee: &mut impl Debuggee, vcpu: usize) -> Self {
        let image = debuggee.extended_state(vcpu);
        Self(entries().flat_map(|entry| read(debuggee, vcpu, &image, entry)).collect())
    }

    /// Set those that differ. False, with some perhaps set, if one cannot hold its value, or there are too few.
    pub fn write(&self, debuggee: &mut impl Debuggee, vcpu: usize) -> bool {
        let before = Self::read(debuggee, vcpu);
        if before.0.len() != self.0.len() {
            return false;
        }
        let mut offset = 0;
        entries().all(|entry| {
            let range = offset..offset + entry.bytes();
            offset = range.end;
            before.0[range.clone()] == self.0[range.clone()] || write(debuggee, vcpu, entry, &self.0[range])
        })
    }
}

/// The bytes of one register.
pub fn read_one(debuggee: &mut impl Debuggee, vcpu: usize, number: RegisterNumber) -> Vec<u8> {
    let image = debuggee.extended_state(vcpu);
    entries().nth(number.0).map_or_else(Vec::new, |entry| read(debuggee, vcpu, &image, entry))
}

/// Set one register; false if it cannot hold that.
pub fn write_one(debuggee: &mut impl Debuggee, vcpu: usize, number: RegisterNumber, bytes: &[u8]) -> bool {
    entries().nth(number.0).is_some_and(|entry| entry.bytes() == bytes.len() && write(debuggee, vcpu, entry, bytes))
}

/// How many bytes of the image a register is; the rest of what gdb has for it is zero.
fn image_bytes(entry: &Entry, offset: usize) -> usize {
    match offset {
        IMAGE_FOP | IMAGE_FCS | IMAGE_FDS => 2,
        _ => entry.bytes(),
    }
}

fn read(debuggee: &mut impl Debuggee, vcpu: usize, image: &[u8], entry: &Entry) -> Vec<u8> {
    let mut bytes = match entry.source {
        Source::Register(register) => debuggee.register(vcpu, register).to_le_bytes().to_vec(),
        Source::Msr(index) => debuggee.msr(vcpu, index).unwrap_or(0).to_le_bytes().to_vec(),
        Source::Image(offset) => {
            image.get(offset..offset + image_bytes(entry, offset)).map_or_else(Vec::new, <[u8]>::to_vec)
        }
    };
    bytes.resize(entry.bytes(), 0);
    bytes
}

fn write(debuggee: &mut impl Debuggee, vcpu: usize, entry: &Entry, bytes: &[u8]) -> bool {
    let value = || bytes.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
    match entry.source {
        Source::Register(register) => debuggee.set_register(vcpu, register, value()),
        Source::Msr(index) => debuggee.set_msr(vcpu, index, value()),
        Source::Image(offset) => {
            let mut image = debuggee.extended_state(vcpu);
            let len = image_bytes(entry, offset);
            let (Some(field), Some(new)) = (image.get_mut(offset..offset + len), bytes.get(..len)) else {
                return false;
            };
            field.copy_from_slice(new);
            let Some(in_use) = image.get_mut(IMAGE_XSTATE_BV) else { return false };
            *in_use |= LEGACY_IN_USE;
            debuggee.set_extended_state(vcpu, &image)
        }
    }
}
