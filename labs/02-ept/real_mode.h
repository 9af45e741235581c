/* The second guest of lab 02: real-address mode, which "unrestricted guest" makes possible. */
#ifndef LABS_02_REAL_MODE_H
#define LABS_02_REAL_MODE_H

/* Where the guest's program and its data lie, in the guest's first MiB. */
#define REAL_MODE_CODE_SEGMENT 0x0800
#define REAL_MODE_DATA_SEGMENT 0x0900
#define REAL_MODE_DATA_OFFSET  0x0010
#define REAL_MODE_STACK_TOP    0x0FF0 /* in the data segment */

#define REAL_MODE_WORD 0xBEEF /* what the guest writes to its data, and pushes */
#define REAL_MODE_PORT 0x80
#define REAL_MODE_BYTE 0xA5

#ifndef __ASSEMBLER__
#include <stdint.h>

/* Runs the guest on the current VMCS, which is clear; checks and reports. `eptp` maps the guest's first MiB. */
void real_mode_demonstrate(uint64_t eptp);
#endif

#endif
