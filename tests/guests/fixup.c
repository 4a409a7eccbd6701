/*
 * Repair of hypercall instructions.
 *
 * Rule: a foreign hypercall instruction at CPL 0 is carried out, and nothing but its result shows that it was foreign.
 * With policy "patch" the last byte of its opcode is replaced, once for each place, whatever the page's rights; with
 * "emulate" the text stays as it is. All that only looks like a hypercall, and all that comes from CPL 3, gets the
 * exception that the CPU raised.
 *
 * Arguments: the foreign instruction (vmcall or vmmcall); "patch", "patch-to-int" on a host whose own call is
 * "int 0x1f; nop", or "emulate"; and the cases to run (none: all).
 */
#include "code.h"

#define CODE_AT 0x60000000UL
#define PAGE 4096UL

static enum instruction foreign;
static enum { PATCHES, PATCHES_TO_INT, EMULATES } policy;

/* What the text must be after a repaired call. */
static bool text_is_right(const uint8_t *at)
{
    static const uint8_t int_1f[] = {0xCD, 0x1F, 0x90};

    if (policy == PATCHES_TO_INT)
        return memcmp(at, int_1f, sizeof(int_1f)) == 0;
    return is_call(at, policy == PATCHES ? other_instruction(foreign) : foreign);
}

static void test_writable(void)
{
    uint8_t *code = pv_alloc_page();

    put_call(code, foreign);
    pv_check(call_sum(code) == SUM_OF_TEST_ARGUMENTS, "writable text: result");
    pv_check(text_is_right(code), "writable text: bytes");
    pv_check(call_sum(code) == SUM_OF_TEST_ARGUMENTS, "writable text: the same place again");
    pv_check(code[3] == 0xC3, "writable text: what follows");
}

static void test_native(void)
{
    uint8_t *code = pv_alloc_page();

    put_call(code, other_instruction(foreign));
    pv_check(call_sum(code) == SUM_OF_TEST_ARGUMENTS, "native: result");
    pv_check(is_call(code, other_instruction(foreign)), "native: bytes");
}

/* The guest's own write to this page would fault: CR0.WP is set. The repair must not, nor may it touch CR2. */
static void test_read_only(void)
{
    uint8_t *code = pv_alloc_page();

    put_call(code, foreign);
    pv_map((uintptr_t)code, (uintptr_t)code, PV_PRESENT);
    pv_check(pv_catch(*(volatile uint8_t *)code = 0) == PV_PF, "read-only text: is read-only");
    pv_write_cr2(0x1234567);
    pv_check(call_sum(code) == SUM_OF_TEST_ARGUMENTS, "read-only text: result");
    pv_check(text_is_right(code), "read-only text: bytes");
    pv_check(pv_read_cr2() == 0x1234567, "read-only text: CR2");
}

static uint8_t *map_two_pages_backwards(void)
{
    uintptr_t second = (uintptr_t)pv_alloc_page(), first = (uintptr_t)pv_alloc_page();

    pv_map(CODE_AT, first, PV_DEFAULT);
    pv_map(CODE_AT + PAGE, second, PV_DEFAULT);
    return (uint8_t *)CODE_AT;
}

/* The two pages follow each other only in linear address; in memory the second comes first. */
static void test_straddling(void)
{
    for (unsigned bytes_before = 1; bytes_before <= 3; bytes_before++) {
        uint8_t *code = map_two_pages_backwards() + PAGE - bytes_before;

        put_call(code, foreign);
        pv_check(call_sum(code) == SUM_OF_TEST_ARGUMENTS, "straddling, %u bytes before: result", bytes_before);
        pv_check(text_is_right(code) && code[3] == 0xC3, "straddling, %u bytes before: bytes", bytes_before);
    }
}

/* The CPU cannot even decode it: the page fault is the fetch's, and there is no other. */
static void test_straddling_absent(void)
{
    for (unsigned bytes_before = 1; bytes_before <= 2; bytes_before++) {
        uint8_t *code = map_two_pages_backwards() + PAGE - bytes_before;
        int vector;

        put_call(code, foreign);
        pv_map(CODE_AT + PAGE, 0, 0);
        vector = pv_catch(call_sum(code));
        pv_check(vector == PV_PF && pv_fault()->cr2 == CODE_AT + PAGE && pv_fault()->ip == (uintptr_t)code &&
                     !(pv_fault()->error_code & 7),
                 "straddling into nothing, %u bytes before: vector %d", bytes_before, vector);
    }
}

static void test_last_before_absent(void)
{
    uint8_t *code = map_two_pages_backwards() + PAGE - 3;

    put_call(code, foreign);
    pv_map(CODE_AT + PAGE, 0, 0);
    pv_check(pv_catch(call_sum(code)) == PV_PF && pv_fault()->ip == CODE_AT + PAGE &&
                 pv_fault()->ax == SUM_OF_TEST_ARGUMENTS,
             "last bytes before an absent page");
    pv_check(text_is_right(code), "last bytes before an absent page: bytes");
}

static void test_harmless_prefixes(void)
{
    static const struct {
        const char *name;
        uint8_t length, bytes[2];
    } cases[] = {
        {"66", 1, {0x66}},
        {"segment", 1, {0x2E}},
        {"66 and segment", 2, {0x66, 0x3E}},
#ifdef __x86_64__
        {"REX.W", 1, {0x48}},
        {"66 and REX", 2, {0x66, 0x40}},
#endif
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *code = pv_alloc_page(), *at = put(code, cases[i].bytes, cases[i].length);

        put_call(at, foreign);
        pv_check(call_sum(code) == SUM_OF_TEST_ARGUMENTS, "prefix %s: result", cases[i].name);
        pv_check(memcmp(code, cases[i].bytes, cases[i].length) == 0 && text_is_right(at) && at[3] == 0xC3,
                 "prefix %s: bytes", cases[i].name);
    }
}

static void test_other_prefixes(void)
{
    static const uint8_t prefixes[] = {0xF0, 0xF2, 0xF3};

    for (size_t i = 0; i < sizeof(prefixes); i++) {
        uint8_t *code = pv_alloc_page();

        code[0] = prefixes[i];
        put_call(code + 1, foreign);
        pv_check(pv_catch(call_sum(code)) == PV_UD && pv_fault()->ip == (uintptr_t)code, "prefix %x: #UD", prefixes[i]);
        pv_check(is_call(code + 1, foreign), "prefix %x: bytes", prefixes[i]);
    }
}

static uintptr_t traps[16];
static volatile unsigned num_traps;

static void count_trap(struct pv_frame *frame)
{
    if (num_traps < 16)
        traps[num_traps++] = frame->ip;
}

/* Single-step over the call: one #DB behind it, as behind any instruction, and none at it. "int 0x1f; nop" are two. */
static void test_single_step(void)
{
    static const uint8_t set_tf[] = {0x9C, 0x81, 0x0C, 0x24, 0x00, 0x01, 0x00, 0x00, 0x9D};
    static const uint8_t clear_tf[] = {0x90, 0x9C, 0x81, 0x24, 0x24, 0xFF, 0xFE, 0xFF, 0xFF, 0x9D, 0xC3};
    uint8_t *code = pv_alloc_page(), *at = put(code, set_tf, sizeof(set_tf));
    unsigned first;
    long result;

    put_call(at, foreign);
    put(at + 3, clear_tf, sizeof(clear_tf));
    num_traps = 0;
    pv_set_handler(PV_DB, count_trap);
    result = call_sum(code);
    pv_set_handler(PV_DB, NULL);
    pv_check(result == SUM_OF_TEST_ARGUMENTS, "single step: result");
    first = policy == PATCHES_TO_INT ? 2 : 3;
    pv_check(num_traps == 8 - first && traps[0] == (uintptr_t)at + first && traps[1] == traps[0] + 1,
             "single step: %u traps, the first at call + %ld", num_traps, (long)(traps[0] - (uintptr_t)at));
}

static void test_canonical_edge(void)
{
#ifdef __x86_64__
    uint8_t *page = (uint8_t *)0x7FFFFFFFF000, *code = page + PAGE - 3;

    pv_map((uintptr_t)page, (uintptr_t)pv_alloc_page(), PV_DEFAULT);
    code[0] = 0x0F;
    code[1] = 0x01;
    code[2] = foreign;
    pv_check(pv_catch(call_sum(code)) == PV_GP && pv_fault()->ip == 0x800000000000 && pv_fault()->error_code == 0 &&
                 pv_fault()->ax == SUM_OF_TEST_ARGUMENTS,
             "edge of the canonical space: vector %d at %lx", pv_fault()->vector, pv_fault()->ip);
    pv_check(text_is_right(code), "edge of the canonical space: bytes");
#else
    pv_skip("32-bit code has no canonical addresses");
#endif
}

static long call_from_user(long code)
{
    return call_sum((void *)code);
}

/* Nobody at CPL 3 makes the hypervisor write to a page, not even to one that it could write itself. */
static void test_user(void)
{
    uint8_t *code = pv_alloc_page();
    long result = 0;

    put_call(code, foreign);
    pv_check(pv_user(call_from_user, (long)code, &result) == PV_UD && pv_fault()->ip == (uintptr_t)code, "CPL 3: #UD");
    pv_check(is_call(code, foreign), "CPL 3: bytes");
}

static volatile unsigned num_ud;
static uint8_t *nested_code;
static volatile long nested_result;

static void call_in_handler(struct pv_frame *frame)
{
    num_ud++;
    nested_result = call_sum(nested_code);
    frame->ip += 2; /* past UD2 */
}

/* The call's own #UD must not appear in a guest that is just handling one. */
static void test_in_ud_handler(void)
{
    nested_code = pv_alloc_page();
    put_call(nested_code, foreign);
    pv_set_handler(PV_UD, call_in_handler);
    __asm__ volatile("ud2");
    pv_set_handler(PV_UD, NULL);
    pv_check(num_ud == 1 && nested_result == SUM_OF_TEST_ARGUMENTS, "in a #UD handler: %u exceptions", num_ud);
}

static void test_other_invalid(void)
{
    static const uint8_t cases[][4] = {
        {0x0F, 0x0B, 0xC3},       /* UD2 */
        {0x0F, 0xB9, 0xC0, 0xC3}, /* UD1 */
        {0x0F, 0x01, 0xC2, 0xC3}, /* VMLAUNCH */
        {0x0F, 0x01, 0xC4, 0xC3}, /* VMXOFF */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *code = pv_alloc_page();

        put(code, cases[i], sizeof(cases[i]));
        pv_write_cr2(0x7654321);
        pv_check(pv_catch(call_sum(code)) == PV_UD && pv_fault()->ip == (uintptr_t)code && pv_read_cr2() == 0x7654321,
                 "invalid opcode %x %x %x", cases[i][0], cases[i][1], cases[i][2]);
        pv_check(memcmp(code, cases[i], sizeof(cases[i])) == 0, "invalid opcode %x %x %x: bytes", cases[i][0],
                 cases[i][1], cases[i][2]);
    }
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"writable", test_writable},
    {"native", test_native},
    {"read-only", test_read_only},
    {"straddling", test_straddling},
    {"straddling-absent", test_straddling_absent},
    {"last-before-absent", test_last_before_absent},
    {"harmless-prefixes", test_harmless_prefixes},
    {"other-prefixes", test_other_prefixes},
    {"single-step", test_single_step},
    {"canonical-edge", test_canonical_edge},
    {"user", test_user},
    {"in-ud-handler", test_in_ud_handler},
    {"other-invalid", test_other_invalid},
};

int main(int argc, char **argv)
{
    foreign = instruction_named(argv[1]);
    policy = strcmp(argv[2], "patch") == 0 ? PATCHES : strcmp(argv[2], "patch-to-int") == 0 ? PATCHES_TO_INT : EMULATES;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool wanted = argc <= 3;

        for (int j = 3; j < argc; j++)
            wanted |= strcmp(argv[j], cases[i].name) == 0;
        if (wanted)
            cases[i].run();
    }
    return pv_failures();
}
