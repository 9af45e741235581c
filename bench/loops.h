/*
 * The measured loops (loops.S). Each runs `count` iterations and returns; the comment gives the work of one iteration.
 */
#ifndef BENCH_LOOPS_H
#define BENCH_LOOPS_H

#include <stdint.h>

void loop_integer(uint64_t count); /* 10 instructions: a congruential generator, shift, rotate, sums with carry */
void loop_call(uint64_t count);    /* 5 instructions: CALL, INC, RET, DEC, JNZ */
void loop_walk(uint64_t count, const void *buffer); /* 16 MiB read in steps of 8 bytes: 2^21 times 4 instructions */
void loop_tlb(uint64_t count, const void *buffer);  /* 16 MiB read in steps of 4 KiB: 4096 times 4 instructions */
void loop_rep(uint64_t count, void *buffer);        /* REP MOVSQ of 8192 quadwords */
void loop_invlpg(uint64_t count, void *page, uint64_t *pte); /* PTE written, INVLPG, page touched */
void loop_cr3(uint64_t count, const void *pages);            /* CR3 reloaded, 16 pages touched */

/* VM-exit round trips of the current VMCS, not yet launched: exit, 3 VMREAD, 1 VMWRITE, VMRESUME. Returns 0 on success. */
uint64_t loop_round_trip(uint64_t count);

/* Guests for the round trips (they exit for ever), and one that runs guest_function(guest_count, guest_buffer), then VMCALL. */
extern const char guest_cpuid[], guest_vmcall[], guest_call_function[];
extern void (*guest_function)(uint64_t count, const void *buffer);
extern uint64_t guest_count;
extern const void *guest_buffer;

#endif
