/* What the guest of lab 01 (guest.S) and its hypervisor have agreed on. Usable from C and from assembly. */
#ifndef LABS_01_GUEST_H
#define LABS_01_GUEST_H

#define SIGNATURE_LEAF 0x40000000 /* the CPUID leaf that processors leave to hypervisors */
#define SIGNATURE_EBX  0x6F786D76 /* "vmxo" */
#define SIGNATURE_ECX  0x616C206E /* "n la" */
#define SIGNATURE_EDX  0x31302062 /* "b 01" */

#define VMCALL_ADD  1 /* RAX := RBX + RCX */
#define VMCALL_DONE 2 /* the guest is done; RBX: how many of its own checks failed */

#define OUT_PORT 0x80
#define OUT_BYTE 0x5A
#define IN_PORT  0x1234
#define IN_VALUE 0xCAFE0001

#define VIRTUAL_MSR       0x00005A5A /* no processor has it: it exists because the hypervisor says so */
#define VIRTUAL_MSR_VALUE 0x1122334455667788

#ifndef __ASSEMBLER__
#include <stdint.h>

/* The instructions that must cause a VM exit, in the order in which the guest executes them. */
struct sensitive_instruction {
    uint64_t address;
    uint64_t next_address;
};

extern const struct sensitive_instruction guest_sensitive[];
extern const struct sensitive_instruction guest_sensitive_end[];
extern const uint8_t guest_start[];
#endif

#endif
