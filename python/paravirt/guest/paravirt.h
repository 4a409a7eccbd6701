/* SPDX-License-Identifier: Apache-2.0 OR MIT
 *
 * paravirt.h - write a freestanding x86 test kernel in a few lines.
 *
 *     #include <paravirt.h>
 *
 *     int main(int argc, char **argv)
 *     {
 *         struct pv_hypervisor kvm;
 *
 *         if (!pv_find_hypervisor("KVMKVMKVM", &kvm))
 *             return 1;
 *         pv_printf("features %x, call says %ld\n", pv_cpuid(kvm.base + 1, 0).eax, pv_hypercall0(1));
 *         return 0;
 *     }
 *
 * `paravirt build` compiles it together with start.S and runtime.c to a multiboot image. When main starts:
 *
 *   - 64-bit mode (or, built with --m32, 32-bit protected mode with PAE paging), CPL 0, interrupts off, PICs masked;
 *   - the lowest 4 GiB are mapped one to one, writable, executable and accessible from CPL 3;
 *   - every exception that nobody catches is reported on the serial port and ends the run with status 127;
 *   - argv comes from the multiboot command line.
 *
 * What main returns goes to isa-debug-exit (see pv_exit). There is no floating point, no SSE and no libc.
 */
#ifndef PARAVIRT_H
#define PARAVIRT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Output, end, results ------------------------------------------------------------------------------------- */

/* Serial port 1, polled. %d %u %x %c %s %p %%, with l, ll, z, width, - and 0. One call is one piece also on SMP. */
void pv_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void pv_vprintf(const char *format, va_list arguments);
void pv_putchar(char character);

/* End the run through isa-debug-exit at port 0xF4: the process status is (status << 1) | 1, as in QEMU. */
void pv_exit(uint32_t status) __attribute__((noreturn));

/* "PASS name" or "FAIL name" on the console; true if it passed. */
bool pv_check(bool condition, const char *format, ...) __attribute__((format(printf, 2, 3)));
void pv_skip(const char *why);
/* Number of checks that failed, for main to return. */
int pv_failures(void);

/* ---- Instructions --------------------------------------------------------------------------------------------- */

struct pv_cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct pv_cpuid pv_cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct pv_cpuid r;

    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}

static inline uint64_t pv_rdmsr(uint32_t msr)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void pv_wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static inline uint64_t pv_rdtsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void pv_outb(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void pv_outw(uint16_t port, uint16_t value) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static inline void pv_outl(uint16_t port, uint32_t value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }

static inline uint8_t pv_inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint16_t pv_inw(uint16_t port)
{
    uint16_t value;

    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint32_t pv_inl(uint16_t port)
{
    uint32_t value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

#define PV_DEFINE_CONTROL_REGISTER(n)                                                                                  \
    static inline unsigned long pv_read_cr##n(void)                                                                    \
    {                                                                                                                  \
        unsigned long value;                                                                                           \
                                                                                                                       \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory");                                             \
        return value;                                                                                                  \
    }                                                                                                                  \
    static inline void pv_write_cr##n(unsigned long value)                                                             \
    {                                                                                                                  \
        __asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory");                                                 \
    }
PV_DEFINE_CONTROL_REGISTER(0)
PV_DEFINE_CONTROL_REGISTER(2)
PV_DEFINE_CONTROL_REGISTER(3)
PV_DEFINE_CONTROL_REGISTER(4)

static inline unsigned long pv_read_flags(void)
{
    unsigned long flags;

    __asm__ volatile("pushf; pop %0" : "=r"(flags) : : "memory");
    return flags;
}

static inline void pv_pause(void) { __asm__ volatile("pause" : : : "memory"); }
static inline void pv_halt(void) { __asm__ volatile("hlt" : : : "memory"); }
static inline void pv_cli(void) { __asm__ volatile("cli" : : : "memory"); }
static inline void pv_sti(void) { __asm__ volatile("sti" : : : "memory"); }
/* Sleep until an interrupt, without losing one that arrives just before. */
static inline void pv_sti_halt(void) { __asm__ volatile("sti; hlt" : : : "memory"); }
static inline void pv_invlpg(const void *address) { __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory"); }

/* ---- The hypervisor: detection and calls ---------------------------------------------------------------------- */

struct pv_hypervisor {
    uint32_t base;      /* first CPUID leaf */
    uint32_t max_leaf;  /* EAX of that leaf */
    char signature[13]; /* NUL-terminated */
};

/* Scan the CPUID leaves 0x40000000..0x40010000 in steps of 0x100 for a signature (NULL: the first that is there). */
bool pv_find_hypervisor(const char *signature, struct pv_hypervisor *found);

/* Vendor of the CPU as CPUID leaf 0 tells it: "GenuineIntel", "AuthenticAMD". */
bool pv_vendor_is(const char *vendor);

/*
 * pv_vmcallN, pv_vmmcallN: a hypercall with N arguments by that very instruction. Number in RAX, arguments in RBX, RCX, RDX,
 * RSI, result in RAX: the convention of KVM, which the 32-bit halves follow too.
 *
 * pv_hypercallN: by either; which one does not matter where the hypervisor repairs the foreign one. Define
 * PV_USE_VMMCALL before the #include to choose the other.
 */
#define PV_DEFINE_HYPERCALLS(instruction)                                                                              \
    static inline long pv_##instruction##4(unsigned long number, unsigned long a0, unsigned long a1, unsigned long a2, \
                                           unsigned long a3)                                                           \
    {                                                                                                                  \
        long result;                                                                                                   \
                                                                                                                       \
        __asm__ volatile(#instruction                                                                                  \
                         : "=a"(result)                                                                                \
                         : "a"(number), "b"(a0), "c"(a1), "d"(a2), "S"(a3)                                             \
                         : "memory");                                                                                  \
        return result;                                                                                                 \
    }                                                                                                                  \
    static inline long pv_##instruction##3(unsigned long number, unsigned long a0, unsigned long a1, unsigned long a2) \
    {                                                                                                                  \
        long result;                                                                                                   \
                                                                                                                       \
        __asm__ volatile(#instruction                                                                                  \
                         : "=a"(result)                                                                                \
                         : "a"(number), "b"(a0), "c"(a1), "d"(a2)                                                      \
                         : "memory");                                                                                  \
        return result;                                                                                                 \
    }                                                                                                                  \
    static inline long pv_##instruction##2(unsigned long number, unsigned long a0, unsigned long a1)                   \
    {                                                                                                                  \
        long result;                                                                                                   \
                                                                                                                       \
        __asm__ volatile(#instruction : "=a"(result) : "a"(number), "b"(a0), "c"(a1) : "memory");                      \
        return result;                                                                                                 \
    }                                                                                                                  \
    static inline long pv_##instruction##1(unsigned long number, unsigned long a0)                                     \
    {                                                                                                                  \
        long result;                                                                                                   \
                                                                                                                       \
        __asm__ volatile(#instruction : "=a"(result) : "a"(number), "b"(a0) : "memory");                               \
        return result;                                                                                                 \
    }                                                                                                                  \
    static inline long pv_##instruction##0(unsigned long number)                                                       \
    {                                                                                                                  \
        long result;                                                                                                   \
                                                                                                                       \
        __asm__ volatile(#instruction : "=a"(result) : "a"(number) : "memory");                                        \
        return result;                                                                                                 \
    }
PV_DEFINE_HYPERCALLS(vmcall)
PV_DEFINE_HYPERCALLS(vmmcall)

#ifdef PV_USE_VMMCALL
#define pv_hypercall0 pv_vmmcall0
#define pv_hypercall1 pv_vmmcall1
#define pv_hypercall2 pv_vmmcall2
#define pv_hypercall3 pv_vmmcall3
#define pv_hypercall4 pv_vmmcall4
#else
#define pv_hypercall0 pv_vmcall0
#define pv_hypercall1 pv_vmcall1
#define pv_hypercall2 pv_vmcall2
#define pv_hypercall3 pv_vmcall3
#define pv_hypercall4 pv_vmcall4
#endif

/* ---- Exceptions and interrupts -------------------------------------------------------------------------------- */

enum pv_vector {
    PV_DE = 0,
    PV_DB = 1,
    PV_NMI = 2,
    PV_BP = 3,
    PV_OF = 4,
    PV_BR = 5,
    PV_UD = 6,
    PV_NM = 7,
    PV_DF = 8,
    PV_TS = 10,
    PV_NP = 11,
    PV_SS = 12,
    PV_GP = 13,
    PV_PF = 14,
    PV_MF = 16,
    PV_AC = 17,
    PV_MC = 18,
    PV_NONE = -1,
};

/* What an interrupt or exception leaves on the stack, lowest address first. */
struct pv_frame {
#ifdef __x86_64__
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, bp, di, si, dx, cx, bx, ax;
    uint64_t vector, error_code, ip, cs, flags, sp, ss;
#else
    uint32_t di, si, bp, unused, bx, dx, cx, ax;
    uint32_t vector, error_code, ip, cs, flags;
    uint32_t sp, ss; /* only there if the interrupt came from CPL 3 */
#endif
};

/* Call handler on every interrupt or exception of a vector, on any CPU; NULL: no longer. An interrupt of the local APIC
 * wants pv_apic_eoi from it. */
void pv_set_handler(int vector, void (*handler)(struct pv_frame *frame));

/* The last exception that pv_catch or pv_user caught on this CPU. */
struct pv_fault {
    int vector;
    unsigned long error_code, ip, cs, sp, flags, ax, cr2;
};
const struct pv_fault *pv_fault(void);

/*
 * pv_catch(statements): the vector of the exception that the statements raised, which then were not finished; or PV_NONE.
 * Nests. Local variables that the statements assign must be volatile if they are read after an exception.
 */
#define pv_catch(...)                                                                                                  \
    __extension__({                                                                                                    \
        struct pv_jump pv_jump_;                                                                                       \
        int pv_raised_ = pv_setjmp(&pv_jump_);                                                                         \
                                                                                                                       \
        if (!pv_raised_) {                                                                                             \
            pv_push_catcher(&pv_jump_);                                                                                \
            __VA_ARGS__;                                                                                               \
            pv_pop_catcher();                                                                                          \
        }                                                                                                              \
        pv_raised_ - 1;                                                                                                \
    })

/* RDMSR and WRMSR that survive #GP: false if it was raised. */
bool pv_rdmsr_safe(uint32_t msr, uint64_t *value);
bool pv_wrmsr_safe(uint32_t msr, uint64_t value);

/* Call body(argument) at CPL 3 and store what it returns: PV_NONE, or the vector of the exception that ended it. */
int pv_user(long (*body)(long argument), long argument, long *result);

/* Parts of pv_catch. */
struct pv_jump {
    unsigned long registers[9];
    struct pv_jump *outer;
};
int pv_setjmp(struct pv_jump *jump) __attribute__((returns_twice));
void pv_longjmp(struct pv_jump *jump, int value) __attribute__((noreturn));
void pv_push_catcher(struct pv_jump *jump);
void pv_pop_catcher(void);

/* ---- Memory --------------------------------------------------------------------------------------------------- */

enum pv_page_flags {
    PV_PRESENT = 1,
    PV_WRITABLE = 2,
    PV_USER = 4,
    PV_DEFAULT = PV_PRESENT | PV_WRITABLE | PV_USER,
};

/* A zeroed page of 4096 bytes, from a pool of 256. */
void *pv_alloc_page(void);
/* The page-table entry of a 4-KiB page; large pages above it are split and missing tables are made. */
uint64_t *pv_pte(uintptr_t address);
/* Map one 4-KiB page (flags 0: not present) and drop the old translation on this CPU. */
void pv_map(uintptr_t address, uint64_t physical, uint64_t flags);

void *memcpy(void *to, const void *from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int byte, size_t length);
int memcmp(const void *a, const void *b, size_t length);
size_t strlen(const char *string);
int strcmp(const char *a, const char *b);

/* Multiboot's information structure, 0 if the loader gave none. */
uintptr_t pv_boot_info(void);

/* ---- CPUs and the local APIC ---------------------------------------------------------------------------------- */

#ifndef PV_MAX_CPUS
#define PV_MAX_CPUS 64
#endif

/* Number of CPUs of the machine (fw_cfg), whether started or not. */
int pv_cpu_count(void);
/* This CPU, 0 = the one that booted. It is its initial APIC ID. */
int pv_cpu(void);
/* Start the other CPUs by INIT and SIPI, once; they wait for work. Returns the number of CPUs that run, this one included. */
int pv_smp_start(void);
/* Let a started CPU run work(argument); pv_wait until it has. Stacks are 16 KiB. */
void pv_on_cpu(int cpu, void (*work)(void *argument), void *argument);
void pv_wait(int cpu);
/* Run work(argument) on all started CPUs at once, this one included, and wait for all of them. */
void pv_on_all(void (*work)(void *argument), void *argument);

enum pv_apic_register {
    PV_APIC_ID = 0x20,
    PV_APIC_VERSION = 0x30,
    PV_APIC_TPR = 0x80,
    PV_APIC_EOI = 0xB0,
    PV_APIC_SPURIOUS = 0xF0,
    PV_APIC_ISR = 0x100,
    PV_APIC_IRR = 0x200,
    PV_APIC_ICR_LOW = 0x300,
    PV_APIC_ICR_HIGH = 0x310,
    PV_APIC_LVT_TIMER = 0x320,
    PV_APIC_LVT_LINT0 = 0x350,
    PV_APIC_TIMER_INITIAL = 0x380,
    PV_APIC_TIMER_CURRENT = 0x390,
    PV_APIC_TIMER_DIVIDE = 0x3E0,
};

/* By MMIO at 0xFEE00000, so not in x2APIC mode. */
static inline uint32_t pv_apic_read(uint32_t offset) { return *(volatile uint32_t *)(0xFEE00000UL + offset); }
static inline void pv_apic_write(uint32_t offset, uint32_t value) { *(volatile uint32_t *)(0xFEE00000UL + offset) = value; }
static inline void pv_apic_eoi(void) { pv_apic_write(PV_APIC_EOI, 0); }
/* Software-enable the APIC of this CPU; spurious vector 0xFF. */
void pv_apic_enable(void);
/* Send a fixed interrupt to one APIC and wait until it has been accepted. */
void pv_send_ipi(uint32_t apic_id, uint8_t vector);

/* ---- Atomics and locks ---------------------------------------------------------------------------------------- */

struct pv_spinlock {
    int taken;
};

static inline void pv_lock(struct pv_spinlock *lock)
{
    while (__atomic_exchange_n(&lock->taken, 1, __ATOMIC_ACQUIRE))
        pv_pause();
}

static inline void pv_unlock(struct pv_spinlock *lock) { __atomic_store_n(&lock->taken, 0, __ATOMIC_RELEASE); }

#endif
