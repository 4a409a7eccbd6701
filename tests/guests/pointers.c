/*
 * An interface of the test's own takes pointers. Rule: a good one is read or written; a bad one is the guest's error.
 */
#include "code.h"

#define CALL_READ_GPA 0x110   /* returns the sum of a struct point at a physical address */
#define CALL_WRITE_GVA 0x111  /* writes a struct point {7, 8} at a linear address */
#define CALL_NARROW 0x112     /* returns its argument, declared i32 */
#define FAULT (-14L)

struct point {
    uint32_t x, y;
};

int main(void)
{
    static struct point point = {30, 12};
    uint8_t *pages = (uint8_t *)0x70000000UL;
    struct point *across = (struct point *)(pages + 4096 - 4);

    pv_check(pv_hypercall1(CALL_READ_GPA, (uintptr_t)&point) == 42, "read");
    pv_check(pv_hypercall1(CALL_READ_GPA, 0xFFFFFFF0) == FAULT, "read where there is no memory");
    pv_check(pv_hypercall1(CALL_READ_GPA, -4UL) == FAULT, "read across the end of the address space");

    pv_check(pv_hypercall1(CALL_WRITE_GVA, (uintptr_t)&point) == 0 && point.x == 7 && point.y == 8, "write");
    pv_map((uintptr_t)pages, (uintptr_t)pv_alloc_page(), PV_DEFAULT);
    pv_map((uintptr_t)pages + 4096, 0, 0);
    pv_check(pv_hypercall1(CALL_WRITE_GVA, (uintptr_t)across) == FAULT, "write into an absent page");
    pv_check(across->x == 0, "nothing of it was written");
    pv_map((uintptr_t)pages + 4096, (uintptr_t)pv_alloc_page(), PV_DEFAULT);
    pv_check(pv_hypercall1(CALL_WRITE_GVA, (uintptr_t)across) == 0 && across->x == 7 && across->y == 8,
             "write across two pages");

    pv_check(pv_hypercall1(CALL_NARROW, 0xFFFFFFFEUL) == -2, "a narrow argument is signed");
    return pv_failures();
}
