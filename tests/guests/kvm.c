/*
 * KVM's interface as a guest sees it. One case per argument; none: all.
 */
#include <paravirt_kvm.h>

#define VECTOR 0x40
#define MSR_IA32_TSC 0x10

static volatile int interrupts[PV_MAX_CPUS];

static void count_interrupt(struct pv_frame *frame)
{
    (void)frame;
    interrupts[pv_cpu()]++;
    pv_apic_eoi();
}

static bool has(enum kvm_feature feature)
{
    return kvm_features() >> feature & 1;
}

static void test_cpuid(void)
{
    struct pv_hypervisor kvm = {0};

    pv_check(pv_find_hypervisor(KVM_SIGNATURE, &kvm) && kvm.base == 0x40000000, "signature at %x", kvm.base);
    pv_check(kvm.max_leaf == kvm.base + 1 || kvm.max_leaf == kvm.base + 0x10, "highest leaf %x", kvm.max_leaf);
    pv_check(has(KVM_FEATURE_CLOCKSOURCE2) && has(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT), "clock features");
    if (kvm.max_leaf == kvm.base + 0x10)
        pv_check(pv_cpuid(kvm.base + 0x10, 0).eax != 0, "TSC frequency");
}

static void test_clock(void)
{
    static struct pvclock_vcpu_time_info clock[2];
    static struct pvclock_wall_clock wall;
    static const uint32_t msrs[] = {MSR_KVM_SYSTEM_TIME, MSR_KVM_SYSTEM_TIME_NEW};
    uint64_t before, after, value;

    for (int i = 0; i < 2; i++) {
        pv_wrmsr(msrs[i], (uintptr_t)&clock[i] | 1);
        pv_check(pv_rdmsr(msrs[i]) == ((uintptr_t)&clock[i] | 1), "clock %d: MSR reads back", i);
        pv_check(clock[i].version && !(clock[i].version & 1) && clock[i].tsc_to_system_mul, "clock %d: structure", i);
        pv_check(clock[i].flags & PVCLOCK_TSC_STABLE_BIT, "clock %d: stable", i);
        before = pvclock_read(&clock[i]);
        for (volatile int j = 0; j < 1000; j++)
            ;
        after = pvclock_read(&clock[i]);
        pv_check(after > before && after - before < 1000000000, "clock %d: advances by %llu ns", i,
                 (unsigned long long)(after - before));
    }
    pv_wrmsr(MSR_KVM_WALL_CLOCK, (uintptr_t)&wall);
    pv_check(wall.version && !(wall.version & 1), "wall clock: version");
    pv_printf("wall clock %u.%09u\n", wall.sec, wall.nsec);
    wall = (struct pvclock_wall_clock){0, 0, 0};
    pv_wrmsr(MSR_KVM_WALL_CLOCK_NEW, (uintptr_t)&wall);
    pv_check(wall.version && wall.nsec < 1000000000, "wall clock: the new MSR");
    /* After 0 the area is the guest's own again. */
    pv_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0);
    memset(&clock[1], 0xA5, sizeof(clock[1]));
    pv_hypercall0(KVM_HC_VAPIC_POLL_IRQ);
    memcpy(&value, &clock[1], sizeof(value));
    pv_check(value == 0xA5A5A5A5A5A5A5A5, "clock: not written after it was disabled");
}

/* A guest may move its TSC; the clock must not follow it. */
static void test_clock_after_tsc_write(void)
{
    static struct pvclock_vcpu_time_info clock;
    uint64_t before, after;

    pv_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (uintptr_t)&clock | 1);
    before = pvclock_read(&clock);
    pv_wrmsr(MSR_IA32_TSC, pv_rdtsc() + 1000000000);
    after = pvclock_read(&clock);
    pv_check(after > before && after - before < 1000000000 / 2, "clock after a write to the TSC: %llu ns",
             (unsigned long long)(after - before));
    pv_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0);
}

static void test_steal_time(void)
{
    static struct kvm_steal_time area;

    pv_wrmsr(MSR_KVM_STEAL_TIME, (uintptr_t)&area | 1);
    pv_hypercall0(KVM_HC_VAPIC_POLL_IRQ);
    pv_check(!(area.version & 1) && area.flags == 0 && !(area.preempted & 1), "steal time: structure");
    pv_check(!pv_wrmsr_safe(MSR_KVM_STEAL_TIME, (uintptr_t)&area | 3), "steal time: reserved bits");
    pv_wrmsr(MSR_KVM_STEAL_TIME, 0);
}

static void eoi_by_flag(struct pv_frame *frame);
static volatile uint32_t eoi_word;
static volatile int eoi_by_word, eoi_by_apic;

static void eoi_by_flag(struct pv_frame *frame)
{
    (void)frame;
    if (__atomic_fetch_and(&eoi_word, ~1U, __ATOMIC_SEQ_CST) & 1) {
        eoi_by_word++;
    } else {
        eoi_by_apic++;
        pv_apic_eoi();
    }
}

/* Whether by the word or by the APIC, each interrupt gets its EOI and the next one comes. */
static void test_pv_eoi(void)
{
    pv_apic_enable();
    pv_wrmsr(MSR_KVM_PV_EOI_EN, (uintptr_t)&eoi_word | 1);
    pv_set_handler(VECTOR, eoi_by_flag);
    pv_sti();
    for (int i = 0; i < 10; i++)
        pv_apic_write(PV_APIC_ICR_LOW, 0x40000 | VECTOR);
    pv_cli();
    pv_check(eoi_by_word + eoi_by_apic == 10, "PV EOI: %d by the word, %d by the APIC", eoi_by_word, eoi_by_apic);
    pv_check(eoi_by_word > 0, "PV EOI: the word is used");
    pv_check(pv_apic_read(PV_APIC_ISR + 0x10 * (VECTOR / 32)) == 0, "PV EOI: nothing is left in service");
    pv_check(!pv_wrmsr_safe(MSR_KVM_PV_EOI_EN, (uintptr_t)&eoi_word | 3), "PV EOI: reserved bit");
    pv_wrmsr(MSR_KVM_PV_EOI_EN, 0);
    pv_set_handler(VECTOR, NULL);
}

static volatile int asleep, awake;

static void sleep_until_kicked(void *unused)
{
    (void)unused;
    pv_cli();
    asleep = 1;
    pv_halt();
    awake = 1;
}

static void test_kick_cpu(void)
{
    if (pv_smp_start() < 2) {
        pv_skip("KICK_CPU needs a second CPU");
        return;
    }
    pv_on_cpu(1, sleep_until_kicked, NULL);
    while (!asleep)
        pv_pause();
    for (volatile int i = 0; i < 100000; i++)
        ;
    pv_check(!awake, "KICK_CPU: it sleeps");
    pv_check(pv_hypercall2(KVM_HC_KICK_CPU, 0, 1) == 0, "KICK_CPU: result");
    pv_wait(1);
    pv_check(awake, "KICK_CPU: it wakes, with interrupts off");
    pv_check(pv_hypercall2(KVM_HC_KICK_CPU, 0, 200) == 0, "KICK_CPU: an APIC that does not exist");
    pv_check(pv_hypercall2(KVM_HC_KICK_CPU, 0, 0) == 0, "KICK_CPU: oneself");
    pv_halt(); /* returns at once */
    pv_check(pv_hypercall1(KVM_HC_SCHED_YIELD, 1) == 0, "SCHED_YIELD");
}

static void open_interrupts(void *unused)
{
    (void)unused;
    pv_sti();
    for (volatile int i = 0; i < 200000 && !interrupts[pv_cpu()]; i++)
        pv_pause();
    pv_cli();
}

static void test_send_ipi(void)
{
    int cpus = pv_smp_start();
    long sent;

    pv_apic_enable();
    pv_set_handler(VECTOR, count_interrupt);
    for (int i = 1; i < cpus; i++)
        pv_on_cpu(i, open_interrupts, NULL);
    sent = pv_hypercall4(KVM_HC_SEND_IPI, ~0UL, 0, 0, VECTOR);
    pv_check(sent == cpus, "SEND_IPI: %ld of %d CPUs", sent, cpus);
    open_interrupts(NULL);
    for (int i = 0; i < cpus; i++) {
        pv_wait(i == 0 ? 0 : i);
        pv_check(interrupts[i] == 1, "SEND_IPI: CPU %d got %d", i, interrupts[i]);
    }
    pv_check(pv_hypercall4(KVM_HC_SEND_IPI, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0) == 0, "SEND_IPI: beyond the last APIC");
    pv_check(pv_hypercall4(KVM_HC_SEND_IPI, 1, 0, 0, 0x40000 | VECTOR) == -KVM_EINVAL, "SEND_IPI: a shorthand");
    pv_set_handler(VECTOR, NULL);
}

static void test_clock_pairing(void)
{
    static struct kvm_clock_pairing pairing;
    uint64_t before = pv_rdtsc(), after;

    pv_check(pv_hypercall2(KVM_HC_CLOCK_PAIRING, (uintptr_t)&pairing, 0) == 0, "CLOCK_PAIRING: result");
    after = pv_rdtsc();
    pv_check(before <= pairing.tsc && pairing.tsc <= after && pairing.nsec < 1000000000, "CLOCK_PAIRING: structure");
    pv_check(pv_hypercall2(KVM_HC_CLOCK_PAIRING, (uintptr_t)&pairing, 1) == -KVM_EOPNOTSUPP, "CLOCK_PAIRING: clock 1");
    pv_check(pv_hypercall2(KVM_HC_CLOCK_PAIRING, 0xFFFFFFF0, 0) == -KVM_EFAULT, "CLOCK_PAIRING: no memory");
}

static void test_msrs(void)
{
    uint64_t value = 0;

    pv_check(pv_rdmsr_safe(MSR_KVM_POLL_CONTROL, &value) && value == 1, "POLL_CONTROL: reset value");
    pv_check(pv_wrmsr_safe(MSR_KVM_POLL_CONTROL, 0) && !pv_wrmsr_safe(MSR_KVM_POLL_CONTROL, 2), "POLL_CONTROL: bits");
    if (!has(KVM_FEATURE_ASYNC_PF))
        pv_check(!pv_rdmsr_safe(MSR_KVM_ASYNC_PF_EN, &value) && !pv_wrmsr_safe(MSR_KVM_ASYNC_PF_EN, 0),
                 "an MSR without its feature");
    for (uint32_t msr = 0x4B564D09; msr <= 0x4B564D0B; msr++)
        pv_check(!pv_rdmsr_safe(msr, &value) && !pv_wrmsr_safe(msr, 0), "MSR %x", msr);
}

static void test_unknown(void)
{
    static const unsigned long numbers[] = {0, KVM_HC_MMU_OP, 3, 4, KVM_HC_MAP_GPA_RANGE, 12345, -1UL};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        pv_check(pv_vmcall0(numbers[i]) == -KVM_ENOSYS, "vmcall %lx", numbers[i]);
        pv_check(pv_vmmcall0(numbers[i]) == -KVM_ENOSYS, "vmmcall %lx", numbers[i]);
    }
}

static long native_call(long intel)
{
    return intel ? pv_vmcall0(KVM_HC_VAPIC_POLL_IRQ) : pv_vmmcall0(KVM_HC_VAPIC_POLL_IRQ);
}

static long foreign_call(long intel)
{
    return intel ? pv_vmmcall2(KVM_HC_KICK_CPU, 0, 0) : pv_vmcall2(KVM_HC_KICK_CPU, 0, 0);
}

static void test_user(void)
{
    bool intel = pv_vendor_is("GenuineIntel");
    long result = 0;

    pv_check(pv_user(native_call, intel, &result) == PV_NONE && result == -KVM_EPERM, "CPL 3, native: result %ld", result);
    pv_check(pv_user(foreign_call, intel, &result) == PV_UD, "CPL 3, foreign: #UD");
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"cpuid", test_cpuid},       {"clock", test_clock},       {"steal-time", test_steal_time},
    {"pv-eoi", test_pv_eoi},     {"kick-cpu", test_kick_cpu}, {"send-ipi", test_send_ipi},
    {"pairing", test_clock_pairing}, {"msrs", test_msrs},     {"unknown", test_unknown},
    {"user", test_user},         {"clock-tsc", test_clock_after_tsc_write},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool wanted = argc <= 1;

        for (int j = 1; j < argc; j++)
            wanted |= strcmp(argv[j], cases[i].name) == 0;
        if (wanted)
            cases[i].run();
    }
    return pv_failures();
}
