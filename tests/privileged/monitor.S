/*
 * A guest that puts the processor into given states, lets it execute a few instructions there, and records how that ended.
 *
 * It is the same image for each processor that is compared; layout.py has the names in capitals, image.py adds the cases. A case is
 * a list of stores into low memory (descriptor tables, page tables, code, stacks), MSRs, control, debug and general registers, and
 * the frame with which to start. It ends with the first exception: code is followed by UD2 wherever it may go. Handlers in 32-bit mode
 * are interrupt gates, but #DF, #TS and #SS are task gates, so that they work on any stack; in long mode all use an IST stack.
 * The record is what the exception says, the registers, and each dword of low memory that has changed since the start.
 */

        .section .text
        .code32
        .globl _start

/* Multiboot header with addresses; image.py fills in where the image ends. */
        .long   0x1BADB002
        .long   0x00010002              /* addresses given, memory information */
        .long   -(0x1BADB002 + 0x00010002)
        .long   MONITOR                 /* header_addr */
        .long   MONITOR                 /* load_addr */
        .long   0                       /* load_end_addr */
        .long   0                       /* bss_end_addr */
        .long   _start

_start:
        cli
        cld
        movb    $0xFF, %al              /* No interrupts: mask both controllers. */
        outb    %al, $0x21
        outb    %al, $0xA1
        lgdt    home_gdtr
        ljmp    $0x08, $1f
1:      movl    $CASES, next_case
        movl    $RECORDS, next_record
        movl    $0, number

home:   /* 32-bit code, no paging, all segments flat. */
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $STACK_TOP, %esp
        lidt    no_idtr
        xorl    %eax, %eax
        movl    %eax, %cr4
        movl    %eax, %cr2
        movl    number, %eax
        cmpl    PARAMETERS, %eax
        jb      prepare
        movb    $0, %al
        outb    %al, $0xF4              /* isa-debug-exit: the end */
1:      cli
        hlt
        jmp     1b

prepare:
        movl    $PRISTINE, %esi
        movl    $ARENA, %edi
        movl    PARAMETERS + 4, %ecx    /* dwords of low memory in use */
        rep movsl
        movl    next_case, %ebx
        leal    C_PATCHES(%ebx), %esi
        movl    C_NUM_PATCHES(%ebx), %ecx
        jecxz   2f
1:      movl    (%esi), %edi
        movl    4(%esi), %eax
        movl    %eax, (%edi)
        addl    $8, %esi
        loop    1b
2:      movl    C_NUM_MSRS(%ebx), %ebp
1:      decl    %ebp
        js      2f
        movl    (%esi), %ecx
        movl    4(%esi), %eax
        movl    8(%esi), %edx
        wrmsr
        addl    $12, %esi
        jmp     1b
2:      movl    $ARENA, %esi
        movl    $SHADOW, %edi
        movl    PARAMETERS + 4, %ecx
        rep movsl
        movl    %ebx, %esi              /* The page tables map the monitor, not the cases. */
        movl    $current, %edi
        movl    $C_PATCHES / 4, %ecx
        rep movsl
        addl    (%ebx), %ebx
        movl    %ebx, next_case
        movl    $current, %ebx
        movl    C_CR3(%ebx), %eax       /* Task gates go on with the same page tables. */
        movl    %eax, MONITOR_TSS + 0x1C
        movl    %eax, MONITOR_TSS + 0x80 + 0x1C
        movl    %eax, MONITOR_TSS + 0x100 + 0x1C

        lgdt    case_gdtr
        movl    C_CR4(%ebx), %eax
        movl    %eax, %cr4
        movl    $0xC0000080, %ecx
        movl    C_EFER(%ebx), %eax
        xorl    %edx, %edx
        wrmsr
        movl    C_CR3(%ebx), %eax
        movl    %eax, %cr3
        movl    C_CR0(%ebx), %eax
        movl    %eax, %cr0
        testl   $1 << 22, C_CR4(%ebx)
        jz      1f
        movl    C_PKRU(%ebx), %eax
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        .byte   0x0F, 0x01, 0xEF        /* wrpkru */
1:      testl   $1, C_FLAGS(%ebx)
        jnz     1f
        ljmp    $0x08, $start32
1:      ljmp    $0x18, $start64

/* The registers of the case that are general in every mode, but for the one that points to it. */
        .macro  load_registers mov, r, case
        \mov   C_RAX(%\case), %\r\()ax
        \mov   C_RCX(%\case), %\r\()cx
        \mov   C_RDX(%\case), %\r\()dx
        \mov   C_RBP(%\case), %\r\()bp
        \mov   C_RSI(%\case), %\r\()si
        \mov   C_RDI(%\case), %\r\()di
        .endm

/* Breakpoints. What happens here until the case starts is not where any may be. */
        .macro  load_breakpoints mov, a, case
        \mov   C_DR0(%\case), %\a
        \mov   %\a, %dr0
        \mov   C_DR1(%\case), %\a
        \mov   %\a, %dr1
        \mov   C_DR2(%\case), %\a
        \mov   %\a, %dr2
        \mov   C_DR3(%\case), %\a
        \mov   %\a, %dr3
        movl    C_DR7(%\case), %eax
        \mov   %\a, %dr7
        .endm

start32:
        lidt    case_idtr
        load_breakpoints movl, eax, ebx
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        lldt    C_LDTR(%ebx)
        ltr     C_TR(%ebx)
        testl   $EFLAGS_VM, C_RFLAGS(%ebx)
        jz      1f
        movl    C_DATA(%ebx), %eax
        pushl   %eax
        pushl   %eax
        pushl   %eax
        pushl   %eax
        jmp     2f
1:      testl   $3, C_CS(%ebx)
        jz      start_at_level_0
2:      pushl   C_SS(%ebx)
        pushl   C_RSP(%ebx)
        pushl   C_RFLAGS(%ebx)
        pushl   C_CS(%ebx)
        pushl   C_RIP(%ebx)
        movl    C_DATA(%ebx), %eax
        testl   $EFLAGS_VM, C_RFLAGS(%ebx)
        jz      1f
        xorl    %eax, %eax
1:      movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        pushl   %eax
        load_registers movl, e, ebx
        movl    C_RBX(%ebx), %ebx
        popl    %ds
        iretl

start_at_level_0:
        movl    C_RIP(%ebx), %eax
        movl    %eax, pointer
        movw    C_CS(%ebx), %ax
        movw    %ax, pointer + 4
        pushl   C_RFLAGS(%ebx)
        popfl
        movl    C_DATA(%ebx), %eax
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        load_registers movl, e, ebx
        movw    C_SS(%ebx), %ss
        movl    C_RSP(%ebx), %esp
        movl    C_RBX(%ebx), %ebx
        ljmp    *pointer

        .code64
start64:
        lidt    case_idtr
        movl    $0x10, %eax
        movl    %eax, %ss
        movl    $STACK_TOP, %esp
        lldt    C_LDTR(%rbx)
        ltr     C_TR(%rbx)
        load_breakpoints movq, rax, rbx
        movl    C_DATA(%rbx), %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        movl    C_SS(%rbx), %eax
        pushq   %rax
        pushq   C_RSP(%rbx)
        movl    C_RFLAGS(%rbx), %eax
        pushq   %rax
        movl    C_CS(%rbx), %eax
        pushq   %rax
        pushq   C_RIP(%rbx)
        load_registers movq, r, rbx
        movq    C_RBX(%rbx), %rbx
        xorl    %r11d, %r11d
        iretq

        .code32
common32:                               /* vector, error code, EIP, CS, EFLAGS, perhaps ESP, SS, perhaps ES, DS, FS, GS */
        pushl   %ds
        pushl   %eax
        movl    $0x10, %eax
        movl    %eax, %ds
        popl    R_RAX
        popl    R_DS
        popl    R_VECTOR
        popl    R_ERROR
        popl    R_RIP
        popl    R_CS
        popl    R_RFLAGS
        movl    %es, %eax
        movl    %eax, R_ES
        movl    %fs, %eax
        movl    %eax, R_FS
        movl    %gs, %eax
        movl    %eax, R_GS
        testl   $EFLAGS_VM, R_RFLAGS
        jnz     1f
        testl   $3, R_CS
        jnz     2f
        movl    %esp, R_RSP
        movl    %ss, %eax
        movl    %eax, R_SS
        jmp     3f
1:      popl    R_RSP
        popl    R_SS
        popl    R_ES
        popl    R_DS
        popl    R_FS
        popl    R_GS
        jmp     3f
2:      popl    R_RSP
        popl    R_SS
3:      movl    %ecx, R_RCX
        movl    %edx, R_RDX
        movl    %ebx, R_RBX
        movl    %ebp, R_RBP
        movl    %esi, R_RSI
        movl    %edi, R_RDI
        xorl    %eax, %eax
        movl    %eax, R_RIP + 4
        movl    %eax, R_RFLAGS + 4
        movl    %eax, R_RSP + 4
        movl    %eax, R_RAX + 4
        movl    %eax, R_RCX + 4
        movl    %eax, R_RDX + 4
        movl    %eax, R_RBX + 4
        movl    %eax, R_RBP + 4
        movl    %eax, R_RSI + 4
        movl    %eax, R_RDI + 4
        movl    %eax, R_CR2 + 4
        movl    %eax, R_R11
        movl    %eax, R_R11 + 4
        movl    %cr2, %eax
        movl    %eax, R_CR2
finish32:
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $STACK_TOP, %esp
        pushl   $2
        popfl
        movl    %dr6, %eax
        movl    %eax, R_DR6
        movl    %dr7, %eax
        movl    %eax, R_DR7
        movl    $0x400, %eax
        movl    %eax, %dr7
        movl    $0xFFFF0FF0, %eax
        movl    %eax, %dr6
        xorl    %eax, %eax
        str     %ax
        movl    %eax, R_TR
        sldt    %ax
        movl    %eax, R_LDTR
        movl    %cr0, %eax
        movl    %eax, R_CR0
        movl    %cr4, %eax
        movl    %eax, R_CR4
        andw    $0xFFFF, R_CS + 0
        movw    $0, R_CS + 2
        movw    $0, R_SS + 2
        movw    $0, R_DS + 2
        movw    $0, R_ES + 2
        movw    $0, R_FS + 2
        movw    $0, R_GS + 2
        movl    $0x11, %eax
        movl    %eax, %cr0
        lgdt    home_gdtr
        ljmp    $0x08, $1f
1:      movl    $0xC0000080, %ecx
        xorl    %eax, %eax
        xorl    %edx, %edx
        wrmsr

        movl    next_record, %edi
        movl    number, %eax
        stosl
        movl    $record, %esi
        movl    $RECORD_DWORDS, %ecx
        rep movsl
        movl    %edi, %ebx              /* where the number of changes goes */
        addl    $4, %edi
        movl    %edi, %ebp
        movl    $ARENA, %esi
        movl    $SHADOW, %edi
        movl    PARAMETERS + 4, %ecx
1:      repe cmpsl
        je      2f
        movl    -4(%esi), %eax
        leal    -4(%esi), %edx
        movl    %edx, (%ebp)
        movl    %eax, 4(%ebp)
        addl    $8, %ebp
        testl   %ecx, %ecx
        jnz     1b
2:      movl    %ebp, %eax
        subl    %ebx, %eax
        subl    $4, %eax
        shrl    $3, %eax
        movl    %eax, (%ebx)
        movl    %ebp, next_record
        incl    number
        movl    number, %eax
        movl    %eax, PARAMETERS + 8    /* how far it has come */
        jmp     home

common_task:                            /* vector, error code; the interrupted state is in its own TSS */
        movl    $record, %edi
        movl    $RECORD_DWORDS, %ecx
        xorl    %eax, %eax
        rep stosl
        popl    R_VECTOR
        popl    R_ERROR
        orl     $0x100, R_VECTOR
        movl    %cr2, %eax
        movl    %eax, R_CR2
        jmp     finish32

        .code64
common64:
        movq    %rax, R_RAX
        popq    %rax
        movl    %eax, R_VECTOR
        popq    %rax
        movl    %eax, R_ERROR
        popq    R_RIP
        popq    %rax
        movl    %eax, R_CS
        popq    R_RFLAGS
        popq    R_RSP
        popq    %rax
        movl    %eax, R_SS
        movq    %rcx, R_RCX
        movq    %rdx, R_RDX
        movq    %rbx, R_RBX
        movq    %rbp, R_RBP
        movq    %rsi, R_RSI
        movq    %rdi, R_RDI
        movq    %r11, R_R11
        movl    %ds, %eax
        movl    %eax, R_DS
        movl    %es, %eax
        movl    %eax, R_ES
        movl    %fs, %eax
        movl    %eax, R_FS
        movl    %gs, %eax
        movl    %eax, R_GS
        movq    %cr2, %rax
        movq    %rax, R_CR2
        pushq   $0x08
        pushq   $finish32
        lretq

        .balign 16
home_gdt:
        .quad   0
        .quad   0x00CF9B000000FFFF
        .quad   0x00CF93000000FFFF
home_gdtr:
        .word   23
        .long   home_gdt
case_gdtr:
        .word   GDT_LIMIT
        .quad   GDT
case_idtr:
        .word   IDT_LIMIT
        .quad   IDT
no_idtr:
        .word   0
        .quad   0
        .balign 16
next_case:      .long 0
next_record:    .long 0
number:         .long 0
pointer:        .quad 0
current:        .skip C_PATCHES
        .balign 16
record:
R_VECTOR:       .long 0
R_ERROR:        .long 0
R_CS:           .long 0
R_SS:           .long 0
R_DS:           .long 0
R_ES:           .long 0
R_FS:           .long 0
R_GS:           .long 0
R_TR:           .long 0
R_LDTR:         .long 0
R_CR0:          .long 0
R_CR4:          .long 0
R_DR6:          .long 0
R_DR7:          .long 0
R_CR2:          .quad 0
R_RIP:          .quad 0
R_RFLAGS:       .quad 0
R_RSP:          .quad 0
R_RAX:          .quad 0
R_RCX:          .quad 0
R_RDX:          .quad 0
R_RBX:          .quad 0
R_RBP:          .quad 0
R_RSI:          .quad 0
R_RDI:          .quad 0
R_R11:          .quad 0

/* Vectors whose exception pushes an error code; 30 is AMD's #SX. */
#define HAS_ERROR_CODE(vector) ((1 << 8 | 0x7C00 | 1 << 17 | 1 << 21 | 3 << 29) >> (vector) & 1)

        .macro stubs32 from, to
        .set    vector, \from
        .rept   \to - \from
        .balign 16
        .if     !HAS_ERROR_CODE(vector)
        pushl   $0
        .endif
        pushl   $vector
        jmp     common32
        .set    vector, vector + 1
        .endr
        .endm

        .macro stubs64 from, to
        .set    vector, \from
        .rept   \to - \from
        .balign 16
        .if     !HAS_ERROR_CODE(vector)
        pushq   $0
        .endif
        pushq   $vector
        jmp     common64
        .set    vector, vector + 1
        .endr
        .endm

        .code32
        .org    STUBS32 - MONITOR
        stubs32 0, 32
        .code64
        .org    STUBS64 - MONITOR
        stubs64 0, 32
        .code32
        .org    STUBS_TASK - MONITOR
        .irp    vector, 8, 10, 12
        .balign 16
        pushl   $\vector
        jmp     common_task
        .endr
