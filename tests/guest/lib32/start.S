/*
 * From the Multiboot 1 loader to main() in 32-bit protected mode without paging: a GDT of flat segments, a 32-bit TSS, an
 * IDT. For guests about what 64-bit mode does not have.
 */
#include "start.h"

#define MULTIBOOT_HEADER_MAGIC 0x1BADB002

        .section .multiboot, "a"
        .balign 4
        .long   MULTIBOOT_HEADER_MAGIC, 0, -MULTIBOOT_HEADER_MAGIC

        .text
        .globl  _start
_start:
        cli
        cld
        mov     $stack_top, %esp
        lgdt    gdt_pointer
        ljmp    $KERNEL_CS, $1f
1:      mov     $KERNEL_DS, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %fs
        mov     %eax, %gs
        mov     %eax, %ss
        movl    $stack_top - 4096, main_tss + 4      /* ESP0 */
        movl    $KERNEL_DS, main_tss + 8             /* SS0 */
        movw    $TSS_BYTES, main_tss + 102           /* no I/O permission bitmap */
        mov     $main_tss, %eax
        mov     %ax, gdt + MAIN_TSS + 2
        shr     $16, %eax
        mov     %al, gdt + MAIN_TSS + 4
        mov     %ah, gdt + MAIN_TSS + 7
        mov     $MAIN_TSS, %eax
        ltr     %ax
        call    serial_init
        call    idt_init
        call    main
        push    %eax
        call    finish

/* One entry a vector, 16 bytes apart: makes the stack look like struct frame. */
        .balign 16
        .globl  idt_stubs
idt_stubs:
        .set    vector, 0
        .rept   256
        .balign 16
        .set    has_error_code, (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17)
        .if     !has_error_code
        pushl   $0
        .endif
        pushl   $vector
        jmp     common
        .set    vector, vector + 1
        .endr

        .balign 16
common:
        pusha
        pushl   %gs
        pushl   %fs
        pushl   %es
        pushl   %ds
        mov     $KERNEL_DS, %eax
        mov     %eax, %ds
        mov     %eax, %es
        cld
        push    %esp
        call    idt_dispatch
        add     $4, %esp
        popl    %ds
        popl    %es
        popl    %fs
        popl    %gs
        popa
        add     $8, %esp
        iret

        .data
        .balign 16
        .globl  gdt
gdt:
        .quad   0
        .quad   0x00CF9B000000FFFF      /* KERNEL_CS */
        .quad   0x00CF93000000FFFF      /* KERNEL_DS */
        .quad   0x0000890000000000 + TSS_BYTES - 1
        .quad   0x00CFFB000000FFFF      /* USER_CS */
        .quad   0x00CFF3000000FFFF      /* USER_DS */
        .quad   0x00009B000000FFFF      /* CODE16 */
        .quad   0x000093000000FFFF      /* DATA16 */
        .skip   8 * GDT_SPARES
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt

        .bss
        .balign 16
        .globl  main_tss
main_tss: .skip TSS_BYTES
        .balign 16
        .skip   16384
        .globl  stack_top
stack_top:
        .section .note.GNU-stack, "", @progbits
