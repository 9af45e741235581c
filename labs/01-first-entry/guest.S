/*
 * The guest of lab 01: a 64-bit program that shares the hypervisor's address space, and executes one instruction after
 * the other that the hypervisor must emulate. It checks every result itself, and counts in R15 what was wrong.
 */
#include "guest.h"

#define CR0_TS        (1 << 3)
#define CR4_TSD       (1 << 2)
#define CR4_VMXE      (1 << 13)
#define CPUID_1_ECX_VMX (1 << 5)
#define LMSW_PE_TS    0x9

/* An instruction that must cause a VM exit: also notes its place in guest_sensitive[]. */
.macro  sensitive instruction:vararg
.Lat\@: \instruction
.Lnext\@:
        .pushsection .rodata.sensitive, "a"
        .quad   .Lat\@, .Lnext\@
        .popsection
.endm

/* Counts a failure unless the condition of the jump `jcc` holds. */
.macro  expect jcc:req
        \jcc    .Lgood\@
        inc     %r15
.Lgood\@:
.endm

        .section .rodata.sensitive, "a"
        .balign 8
        .globl  guest_sensitive
guest_sensitive:

        .text
        .globl  guest_start
guest_start:
        xor     %r15d, %r15d

        /* CPUID: the hypervisor introduces itself, and hides the VMX that it uses itself. */
        mov     $SIGNATURE_LEAF, %eax
        xor     %ecx, %ecx
        sensitive cpuid
        cmp     $SIGNATURE_EBX, %ebx
        expect  je
        cmp     $SIGNATURE_ECX, %ecx
        expect  je
        cmp     $SIGNATURE_EDX, %edx
        expect  je
        mov     $1, %eax
        xor     %ecx, %ecx
        sensitive cpuid
        test    $CPUID_1_ECX_VMX, %ecx
        expect  jz

        /* VMCALL: a call of the hypervisor. */
        mov     $VMCALL_ADD, %eax
        mov     $1000, %ebx
        mov     $234, %ecx
        sensitive vmcall
        cmp     $1234, %rax
        expect  je

        /* HLT: goes on when the hypervisor says so. */
        sensitive hlt

        /* Ports, immediate and in DX. IN to AL leaves bits 63:8 of RAX; IN to EAX clears bits 63:32. */
        mov     $OUT_BYTE, %eax
        sensitive outb %al, $OUT_PORT
        mov     $-1, %rax
        mov     $IN_PORT, %edx
        sensitive inl %dx, %eax
        mov     $IN_VALUE, %ecx
        cmp     %rcx, %rax
        expect  je

        /* An MSR that remembers what was written. */
        mov     $VIRTUAL_MSR, %ecx
        mov     $(VIRTUAL_MSR_VALUE & 0xFFFFFFFF), %eax
        mov     $(VIRTUAL_MSR_VALUE >> 32), %edx
        sensitive wrmsr
        mov     $-1, %rax
        mov     $-1, %rdx
        sensitive rdmsr
        mov     $(VIRTUAL_MSR_VALUE & 0xFFFFFFFF), %ebx
        cmp     %rbx, %rax
        expect  je
        mov     $(VIRTUAL_MSR_VALUE >> 32), %ebx
        cmp     %rbx, %rdx
        expect  je

        /*
         * CR0.TS belongs to the hypervisor: its bit of the CR0 guest/host mask is 1. A read shows the read shadow and
         * does not exit; a write exits if it would make the bit differ from the shadow.
         */
        mov     %cr0, %rax
        test    $CR0_TS, %al
        expect  jz
        mov     %rax, %cr0              /* nothing new: no exit */
        or      $CR0_TS, %rax
        mov     %rax, %r9
        sensitive mov %r9, %cr0
        mov     %cr0, %rax
        cmp     %r9, %rax
        expect  je
        sensitive clts
        mov     %cr0, %rax
        test    $CR0_TS, %al
        expect  jz
        clts                            /* TS is 0 already: no exit */
        mov     $LMSW_PE_TS, %eax
        sensitive lmsw %ax
        smsw    %rax
        and     $0xF, %eax
        cmp     $LMSW_PE_TS, %eax
        expect  je

        /* CR3-load exiting and CR3-store exiting are 1. */
        sensitive mov %cr3, %rsi
        sensitive mov %rsi, %cr3

        /* CR4.VMXE must stay 1 in VMX operation, but the guest need not know. CR4.TSD is the guest's own. */
        mov     %cr4, %rax
        test    $CR4_VMXE, %eax
        expect  jz
        xor     $CR4_TSD, %eax
        mov     %rax, %cr4              /* no exit */
        or      $CR4_VMXE, %eax
        mov     %rax, %rdi
        sensitive mov %rdi, %cr4
        mov     %cr4, %rax
        cmp     %rdi, %rax
        expect  je

        mov     $VMCALL_DONE, %eax
        mov     %r15, %rbx
        sensitive vmcall
        ud2                             /* the hypervisor does not come back */

        .section .rodata.sensitive, "a"
        .globl  guest_sensitive_end
guest_sensitive_end:

        .section .note.GNU-stack, "", @progbits
