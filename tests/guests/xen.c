/*
 * Xen's interface as a guest sees it. One case per argument.
 */
#include "cases.h"

#define PAGE 4096
#define DOMID_SELF 0x7FF0

enum { MEMORY_OP = 12, SET_TIMER_OP = 15, XEN_VERSION = 17, VCPU_OP = 24, SCHED_OP = 29, EVENT_CHANNEL_OP = 32, HVM_OP = 34 };
enum { EVTCHN_BIND_VIRQ = 1, EVTCHN_SEND = 4, EVTCHN_BIND_IPI = 7, EVTCHN_UNMASK = 9 };
enum { SCHED_BLOCK = 1, SCHED_SHUTDOWN = 2, SCHED_POLL = 3 };
enum { VCPU_UP = 1, VCPU_DOWN = 2, VCPU_IS_UP = 3 };
#define HVMOP_SET_PARAM 0
#define HVMOP_SET_UPCALL_VECTOR 23
#define HVM_PARAM_CALLBACK_IRQ 0
#define CALLBACK_VECTOR (2ULL << 56)
#define XENMEM_ADD_TO_PHYSMAP 7
#define VIRQ_TIMER 0
#define EPERM 1
#define ENOSYS 38

#define CALLBACK 0x51
#define OWN_VECTOR 0x52

#define SHARED_INFO_PENDING 2048
#ifdef __x86_64__
#define SHARED_INFO_MASK 2560
#else
#define SHARED_INFO_MASK 2176
#endif

static char hypercall_page[PAGE] __attribute__((aligned(PAGE)));
static char shared_info[PAGE] __attribute__((aligned(PAGE)));
static volatile int upcalls[PV_MAX_CPUS];

/* By the slot of the page, as all guests do. */
static long xen_call(unsigned number, unsigned long a, unsigned long b, unsigned long c)
{
    long result;
    void *slot = hypercall_page + 32 * number;
#ifdef __x86_64__
    __asm__ volatile("call *%[slot]" : "=a"(result), "+D"(a), "+S"(b), "+d"(c) : [slot] "r"(slot) : "memory", "cc");
#else
    __asm__ volatile("call *%[slot]" : "=a"(result), "+b"(a), "+c"(b), "+d"(c) : [slot] "r"(slot) : "memory", "cc");
#endif
    return result;
}

static uint32_t find_xen(void)
{
    struct pv_hypervisor xen = {0};

    pv_find_hypervisor("XenVMMXenVMM", &xen);
    pv_check(xen.base && xen.max_leaf - xen.base >= 2, "Xen at %x", xen.base);
    return xen.base;
}

static void open_hypercalls(void)
{
    uint32_t base = find_xen();

    pv_wrmsr(pv_cpuid(base + 2, 0).ebx, (uintptr_t)hypercall_page);
}

static long xen_memory_add_shared_info(void)
{
    struct {
        uint16_t domid, size;
        uint32_t space;
        unsigned long idx, gpfn;
    } argument = {DOMID_SELF, 0, 0, 0, (uintptr_t)shared_info / PAGE};

    return xen_call(MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, (uintptr_t)&argument, 0);
}

static long set_callback(uint64_t value)
{
    struct {
        uint16_t domid, pad;
        uint32_t index;
        uint64_t value;
    } __attribute__((packed)) argument = {DOMID_SELF, 0, HVM_PARAM_CALLBACK_IRQ, value};

    return xen_call(HVM_OP, HVMOP_SET_PARAM, (uintptr_t)&argument, 0);
}

static uint32_t bind_ipi(uint32_t vcpu)
{
    struct {
        uint32_t vcpu, port;
    } argument = {vcpu, 0};

    pv_check(xen_call(EVENT_CHANNEL_OP, EVTCHN_BIND_IPI, (uintptr_t)&argument, 0) == 0, "bind_ipi");
    return argument.port;
}

static uint32_t bind_timer(uint32_t vcpu)
{
    struct {
        uint32_t virq, vcpu, port;
    } argument = {VIRQ_TIMER, vcpu, 0};

    pv_check(xen_call(EVENT_CHANNEL_OP, EVTCHN_BIND_VIRQ, (uintptr_t)&argument, 0) == 0, "bind_virq");
    return argument.port;
}

static long send(uint32_t port) { return xen_call(EVENT_CHANNEL_OP, EVTCHN_SEND, (uintptr_t)&port, 0); }
static long unmask(uint32_t port) { return xen_call(EVENT_CHANNEL_OP, EVTCHN_UNMASK, (uintptr_t)&port, 0); }

static volatile char *upcall_pending(int cpu) { return shared_info + 64 * cpu; }
static volatile unsigned long *pending(void) { return (volatile unsigned long *)(shared_info + SHARED_INFO_PENDING); }
static volatile unsigned long *mask(void) { return (volatile unsigned long *)(shared_info + SHARED_INFO_MASK); }

/* What a guest does first: say that it has seen them. */
static void take_events(int cpu)
{
    volatile unsigned long *selector = (volatile unsigned long *)(shared_info + 64 * cpu) + 1;

    *upcall_pending(cpu) = 0;
    *selector = 0;
    *pending() = 0;
    upcalls[cpu]++;
}

static void on_callback(struct pv_frame *frame)
{
    (void)frame;
    take_events(pv_cpu());
}

static void on_own_vector(struct pv_frame *frame)
{
    (void)frame;
    take_events(pv_cpu());
    pv_apic_eoi();
}

static void open_events(void)
{
    open_hypercalls();
    pv_check(xen_memory_add_shared_info() == 0, "the shared page");
    pv_set_handler(CALLBACK, on_callback);
    pv_set_handler(OWN_VECTOR, on_own_vector);
    pv_check(set_callback(CALLBACK_VECTOR | CALLBACK) == 0, "the callback");
}

static long version_from_user(long argument) { return xen_call(XEN_VERSION, argument, 0, 0); }

static void test_page(void)
{
    char extra[16];
    long result = 0;
    uint32_t base = find_xen();

    open_hypercalls();
    pv_check(hypercall_page[0] == (char)0xB8, "the page is filled");
    pv_check(xen_call(XEN_VERSION, 0, 0, 0) == (long)pv_cpuid(base + 1, 0).eax, "version");
    pv_check(xen_call(XEN_VERSION, 1, (uintptr_t)extra, 0) == 0 && extra[0] == '.', "extraversion %s", extra);
    pv_check(xen_call(0, 0, 0, 0) == -ENOSYS, "a call for others");
    pv_check(pv_user(version_from_user, 0, &result) == PV_NONE && (int)result == -EPERM, "from CPL 3: %ld", result);
}

/* The vector comes while the byte is set and interrupts are on, and wants no EOI. */
static void test_callback(void)
{
    open_events();
    uint32_t port = bind_ipi(0);

    pv_check(send(port) == 0 && upcalls[0] == 0 && *upcall_pending(0), "not with interrupts off");
    pv_sti();
    pv_pause(); /* Behind STI one more instruction runs first. */
    pv_check(upcalls[0] == 1, "at once with interrupts on");
    for (int i = 0; i < 3; i++)
        send(port);
    pv_check(upcalls[0] == 4, "each time, without an end of interrupt: %d", upcalls[0]);
    mask()[0] = 1UL << port;
    send(port);
    pv_check(upcalls[0] == 4 && pending()[0] == 1UL << port, "not while it is masked");
    unmask(port);
    pv_check(upcalls[0] == 5 && !mask()[0], "but behind that");
    pv_cli();
}

/* A vector of a vCPU's own goes through its local APIC. */
static void test_vector(void)
{
    struct {
        uint32_t vcpu;
        uint8_t vector;
    } argument = {0, OWN_VECTOR};

    open_events();
    pv_apic_enable();
    pv_check(xen_call(HVM_OP, HVMOP_SET_UPCALL_VECTOR, (uintptr_t)&argument, 0) == 0, "set_evtchn_upcall_vector");
    uint32_t port = bind_ipi(0);

    pv_sti();
    for (int i = 0; i < 3; i++)
        send(port);
    pv_check(upcalls[0] == 3, "%d upcalls", upcalls[0]);
    pv_cli();
}

static void wait_for_event(void *argument)
{
    uint32_t port = *(uint32_t *)argument;
    struct {
        void *ports;
        uint32_t nr_ports;
        uint64_t timeout;
    } poll = {&port, 1, 0};

    /* With interrupts off: only the event ends it. */
    while (!(pending()[0] >> port & 1))
        pv_check(xen_call(SCHED_OP, SCHED_POLL, (uintptr_t)&poll, 0) == 0, "poll");
}

/* One vCPU sleeps until another sends it an event. */
static void test_poll(void)
{
    open_events();
    pv_smp_start();
    uint32_t port = bind_ipi(1);

    mask()[0] = 1UL << port;
    pv_on_cpu(1, wait_for_event, &port);
    for (volatile int i = 0; i < 20000; i++)
        ;
    pv_check(send(port) == 0, "send");
    pv_wait(1);
}

/* A timer ends a sleep, masked or not; with interrupts it is delivered. */
static void test_timer(void)
{
    open_events();
    uint32_t port = bind_timer(0);
    struct {
        void *ports;
        uint32_t nr_ports;
        uint64_t timeout;
    } poll = {&port, 1, 0};
    uint64_t before = pv_rdtsc(), soon = before + 5000000;

    mask()[0] = 1UL << port;
    xen_call(SET_TIMER_OP, (unsigned long)soon, (unsigned long)(soon >> 16 >> 16), 0);
    xen_call(SCHED_OP, SCHED_POLL, (uintptr_t)&poll, 0);
    pv_check(pending()[0] == 1UL << port && pv_rdtsc() >= soon, "slept until the timer");
    *pending() = 0;
    poll.timeout = pv_rdtsc() + 5000000;
    xen_call(SCHED_OP, SCHED_POLL, (uintptr_t)&poll, 0);
    pv_check(!*pending() && pv_rdtsc() >= poll.timeout, "slept until the end of time given");
    unmask(port);
    soon = pv_rdtsc() + 5000000;
    xen_call(SET_TIMER_OP, (unsigned long)soon, (unsigned long)(soon >> 16 >> 16), 0);
    pv_sti();
    xen_call(SCHED_OP, SCHED_BLOCK, 0, 0);
    pv_check(upcalls[0] == 1 && pv_rdtsc() >= soon, "blocked until the timer");
    soon = pv_rdtsc() + 5000000;
    xen_call(SET_TIMER_OP, (unsigned long)soon, (unsigned long)(soon >> 16 >> 16), 0);
    while (upcalls[0] == 1)
        pv_sti_halt();
    pv_check(pv_rdtsc() >= soon, "HLT, too");
    pv_cli();
}

static volatile int went_on;

static void go_down(void *argument)
{
    (void)argument;
    xen_call(VCPU_OP, VCPU_DOWN, 1, 0);
    went_on = 1;
}

/* A vCPU that goes down stays there, and goes on where it was. */
static void test_down(void)
{
    open_hypercalls();
    pv_smp_start();
    pv_on_cpu(1, go_down, NULL);
    while (xen_call(VCPU_OP, VCPU_IS_UP, 1, 0) != 0)
        pv_pause();
    for (volatile int i = 0; i < 20000; i++)
        ;
    pv_check(!went_on, "it is down");
    pv_check(xen_call(VCPU_OP, VCPU_UP, 1, 0) == 0 && xen_call(VCPU_OP, VCPU_IS_UP, 1, 0) == 1, "and up again");
    pv_wait(1);
    pv_check(went_on, "it has gone on");
}

static void shut_down(uint32_t reason)
{
    open_hypercalls();
    xen_call(SCHED_OP, SCHED_SHUTDOWN, (uintptr_t)&reason, 0);
    pv_check(false, "nothing runs behind that");
}

static void test_poweroff(void) { shut_down(0); }
static void test_reboot(void) { shut_down(1); }
static void test_crash(void) { shut_down(3); }

static const struct test_case cases[] = {
    {"page", test_page}, {"callback", test_callback}, {"vector", test_vector},     {"poll", test_poll},     {"timer", test_timer},
    {"down", test_down}, {"poweroff", test_poweroff}, {"reboot", test_reboot}, {"crash", test_crash},
};

int main(int argc, char **argv)
{
    return run_cases(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
