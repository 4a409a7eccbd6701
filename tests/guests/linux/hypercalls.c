// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0
/*
 * A module of the Linux kernel that makes KVM hypercalls with both vendors' instructions, from text that the kernel has
 * made read-only, and says what it got.
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/smp.h>

#define VAPIC_POLL_IRQ 1
#define NO_SUCH_CALL 99
#define ROUNDS 3

static noinline long call_intel(long number)
{
    long result;

    asm volatile("vmcall" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0), "S"(0) : "memory");
    return result;
}

static noinline long call_amd(long number)
{
    long result;

    asm volatile("vmmcall" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0), "S"(0) : "memory");
    return result;
}

static void make_calls(void *unused)
{
    int round;

    for (round = 0; round < ROUNDS; round++)
        pr_info("hypercalls: cpu %d vmcall %ld %ld vmmcall %ld %ld\n", raw_smp_processor_id(), call_intel(VAPIC_POLL_IRQ),
                call_intel(NO_SUCH_CALL), call_amd(VAPIC_POLL_IRQ), call_amd(NO_SUCH_CALL));
}

static int __init start(void)
{
    on_each_cpu(make_calls, NULL, true);
    return 0;
}

static void __exit stop(void)
{
}

module_init(start);
module_exit(stop);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("KVM hypercalls with both vendors' instructions");
