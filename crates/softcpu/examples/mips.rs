//! How fast the software CPU executes: loops of integer, memory, x87 and SSE instructions, and calls, in millions of instructions a second.
//!
//! `cargo run --release -p softcpu --example mips`

use std::time::Instant;

use guestmem::GuestMemory;
use softcpu::{CpuidEntry, CpuidTable, Engine, EngineConfig, HostVendor};
use vcpu::{Bus, Clock, Exit};

/// A bus with nothing on it.
struct NoBus;

impl Bus for NoBus {}

/// Ten instructions on registers.
const ALU: &[u8] = &[
    0x01, 0xD8, // add eax, ebx
    0x31, 0xC2, // xor edx, eax
    0x8D, 0x74, 0x50, 0x05, // lea esi, [eax + edx*2 + 5]
    0xC1, 0xE2, 0x03, // shl edx, 3
    0x29, 0xF7, // sub edi, esi
    0x83, 0xE3, 0x7F, // and ebx, 0x7f
    0x0F, 0xB6, 0xE8, // movzx ebp, al
    0x83, 0xC3, 0x11, // add ebx, 0x11
    0xFF, 0xC9, // dec ecx
    0x75, 0xE6, // jnz
];

/// Eight instructions, six of which touch memory.
const MEMORY: &[u8] = &[
    0x8B, 0x06, // mov eax, [esi]
    0x01, 0xC8, // add eax, ecx
    0x89, 0x47, 0x08, // mov [edi + 8], eax
    0x01, 0x46, 0x04, // add [esi + 4], eax
    0x50, // push eax
    0x5B, // pop ebx
    0x03, 0x5F, 0x08, // add ebx, [edi + 8]
    0xFF, 0xC9, // dec ecx
    0x75, 0xED, // jnz
];

/// A call and a return in each round.
const CALLS: &[u8] = &[
    0xE8, 0x04, 0x00, 0x00, 0x00, // call
    0xFF, 0xC9, // dec ecx
    0x75, 0xF7, // jnz
    0x40, // (the function: inc eax, or a REX prefix of ret)
    0xC3, // ret
];

/// Six instructions, four of them x87's with operands of double precision.
const X87: &[u8] = &[
    0xDB, 0xE3, // fninit (once)
    0xDD, 0x06, // fld qword ptr [esi]
    0xDC, 0x46, 0x08, // fadd qword ptr [esi + 8]
    0xDC, 0x0F, // fmul qword ptr [edi]
    0xDD, 0x5F, 0x08, // fstp qword ptr [edi + 8]
    0xFF, 0xC9, // dec ecx
    0x75, 0xF2, // jnz
];

/// Seven instructions, as memory is copied with SSE: two loads, two stores, two additions and a branch.
const SSE_COPY: &[u8] = &[
    0xF3, 0x0F, 0x6F, 0x06, // movdqu xmm0, [esi]
    0xF3, 0x0F, 0x6F, 0x4E, 0x10, // movdqu xmm1, [esi + 16]
    0x0F, 0x29, 0x07, // movaps [edi], xmm0
    0x0F, 0x29, 0x4F, 0x10, // movaps [edi + 16], xmm1
    0x83, 0xC0, 0x20, // add eax, 32
    0xFF, 0xC9, // dec ecx
    0x75, 0xE9, // jnz
];

/// Seven instructions, as strings are searched with SSE2.
const SSE_SEARCH: &[u8] = &[
    0x66, 0x0F, 0x6F, 0x06, // movdqa xmm0, [esi]
    0x66, 0x0F, 0x74, 0xC1, // pcmpeqb xmm0, xmm1
    0x66, 0x0F, 0xDA, 0x46, 0x10, // pminub xmm0, [esi + 16]
    0x66, 0x0F, 0xD7, 0xC0, // pmovmskb eax, xmm0
    0x85, 0xC0, // test eax, eax
    0xFF, 0xC9, // dec ecx
    0x75, 0xE9, // jnz
];

/// Six instructions, four of them SSE's with numbers of double precision.
const SSE_DOUBLE: &[u8] = &[
    0xF2, 0x0F, 0x10, 0x06, // movsd xmm0, [esi]
    0xF2, 0x0F, 0x58, 0x46, 0x08, // addsd xmm0, [esi + 8]
    0xF2, 0x0F, 0x59, 0x07, // mulsd xmm0, [edi]
    0xF2, 0x0F, 0x11, 0x47, 0x08, // movsd [edi + 8], xmm0
    0xFF, 0xC9, // dec ecx
    0x75, 0xEA, // jnz
];

/// CPUID that announces an FPU, FXSAVE, SSE and SSE2.
fn cpuid() -> CpuidTable {
    let entry = |leaf, registers| CpuidEntry { leaf, subleaf: None, registers };
    CpuidTable::new(vec![entry(0, [1, 0, 0, 0]), entry(1, [0, 0, 0, 1 | 7 << 24])])
}

fn measure(name: &str, code: &[u8]) {
    let config =
        EngineConfig { cpus: 1, host: HostVendor::Intel, seed: 0, slice: (1000, 1000), clock: Clock::new(1_000_000) };
    let memory = GuestMemory::new(1 << 20).expect("memory");
    memory.write_bytes(0x1000, code).expect("code in RAM");
    for (gpa, value) in [(0x2000, 1.7f64), (0x2008, 2.3), (0x3000, 0.1)] {
        memory.write_bytes(gpa, &value.to_le_bytes()).expect("operands in RAM");
    }
    let mut engine = Engine::new(&config, memory);
    engine.set_cpuid(&cpuid());
    engine.intercept_exception(6, true);
    let cpu = engine.cpu_mut(0);
    cpu.set_flat_protected32(0x1000);
    cpu.regs.fill(0);
    // OSFXSR.
    cpu.cr4 = 1 << 9;
    cpu.mode_changed();
    cpu.regs[1] = 0xFFFF_FFFF;
    cpu.regs[4] = 0x8000;
    cpu.regs[6] = 0x2000;
    cpu.regs[7] = 0x3000;
    let best = (0..50)
        .map(|_| {
            let (start, before) = (Instant::now(), engine.instructions());
            let exit = engine.run(&mut NoBus, 10_000_000);
            assert_eq!(exit, Exit::Budget);
            (engine.instructions() - before) as f64 / start.elapsed().as_secs_f64() / 1e6
        })
        .fold(0.0, f64::max);
    println!("{name}: {best:.0} MIPS");
}

fn main() {
    measure("ALU loop", ALU);
    measure("memory loop", MEMORY);
    measure("calls", CALLS);
    measure("x87 loop", X87);
    measure("SSE copy", SSE_COPY);
    measure("SSE2 search", SSE_SEARCH);
    measure("SSE2 double", SSE_DOUBLE);
}
