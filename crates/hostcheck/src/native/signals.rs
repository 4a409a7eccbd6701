//! Exceptions of generated code, as the signals that Linux makes of them.

use std::arch::naked_asm;
use std::cell::{Cell, UnsafeCell};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, c_void, siginfo_t, ucontext_t};
use x86defs::rflags;

use super::entry;
use crate::case::Exception;
use crate::layout::selector;

/// Large enough for a frame with AVX-512 state.
const STACK_SIZE: usize = 64 << 10;
const SIGNALS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// What the kernel tells of an exception.
#[derive(Clone, Copy, Debug)]
pub struct Caught {
    /// The exception.
    pub exception: Exception,
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
}

/// The thread that runs generated code, 0 if none.
static THREAD: AtomicI32 = AtomicI32::new(0);

struct CaughtCell(UnsafeCell<Option<Caught>>);
// SAFETY: written by the signal handler and read by `catching`, both in the one thread that `THREAD` names.
unsafe impl Sync for CaughtCell {}
static CAUGHT: CaughtCell = CaughtCell(UnsafeCell::new(None));

/// Route signals here.
pub fn install() {
    for signal in SIGNALS {
        // SAFETY: all zero is a valid `sigaction`; the handler is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0, "sigaction");
        }
    }
}

/// Give this thread a stack for signals: the stack pointer of generated code is no stack.
pub fn use_own_stack() {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if DONE.replace(true) {
        return;
    }
    let memory: &'static mut [u8] = Box::leak(vec![0; STACK_SIZE].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_SIZE };
    // SAFETY: the memory is leaked, so it outlives the thread.
    assert_eq!(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) }, 0, "sigaltstack");
}

/// Run generated code, and say what exception ended it.
pub fn catching(code: impl FnOnce()) -> Option<Caught> {
    // SAFETY: no other thread is here (the caller holds the host's lock), and no signal of this one is on its way.
    unsafe { *CAUGHT.0.get() = None };
    // SAFETY: no arguments.
    THREAD.store(unsafe { libc::gettid() }, Ordering::SeqCst);
    code();
    THREAD.store(0, Ordering::SeqCst);
    // SAFETY: as above.
    unsafe { *CAUGHT.0.get() }
}

/// The handler that the kernel calls: generated code may have set RFLAGS.AC, under which Rust's accesses would fault.
#[unsafe(naked)]
unsafe extern "sysv64" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    naked_asm!(
        "pushfq",
        "and dword ptr [rsp], ~{ac}",
        "popfq",
        "jmp {handler}",
        ac = const rflags::AC as u32,
        handler = sym handle,
    )
}

extern "sysv64" fn handle(signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: no arguments.
    if THREAD.load(Ordering::SeqCst) != unsafe { libc::gettid() } {
        // A fault of the test itself: let it happen again, without us.
        // SAFETY: a valid signal and disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: the kernel passes a valid context, and the handler is the only one to touch it.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let get = |index: c_int| registers[index as usize] as u64;
    let flags = get(libc::REG_EFL);
    let exception = Exception::new(get(libc::REG_TRAPNO) as u8, get(libc::REG_ERR) as u32, get(libc::REG_CR2));
    let caught = Caught { exception, rip: get(libc::REG_RIP), rflags: flags };
    // SAFETY: `catching` of this thread has called the code that was interrupted.
    unsafe { *CAUGHT.0.get() = Some(caught) };
    let segments = get(libc::REG_CSGSFS) & !0xFFFF | u64::from(selector::CODE64);
    registers[libc::REG_CSGSFS as usize] = segments as i64;
    registers[libc::REG_EFL as usize] = (flags & !(rflags::TF | rflags::AC)) as i64;
    registers[libc::REG_RIP as usize] = entry::leave as *const () as i64;
    // It is over: a fault in what follows is the test's own.
    THREAD.store(0, Ordering::SeqCst);
}
