/*
 * Something to look at with a debugger: a function that is called, a variable that changes, and all vCPUs at work on a
 * counter for each. The last line tells what all of that came to.
 */
#include <paravirt.h>

#define ROUNDS 50
#define CPUS 4

volatile uint64_t visited;
volatile uint64_t counters[CPUS];

__attribute__((noinline)) uint64_t visit(uint64_t number)
{
    visited += number;
    return visited * 3;
}

static void work(void *argument)
{
    volatile uint64_t *counter = &counters[pv_cpu() % CPUS];

    (void)argument;
    for (int round = 0; round < ROUNDS; round++)
        *counter += 1;
}

int main(int argc, char **argv)
{
    uint64_t sum = 0;

    (void)argv;
    if (argc > 1 && strcmp(argv[1], "loop") == 0)
        for (;;)
            visited++;
    pv_smp_start();
    pv_on_all(work, 0);
    for (uint64_t number = 1; number <= 5; number++)
        sum += visit(number);
    pv_printf("visited %lu sum %lu tsc %lu\n", (unsigned long)visited, (unsigned long)sum, (unsigned long)pv_rdtsc());
    return 0;
}
