/* SPDX-License-Identifier: Apache-2.0 OR MIT
 *
 * From the loader's 32-bit state to main, the same for application processors from real mode, the stubs of all
 * interrupt vectors, and the few routines which C cannot express.
 */
#include "internal.h"

#define MULTIBOOT_MAGIC 0x1BADB002
/* Align modules, give memory information, and take the addresses below instead of ELF headers. */
#define MULTIBOOT_FLAGS 0x00010003

#define CR0_PE_PG_WP 0x80010001
#define CR0_ET 0x10
#define CR4_PAE 0x20
#define MSR_EFER 0xC0000080
#define EFER_LME_SCE 0x101
#define PAGE_2M 0xE7 /* present, writable, user, accessed, dirty, large */
#define PAGE_TABLE 0x27 /* present, writable, user, accessed */

    .macro LOAD_DATA_SEGMENTS
    mov $PV_DS, %ecx
    mov %ecx, %ds
    mov %ecx, %es
    mov %ecx, %fs
    mov %ecx, %gs
    mov %ecx, %ss
    .endm

    .section .multiboot, "a"
    .balign 4
multiboot_header:
    .long MULTIBOOT_MAGIC
    .long MULTIBOOT_FLAGS
    .long -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)
    .long multiboot_header
    .long __load_start
    .long __load_end
    .long __bss_end
    .long _start

    .text
    .code32
    .globl _start
    .type _start, @function
_start:
    cli
    cld
    lgdt pv_gdt_pointer
    ljmp $PV_CS32, $1f
1:
    LOAD_DATA_SEGMENTS
    mov $(pv_stacks + PV_STACK_SIZE), %esp
    cmp $0x2BADB002, %eax
    je 1f
    xor %ebx, %ebx
1:
    mov %ebx, pv_boot_info_address
    call make_page_tables
    xor %edi, %edi
    jmp start_cpu

/* Map 4 GiB one to one with 2-MiB pages: four page directories, a table of their addresses, and in 64-bit mode one more. */
make_page_tables:
    xor %ecx, %ecx
1:
    mov %ecx, %eax
    shl $21, %eax
    or $PAGE_2M, %eax
    mov %eax, page_directories(, %ecx, 8)
    inc %ecx
    cmp $2048, %ecx
    jne 1b

    xor %ecx, %ecx
1:
    mov %ecx, %eax
    shl $12, %eax
#ifdef __x86_64__
    lea page_directories + PAGE_TABLE(%eax), %eax
#else
    lea page_directories + 1(%eax), %eax /* a PDPTE of PAE paging has no W, U and A bits */
#endif
    mov %eax, page_directory_pointers(, %ecx, 8)
    inc %ecx
    cmp $4, %ecx
    jne 1b

#ifdef __x86_64__
    movl $(page_directory_pointers + PAGE_TABLE), pv_page_map
#endif
    ret

/* CPU number in EDI; paging, 64-bit mode, stack, then C. */
start_cpu:
    mov %cr4, %eax
    or $CR4_PAE, %eax
    mov %eax, %cr4
    mov $pv_page_map, %eax
    mov %eax, %cr3
#ifdef __x86_64__
    mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LME_SCE, %eax
    wrmsr
#endif
    mov $(CR0_PE_PG_WP | CR0_ET), %eax
    mov %eax, %cr0
    ljmp $PV_CS, $1f
#ifdef __x86_64__
    .code64
1:
    lea 1(%rdi), %eax
    imul $PV_STACK_SIZE, %eax, %eax
    lea pv_stacks(%rax), %rsp
    xor %ebp, %ebp
    call pv_main
#else
1:
    lea 1(%edi), %eax
    imul $PV_STACK_SIZE, %eax, %eax
    lea pv_stacks(%eax), %esp
    xor %ebp, %ebp
    sub $12, %esp
    push %edi
    call pv_main
#endif
1:
    hlt
    jmp 1b

/* Application processors begin here in real mode, copied to PV_TRAMPOLINE, with CS:IP = (PV_TRAMPOLINE >> 4):0. */
    .code16
    .globl pv_trampoline, pv_trampoline_end
pv_trampoline:
    cli
    lgdtl %cs:(trampoline_gdt_pointer - pv_trampoline)
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $PV_CS32, $start_application_processor
    .balign 4
trampoline_gdt_pointer:
    .word pv_gdt_end - pv_gdt - 1
    .long pv_gdt
pv_trampoline_end:

    .code32
start_application_processor:
    LOAD_DATA_SEGMENTS
    mov $1, %eax
    cpuid
    shr $24, %ebx
    mov %ebx, %edi
    cmp $PV_MAX_CPUS, %edi
    jb start_cpu
1:
    hlt
    jmp 1b

/* ---- Interrupts ------------------------------------------------------------------------------------------------- */

/* Vectors which push an error code: 8, 10-14, 17, 21, 29, 30. */
#define HAS_ERROR_CODE 0x60227D00

#ifdef __x86_64__
    .code64
#endif
    .balign 16
    .globl pv_interrupt_stubs
pv_interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if ((HAS_ERROR_CODE >> (vector & 31)) & (vector < 32) & 1) == 0
    push $0
    .endif
    push $vector
    jmp interrupt
    .set vector, vector + 1
    .endr

#ifdef __x86_64__
interrupt:
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbx
    and $-16, %rsp
    call pv_interrupt
    mov %rbx, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rbp
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    add $16, %rsp
    iretq

    .globl pv_setjmp
pv_setjmp:
    mov (%rsp), %rax
    pushfq
    pop %rcx
    lea 8(%rsp), %rdx
    mov %rbx, 0(%rdi)
    mov %rbp, 8(%rdi)
    mov %r12, 16(%rdi)
    mov %r13, 24(%rdi)
    mov %r14, 32(%rdi)
    mov %r15, 40(%rdi)
    mov %rdx, 48(%rdi)
    mov %rax, 56(%rdi)
    mov %rcx, 64(%rdi)
    xor %eax, %eax
    ret

    .globl pv_longjmp
pv_longjmp:
    mov 0(%rdi), %rbx
    mov 8(%rdi), %rbp
    mov 16(%rdi), %r12
    mov 24(%rdi), %r13
    mov 32(%rdi), %r14
    mov 40(%rdi), %r15
    mov $PV_DS, %ecx
    mov %ecx, %ss
    mov 48(%rdi), %rsp
    mov %esi, %eax
    push 64(%rdi)
    popfq
    jmp *56(%rdi)

/* pv_enter_user(body, argument, top of stack) */
    .globl pv_enter_user
pv_enter_user:
    lea -8(%rdx), %rdx
    movq $user_return, (%rdx)
    mov %rdi, %rcx
    mov %rsi, %rdi
    push $PV_USER_DS
    push %rdx
    push $2
    push $PV_USER_CS
    push %rcx
    iretq

#else
interrupt:
    pusha
    cld
    mov $PV_DS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %esp, %ebx
    and $-16, %esp
    sub $12, %esp
    push %ebx
    call pv_interrupt
    mov %ebx, %esp
    testb $3, 44(%esp) /* CS of the frame */
    jz 1f
    mov $PV_USER_DS, %eax
    mov %eax, %ds
    mov %eax, %es
1:
    popa
    add $8, %esp
    iret

    .globl pv_setjmp
pv_setjmp:
    mov 4(%esp), %eax
    mov %ebx, 0(%eax)
    mov %ebp, 4(%eax)
    mov %esi, 8(%eax)
    mov %edi, 12(%eax)
    lea 4(%esp), %ecx
    mov %ecx, 16(%eax)
    mov (%esp), %ecx
    mov %ecx, 20(%eax)
    pushf
    pop 24(%eax)
    xor %eax, %eax
    ret

    .globl pv_longjmp
pv_longjmp:
    mov 4(%esp), %edx
    mov 8(%esp), %eax
    mov 0(%edx), %ebx
    mov 4(%edx), %ebp
    mov 8(%edx), %esi
    mov 12(%edx), %edi
    mov 16(%edx), %esp
    push 24(%edx)
    popf
    jmp *20(%edx)

    .globl pv_enter_user
pv_enter_user:
    mov 4(%esp), %ecx
    mov 8(%esp), %eax
    mov 12(%esp), %edx
    lea -8(%edx), %edx
    movl $user_return, (%edx)
    mov %eax, 4(%edx)
    mov $PV_USER_DS, %eax
    mov %eax, %ds
    mov %eax, %es
    push $PV_USER_DS
    push %edx
    push $2
    push $PV_USER_CS
    push %ecx
    iret
#endif

user_return:
    int $PV_USER_RETURN_VECTOR
    ud2

/* ---- Tables ----------------------------------------------------------------------------------------------------- */

    .data
    .balign 16
    .globl pv_gdt, pv_gdt_end
pv_gdt:
    .quad 0
#ifdef __x86_64__
    .quad 0x00AF9B000000FFFF /* PV_CS: 64-bit code */
#else
    .quad 0x00CF9B000000FFFF /* PV_CS: 32-bit code */
#endif
    .quad 0x00CF93000000FFFF /* PV_DS */
    .quad 0x00CF9B000000FFFF /* PV_CS32 */
    .quad 0x00CFFB000000FFFF /* user 32-bit code; then data, then 64-bit code, in the order that SYSRET wants */
    .quad 0x00CFF3000000FFFF
    .quad 0x00AFFB000000FFFF
    .quad 0
    .skip 16 * PV_MAX_CPUS   /* task state segments, from PV_TSS on */
pv_gdt_end:

pv_gdt_pointer:
    .word pv_gdt_end - pv_gdt - 1
    .long pv_gdt
    .long 0

    .bss
    .balign 4096
page_directories:
    .skip 4 * 4096
page_directory_pointers:
#ifdef __x86_64__
    .skip 4096
    .globl pv_page_map
pv_page_map:
#else
    .globl pv_page_map
    .set pv_page_map, page_directory_pointers
#endif
    .skip 4096
    .globl pv_stacks
pv_stacks:
    .skip PV_STACK_SIZE * PV_MAX_CPUS
    .globl pv_boot_info_address
pv_boot_info_address:
    .long 0

    .section .note.GNU-stack, "", @progbits
