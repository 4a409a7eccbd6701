//! The host's side: generated code runs in this very process.
//!
//! [`entry`] loads all registers and jumps to the code. Behind it lies a jump to [`entry::leave`], which stores all registers.
//! An exception becomes a signal ([`signals`]); its handler notes what the kernel knows of it, and lets the process go on at
//! `leave`, which finds the registers as they were at the fault.
//!
//! Memory lies at fixed low addresses ([`crate::layout`]), with nothing around it, and the generator knows where every access goes.
//! So code that is wrong in a foreseen way faults, and does not change the test itself.
#![expect(unsafe_code, reason = "to execute foreign code is what this is for")]

mod entry;
mod signals;

use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use x86defs::rflags;

use crate::case::{Case, Mode, Outcome, State};
use crate::layout::{CODE, CODE_SIZE, CONTEXT, GS_BASE, GUARD, PAGE, READABLE, SCRATCH, WRITABLE, selector};
use entry::Context;

/// `arch_prctl` code, from asm/prctl.h.
const ARCH_SET_GS: libc::c_int = 0x1001;
/// Where 32-bit code jumps to in order to leave.
const TRAMPOLINE: u64 = CONTEXT + PAGE;

/// The host processor, with memory at the addresses that cases use. There is one; threads take turns.
pub struct Native {
    context: *mut Context,
}

// SAFETY: the pointer is to a mapping that lives as long as the process; the mutex in `native` lets one thread at it.
unsafe impl Send for Native {}

fn native() -> &'static Mutex<Native> {
    static NATIVE: OnceLock<Mutex<Native>> = OnceLock::new();
    NATIVE.get_or_init(|| Mutex::new(Native::new()))
}

/// Run a case on the host. `read_only` are the contents of the page behind the writable ones; it must not change between calls.
pub fn run(case: &Case, read_only: &[u8]) -> Outcome {
    native().lock().unwrap_or_else(PoisonError::into_inner).run(case, read_only)
}

/// Map memory at a fixed address at which nothing is.
fn map(address: u64, size: u64, protection: libc::c_int) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
    // SAFETY: MAP_FIXED_NOREPLACE fails where anything is mapped already.
    let mapped = unsafe { libc::mmap(address as *mut libc::c_void, size as usize, protection, flags, -1, 0) };
    assert_eq!(mapped as u64, address, "cannot map memory at {address:#x}: {}", std::io::Error::last_os_error());
}

fn protect(address: u64, size: u64, protection: libc::c_int) {
    // SAFETY: only called with parts of what `map` has mapped.
    let result = unsafe { libc::mprotect(address as *mut libc::c_void, size as usize, protection) };
    assert_eq!(result, 0, "cannot protect memory at {address:#x}");
}

fn store(address: u64, bytes: &[u8]) {
    // SAFETY: only called with addresses and sizes within what `Native::new` has mapped writable.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
}

impl Native {
    fn new() -> Self {
        let (none, writable) = (libc::PROT_NONE, libc::PROT_READ | libc::PROT_WRITE);
        map(SCRATCH - GUARD, 2 * GUARD + READABLE as u64, none);
        protect(SCRATCH, READABLE as u64, writable);
        map(CODE - GUARD, 2 * GUARD + CODE_SIZE as u64, none);
        protect(CODE, CODE_SIZE as u64, writable | libc::PROT_EXEC);
        map(CONTEXT, 2 * PAGE, writable);
        let context = CONTEXT as *mut Context;
        // SAFETY: the page was just mapped, and is larger than the structure.
        unsafe { context.write(Context::new()) };
        store(TRAMPOLINE, &jump_to_leave());
        protect(TRAMPOLINE, PAGE, libc::PROT_READ | libc::PROT_EXEC);
        signals::install();
        Self { context }
    }

    fn run(&mut self, case: &Case, read_only: &[u8]) -> Outcome {
        self.prepare(case, read_only);
        // SAFETY: the page was mapped by `new`, and nobody else has a reference into it.
        let context = unsafe { &mut *self.context };
        context.regs = case.state.regs;
        context.rflags = case.state.rflags;
        context.xsave = case.state.xsave;
        context.target = case.state.rip as u32;
        context.target_selector = match case.mode {
            Mode::Long64 => selector::CODE64,
            Mode::Compat32 => selector::CODE32,
        };
        let exception = signals::catching(|| {
            // SAFETY: the generator makes no code that reaches memory other than the mapped areas, or leaves them other
            // than by the jump that `prepare` puts behind it; signals handle the rest.
            unsafe { entry::enter() }
        });
        let mut state =
            State { regs: context.out_regs, rip: case.end(), rflags: context.out_rflags, xsave: context.out_xsave };
        if let Some(caught) = &exception {
            (state.rip, state.rflags) = (caught.rip, caught.rflags);
        }
        state.rflags &= !rflags::RF;
        let mut memory = vec![0; WRITABLE];
        // SAFETY: the scratch area is mapped, and at least as large.
        unsafe { ptr::copy_nonoverlapping(SCRATCH as *const u8, memory.as_mut_ptr(), WRITABLE) };
        Outcome { exception: exception.map(|caught| caught.exception), state, memory }
    }

    /// Put everything in memory where the case wants it.
    fn prepare(&mut self, case: &Case, read_only: &[u8]) {
        assert!(case.memory.len() == WRITABLE && read_only.len() == PAGE as usize);
        signals::use_own_stack();
        // SAFETY: GS is not used by anything in a 64-bit Linux process.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE) };
        store(SCRATCH, &case.memory);
        let last = SCRATCH + WRITABLE as u64;
        // SAFETY: the third page is mapped and readable.
        let present = unsafe { std::slice::from_raw_parts(last as *const u8, PAGE as usize) };
        if present != read_only {
            protect(last, PAGE, libc::PROT_READ | libc::PROT_WRITE);
            store(last, read_only);
            protect(last, PAGE, libc::PROT_READ);
        }
        let mut code = case.code.clone();
        match case.mode {
            Mode::Long64 => code.extend(jump_to_leave()),
            Mode::Compat32 => {
                // JMP ptr16:32 to the trampoline.
                code.push(0xEA);
                code.extend((TRAMPOLINE as u32).to_le_bytes());
                code.extend(selector::CODE64.to_le_bytes());
            }
        }
        assert!(case.code_offset() + code.len() <= CODE_SIZE);
        store(case.state.rip, &code);
    }
}

/// JMP [absolute address of the context's pointer to `leave`], in 64-bit code.
fn jump_to_leave() -> [u8; 7] {
    let mut code = [0xFF, 0x24, 0x25, 0, 0, 0, 0];
    code[3..].copy_from_slice(&(entry::LEAVE as u32).to_le_bytes());
    code
}
