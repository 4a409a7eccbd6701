/*
 * Hyper-V's interface as a guest sees it. One case per argument.
 */
#include "cases.h"

#define HV_GUEST_OS_ID 0x40000000
#define HV_HYPERCALL 0x40000001
#define HV_VP_INDEX 0x40000002
#define HV_RESET 0x40000003
#define HV_TIME_REF_COUNT 0x40000020
#define HV_REFERENCE_TSC 0x40000021
#define HV_EOI 0x40000070
#define HV_ICR 0x40000071
#define HV_TPR 0x40000072
#define HV_VP_ASSIST_PAGE 0x40000073
#define HV_STIMER0_CONFIG 0x400000B0
#define HV_STIMER0_COUNT 0x400000B1
#define HV_GUEST_IDLE 0x400000F0
#define HV_CRASH_P0 0x40000100
#define HV_CRASH_CTL 0x40000105
#define MSR_IA32_TSC 0x10

#define HVCALL_FLUSH_SPACE 0x02
#define HVCALL_FLUSH_LIST 0x03
#define HVCALL_SPIN_WAIT 0x08
#define HVCALL_IPI 0x0B
#define HVCALL_CAPABILITIES 0x8001
#define HV_FAST (1U << 16)
#define HV_REPS(count) ((uint64_t)(count) << 32)

#define VECTOR 0x41
#define TICKS_PER_MS 10000

static void *hypercall_page;
static volatile int interrupts[PV_MAX_CPUS];

static void count_interrupt(struct pv_frame *frame)
{
    (void)frame;
    interrupts[pv_cpu()]++;
    pv_apic_eoi();
}

/* The input value, two parameters; the whole result. What the call leaves in the second register pair is in hv_second. */
static uint64_t hv_call(uint64_t control, uint64_t first, uint64_t second)
{
    uint64_t result;
#ifdef __x86_64__
    register uint64_t r8 __asm__("r8") = second;

    __asm__ volatile("call *%[page]"
                     : "=a"(result), "+c"(control), "+d"(first), "+r"(r8)
                     : [page] "m"(hypercall_page)
                     : "memory", "cc", "r9", "r10", "r11");
#else
    uint32_t high = first >> 32, low = (uint32_t)first, high2 = second >> 32, low2 = (uint32_t)second;

    __asm__ volatile("call *%[page]"
                     : "=A"(result), "+b"(high), "+c"(low), "+D"(high2), "+S"(low2)
                     : "A"(control), [page] "m"(hypercall_page)
                     : "memory", "cc");
#endif
    return result;
}

static void open_hypercalls(void)
{
    if (hypercall_page)
        return;
    hypercall_page = pv_alloc_page();
    pv_wrmsr(HV_GUEST_OS_ID, 0x8100ULL << 48);
    pv_wrmsr(HV_HYPERCALL, (uintptr_t)hypercall_page | 1);
}

static void test_discovery(void)
{
    struct pv_hypervisor hv = {0};

    pv_find_hypervisor("Microsoft Hv", &hv);
    pv_check(hv.base == 0x40000000, "signature at %x", hv.base);
    pv_check(pv_cpuid(0x40000001, 0).eax == 0x31237648, "Hv#1");
    pv_check(pv_rdmsr(HV_VP_INDEX) == (uint64_t)pv_cpu(), "VP index");
}

/* What the page hides comes back when the guest gives it up. */
static void test_page(void)
{
    uint32_t *page;

    open_hypercalls();
    page = hypercall_page;
    pv_check(pv_rdmsr(HV_HYPERCALL) == ((uintptr_t)page | 1), "the page is where it was asked for");
    pv_check(*page != 0 && (uint32_t)hv_call(HVCALL_SPIN_WAIT | HV_FAST, 1, 0) == 0, "a call through the page");
    pv_check((uint32_t)hv_call(0x7777, 0, 0) == 2, "a call that does not exist");
    pv_wrmsr(HV_GUEST_OS_ID, 0);
    pv_check(*page == 0 && pv_rdmsr(HV_HYPERCALL) == (uintptr_t)page, "the page goes with the guest's id");
    pv_wrmsr(HV_GUEST_OS_ID, 1);
    pv_wrmsr(HV_HYPERCALL, (uintptr_t)page | 1);
    pv_check((uint32_t)hv_call(HVCALL_SPIN_WAIT | HV_FAST, 1, 0) == 0, "and comes back");
}

static long call_from_user(long argument)
{
    (void)argument;
    return (long)hv_call(HVCALL_SPIN_WAIT | HV_FAST, 1, 0);
}

static void test_user(void)
{
    open_hypercalls();
    pv_check(pv_user(call_from_user, 0, 0) == PV_UD, "a call from CPL 3 is undefined");
}

static void take_interrupts(void *argument)
{
    (void)argument;
    pv_apic_enable();
    pv_sti();
    for (int i = 0; i < 100000 && !interrupts[pv_cpu()]; i++)
        pv_pause();
    pv_cli();
}

/* Interrupts to several CPUs by one call, its parameters in registers or in memory. */
static void test_ipi(void)
{
    static uint64_t block[2] __attribute__((aligned(16)));
    int cpus = pv_smp_start();

    open_hypercalls();
    pv_set_handler(VECTOR, count_interrupt);
    for (int is_fast = 0; is_fast < 2; is_fast++) {
        uint64_t mask = (1ULL << cpus) - 2, result;

        for (int cpu = 1; cpu < cpus; cpu++) {
            interrupts[cpu] = 0;
            pv_on_cpu(cpu, take_interrupts, 0);
        }
        for (volatile int i = 0; i < 20000; i++)
            ;
        block[0] = VECTOR;
        block[1] = mask;
        result = is_fast ? hv_call(HVCALL_IPI | HV_FAST, VECTOR, mask) : hv_call(HVCALL_IPI, (uintptr_t)block, 1);
        for (int cpu = 1; cpu < cpus; cpu++) {
            pv_wait(cpu);
            pv_check(result == 0 && interrupts[cpu] == 1, "%s IPI: cpu %d got %d", is_fast ? "fast" : "slow", cpu,
                     interrupts[cpu]);
        }
    }
    pv_check((uint32_t)hv_call(HVCALL_IPI, (uintptr_t)block + 4, 0) == 4, "misaligned parameters");
    pv_check((uint32_t)hv_call(HVCALL_IPI | HV_FAST, 15, 1) == 3, "a vector that is none");
}

/* A page-table entry is changed behind the TLB's back; only the flush makes the change seen for certain. */
static volatile uint32_t *remap(void *window, uint64_t to)
{
    uint64_t *entry = pv_pte((uintptr_t)window);

    *entry = to | PV_DEFAULT;
    return window;
}

static void test_flush(void)
{
    struct {
        uint64_t space, flags, mask, list[3];
    } *block = pv_alloc_page();
    uint32_t *a = pv_alloc_page(), *b = pv_alloc_page();
    char *window = pv_alloc_page();
    volatile uint32_t *seen;
    uint64_t result;

    open_hypercalls();
    *a = 'a';
    *b = 'b';
    pv_map((uintptr_t)window, (uintptr_t)a, PV_DEFAULT);
    pv_check(*(volatile uint32_t *)window == 'a', "the window shows the first page");
    seen = remap(window, (uintptr_t)b);
    block->space = pv_read_cr3();
    block->mask = 1ULL << pv_cpu();
    block->list[0] = block->list[1] = 0;
    block->list[2] = (uintptr_t)window;
    result = hv_call(HVCALL_FLUSH_LIST | HV_REPS(3) | 2ULL << 48, (uintptr_t)block, 0);
    pv_check(result == HV_REPS(3) && *seen == 'b', "list flush: result %llx", (unsigned long long)result);
    seen = remap(window, (uintptr_t)a);
    block->flags = 1;
    block->mask = 0;
    result = hv_call(HVCALL_FLUSH_SPACE, (uintptr_t)block, 0);
    pv_check(result == 0 && *seen == 'a', "flush on all CPUs");

    /* The third parameter, the mask, is in XMM0. */
    pv_write_cr4(pv_read_cr4() | 1 << 9);
    block->mask = 1ULL << pv_cpu();
    __asm__ volatile("movq %0, %%xmm0" : : "m"(block->mask));
    seen = remap(window, (uintptr_t)b);
    result = hv_call(HVCALL_FLUSH_SPACE | HV_FAST, pv_read_cr3(), 0);
    pv_check(result == 0 && *seen == 'b', "fast flush with XMM input");
    pv_check((uint32_t)hv_call(HVCALL_FLUSH_LIST | HV_FAST | HV_REPS(12), 0, 0) == 3, "more than registers can hold");
}

static void test_output(void)
{
    static uint64_t out[2] __attribute__((aligned(16))) = {~0ULL, ~0ULL};
    uint64_t result;

    open_hypercalls();
    result = hv_call(HVCALL_CAPABILITIES, 3, (uintptr_t)out);
    pv_check(result == 0 && out[0] == 0 && out[1] == ~0ULL, "output in memory");
    pv_check((uint32_t)hv_call(HVCALL_CAPABILITIES, 0, (uintptr_t)out + 4) == 4, "misaligned output");
#ifdef __x86_64__
    register uint64_t r8 __asm__("r8") = 77;
    uint64_t rcx = HVCALL_CAPABILITIES | HV_FAST, rdx = 5;

    __asm__ volatile("call *%[page]"
                     : "=a"(result), "+c"(rcx), "+d"(rdx), "+r"(r8)
                     : [page] "m"(hypercall_page)
                     : "memory");
    pv_check(result == 0 && rdx == 0 && r8 == 77, "output in registers");
#else
    pv_check((uint32_t)hv_call(HVCALL_CAPABILITIES | HV_FAST, 0, 0) == 3, "no output in registers outside 64-bit code");
#endif
}

/* The page gives the time that the MSR gives, also after the guest has set its TSC. */
static uint64_t page_time(const volatile uint64_t *page)
{
    uint64_t tsc = pv_rdtsc(), scale = page[1];
    uint64_t low = (tsc & 0xFFFFFFFF) * (scale & 0xFFFFFFFF), middle = (tsc >> 32) * (scale & 0xFFFFFFFF);
    uint64_t middle2 = (tsc & 0xFFFFFFFF) * (scale >> 32), high = (tsc >> 32) * (scale >> 32);
    uint64_t carry = (low >> 32) + (middle & 0xFFFFFFFF) + (middle2 & 0xFFFFFFFF);

    return high + (middle >> 32) + (middle2 >> 32) + (carry >> 32) + page[2];
}

static void test_time(void)
{
    volatile uint64_t *page = pv_alloc_page();
    uint32_t sequence;
    uint64_t before;

    pv_wrmsr(HV_REFERENCE_TSC, (uintptr_t)page | 1);
    for (int round = 0; round < 2; round++) {
        bool is_steady = true;

        for (int i = 0; i < 1000; i++) {
            uint64_t first = page_time(page), second = pv_rdmsr(HV_TIME_REF_COUNT), third = page_time(page);

            is_steady &= first <= second && second <= third;
        }
        pv_check(is_steady, "page and MSR agree, round %d", round);
        sequence = (uint32_t)page[0];
        before = page_time(page);
        pv_wrmsr(MSR_IA32_TSC, pv_rdtsc() + 1000000000);
        pv_check((uint32_t)page[0] == sequence + 1 && page_time(page) - before < 1000, "time after the TSC was set");
    }
    pv_wrmsr(HV_REFERENCE_TSC, 0);
}

/* The local APIC by MSRs, with ends of interrupts spared by the assist page. */
static volatile uint32_t *assist;
static volatile int spared, written;

static void end_by_assist(struct pv_frame *frame)
{
    (void)frame;
    if (__atomic_fetch_and(assist, ~1U, __ATOMIC_SEQ_CST) & 1) {
        spared++;
    } else {
        written++;
        pv_wrmsr(HV_EOI, 0);
    }
}

static void test_apic(void)
{
    pv_apic_enable();
    assist = pv_alloc_page();
    pv_wrmsr(HV_VP_ASSIST_PAGE, (uintptr_t)assist | 1);
    pv_set_handler(VECTOR, end_by_assist);
    pv_sti();
    for (int i = 0; i < 10; i++)
        pv_wrmsr(HV_ICR, 0x40000 | VECTOR);
    pv_cli();
    pv_check(spared + written == 10 && spared > 0, "%d ends spared, %d written", spared, written);
    pv_wrmsr(HV_TPR, 0x50);
    pv_check(pv_rdmsr(HV_TPR) == 0x50 && pv_apic_read(PV_APIC_TPR) == 0x50, "task priority");
    pv_wrmsr(HV_TPR, 0);
    pv_wrmsr(HV_VP_ASSIST_PAGE, 0);
}

/* A timer that interrupts by itself, and a sleep that it ends although interrupts are off. */
static void test_timer(void)
{
    uint64_t start;

    pv_apic_enable();
    pv_set_handler(VECTOR, count_interrupt);
    interrupts[pv_cpu()] = 0;
    start = pv_rdmsr(HV_TIME_REF_COUNT);
    pv_wrmsr(HV_STIMER0_CONFIG, 1 << 12 | VECTOR << 4 | 1 << 3);
    pv_wrmsr(HV_STIMER0_COUNT, start + TICKS_PER_MS);
    (void)pv_rdmsr(HV_GUEST_IDLE);
    pv_check(interrupts[pv_cpu()] == 0, "the interrupt is not taken");
    pv_check(pv_rdmsr(HV_TIME_REF_COUNT) - start - TICKS_PER_MS < 1000, "but ends the sleep");
    pv_check((pv_rdmsr(HV_STIMER0_CONFIG) & 1) == 0, "a one-shot timer is over");
    pv_sti();
    pv_wrmsr(HV_STIMER0_CONFIG, 1 << 12 | VECTOR << 4 | 1 << 1 | 1);
    pv_wrmsr(HV_STIMER0_COUNT, TICKS_PER_MS);
    pv_wrmsr(HV_STIMER0_CONFIG, 1 << 12 | VECTOR << 4 | 1 << 1 | 1);
    start = pv_rdmsr(HV_TIME_REF_COUNT);
    while (pv_rdmsr(HV_TIME_REF_COUNT) - start < 10 * TICKS_PER_MS + 100)
        pv_pause();
    pv_cli();
    pv_wrmsr(HV_STIMER0_CONFIG, 0);
    pv_check(interrupts[pv_cpu()] == 11, "a periodic timer: %d interrupts in all", interrupts[pv_cpu()]);
}

static void test_crash(void)
{
    static const char text[] = "out of ideas\n";

    for (int i = 0; i < 3; i++)
        pv_wrmsr(HV_CRASH_P0 + i, 0x10 + i);
    pv_wrmsr(HV_CRASH_P0 + 3, (uintptr_t)text);
    pv_wrmsr(HV_CRASH_P0 + 4, sizeof(text));
    pv_wrmsr(HV_CRASH_CTL, 3ULL << 62);
}

static void test_reset(void)
{
    pv_wrmsr(HV_RESET, 1);
    for (;;)
        pv_pause();
}

/* KVM's calls beside this interface's: by the bare instruction, before this one is opened. */
static void test_beside_kvm(void)
{
    struct pv_hypervisor kvm = {0};

    pv_find_hypervisor("KVMKVMKVM", &kvm);
    pv_check(kvm.base == 0x40000100, "KVM at %x", kvm.base);
    pv_check(pv_hypercall0(1) == 0 && pv_hypercall0(0x7777) == -1000, "KVM answers");
    open_hypercalls();
    pv_check((uint32_t)hv_call(HVCALL_SPIN_WAIT | HV_FAST, 1, 0) == 0, "Hyper-V answers");
    pv_check(pv_hypercall0(0x7777) == -1000, "KVM still answers what does not come from the page");
}

static const struct test_case cases[] = {
    {"discovery", test_discovery}, {"page", test_page}, {"user", test_user},   {"ipi", test_ipi},
    {"flush", test_flush},         {"output", test_output}, {"time", test_time}, {"apic", test_apic},
    {"timer", test_timer},         {"crash", test_crash}, {"reset", test_reset}, {"beside-kvm", test_beside_kvm},
};

int main(int argc, char **argv)
{
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
