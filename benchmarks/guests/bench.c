/*
 * Loops to measure: `bench NAME COUNT`. The loops are functions of their own with plain symbols, so that an emulator of
 * user-mode code can run them too.
 */
#include <paravirt.h>

#define CALL_ADD 1

#define LOOP __attribute__((noinline, used))

/* Seven instructions each time, all on registers, one taken branch. */
LOOP void bench_alu(unsigned long count)
{
    unsigned long a = 1, b = 2, c = 3, d = 4;

    __asm__ volatile("1: add %[b], %[a]\n\t"
                     "xor %[a], %[c]\n\t"
                     "lea (%[a], %[c], 2), %[d]\n\t"
                     "shr $3, %[d]\n\t"
                     "sub %[d], %[b]\n\t"
                     "dec %[count]\n\t"
                     "jnz 1b"
                     : [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [count] "+r"(count)
                     :
                     : "cc");
}

static unsigned long from[4096], to[4096];

/* Seven instructions each time: a load, a store to another array of 32 KiB, an index that wraps. */
LOOP void bench_memory(unsigned long count)
{
    unsigned long sum = 0, value, index = 0;

    __asm__ volatile("1: mov (%[from], %[index], 8), %[value]\n\t"
                     "add %[value], %[sum]\n\t"
                     "mov %[sum], (%[to], %[index], 8)\n\t"
                     "inc %[index]\n\t"
                     "and $4095, %[index]\n\t"
                     "dec %[count]\n\t"
                     "jnz 1b"
                     : [sum] "+r"(sum), [value] "=&r"(value), [index] "+r"(index), [count] "+r"(count)
                     : [from] "r"(from), [to] "r"(to)
                     : "cc", "memory");
}

LOOP void bench_hypercall(unsigned long count)
{
    for (; count; count--)
        pv_vmcall2(CALL_ADD, count, 1);
}

LOOP void bench_cpuid(unsigned long count)
{
    for (; count; count--)
        pv_cpuid(0, 0);
}

LOOP void bench_empty(unsigned long count)
{
    (void)count;
}

static const struct {
    const char *name;
    void (*loop)(unsigned long count);
} loops[] = {
    {"alu", bench_alu},     {"memory", bench_memory}, {"hypercall", bench_hypercall},
    {"cpuid", bench_cpuid}, {"empty", bench_empty},
};

int main(int argc, char **argv)
{
    unsigned long count = 0;

    for (const char *digit = argc > 2 ? argv[2] : ""; *digit; digit++)
        count = count * 10 + (unsigned long)(*digit - '0');
    for (size_t i = 0; argc > 1 && i < sizeof(loops) / sizeof(loops[0]); i++) {
        if (strcmp(argv[1], loops[i].name) == 0) {
            loops[i].loop(count);
            return 0;
        }
    }
    return 1;
}
