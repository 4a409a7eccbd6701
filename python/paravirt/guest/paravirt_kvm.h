/* SPDX-License-Identifier: Apache-2.0 OR MIT
 *
 * KVM's paravirtual interface, for guests. Names are those of Linux' Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst.
 */
#ifndef PARAVIRT_KVM_H
#define PARAVIRT_KVM_H

#include "paravirt.h"

#define KVM_SIGNATURE "KVMKVMKVM"

/* Bits of EAX of the second leaf. */
enum kvm_feature {
    KVM_FEATURE_CLOCKSOURCE = 0,
    KVM_FEATURE_NOP_IO_DELAY = 1,
    KVM_FEATURE_CLOCKSOURCE2 = 3,
    KVM_FEATURE_ASYNC_PF = 4,
    KVM_FEATURE_STEAL_TIME = 5,
    KVM_FEATURE_PV_EOI = 6,
    KVM_FEATURE_PV_UNHALT = 7,
    KVM_FEATURE_PV_TLB_FLUSH = 9,
    KVM_FEATURE_PV_SEND_IPI = 11,
    KVM_FEATURE_POLL_CONTROL = 12,
    KVM_FEATURE_PV_SCHED_YIELD = 13,
    KVM_FEATURE_CLOCKSOURCE_STABLE_BIT = 24,
};

#define MSR_KVM_WALL_CLOCK 0x11
#define MSR_KVM_SYSTEM_TIME 0x12
#define MSR_KVM_WALL_CLOCK_NEW 0x4B564D00
#define MSR_KVM_SYSTEM_TIME_NEW 0x4B564D01
#define MSR_KVM_ASYNC_PF_EN 0x4B564D02
#define MSR_KVM_STEAL_TIME 0x4B564D03
#define MSR_KVM_PV_EOI_EN 0x4B564D04
#define MSR_KVM_POLL_CONTROL 0x4B564D05
#define MSR_KVM_ASYNC_PF_INT 0x4B564D06
#define MSR_KVM_ASYNC_PF_ACK 0x4B564D07
#define MSR_KVM_MIGRATION_CONTROL 0x4B564D08

enum kvm_hypercall {
    KVM_HC_VAPIC_POLL_IRQ = 1,
    KVM_HC_MMU_OP = 2,
    KVM_HC_KICK_CPU = 5,
    KVM_HC_CLOCK_PAIRING = 9,
    KVM_HC_SEND_IPI = 10,
    KVM_HC_SCHED_YIELD = 11,
    KVM_HC_MAP_GPA_RANGE = 12,
};

#define KVM_EPERM 1
#define KVM_EFAULT 14
#define KVM_EINVAL 22
#define KVM_EOPNOTSUPP 95
#define KVM_ENOSYS 1000

struct pvclock_wall_clock {
    uint32_t version, sec, nsec;
};

#define PVCLOCK_TSC_STABLE_BIT 1
#define PVCLOCK_GUEST_STOPPED 2

struct pvclock_vcpu_time_info {
    uint32_t version, pad0;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad[2];
} __attribute__((packed, aligned(4)));

struct kvm_steal_time {
    uint64_t steal;
    uint32_t version, flags;
    uint8_t preempted, u8_pad[3];
    uint32_t pad[11];
} __attribute__((aligned(64)));

struct kvm_clock_pairing {
    int64_t sec, nsec;
    uint64_t tsc;
    uint32_t flags, pad[9];
} __attribute__((aligned(64)));

/* Nanoseconds since boot at a TSC value, by one consistent reading of a clock's structure. */
static inline uint64_t pvclock_scale(const struct pvclock_vcpu_time_info *info, uint64_t tsc)
{
    uint64_t delta = tsc - info->tsc_timestamp, low, high;

    delta = info->tsc_shift < 0 ? delta >> -info->tsc_shift : delta << info->tsc_shift;
    low = (delta & 0xFFFFFFFF) * info->tsc_to_system_mul;
    high = (delta >> 32) * info->tsc_to_system_mul;
    return info->system_time + high + (low >> 32);
}

static inline uint64_t pvclock_read(const volatile struct pvclock_vcpu_time_info *clock)
{
    struct pvclock_vcpu_time_info copy;
    uint64_t tsc;

    do {
        copy.version = clock->version;
        __asm__ volatile("" : : : "memory");
        copy.tsc_timestamp = clock->tsc_timestamp;
        copy.system_time = clock->system_time;
        copy.tsc_to_system_mul = clock->tsc_to_system_mul;
        copy.tsc_shift = clock->tsc_shift;
        tsc = pv_rdtsc();
        __asm__ volatile("" : : : "memory");
    } while ((copy.version & 1) || copy.version != clock->version);
    return pvclock_scale(&copy, tsc);
}

/* EAX of KVM's second leaf; 0 if this is not KVM. */
static inline uint32_t kvm_features(void)
{
    struct pv_hypervisor kvm;

    return pv_find_hypervisor(KVM_SIGNATURE, &kvm) ? pv_cpuid(kvm.base + 1, 0).eax : 0;
}

#endif
