//! Into generated code, and out of it.

use std::arch::naked_asm;
use std::mem::offset_of;

use crate::host;
use crate::layout::{CONTEXT, selector};
use crate::xsave::Xsave;

/// State to load and state stored, at [`CONTEXT`], where absolute addresses reach it whatever the registers hold.
#[repr(C)]
pub struct Context {
    /// x87, SSE, AVX to load.
    pub xsave: Xsave,
    /// As they were stored.
    pub out_xsave: Xsave,
    /// General registers to load.
    pub regs: [u64; 16],
    /// As they were stored.
    pub out_regs: [u64; 16],
    /// RFLAGS to load.
    pub rflags: u64,
    /// As they were stored.
    pub out_rflags: u64,
    /// The test's own stack pointer.
    host_rsp: u64,
    /// Address of [`leave`].
    leave: u64,
    /// Components of the XSAVE images that the host has.
    components: u32,
    /// MXCSR for Rust code.
    mxcsr: u32,
    /// First instruction: with the selector behind it a far pointer of 48 bits, the widest that AMD's JMP takes.
    pub target: u32,
    /// See `target`.
    pub target_selector: u16,
}

/// Where the pointer to [`leave`] is.
pub const LEAVE: u64 = CONTEXT + offset_of!(Context, leave) as u64;

impl Context {
    /// Nothing to load yet.
    pub fn new() -> Self {
        Self {
            xsave: Xsave::default(),
            out_xsave: Xsave::default(),
            regs: [0; 16],
            out_regs: [0; 16],
            rflags: 0x202,
            out_rflags: 0,
            host_rsp: 0,
            leave: leave as *const () as u64,
            components: host::xsave_components(),
            mxcsr: 0x1F80,
            target: 0,
            target_selector: 0,
        }
    }
}

macro_rules! at {
    ($field:ident) => {
        CONTEXT as usize + offset_of!(Context, $field)
    };
}

/// Load the state from the context and jump to its target; return when [`leave`] is reached.
///
/// # Safety
///
/// The context is mapped and filled, and the code at its target ends by jumping to [`leave`].
#[unsafe(naked)]
pub unsafe extern "sysv64" fn enter() {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [{host_rsp}], rsp",
        // 32-bit code needs data segments; 64-bit code has null ones, as Linux starts a process with.
        "xor eax, eax",
        "cmp word ptr [{selector}], {code32}",
        "jne 2f",
        "mov eax, {data}",
        "2:",
        "mov ds, eax",
        "mov es, eax",
        "mov eax, [{components}]",
        "xor edx, edx",
        "xrstor64 [{xsave}]",
        "push qword ptr [{rflags}]",
        "popfq",
        "mov rax, [{regs}]",
        "mov rcx, [{regs} + 8]",
        "mov rdx, [{regs} + 16]",
        "mov rbx, [{regs} + 24]",
        "mov rsp, [{regs} + 32]",
        "mov rbp, [{regs} + 40]",
        "mov rsi, [{regs} + 48]",
        "mov rdi, [{regs} + 56]",
        "mov r8, [{regs} + 64]",
        "mov r9, [{regs} + 72]",
        "mov r10, [{regs} + 80]",
        "mov r11, [{regs} + 88]",
        "mov r12, [{regs} + 96]",
        "mov r13, [{regs} + 104]",
        "mov r14, [{regs} + 112]",
        "mov r15, [{regs} + 120]",
        // JMP m16:32.
        ".byte 0xFF, 0x2C, 0x25",
        ".long {target}",
        host_rsp = const at!(host_rsp),
        selector = const at!(target_selector),
        code32 = const selector::CODE32,
        data = const selector::DATA,
        components = const at!(components),
        xsave = const at!(xsave),
        rflags = const at!(rflags),
        regs = const at!(regs),
        target = const at!(target),
    )
}

/// Where generated code goes on: store the state and return from [`enter`]. Never called.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn leave() {
    naked_asm!(
        "mov [{regs}], rax",
        "mov [{regs} + 8], rcx",
        "mov [{regs} + 16], rdx",
        "mov [{regs} + 24], rbx",
        "mov [{regs} + 32], rsp",
        "mov [{regs} + 40], rbp",
        "mov [{regs} + 48], rsi",
        "mov [{regs} + 56], rdi",
        "mov [{regs} + 64], r8",
        "mov [{regs} + 72], r9",
        "mov [{regs} + 80], r10",
        "mov [{regs} + 88], r11",
        "mov [{regs} + 96], r12",
        "mov [{regs} + 104], r13",
        "mov [{regs} + 112], r14",
        "mov [{regs} + 120], r15",
        "mov rsp, [{host_rsp}]",
        "pushfq",
        "pop qword ptr [{rflags}]",
        // Neither alignment checks nor backward strings for Rust.
        "push 0x202",
        "popfq",
        "mov eax, [{components}]",
        "xor edx, edx",
        "xsave64 [{xsave}]",
        "fninit",
        "ldmxcsr [{mxcsr}]",
        "xor eax, eax",
        "mov ds, eax",
        "mov es, eax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        host_rsp = const at!(host_rsp),
        components = const at!(components),
        xsave = const at!(out_xsave),
        rflags = const at!(out_rflags),
        regs = const at!(out_regs),
        mxcsr = const at!(mxcsr),
    )
}
