/*
 * One entry point a vector: each makes the stack look like struct interrupt_frame (idt.h) and calls idt_dispatch().
 * SDM 3A "Error Code": vectors 8, 10 to 14, 17, 21, 29 and 30 push an error code; the others get a zero.
 */
        .set    STUB_BYTES, 16

        .text
        .balign STUB_BYTES
        .globl  idt_stubs
idt_stubs:
        .set    vector, 0
        .rept   256
        .balign STUB_BYTES
        .set    has_error_code, (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21)
        .set    has_error_code, has_error_code || (vector == 29) || (vector == 30)
        .if     !has_error_code
        push    $0
        .endif
        push    $vector
        jmp     common
        .set    vector, vector + 1
        .endr

        .balign STUB_BYTES
common:
        push    %r15
        push    %r14
        push    %r13
        push    %r12
        push    %r11
        push    %r10
        push    %r9
        push    %r8
        push    %rbp
        push    %rdi
        push    %rsi
        push    %rdx
        push    %rcx
        push    %rbx
        push    %rax
        mov     %rsp, %rdi              /* 22 quadwords below a 16-byte boundary: the stack is aligned for a call */
        cld
        call    idt_dispatch
        pop     %rax
        pop     %rbx
        pop     %rcx
        pop     %rdx
        pop     %rsi
        pop     %rdi
        pop     %rbp
        pop     %r8
        pop     %r9
        pop     %r10
        pop     %r11
        pop     %r12
        pop     %r13
        pop     %r14
        pop     %r15
        add     $16, %rsp               /* vector and error code */
        iretq

        .section .note.GNU-stack, "", @progbits
