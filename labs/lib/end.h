/*
 * How a guest ends, and how it tells an emulator what it found. The three ways below are harmless on a machine that
 * does not know them: writes to unused ports.
 *
 *   debug-exit port 0xF4   vmxon, and QEMU with -device isa-debug-exit,iobase=0xf4: exit status (value << 1) | 1
 *   "Shutdown" to 0x8900   Bochs
 *   CLI; HLT               vmxon: exit status 0, because nothing can wake the machine
 */
#ifndef LABS_LIB_END_H
#define LABS_LIB_END_H

/* Ends the run: status 0 if `failed` is 0, else status 3 where the machine has a debug-exit port. */
__attribute__((noreturn)) void finish(int failed);

#endif
