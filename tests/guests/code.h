/* Code that a test writes byte by byte, and calls as a hypercall stub. */
#ifndef TESTS_CODE_H
#define TESTS_CODE_H

#include <paravirt.h>

enum instruction { VMCALL = 0xC1, VMMCALL = 0xD9 };

/* The interface that the tests attach answers call 0x100 by a0 + 2 a1 + 3 a2 + 4 a3. */
#define CALL_SUM 0x100
#define SUM_OF_TEST_ARGUMENTS (1000 + 2 * 200 + 3 * 30 + 4 * 4)

static inline long call_code(const void *code, unsigned long number, unsigned long a0, unsigned long a1,
                             unsigned long a2, unsigned long a3)
{
    long result;

    __asm__ volatile("call *%1"
                     : "=a"(result)
                     : "D"(code), "a"(number), "b"(a0), "c"(a1), "d"(a2), "S"(a3)
                     : "memory", "cc");
    return result;
}

static inline long call_sum(const void *code)
{
    return call_code(code, CALL_SUM, 1000, 200, 30, 4);
}

/* The hypercall instruction that argv[1] names, and the other one. */
static inline enum instruction instruction_named(const char *name)
{
    return strcmp(name, "vmcall") ? VMMCALL : VMCALL;
}

static inline enum instruction other_instruction(enum instruction instruction)
{
    return instruction == VMCALL ? VMMCALL : VMCALL;
}

static inline uint8_t *put(uint8_t *at, const void *bytes, size_t length)
{
    memcpy(at, bytes, length);
    return at + length;
}

/* "0F 01 xx; ret" */
static inline void put_call(uint8_t *at, enum instruction instruction)
{
    const uint8_t bytes[] = {0x0F, 0x01, (uint8_t)instruction, 0xC3};

    put(at, bytes, sizeof(bytes));
}

static inline bool is_call(const volatile uint8_t *at, enum instruction instruction)
{
    return at[0] == 0x0F && at[1] == 0x01 && at[2] == instruction;
}

#endif
