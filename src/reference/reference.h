// The reference executor: one ordinary instruction on a private Unicorn engine (design D2).
//
// It carries out ordinary (non-system) instructions that the native core lacks, and checks those that the core has
// (--check lockstep). Segmentation, paging and exceptions stay ours: the memory operand is read and written through the
// core's own access functions and re-pointed at a scratch page of the engine.
#ifndef VMXON_REFERENCE_REFERENCE_H
#define VMXON_REFERENCE_REFERENCE_H

#include "cpu/cpu.h"

struct reference;

// NULL if the engine cannot be made.
struct reference *reference_create(void);
void reference_destroy(struct reference *reference);

// Executes `in`, an ordinary instruction without native handler, called as its handler (exec.h). #UD if the engine does not know it either.
enum exec_result reference_execute(struct reference *reference, struct cpu *cpu, const struct insn *in);

// Lockstep. Before an instruction runs natively: if it is an ordinary one the core has, runs it on the engine and keeps the result.
// False: nothing to compare (system instruction, fault ahead, device access).
bool reference_lockstep_before(struct reference *reference, struct cpu *cpu);
// After it ran natively, if before() was true: false if the results differ, with a report of one line in text.
bool reference_lockstep_after(struct reference *reference, struct cpu *cpu, char *text, size_t size);

#endif
