/*
 * The measured loops: see loops.h. Only what an iteration needs stands between the label and the branch.
 */
#define VMCS_EXIT_REASON 0x4402
#define VMCS_EXIT_INSTRUCTION_LENGTH 0x440C
#define VMCS_GUEST_RIP 0x681E
#define VMCS_HOST_RSP 0x6C14
#define VMCS_HOST_RIP 0x6C16
#define BUFFER_SIZE 0x1000000

        .text
        .globl  loop_integer
        .balign 16
loop_integer:
        mov     $0x5851F42D4C957F2D, %r9
        mov     $0x14057B7EF767814F, %r10
        mov     $1, %eax
        xor     %edx, %edx
        xor     %esi, %esi
        xor     %r8d, %r8d
1:      imul    %r9, %rax
        add     %r10, %rax
        mov     %rax, %rcx
        shr     $33, %rcx
        xor     %rcx, %rdx
        rol     $7, %rdx
        add     %rdx, %rsi
        adc     $0, %r8
        dec     %rdi
        jnz     1b
        ret

        .globl  loop_call
        .balign 16
loop_call:
        xor     %eax, %eax
1:      call    2f
        dec     %rdi
        jnz     1b
        ret
2:      inc     %rax
        ret

        .globl  loop_walk
        .balign 16
loop_walk:
        lea     BUFFER_SIZE(%rsi), %rdx
        mov     %rsi, %rcx
2:      mov     %rcx, %rsi
1:      mov     (%rsi), %rax
        add     $8, %rsi
        cmp     %rdx, %rsi
        jb      1b
        dec     %rdi
        jnz     2b
        ret

        .globl  loop_tlb
        .balign 16
loop_tlb:
        lea     BUFFER_SIZE(%rsi), %rdx
        mov     %rsi, %rcx
2:      mov     %rcx, %rsi
1:      mov     (%rsi), %rax
        add     $4096, %rsi
        cmp     %rdx, %rsi
        jb      1b
        dec     %rdi
        jnz     2b
        ret

        .globl  loop_rep
        .balign 16
loop_rep:
        mov     %rsi, %r8
        mov     %rdi, %r9
1:      mov     %r8, %rsi
        lea     0x100000(%r8), %rdi
        mov     $8192, %ecx
        rep movsq
        dec     %r9
        jnz     1b
        ret

        .globl  loop_invlpg
        .balign 16
loop_invlpg:
        mov     (%rdx), %rax
1:      mov     %rax, (%rdx)
        invlpg  (%rsi)
        mov     (%rsi), %rcx
        dec     %rdi
        jnz     1b
        ret

        .globl  loop_cr3
        .balign 16
loop_cr3:
        mov     %cr3, %rdx
1:      mov     %rdx, %cr3
        .irp    page, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        mov     \page * 4096(%rsi), %rax
        .endr
        dec     %rdi
        jnz     1b
        ret

        .globl  loop_round_trip
        .balign 16
loop_round_trip:
        push    %rbx
        push    %r12
        mov     %rdi, %r12
        mov     $VMCS_EXIT_REASON, %esi
        mov     $VMCS_EXIT_INSTRUCTION_LENGTH, %r8d
        mov     $VMCS_GUEST_RIP, %r9d
        mov     $VMCS_HOST_RSP, %eax
        vmwrite %rsp, %rax
        mov     $VMCS_HOST_RIP, %eax
        lea     1f(%rip), %rcx
        vmwrite %rcx, %rax
        vmlaunch
        jmp     3f
        /* The guest changes no register, so the registers are still ours. */
1:      vmread  %rsi, %rax
        vmread  %r8, %rcx
        vmread  %r9, %rdx
        dec     %r12
        jz      2f
        add     %rcx, %rdx
        vmwrite %rdx, %r9
        vmresume
3:      mov     $1, %eax
        jmp     4f
2:      xor     %eax, %eax
4:      pop     %r12
        pop     %rbx
        ret

        .globl  guest_cpuid
guest_cpuid:
        .rept   512
        cpuid
        .endr
        jmp     guest_cpuid

        .globl  guest_vmcall
guest_vmcall:
        .rept   512
        vmcall
        .endr
        jmp     guest_vmcall

        .globl  guest_call_function
guest_call_function:
        mov     guest_count(%rip), %rdi
        mov     guest_buffer(%rip), %rsi
        call    *guest_function(%rip)
        vmcall

        .bss
        .globl  guest_function, guest_count, guest_buffer
        .balign 8
guest_function: .quad 0
guest_count:    .quad 0
guest_buffer:   .quad 0

        .section .note.GNU-stack, "", @progbits
