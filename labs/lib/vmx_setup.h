/*
 * The parts of a hypervisor's start that are alike in every lab: entering VMX operation, choosing control values the
 * processor allows, and filling the host-state and guest-state areas from the state the program runs in.
 * SDM 3C "Enabling and Entering VMX Operation", "Host-State Area", "Guest-State Area"; App. A.
 */
#ifndef LABS_LIB_VMX_SETUP_H
#define LABS_LIB_VMX_SETUP_H

#include <stdbool.h>
#include <stdint.h>

#include "vmx.h"

/* CPUID.1:ECX.VMX */
bool vmx_is_supported(void);

/*
 * Makes VMXON permissible: IA32_FEATURE_CONTROL (locked here if the firmware left it open), CR4.VMXE, and the bits of
 * CR0 and CR4 that VMX operation fixes. False if the firmware has locked VMXON out.
 */
bool vmx_enable(void);

/* An empty VMXON region or VMCS: zeros, and the revision identifier of IA32_VMX_BASIC. */
void vmx_region_init(struct vmx_region *region);

enum control_field {
    CONTROLS_PIN,
    CONTROLS_PRIMARY,
    CONTROLS_SECONDARY, /* only if CONTROLS_PRIMARY may activate them */
    CONTROLS_EXIT,
    CONTROLS_ENTRY,
};

/* Whether the processor lets every bit of `wanted` be 1. */
bool vmx_controls_allow(enum control_field field, uint32_t wanted);

/*
 * `wanted` plus the bits that must be 1, from the capability MSR of the field (the TRUE one where it exists). Ends the
 * run with a report if a wanted bit may not be 1: ask vmx_controls_allow() first where a guest can do without.
 */
uint32_t vmx_controls_value(enum control_field field, uint32_t wanted);

/* Fills the host-state area of the current VMCS from the processor, save host_rip and host_rsp (see vmx_enter()). */
void vmx_write_host_state(void);

/* The fields of the segment registers lie in this order, 2 apart. */
enum segment_register {
    SEGMENT_ES,
    SEGMENT_CS,
    SEGMENT_SS,
    SEGMENT_DS,
    SEGMENT_FS,
    SEGMENT_GS,
    SEGMENT_LDTR,
    SEGMENT_TR,
};

void vmx_write_guest_segment(enum segment_register segment, uint16_t selector, uint64_t base, uint32_t limit,
                             uint32_t access_rights);

/*
 * Fills the whole guest-state area of the current VMCS for a guest in 64-bit mode that shares our control registers,
 * descriptor tables and segments, with interrupts off; also empties the control fields a simple guest does not use.
 */
void vmx_write_guest_state_64(uint64_t rip, uint64_t rsp);

#endif
