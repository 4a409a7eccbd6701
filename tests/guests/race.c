/*
 * CPUs race: the order in which they take a lock depends on the interleaving alone, and the guest prints it.
 *
 * Rule: two runs with the same seed print the same; with another seed the order may differ, but what the lock and the
 * atomics protect is always right.
 */
#include <paravirt.h>

#define ROUNDS 200

static struct pv_spinlock lock;
static unsigned order_hash = 2166136261, locked_count, atomic_count, raced_count;

static void race(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        pv_lock(&lock);
        locked_count++;
        order_hash = (order_hash ^ (unsigned)pv_cpu()) * 16777619;
        pv_unlock(&lock);
        __atomic_add_fetch(&atomic_count, 1, __ATOMIC_RELAXED);
        *(volatile unsigned *)&raced_count += 1;
    }
}

int main(void)
{
    int cpus = pv_smp_start();

    pv_on_all(race, NULL);
    pv_printf("order %x raced %u tsc %llx\n", order_hash, raced_count, (unsigned long long)pv_rdtsc());
    pv_check(locked_count == (unsigned)cpus * ROUNDS, "lock");
    pv_check(atomic_count == (unsigned)cpus * ROUNDS, "atomic");
    return pv_failures();
}
