/*
 * A GDT with segments for privilege level 3 and for compatibility mode, and the way to privilege level 3 and back: an
 * exception (see trap.h) ends what runs there. SDM 3A "Segment Descriptors", "Privilege Levels".
 */
#ifndef GUEST_SUPPORT_USER_H
#define GUEST_SUPPORT_USER_H

/* Selectors; the first three slots and the TSS are as boot.h says. SYSRET wants 32-bit code, data, 64-bit code. */
#define USER_CS32   0x2B
#define USER_DS     0x33
#define USER_CS64   0x3B
#define KERNEL_CS32 0x40 /* compatibility mode, DPL 0 */
#define KERNEL_CS16 0x48
#define GDT_SPARE   0x50 /* the first of GDT_SPARES empty slots */
#define GDT_SPARES  8

#ifndef __ASSEMBLER__
#include <stdint.h>

/* What IRETQ pops. */
struct user_state {
    uint64_t rip, cs, rflags, rsp, ss;
};

extern uint64_t user_gdt[];
extern uint8_t user_stack[4096], kernel_stack[8192]; /* of privilege level 3, and what RSP0 points to the end of */

/* Loads the GDT, sets RSP0, and makes the low 4 GiB and INT3 usable at privilege level 3. */
void user_init(void);

/* IRETQ to `state`, with general registers undefined; returns when an exception was taken, which trap then describes. */
void user_enter(const struct user_state *state);

/* The same with 64-bit code at `code`, at privilege level 3 on user_stack. */
void user_run(const void *code);
#endif

#endif
