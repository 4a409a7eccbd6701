/*
 * A foreign hypercall in memory that cannot be changed by the hypervisor: the test device's MMIO area.
 * Rule: whatever happens, it is not an endless loop.
 */
#include "code.h"

int main(int argc, char **argv)
{
    uint8_t *code = (uint8_t *)0xFF000000UL;
    int vector;

    (void)argc;
    put_call(code, instruction_named(argv[1]));
    vector = pv_catch(call_sum(code));
    pv_printf("vector %d\n", vector);
    return 0;
}
