/*
 * All CPUs reach the same foreign instruction at the same time, again and again at fresh places.
 *
 * Rule: each place is patched exactly once, no CPU sees an exception, and every call returns its result.
 * Arguments: the foreign instruction, the number of places.
 */
#include "code.h"

#define MAX_PLACES 64

static uint8_t *code[MAX_PLACES];
static int places, arrived, wrong;

static void call_everywhere(void *unused)
{
    (void)unused;
    for (int i = 0; i < places; i++) {
        /* All meet before each place. */
        __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < (i + 1) * pv_cpu_count())
            pv_pause();
        if (call_sum(code[i]) != SUM_OF_TEST_ARGUMENTS)
            __atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
    }
}

int main(int argc, char **argv)
{
    enum instruction foreign = instruction_named(argv[1]);
    int unpatched = 0;

    (void)argc;
    for (const char *digit = argv[2]; *digit; digit++)
        places = places * 10 + *digit - '0';
    if (places > MAX_PLACES)
        places = MAX_PLACES;
    for (int i = 0; i < places; i++) {
        code[i] = pv_alloc_page();
        put_call(code[i], foreign);
    }
    pv_smp_start();
    pv_on_all(call_everywhere, NULL);
    for (int i = 0; i < places; i++)
        unpatched += !is_call(code[i], other_instruction(foreign));
    pv_check(wrong == 0, "%d wrong results", wrong);
    pv_check(unpatched == 0, "%d places not patched", unpatched);
    return pv_failures();
}
