/*
 * One place, called again and again, while the host beneath changes vendor at each CALL_MOVE.
 *
 * Rule: the guest notices nothing; its CPUID keeps the vendor of its boot; each change costs one repair at each place.
 */
#include "code.h"

#define CALL_MOVE 0x101
#define MOVES 4

int main(void)
{
    uint8_t *code = pv_alloc_page();
    bool intel = pv_vendor_is("GenuineIntel");

    put_call(code, intel ? VMCALL : VMMCALL);
    for (int i = 0; i <= MOVES; i++) {
        bool even = i % 2 == 0;

        for (int j = 0; j < 3; j++)
            pv_check(call_sum(code) == SUM_OF_TEST_ARGUMENTS, "call %d after %d moves", j, i);
        pv_check(is_call(code, intel == even ? VMCALL : VMMCALL), "text after %d moves", i);
        pv_check(pv_vendor_is(intel ? "GenuineIntel" : "AuthenticAMD"), "CPUID after %d moves", i);
        if (i < MOVES)
            pv_hypercall0(CALL_MOVE);
    }
    return pv_failures();
}
