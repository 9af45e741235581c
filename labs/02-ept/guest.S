/* The program of the 64-bit guest: see guest.h. It asks for the next operation with VMCALL, the last result in RAX. */
#include "guest.h"

        .text
        .globl  guest_start
guest_start:
        xor     %eax, %eax
next:
        vmcall
        cmp     $GUEST_READ, %edi
        je      read
        cmp     $GUEST_WRITE, %edi
        je      write
        cmp     $GUEST_CALL, %edi
        je      call
        ud2
read:
        mov     (%rsi), %rax
        jmp     next
write:
        mov     %rdx, (%rsi)
        mov     %rdx, %rax
        jmp     next
call:
        call    *%rsi
        jmp     next

        .section .note.GNU-stack, "", @progbits
