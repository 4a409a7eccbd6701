/*
 * What a guest does at a serial console. Arguments:
 *
 *   echo WHEN      echo what is typed until "q", WHEN is "poll", or "interrupt" and halted meanwhile
 *   sleep MS       halt until a timer says so
 *   wait           halt with interrupts on and nothing to end it
 *
 * It says "ready" when it listens, and "done" at the end.
 */
#include <paravirt.h>

#define DATA 0x3F8
#define INTERRUPT_ENABLE 0x3F9
#define FIFO_CONTROL 0x3FA
#define LINE_STATUS 0x3FD
#define DATA_READY 0x01
#define BREAK 0x10

#define IOAPIC 0xFEC00000UL
#define SERIAL_PIN 4
#define SERIAL_VECTOR 0x44
#define TIMER_VECTOR 0x45
#define TSC_DEADLINE_MSR 0x6E0
#define TSC_DEADLINE_MODE (2u << 17)
#define APIC_LVT_TIMER 0x320

static volatile bool finished;

static void ioapic_write(uint32_t index, uint32_t value)
{
    *(volatile uint32_t *)IOAPIC = index;
    *(volatile uint32_t *)(IOAPIC + 0x10) = value;
}

static void echo(void)
{
    uint8_t status, byte;

    while ((status = pv_inb(LINE_STATUS)) & DATA_READY) {
        byte = pv_inb(DATA);
        if (status & BREAK)
            pv_printf("<break>");
        else if (byte == 'q')
            finished = true;
        else
            pv_putchar(byte);
    }
}

static void on_input(struct pv_frame *frame)
{
    (void)frame;
    echo();
    pv_apic_eoi();
}

static void on_timer(struct pv_frame *frame)
{
    (void)frame;
    finished = true;
    pv_apic_eoi();
}

static void halt_until_finished(void)
{
    pv_cli();
    while (!finished) {
        pv_sti_halt();
        pv_cli();
    }
}

static void echo_by_interrupt(void)
{
    pv_set_handler(SERIAL_VECTOR, on_input);
    ioapic_write(0x10 + 2 * SERIAL_PIN + 1, 0);
    ioapic_write(0x10 + 2 * SERIAL_PIN, SERIAL_VECTOR);
    pv_outb(INTERRUPT_ENABLE, 1);
    pv_printf("ready\n");
    halt_until_finished();
}

static uint64_t number(const char *text)
{
    uint64_t value = 0;

    for (; *text; text++)
        value = value * 10 + (*text - '0');
    return value;
}

int main(int argc, char **argv)
{
    pv_apic_enable();
    pv_outb(FIFO_CONTROL, 0x07);
    if (argc > 2 && strcmp(argv[1], "sleep") == 0) {
        pv_set_handler(TIMER_VECTOR, on_timer);
        pv_apic_write(APIC_LVT_TIMER, TSC_DEADLINE_MODE | TIMER_VECTOR);
        pv_printf("ready\n");
        pv_wrmsr(TSC_DEADLINE_MSR, pv_rdtsc() + number(argv[2]) * 1000000);
        halt_until_finished();
    } else if (argc > 2 && strcmp(argv[2], "interrupt") == 0) {
        echo_by_interrupt();
    } else if (argc > 2 && strcmp(argv[2], "poll") == 0) {
        pv_printf("ready\n");
        while (!finished)
            echo();
    } else {
        pv_printf("ready\n");
        halt_until_finished();
    }
    pv_printf("done\n");
    return 0;
}
