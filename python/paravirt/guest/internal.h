/* SPDX-License-Identifier: Apache-2.0 OR MIT
 *
 * What start.S and runtime.c share. Guests include paravirt.h only.
 */
#ifndef PARAVIRT_INTERNAL_H
#define PARAVIRT_INTERNAL_H

#ifndef PV_MAX_CPUS
#define PV_MAX_CPUS 64
#endif

#define PV_STACK_SIZE 0x4000

/* Selectors. PV_CS and PV_DS stand as SYSCALL wants them, the user's three as SYSRET does. */
#define PV_CS 0x08
#define PV_DS 0x10
#define PV_CS32 0x18
#define PV_USER_DS 0x2B
#ifdef __x86_64__
#define PV_USER_CS 0x33
#else
#define PV_USER_CS 0x23
#endif
#define PV_TSS 0x40

/* Where application processors start: page 8, which no loader uses once the kernel runs. */
#define PV_TRAMPOLINE 0x8000

/* How a body of pv_user comes back. */
#define PV_USER_RETURN_VECTOR 0x81

#endif
