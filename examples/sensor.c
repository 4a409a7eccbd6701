/* The guest of sensor.py. */
#include <paravirt.h>

struct sample {
    uint32_t sequence, value;
};

int main(void)
{
    struct pv_hypervisor sensor;
    struct sample sample;

    if (!pv_find_hypervisor("SENSORSENSOR", &sensor))
        return 1;
    pv_printf("2 + 3 = %ld\n", pv_hypercall2(1, 2, 3));
    for (uint32_t i = 0; i < 3; i++) {
        sample = (struct sample){i, i * i};
        pv_hypercall1(2, (uintptr_t)&sample);
    }
    pv_printf("a bad pointer: %ld\n", pv_hypercall1(2, 0xFFFFFFFFUL));
    pv_printf("%u samples\n", (unsigned)pv_rdmsr(0x4D000000));
    return 0;
}
