/* SPDX-License-Identifier: Apache-2.0 OR MIT
 *
 * What paravirt.h declares and start.S does not hold: console, exceptions, paging, other CPUs.
 */
#include "paravirt.h"
#include "internal.h"

#define PORT_SERIAL 0x3F8
#define SERIAL_LINE_STATUS (PORT_SERIAL + 5)
#define SERIAL_TRANSMITTER_EMPTY 0x20
#define PORT_DEBUG_EXIT 0xF4
#define PORT_PIC_MASTER_MASK 0x21
#define PORT_PIC_SLAVE_MASK 0xA1
#define PORT_FW_CFG_SELECT 0x510
#define PORT_FW_CFG_DATA 0x511
#define FW_CFG_CPUS 5

#define STATUS_UNEXPECTED_EXCEPTION 127

#define PAGE_SIZE 4096UL
#define PAGE_LARGE 0x80ULL
#define PAGE_ADDRESS 0x000FFFFFFFFFF000ULL
#define POOL_PAGES 256
#define MAX_ARGUMENTS 32
#define IST_DOUBLE_FAULT 1

struct descriptor {
    uint32_t low, high;
};

#ifdef __x86_64__
struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3], reserved1, ist[7], reserved2;
    uint16_t reserved3, io_map;
} __attribute__((packed));
#else
struct gate {
    uint16_t offset_low, selector;
    uint8_t zero, type;
    uint16_t offset_high;
};

struct tss {
    uint32_t link, esp0, ss0, unused[22];
    uint16_t trap, io_map;
};
#endif

struct cpu {
    struct pv_jump *catcher;
    struct pv_fault fault;
    void (*work)(void *argument);
    void *argument;
    bool started;
    struct tss tss;
    /* For interrupts from CPL 3, for double faults, and for CPL 3 itself. */
    uint8_t interrupt_stack[PAGE_SIZE * 2] __attribute__((aligned(16)));
    uint8_t emergency_stack[PAGE_SIZE] __attribute__((aligned(16)));
    uint8_t user_stack[PAGE_SIZE * 2] __attribute__((aligned(16)));
};

extern struct descriptor pv_gdt[];
extern uint8_t pv_interrupt_stubs[256][16];
extern uint8_t pv_trampoline[], pv_trampoline_end[];
extern uint64_t pv_page_map[512];
extern uint32_t pv_boot_info_address;

void pv_main(int cpu) __attribute__((noreturn));
void pv_interrupt(struct pv_frame *frame);
void pv_enter_user(long (*body)(long), long argument, void *stack_top) __attribute__((noreturn));
int main(int argc, char **argv);

static struct cpu cpus[PV_MAX_CPUS];
static struct gate idt[256] __attribute__((aligned(16)));
static void (*handlers[256])(struct pv_frame *frame);
static struct pv_spinlock console_lock;
static int failures;

/* ---- Strings: the compiler calls the first four by itself ------------------------------------------------------ */

void *memcpy(void *to, const void *from, size_t length)
{
    void *result = to;

    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
    return result;
}

void *memmove(void *to, const void *from, size_t length)
{
    if ((uintptr_t)to - (uintptr_t)from >= length)
        return memcpy(to, from, length);
    for (size_t i = length; i-- > 0;)
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}

void *memset(void *to, int byte, size_t length)
{
    void *result = to;

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(byte) : "memory");
    return result;
}

int memcmp(const void *a, const void *b, size_t length)
{
    const uint8_t *p = a, *q = b;

    for (size_t i = 0; i < length; i++)
        if (p[i] != q[i])
            return p[i] - q[i];
    return 0;
}

size_t strlen(const char *string)
{
    size_t length = 0;

    while (((volatile const char *)string)[length])
        length++;
    return length;
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return (uint8_t)*a - (uint8_t)*b;
}

/* ---- Console ---------------------------------------------------------------------------------------------------- */

void pv_putchar(char character)
{
    while (!(pv_inb(SERIAL_LINE_STATUS) & SERIAL_TRANSMITTER_EMPTY))
        pv_pause();
    pv_outb(PORT_SERIAL, (uint8_t)character);
}

/* value /= base, and the remainder; by 16 bits at a time, as 32-bit code has no 64-bit division without libgcc. */
static unsigned divide(uint64_t *value, unsigned base)
{
    uint64_t quotient = 0;
    uint32_t remainder = 0;

    for (int shift = 48; shift >= 0; shift -= 16) {
        remainder = remainder << 16 | (uint16_t)(*value >> shift);
        quotient |= (uint64_t)(remainder / base) << shift;
        remainder %= base;
    }
    *value = quotient;
    return remainder;
}

struct conversion {
    int width;
    bool left, zeros;
    int longs;
};

static void print_padded(const char *text, int length, const struct conversion *how)
{
    int padding = how->width > length ? how->width - length : 0;

    for (; padding > 0 && !how->left; padding--)
        pv_putchar(how->zeros ? '0' : ' ');
    for (int i = 0; i < length; i++)
        pv_putchar(text[i]);
    for (; padding > 0; padding--)
        pv_putchar(' ');
}

static void print_number(uint64_t value, unsigned base, bool negative, struct conversion how)
{
    char digits[24];
    int first = sizeof(digits);

    if (negative)
        value = -value;
    do
        digits[--first] = "0123456789abcdef"[divide(&value, base)];
    while (value);
    if (negative && how.zeros) {
        pv_putchar('-');
        how.width--;
    } else if (negative) {
        digits[--first] = '-';
    }
    print_padded(digits + first, (int)sizeof(digits) - first, &how);
}

static const char *parse_conversion(const char *format, struct conversion *how)
{
    for (;; format++) {
        if (*format == '-')
            how->left = true;
        else if (*format == '0')
            how->zeros = true;
        else
            break;
    }
    for (; *format >= '0' && *format <= '9'; format++)
        how->width = how->width * 10 + *format - '0';
    for (; *format == 'l' || *format == 'z'; format++)
        how->longs++;
    how->zeros = how->zeros && !how->left;
    return format;
}

void pv_vprintf(const char *format, va_list arguments)
{
    pv_lock(&console_lock);
    for (; *format; format++) {
        struct conversion how = {0, false, false, 0};
        const char *string;
        int64_t number;
        uint64_t natural;
        char character;

        if (*format != '%') {
            pv_putchar(*format);
            continue;
        }
        format = parse_conversion(format + 1, &how);
        switch (*format) {
        case 'd':
            number = how.longs > 1 ? va_arg(arguments, long long) : how.longs ? va_arg(arguments, long) : va_arg(arguments, int);
            print_number((uint64_t)number, 10, number < 0, how);
            break;
        case 'u':
        case 'x':
            natural = how.longs > 1 ? va_arg(arguments, unsigned long long)
                      : how.longs   ? va_arg(arguments, unsigned long)
                                    : va_arg(arguments, unsigned);
            print_number(natural, *format == 'u' ? 10 : 16, false, how);
            break;
        case 'p':
            pv_putchar('0');
            pv_putchar('x');
            print_number((uintptr_t)va_arg(arguments, void *), 16, false, how);
            break;
        case 's':
            string = va_arg(arguments, const char *);
            string = string ? string : "(null)";
            print_padded(string, (int)strlen(string), &how);
            break;
        case 'c':
            character = (char)va_arg(arguments, int);
            print_padded(&character, 1, &how);
            break;
        case '\0':
            format--;
            break;
        default:
            pv_putchar(*format);
        }
    }
    pv_unlock(&console_lock);
}

void pv_printf(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    pv_vprintf(format, arguments);
    va_end(arguments);
}

void pv_exit(uint32_t status)
{
    pv_outl(PORT_DEBUG_EXIT, status);
    for (;;)
        __asm__ volatile("cli; hlt");
}

bool pv_check(bool condition, const char *format, ...)
{
    va_list arguments;

    /* One lock for the line is not needed: checks are made by one CPU at a time. */
    pv_printf(condition ? "PASS " : "FAIL ");
    va_start(arguments, format);
    pv_vprintf(format, arguments);
    va_end(arguments);
    pv_putchar('\n');
    failures += !condition;
    return condition;
}

void pv_skip(const char *why)
{
    pv_printf("SKIP %s\n", why);
}

int pv_failures(void)
{
    return failures;
}

/* ---- The hypervisor --------------------------------------------------------------------------------------------- */

bool pv_find_hypervisor(const char *signature, struct pv_hypervisor *found)
{
    char wanted[12] = {0};

    if (!(pv_cpuid(1, 0).ecx & 1U << 31))
        return false;
    if (signature)
        memcpy(wanted, signature, strlen(signature) < 12 ? strlen(signature) : 12);
    for (uint32_t base = 0x40000000; base < 0x40010000; base += 0x100) {
        struct pv_cpuid leaf = pv_cpuid(base, 0);

        /* KVM's first hosts left the highest leaf 0; what is no leaf at all reads the same or as Intel's last one. */
        if (leaf.eax && (leaf.eax < base || leaf.eax >= base + 0x100))
            continue;
        if (signature ? memcmp(&leaf.ebx, wanted, 12) : !leaf.ebx)
            continue;
        found->base = base;
        found->max_leaf = leaf.eax ? leaf.eax : base + 1;
        memcpy(found->signature, &leaf.ebx, 12);
        found->signature[12] = 0;
        return true;
    }
    return false;
}

bool pv_vendor_is(const char *vendor)
{
    struct pv_cpuid leaf = pv_cpuid(0, 0);
    uint32_t name[3] = {leaf.ebx, leaf.edx, leaf.ecx};

    return memcmp(name, vendor, sizeof(name)) == 0;
}

/* ---- Exceptions ------------------------------------------------------------------------------------------------- */

/* By the task register: it needs no memory, no APIC, and guests may use the segment bases as they like. */
static struct cpu *this_cpu(void)
{
    unsigned long selector = 0;

    __asm__("str %w0" : "+r"(selector));
    return &cpus[(selector - PV_TSS) / 16];
}

static void report_exception(const struct pv_frame *frame)
{
    console_lock.taken = 0; /* it may be the console that failed */
    pv_printf("paravirt guest: unexpected %s %lu, error code %lx, ip %lx, cs %lx, flags %lx, cr2 %lx, cpu %d\n",
              frame->vector < 32 ? "exception" : "interrupt", (unsigned long)frame->vector,
              (unsigned long)frame->error_code, (unsigned long)frame->ip, (unsigned long)frame->cs,
              (unsigned long)frame->flags, pv_read_cr2(), pv_cpu());
    pv_exit(STATUS_UNEXPECTED_EXCEPTION);
}

static bool from_user(const struct pv_frame *frame)
{
    return frame->cs & 3;
}

static unsigned long frame_sp(const struct pv_frame *frame)
{
#ifndef __x86_64__
    if (!from_user(frame))
        return (unsigned long)&frame->sp;
#endif
    return frame->sp;
}

static void record_fault(struct cpu *cpu, const struct pv_frame *frame)
{
    cpu->fault = (struct pv_fault){
        .vector = (int)frame->vector,
        .error_code = frame->error_code,
        .ip = frame->ip,
        .cs = frame->cs,
        .sp = frame_sp(frame),
        .flags = frame->flags,
        .ax = frame->ax,
        .cr2 = pv_read_cr2(),
    };
}

void pv_interrupt(struct pv_frame *frame)
{
    struct cpu *cpu = this_cpu();
    struct pv_jump *catcher = cpu->catcher;
    bool user_return = frame->vector == PV_USER_RETURN_VECTOR && from_user(frame);

    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
    } else if (catcher && (frame->vector < 32 || user_return)) {
        record_fault(cpu, frame);
        cpu->catcher = catcher->outer;
        pv_longjmp(catcher, (int)frame->vector + 1);
    } else {
        report_exception(frame);
    }
}

void pv_set_handler(int vector, void (*handler)(struct pv_frame *frame))
{
    handlers[vector & 0xFF] = handler;
}

void pv_push_catcher(struct pv_jump *jump)
{
    struct cpu *cpu = this_cpu();

    jump->outer = cpu->catcher;
    cpu->catcher = jump;
}

void pv_pop_catcher(void)
{
    struct cpu *cpu = this_cpu();

    cpu->catcher = cpu->catcher->outer;
}

const struct pv_fault *pv_fault(void)
{
    return &this_cpu()->fault;
}

bool pv_rdmsr_safe(uint32_t msr, uint64_t *value)
{
    return pv_catch(*value = pv_rdmsr(msr)) == PV_NONE;
}

bool pv_wrmsr_safe(uint32_t msr, uint64_t value)
{
    return pv_catch(pv_wrmsr(msr, value)) == PV_NONE;
}

int pv_user(long (*body)(long), long argument, long *result)
{
    struct cpu *cpu = this_cpu();
    int vector = pv_catch(pv_enter_user(body, argument, cpu->user_stack + sizeof(cpu->user_stack)));

    if (vector != PV_USER_RETURN_VECTOR)
        return vector;
    *result = (long)cpu->fault.ax;
    return PV_NONE;
}

/* ---- Tables of a CPU -------------------------------------------------------------------------------------------- */

static void set_gate(int vector)
{
    uintptr_t stub = (uintptr_t)pv_interrupt_stubs[vector];
    /* INT3, INTO and the return of pv_user may be executed at CPL 3. */
    uint8_t dpl = vector == PV_BP || vector == PV_OF || vector == PV_USER_RETURN_VECTOR ? 0x60 : 0;

    idt[vector] = (struct gate){
        .offset_low = (uint16_t)stub,
        .selector = PV_CS,
        .type = 0x8E | dpl,
#ifdef __x86_64__
        .ist = vector == PV_DF ? IST_DOUBLE_FAULT : 0,
        .offset_middle = (uint16_t)(stub >> 16),
        .offset_high = (uint32_t)((uint64_t)stub >> 32),
#else
        .offset_high = (uint16_t)(stub >> 16),
#endif
    };
}

static void load_tables(int number)
{
    struct cpu *cpu = &cpus[number];
    struct descriptor *descriptor = &pv_gdt[PV_TSS / 8 + number * 2];
    uintptr_t base = (uintptr_t)&cpu->tss;
    uint16_t selector = (uint16_t)(PV_TSS + number * 16);
    struct {
        uint16_t limit;
        uintptr_t base;
    } __attribute__((packed)) idtr = {sizeof(idt) - 1, (uintptr_t)idt};

    cpu->tss.io_map = sizeof(cpu->tss);
#ifdef __x86_64__
    cpu->tss.rsp[0] = (uintptr_t)cpu->interrupt_stack + sizeof(cpu->interrupt_stack);
    cpu->tss.ist[IST_DOUBLE_FAULT - 1] = (uintptr_t)cpu->emergency_stack + sizeof(cpu->emergency_stack);
    descriptor[1] = (struct descriptor){(uint32_t)((uint64_t)base >> 32), 0};
#else
    cpu->tss.esp0 = (uintptr_t)cpu->interrupt_stack + sizeof(cpu->interrupt_stack);
    cpu->tss.ss0 = PV_DS;
#endif
    descriptor[0].low = (uint32_t)(base << 16) | (sizeof(cpu->tss) - 1);
    descriptor[0].high = (base & 0xFF000000) | 0x8900 | ((base >> 16) & 0xFF);
    __asm__ volatile("lidt %0" : : "m"(idtr));
    __asm__ volatile("ltr %0" : : "r"(selector) : "memory");
}

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

static uint8_t pool[POOL_PAGES][PAGE_SIZE] __attribute__((aligned(4096)));
static int pool_used;

void *pv_alloc_page(void)
{
    int page = __atomic_fetch_add(&pool_used, 1, __ATOMIC_RELAXED);

    if (page >= POOL_PAGES) {
        pv_printf("paravirt guest: all %d pages of the pool are in use\n", POOL_PAGES);
        pv_exit(STATUS_UNEXPECTED_EXCEPTION);
    }
    return pool[page];
}

/* The table that an entry points to; one is made if there is none, or from a 2-MiB page. */
static uint64_t *next_table(uint64_t *entry)
{
    uint64_t *table;

    if ((*entry & PV_PRESENT) && !(*entry & PAGE_LARGE))
        return (uint64_t *)(uintptr_t)(*entry & PAGE_ADDRESS);
    table = pv_alloc_page();
    if (*entry & PV_PRESENT)
        for (int i = 0; i < 512; i++)
            table[i] = (*entry & ~PAGE_LARGE) + (uint64_t)i * PAGE_SIZE;
    *entry = (uintptr_t)table | PV_DEFAULT;
    return table;
}

uint64_t *pv_pte(uintptr_t address)
{
    uint64_t *table = pv_page_map;

#ifdef __x86_64__
    table = next_table(&table[address >> 39 & 511]);
    table = next_table(&table[address >> 30 & 511]);
#else
    table = next_table(&table[address >> 30]);
#endif
    table = next_table(&table[address >> 21 & 511]);
    return &table[address >> 12 & 511];
}

void pv_map(uintptr_t address, uint64_t physical, uint64_t flags)
{
    *(volatile uint64_t *)pv_pte(address) = (physical & PAGE_ADDRESS) | flags;
    pv_invlpg((void *)address);
}

uintptr_t pv_boot_info(void)
{
    return pv_boot_info_address;
}

/* ---- Other CPUs ------------------------------------------------------------------------------------------------- */

int pv_cpu_count(void)
{
    unsigned low;

    pv_outw(PORT_FW_CFG_SELECT, FW_CFG_CPUS);
    low = pv_inb(PORT_FW_CFG_DATA);
    return (int)(low | (unsigned)pv_inb(PORT_FW_CFG_DATA) << 8);
}

int pv_cpu(void)
{
    return (int)(this_cpu() - cpus);
}

void pv_apic_enable(void)
{
    pv_apic_write(PV_APIC_SPURIOUS, 0x1FF);
}

static void send_icr(uint32_t destination, uint32_t command)
{
    pv_apic_write(PV_APIC_ICR_HIGH, destination << 24);
    pv_apic_write(PV_APIC_ICR_LOW, command);
    while (pv_apic_read(PV_APIC_ICR_LOW) & 1 << 12)
        pv_pause();
}

void pv_send_ipi(uint32_t apic_id, uint8_t vector)
{
    send_icr(apic_id, 0x4000 | vector);
}

static int count_started(void)
{
    int count = 0;

    for (int i = 0; i < PV_MAX_CPUS; i++)
        count += __atomic_load_n(&cpus[i].started, __ATOMIC_ACQUIRE);
    return count;
}

int pv_smp_start(void)
{
    int wanted = pv_cpu_count();

    if (wanted > PV_MAX_CPUS) {
        pv_printf("paravirt guest: %d CPUs, but PV_MAX_CPUS is %d\n", wanted, PV_MAX_CPUS);
        pv_exit(STATUS_UNEXPECTED_EXCEPTION);
    }
    if (count_started() == wanted)
        return wanted;
    memcpy((void *)PV_TRAMPOLINE, pv_trampoline, (size_t)(pv_trampoline_end - pv_trampoline));
    pv_apic_enable();
    send_icr(0, 0x000C4500);                          /* INIT to all but this one */
    send_icr(0, 0x000C4600 | PV_TRAMPOLINE / PAGE_SIZE); /* start-up IPI */
    while (count_started() < wanted)
        pv_pause();
    return wanted;
}

void pv_on_cpu(int cpu, void (*work)(void *argument), void *argument)
{
    pv_wait(cpu);
    cpus[cpu].argument = argument;
    __atomic_store_n(&cpus[cpu].work, work, __ATOMIC_RELEASE);
}

void pv_wait(int cpu)
{
    while (__atomic_load_n(&cpus[cpu].work, __ATOMIC_ACQUIRE))
        pv_pause();
}

void pv_on_all(void (*work)(void *argument), void *argument)
{
    for (int i = 0; i < PV_MAX_CPUS; i++)
        if (cpus[i].started && i != pv_cpu())
            pv_on_cpu(i, work, argument);
    work(argument);
    for (int i = 0; i < PV_MAX_CPUS; i++)
        if (cpus[i].started && i != pv_cpu())
            pv_wait(i);
}

static void serve(struct cpu *cpu)
{
    for (;;) {
        void (*work)(void *) = __atomic_load_n(&cpu->work, __ATOMIC_ACQUIRE);

        if (!work) {
            pv_pause();
            continue;
        }
        work(cpu->argument);
        __atomic_store_n(&cpu->work, NULL, __ATOMIC_RELEASE);
    }
}

/* ---- Start ------------------------------------------------------------------------------------------------------ */

/* Cut the multiboot command line (offset 16, valid with flag 2) at blanks. */
static int split_command_line(char **argv)
{
    const uint32_t *info = (const uint32_t *)pv_boot_info();
    int argc = 0;

    if (!info || !(info[0] & 4))
        return 0;
    for (char *p = (char *)(uintptr_t)info[4]; *p && argc < MAX_ARGUMENTS;) {
        if (*p == ' ') {
            *p++ = 0;
            continue;
        }
        argv[argc++] = p;
        while (*p && *p != ' ')
            p++;
    }
    return argc;
}

static void boot(void)
{
    char *argv[MAX_ARGUMENTS + 1] = {0};
    int argc;

    for (int vector = 0; vector < 256; vector++)
        set_gate(vector);
    load_tables(0);
    cpus[0].started = true;
    pv_outb(PORT_PIC_MASTER_MASK, 0xFF);
    pv_outb(PORT_PIC_SLAVE_MASK, 0xFF);
    argc = split_command_line(argv);
    pv_exit((uint32_t)main(argc, argv));
}

void pv_main(int number)
{
    if (number == 0)
        boot();
    load_tables(number);
    pv_apic_enable();
    __atomic_store_n(&cpus[number].started, true, __ATOMIC_RELEASE);
    serve(&cpus[number]);
    __builtin_unreachable();
}
