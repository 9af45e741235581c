/* Handling the VM exits of lab 01's guest: emulate, report, and check against what the guest is known to do. */
#ifndef LABS_01_EXITS_H
#define LABS_01_EXITS_H

#include <stdbool.h>

#include "vmx.h"

/* What the guest believes to be hardware, besides what the VMCS holds. */
struct virtual_machine {
    struct guest_registers registers;
    uint64_t virtual_msr;
    unsigned exits;      /* handled so far */
    bool done;           /* the guest said so */
    uint64_t complaints; /* how many of the guest's own checks failed; valid when done */
};

/* How many VM exits a complete run of the guest makes. */
unsigned exits_expected(void);

/* Handles the VM exit that the current VMCS tells of, and moves the guest's RIP to the next instruction. */
void exits_handle(struct virtual_machine *machine);

#endif
