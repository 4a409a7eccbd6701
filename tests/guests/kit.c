/* What paravirt.h promises, function by function. One argument: "one". */
#include <paravirt.h>

static volatile int interrupts;
static int worked[PV_MAX_CPUS];

static void on_interrupt(struct pv_frame *frame)
{
    interrupts += frame->vector == 0x50;
    pv_apic_eoi();
}

static long double_plus_one(long x)
{
    return 2 * x + 1;
}

static long halt(long x)
{
    pv_halt();
    return x;
}

static void work(void *argument)
{
    __atomic_add_fetch((int *)argument, 1, __ATOMIC_SEQ_CST);
    worked[pv_cpu()]++;
}

static void test_exceptions(void)
{
    volatile int steps = 0;

    pv_check(pv_catch(__asm__ volatile("ud2")) == PV_UD, "UD2 is caught");
    pv_check(pv_catch(steps++) == PV_NONE && steps == 1, "nothing is caught");
    pv_check(pv_catch(pv_catch(__asm__ volatile("int3")); steps++; __asm__ volatile("ud2")) == PV_UD && steps == 2,
             "catching nests");
    pv_check(pv_catch(__asm__ volatile("int3")) == PV_BP, "INT3 is caught");
    pv_check(pv_catch((void)*(volatile int *)(0x400000 + 8)) == PV_NONE, "memory is mapped");
    pv_map(0x400000, 0, 0);
    pv_check(pv_catch((void)*(volatile int *)(0x400000 + 8)) == PV_PF && pv_fault()->cr2 == 0x400008 &&
                 pv_fault()->error_code == 0,
             "a page that is not there");
    pv_map(0x400000, 0x400000, PV_PRESENT);
    pv_check(pv_catch(*(volatile int *)(0x400000 + 8) = 1) == PV_PF && pv_fault()->error_code == 3, "a read-only page");
    pv_map(0x400000, (uintptr_t)pv_alloc_page(), PV_DEFAULT);
    pv_check(*(volatile int *)0x400000 == 0, "a page of the pool is zero");
}

static void test_user(void)
{
    long result = 0;

    pv_check(pv_user(double_plus_one, 20, &result) == PV_NONE && result == 41, "CPL 3 returns %ld", result);
    pv_check(pv_user(halt, 20, &result) == PV_GP && (pv_fault()->cs & 3) == 3, "HLT at CPL 3");
}

static void test_cpus(void)
{
    int count = 0, cpus = pv_smp_start();

    pv_check(cpus == pv_cpu_count() && cpus == 3, "%d CPUs", cpus);
    pv_check(pv_smp_start() == cpus, "starting them again");
    pv_on_all(work, &count);
    pv_check(count == 3 && worked[0] == 1 && worked[1] == 1 && worked[2] == 1, "all work");
    pv_on_cpu(2, work, &count);
    pv_wait(2);
    pv_check(count == 4 && worked[2] == 2, "one works");
}

static void test_interrupts(void)
{
    pv_apic_enable();
    pv_set_handler(0x50, on_interrupt);
    pv_send_ipi(0, 0x50);
    pv_check(interrupts == 0, "no interrupt with IF = 0");
    pv_sti_halt();
    pv_cli();
    pv_check(interrupts == 1, "an interrupt");
    pv_set_handler(0x50, NULL);
}

static void test_strings(void)
{
    char text[16] = "abcdefgh";

    memmove(text + 2, text, 6);
    pv_check(memcmp(text, "ababcdef", 8) == 0, "memmove up");
    memmove(text, text + 2, 6);
    pv_check(memcmp(text, "abcdefef", 8) == 0, "memmove down");
    pv_check(strlen(text) == 8 && strcmp(text, "abcdefeg") < 0 && strcmp("b", "a") > 0, "strlen, strcmp");
}

int main(int argc, char **argv)
{
    pv_printf("%5d|%-5d|%05d|%x|%lx|%llu|%c|%s|%%\n", -42, -42, -42, 0xdeadU, 0xbeefUL, 12345678901234567890ULL, 'x',
              "text");
    pv_check(argc == 2 && strcmp(argv[1], "one") == 0 && argv[2] == NULL, "arguments");
    test_strings();
    test_exceptions();
    test_user();
    test_interrupts();
    test_cpus();
    return pv_failures();
}
