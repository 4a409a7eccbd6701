/* Ends in ways that are no return: "halt", "triple-fault", or never. */
#include <paravirt.h>

/* Without an IDT the first exception cannot be delivered, nor the second. */
__attribute__((noinline)) static void triple_fault(void)
{
    struct {
        uint16_t limit;
        uintptr_t base;
    } __attribute__((packed)) nothing = {0, 0};

    __asm__ volatile("lidt %0; ud2" : : "m"(nothing));
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "halt") == 0) {
        pv_cli();
        pv_halt();
    }
    if (argc > 1 && strcmp(argv[1], "triple-fault") == 0)
        triple_fault();
    pv_printf("running\n");
    for (;;)
        pv_pause();
}
