/*
 * The program of the real-mode guest. The hypervisor copies it to segment REAL_MODE_CODE_SEGMENT, offset 0, so that no
 * absolute address of its link place may occur here. The three labels in between are the instructions that exit.
 */
#include "real_mode.h"

        .section .rodata
        .code16
        .globl  real_mode_start, real_mode_out, real_mode_hlt, real_mode_vmcall, real_mode_end
real_mode_start:
        mov     $REAL_MODE_DATA_SEGMENT, %ax
        mov     %ax, %ds
        mov     %ax, %ss
        mov     $REAL_MODE_STACK_TOP, %sp

        movw    $REAL_MODE_WORD, REAL_MODE_DATA_OFFSET
        mov     $REAL_MODE_BYTE, %al
real_mode_out:
        out     %al, $REAL_MODE_PORT

        pushw   REAL_MODE_DATA_OFFSET
        pop     %cx
        smsw    %bx                     /* the hypervisor looks for PE in it */
real_mode_hlt:
        hlt
real_mode_vmcall:
        vmcall
real_mode_end:

        .section .note.GNU-stack, "", @progbits
