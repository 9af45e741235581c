// A machine of 4 MBytes whose first processor runs flat, at CPL 0, without an IDT: for tests of single instructions.
#ifndef VMXON_TESTS_FLAT_MACHINE_H
#define VMXON_TESTS_FLAT_MACHINE_H

#include "machine/machine.h"

// NULL: it cannot be made; says why on stdout. code_size: enum code_mode.
struct machine *flat_machine_create(unsigned code_size);
void flat_machine_destroy(struct machine *machine);

// 64-bit mode with linear addresses mapped one to one, 32-bit protected mode, or 16-bit protected mode. After cpu_reset() too.
void flat_machine_enter(struct machine *machine, unsigned code_size);

#endif
