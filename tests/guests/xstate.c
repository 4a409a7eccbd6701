/*
 * What an operating system does with x87, SSE, AVX and PKRU state.
 *
 * The argument says which: "eager", tasks whose state is saved and restored at each switch, by the best instruction that
 * CPUID announces or by the one that the second argument names; "lazy", tasks that share the registers, and get their own
 * back when #NM says that they need them; "rights", who may do what at CPL 3.
 *
 * A task has its own pattern in every register. Each time it runs it checks all of them and moves on to the next pattern;
 * whatever leaks from one task to another is seen.
 */
#include <paravirt.h>

#define TASKS 5
#define ROUNDS 400
#define CR0_TS (1UL << 3)
#define CR4_OSFXSR (1UL << 9)
#define CR4_OSXMMEXCPT (1UL << 10)
#define CR4_PKE (1UL << 22)
#define CR4_OSXSAVE (1UL << 18)
#define SSE (1 << 1)
#define AVX (1 << 2)
#define PKRU (1 << 9)

#ifdef __x86_64__
#define REGISTERS 16
#else
#define REGISTERS 8
#endif

struct vector {
    uint64_t words[4];
};

/* What is in the registers, as instructions other than those under test see it. */
struct registers {
    struct vector vectors[16];
    uint64_t stack[8];
    uint32_t mxcsr;
    uint32_t pkru;
};

static uint8_t areas[TASKS][4096] __attribute__((aligned(64)));
static uint32_t generation[TASKS];
static uint32_t enabled;
static bool by_fxsave;
static struct registers now;

#define EACH_LOW(do) do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7)
#ifdef __x86_64__
#define EACH(do) EACH_LOW(do) do(8) do(9) do(10) do(11) do(12) do(13) do(14) do(15)
#else
#define EACH(do) EACH_LOW(do)
#endif
#define LOAD_XMM(n) __asm__ volatile("movdqu %0, %%xmm" #n : : "m"(now.vectors[n]));
#define STORE_XMM(n) __asm__ volatile("movdqu %%xmm" #n ", %0" : "=m"(now.vectors[n]));
#define LOAD_YMM(n) __asm__ volatile("vmovdqu %0, %%ymm" #n : : "m"(now.vectors[n]));
#define STORE_YMM(n) __asm__ volatile("vmovdqu %%ymm" #n ", %0" : "=m"(now.vectors[n]));

/* All of this starts with x87, so it is one of its instructions that meets CR0.TS. */
static void load_registers(void)
{
    __asm__ volatile("fninit");
    for (int i = 7; i >= 0; i--)
        __asm__ volatile("fildll %0" : : "m"(now.stack[i]));
    __asm__ volatile("ldmxcsr %0" : : "m"(now.mxcsr));
    if (enabled & AVX) {
        EACH(LOAD_YMM)
    } else {
        EACH(LOAD_XMM)
    }
    if (enabled & PKRU)
        __asm__ volatile("wrpkru" : : "a"(now.pkru), "c"(0), "d"(0));
}

/* Empties the x87 stack: what is loaded next is the next pattern. */
static void store_registers(void)
{
    uint32_t edx;

    for (int i = 0; i < 8; i++)
        __asm__ volatile("fistpll %0" : "=m"(now.stack[i]));
    __asm__ volatile("stmxcsr %0" : "=m"(now.mxcsr));
    if (enabled & AVX) {
        EACH(STORE_YMM)
    } else {
        EACH(STORE_XMM)
    }
    if (enabled & PKRU)
        __asm__ volatile("rdpkru" : "=a"(now.pkru), "=d"(edx) : "c"(0));
}

static uint64_t number(int task, int place)
{
    uint64_t x = (uint64_t)(generation[task] * 64 + task) * 1000003 + place;

    return (x ^ x << 21) * 0x9E3779B97F4A7C15;
}

static struct registers pattern(int task)
{
    struct registers r = { .mxcsr = 0x1F80 | (task & 3) << 13, .pkru = 0 };

    for (int i = 0; i < REGISTERS; i++)
        for (int word = 0; word < (enabled & AVX ? 4 : 2); word++)
            r.vectors[i].words[word] = number(task, 4 * i + word);
    for (int i = 0; i < 8; i++)
        r.stack[i] = number(task, 64 + i);
    if (enabled & PKRU)
        r.pkru = (uint32_t)number(task, 100) & ~0xFU; /* Not of key 0, which all our pages have. */
    return r;
}

/* A turn of a task: what it finds must be what it left. */
static bool run(int task)
{
    struct registers expected;
    bool same = true;

    if (generation[task]) {
        memset(&now, 0, sizeof now);
        store_registers();
        expected = pattern(task);
        same = !memcmp(&now, &expected, sizeof now);
    }
    generation[task]++;
    now = pattern(task);
    load_registers();
    return same;
}

/* ---- saving and restoring ------------------------------------------------------------------------------------- */

enum way { WAY_FXSAVE, WAY_XSAVE, WAY_XSAVEOPT, WAY_XSAVEC, WAY_XSAVES, WAYS };
static const char *const way_names[WAYS] = { "fxsave", "xsave", "xsaveopt", "xsavec", "xsaves" };
static enum way way;

#define STATE(instruction, area) __asm__ volatile(instruction " (%0)" : : "r"(area), "a"(-1), "d"(-1) : "memory")

static void save(void *area)
{
    switch (way) {
    case WAY_FXSAVE: STATE("fxsave", area); break;
    case WAY_XSAVE: STATE("xsave", area); break;
    case WAY_XSAVEOPT: STATE("xsaveopt", area); break;
    case WAY_XSAVEC: STATE("xsavec", area); break;
    default: STATE("xsaves", area); break;
    }
}

static void restore(const void *area)
{
    if (way == WAY_FXSAVE)
        STATE("fxrstor", area);
    else if (way == WAY_XSAVES)
        STATE("xrstors", area);
    else
        STATE("xrstor", area);
}

static bool can(enum way way)
{
    uint32_t more = pv_cpuid(0xD, 1).eax;

    switch (way) {
    case WAY_FXSAVE: return true;
    case WAY_XSAVE: return enabled;
    case WAY_XSAVEOPT: return enabled && more & 1;
    case WAY_XSAVEC: return enabled && more & 2;
    default: return enabled && more & 8;
    }
}

static bool enable(const char *wanted)
{
    unsigned long cr4 = pv_read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT;
    struct pv_cpuid features = pv_cpuid(1, 0);

    by_fxsave = wanted && !strcmp(wanted, "fxsave");
    if (features.ecx >> 26 & 1 && !by_fxsave) {
        cr4 |= CR4_OSXSAVE;
        if (pv_cpuid(7, 0).ecx >> 3 & 1)
            cr4 |= CR4_PKE;
        pv_write_cr4(cr4);
        enabled = pv_cpuid(0xD, 0).eax & (1 | SSE | AVX | (cr4 & CR4_PKE ? PKRU : 0));
        __asm__ volatile("xsetbv" : : "a"(enabled), "d"(0), "c"(0));
    }
    pv_write_cr4(cr4);
    for (way = WAYS - 1; wanted ? strcmp(wanted, way_names[way]) != 0 : !can(way); way--)
        if (!way)
            return false;
    if (!can(way))
        return false;
    pv_printf("%s, components %x, %u bytes\n", way_names[way], enabled, enabled ? pv_cpuid(0xD, 0).ebx : 512);
    return true;
}

/* Every order of tasks comes up sooner or later. */
static int next_task(void)
{
    static uint32_t seed = 1;

    seed = seed * 1664525 + 1013904223;
    return (seed >> 16) % TASKS;
}

static void make_areas(void)
{
    __asm__ volatile("fninit");
    memset(areas, 0, sizeof areas);
    for (int i = 0; i < TASKS; i++)
        save(areas[i]);
}

/* ---- the tests ------------------------------------------------------------------------------------------------ */

static void test_eager(void)
{
    int wrong = 0;

    make_areas();
    for (int i = 0; i < ROUNDS; i++) {
        int task = next_task();

        restore(areas[task]);
        wrong += !run(task);
        save(areas[task]);
    }
    pv_check(!wrong, "%d of %d turns found another task's state", wrong, ROUNDS);
}

static int owner = -1, current, switches;

/* The current task needs the registers: they are the owner's. */
static void on_not_available(struct pv_frame *frame)
{
    (void)frame;
    __asm__ volatile("clts");
    if (owner != current) {
        if (owner >= 0)
            save(areas[owner]);
        restore(areas[current]);
        owner = current;
    }
    switches++;
}

static void test_lazy(void)
{
    int wrong = 0, expected = 0, user = -1;

    make_areas();
    pv_set_handler(PV_NM, on_not_available);
    for (int i = 0; i < ROUNDS; i++) {
        current = next_task();
        pv_write_cr0(pv_read_cr0() | CR0_TS);
        if (current % 2)
            continue; /* A task that computes with integers only: the registers stay whose they were. */
        expected++;
        wrong += !run(current);
        user = current;
    }
    pv_set_handler(PV_NM, NULL);
    pv_check(!wrong, "%d of %d turns found another task's state", wrong, expected);
    pv_check(switches == expected && owner == user, "%d #NM for %d turns", switches, expected);

    pv_write_cr0(pv_read_cr0() | CR0_TS);
    pv_check(pv_catch(__asm__ volatile("fninit")) == PV_NM, "x87 with CR0.TS");
    pv_check(pv_catch(__asm__ volatile("movaps %xmm0, %xmm0")) == PV_NM, "SSE with CR0.TS");
    pv_check(pv_catch(STATE("fxsave", areas[0])) == PV_NM, "FXSAVE with CR0.TS");
    if (enabled)
        pv_check(pv_catch(STATE("xsave", areas[0])) == PV_NM, "XSAVE with CR0.TS");
    if (enabled & AVX)
        pv_check(pv_catch(__asm__ volatile("vzeroall")) == PV_NM, "AVX with CR0.TS");
    __asm__ volatile("clts");
}

static long user_xgetbv(long index)
{
    uint32_t eax, edx;

    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(index));
    return eax;
}

static long user_xsetbv(long value)
{
    __asm__ volatile("xsetbv" : : "a"(value), "d"(0), "c"(0));
    return 0;
}

static long user_xsave(long area)
{
    STATE("xsave", area);
    STATE("xrstor", area);
    return 0;
}

static long user_xsaves(long area)
{
    STATE("xsaves", area);
    return 0;
}

static void test_rights(void)
{
    long area = (long)areas[0], result = 0;

    pv_check(pv_user(user_xgetbv, 0, &result) == PV_NONE && result == (long)enabled, "XGETBV at CPL 3");
    pv_check(pv_user(user_xgetbv, 9, &result) == PV_GP, "XGETBV of what there is not");
    pv_check(pv_user(user_xsetbv, 1, &result) == PV_GP && user_xgetbv(0) == (long)enabled, "XSETBV at CPL 3");
    pv_check(pv_user(user_xsave, area, &result) == PV_NONE, "XSAVE and XRSTOR at CPL 3");
    pv_check(pv_user(user_xsave, area + 16, &result) == PV_GP, "XSAVE that is not aligned");
    if (can(WAY_XSAVES))
        pv_check(pv_user(user_xsaves, area, &result) == PV_GP, "XSAVES at CPL 3");
    pv_check(pv_cpuid(1, 0).ecx >> 27 & 1, "CPUID shows CR4.OSXSAVE");
    user_xsetbv(1);
    if (enabled & AVX)
        pv_check(pv_catch(__asm__ volatile("vzeroall")) == PV_UD, "AVX that XCR0 does not enable");
    pv_check(pv_cpuid(0xD, 0).ebx == 576, "CPUID's size follows XCR0");
    pv_write_cr4(pv_read_cr4() & ~CR4_OSXSAVE);
    pv_check(pv_user(user_xgetbv, 0, &result) == PV_UD, "XGETBV without CR4.OSXSAVE");
    pv_check(pv_catch(STATE("xsave", areas[0])) == PV_UD, "XSAVE without CR4.OSXSAVE");
}

int main(int argc, char **argv)
{
    if (argc < 2 || !enable(argc > 2 ? argv[2] : NULL)) {
        pv_skip("the CPU has no such instruction");
        return 0;
    }
    if (!strcmp(argv[1], "eager"))
        test_eager();
    else if (!strcmp(argv[1], "lazy"))
        test_lazy();
    else
        test_rights();
    return pv_failures();
}
