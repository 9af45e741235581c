// MXCSR, SDM 1 10.2.3 "MXCSR Control and Status Register".
//
//    31   16  15  14 13  12 11 10  9  8  7   6   5  4  3  2  1  0
//   | 0 ... | FZ |  RC  | PM UM OM ZM DM IM | DAZ | PE UE OE ZE DE IE |
#ifndef VMXON_CPU_MXCSR_H
#define VMXON_CPU_MXCSR_H

#define MXCSR_IE          0x0001u
#define MXCSR_DE          0x0002u
#define MXCSR_ZE          0x0004u
#define MXCSR_OE          0x0008u
#define MXCSR_UE          0x0010u
#define MXCSR_PE          0x0020u
#define MXCSR_FLAGS       0x003Fu
#define MXCSR_DAZ         0x0040u
#define MXCSR_MASKS_SHIFT 7 // mask bit = flag bit << this
#define MXCSR_OM          0x0400u
#define MXCSR_UM          0x0800u
#define MXCSR_PM          0x1000u
#define MXCSR_RC_SHIFT    13
#define MXCSR_FTZ         0x8000u
#define MXCSR_MASK        0xFFFFu // bits that exist; setting others is #GP(0)

#endif
