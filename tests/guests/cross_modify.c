/*
 * One CPU runs code from a page which another CPU is writing.
 *
 * Rule: the running CPU sees each version of "mov eax, imm32; ret" whole, in order, and the last one in the end; and a
 * foreign hypercall next to it, in the same page, is repaired all the same. The writer stores the immediate with one
 * aligned store, which no CPU may tear.
 * Arguments: the foreign instruction.
 */
#include "code.h"

#define VERSIONS 2000
#define IMMEDIATE_AT 4

static uint8_t *page;
static bool done;
static int backward, torn, wrong_calls;
static unsigned long calls;

static void run_code(void *unused)
{
    uint32_t last = 0, value;

    (void)unused;
    do {
        value = ((uint32_t(*)(void))(page + IMMEDIATE_AT - 1))();
        torn += value % 0x10001 != 0; /* both halves are equal in every version */
        backward += value < last;
        last = value;
        wrong_calls += call_sum(page + 64) != SUM_OF_TEST_ARGUMENTS;
        calls++;
    } while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE));
}

int main(int argc, char **argv)
{
    enum instruction foreign = instruction_named(argv[1]);

    (void)argc;
    page = pv_alloc_page();
    page[IMMEDIATE_AT - 1] = 0xB8;
    page[IMMEDIATE_AT + 4] = 0xC3;
    put_call(page + 64, foreign);
    pv_smp_start();
    pv_on_cpu(1, run_code, NULL);
    for (uint32_t version = 1; version <= VERSIONS; version++) {
        __atomic_store_n((uint32_t *)(page + IMMEDIATE_AT), version * 0x10001, __ATOMIC_SEQ_CST);
        if (version % 100 == 0)
            put_call(page + 64, foreign); /* the guest itself undoes the repair */
    }
    __atomic_store_n(&done, true, __ATOMIC_RELEASE);
    pv_wait(1);
    pv_check(calls > 1, "the other CPU made calls");
    pv_check(torn == 0, "%d torn values", torn);
    pv_check(backward == 0, "%d values of an older version", backward);
    pv_check(wrong_calls == 0, "%d wrong results of calls", wrong_calls);
    pv_check(((uint32_t(*)(void))(page + IMMEDIATE_AT - 1))() == VERSIONS * 0x10001, "the last version");
    return pv_failures();
}
