/*
 * vmx_enter(registers, instruction): see vmx.h.
 *
 * To the caller a VM entry and the VM exit after it look like one function call. The processor switches RIP, RSP and
 * RFLAGS; the general registers are swapped here. While the guest runs, the host's stack holds, from the top:
 * `registers`, then what the caller wants kept.
 */
#define VMCS_HOST_RSP 0x6C14
#define VMCS_HOST_RIP 0x6C16

#define VMX_SUCCEED      0
#define VMX_FAIL_INVALID 1
#define VMX_FAIL_VALID   2

/* struct guest_registers */
#define RAX 0x00
#define RCX 0x08
#define RDX 0x10
#define RBX 0x18
#define RBP 0x28
#define RSI 0x30
#define RDI 0x38
#define R8 0x40
#define R9 0x48
#define R10 0x50
#define R11 0x58
#define R12 0x60
#define R13 0x68
#define R14 0x70
#define R15 0x78

        .text
        .globl  vmx_enter
vmx_enter:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        push    %rdi

        /* Without a current VMCS these two fail, and then so does the entry, in the same way. */
        mov     $VMCS_HOST_RSP, %eax
        vmwrite %rsp, %rax
        mov     $VMCS_HOST_RIP, %eax
        lea     exited(%rip), %rcx
        vmwrite %rcx, %rax

        test    %esi, %esi              /* VMX_VMLAUNCH is 0; no instruction below changes flags before the jump */
        mov     RAX(%rdi), %rax
        mov     RBX(%rdi), %rbx
        mov     RCX(%rdi), %rcx
        mov     RDX(%rdi), %rdx
        mov     RSI(%rdi), %rsi
        mov     RBP(%rdi), %rbp
        mov     R8(%rdi), %r8
        mov     R9(%rdi), %r9
        mov     R10(%rdi), %r10
        mov     R11(%rdi), %r11
        mov     R12(%rdi), %r12
        mov     R13(%rdi), %r13
        mov     R14(%rdi), %r14
        mov     R15(%rdi), %r15
        mov     RDI(%rdi), %rdi
        jnz     resume
        vmlaunch
        jmp     failed
resume:
        vmresume

        /* Reached only if the instruction failed: the flags tell how. */
failed:
        mov     $VMX_FAIL_INVALID, %eax
        mov     $VMX_FAIL_VALID, %ecx
        cmovz   %ecx, %eax
        pop     %rdi
        jmp     return

        /* The field host_rip. RSP is what it was at the VMWRITE; every general register is the guest's. */
exited:
        push    %rdi
        mov     8(%rsp), %rdi
        mov     %rax, RAX(%rdi)
        mov     %rbx, RBX(%rdi)
        mov     %rcx, RCX(%rdi)
        mov     %rdx, RDX(%rdi)
        mov     %rsi, RSI(%rdi)
        mov     %rbp, RBP(%rdi)
        mov     %r8, R8(%rdi)
        mov     %r9, R9(%rdi)
        mov     %r10, R10(%rdi)
        mov     %r11, R11(%rdi)
        mov     %r12, R12(%rdi)
        mov     %r13, R13(%rdi)
        mov     %r14, R14(%rdi)
        mov     %r15, R15(%rdi)
        pop     RDI(%rdi)
        pop     %rdi
        mov     $VMX_SUCCEED, %eax
return:
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret

        .section .note.GNU-stack, "", @progbits
