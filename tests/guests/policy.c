/*
 * What becomes of each vendor's instruction, told in lines that the test compares with the table of policies:
 * "vmcall: result 1494, text unchanged", "vmmcall: exception 6, text unchanged".
 */
#include "code.h"

static void report(const char *name, enum instruction instruction)
{
    uint8_t *code = pv_alloc_page();
    volatile long result = 0;
    int vector;

    put_call(code, instruction);
    vector = pv_catch(result = call_sum(code));
    if (vector == PV_NONE)
        pv_printf("%s: result %ld", name, result);
    else
        pv_printf("%s: exception %d", name, vector);
    pv_printf(", text %s\n", is_call(code, instruction) ? "unchanged" : "changed");
}

int main(void)
{
    report("vmcall", VMCALL);
    report("vmmcall", VMMCALL);
    return 0;
}
