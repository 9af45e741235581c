// Scalar types, address kinds and bit helpers used by every module.
//
// The three address kinds of a machine with EPT never mix: a gva_t is a linear
// address, a gpa_t a guest-physical address (in VMX root operation and without
// EPT it equals the physical address), an hpa_t a physical address of the
// emulated machine. Host pointers are never addresses of the machine.
#ifndef VMXON_BASE_TYPES_H
#define VMXON_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gva_t;   // linear address
typedef uint64_t gpa_t;   // guest-physical address
typedef uint64_t hpa_t;   // physical address of the emulated machine
typedef uint64_t cycle_t; // processor clock cycles since the machine was created

#define PAGE_SHIFT       12
#define PAGE_SIZE        ((uint64_t)1 << PAGE_SHIFT)
#define PAGE_OFFSET_MASK (PAGE_SIZE - 1)
#define PAGE_FRAME_MASK  (~PAGE_OFFSET_MASK)

#define BIT(n) ((uint64_t)1 << (n))
// Bits hi..lo, both included.
#define BITS(hi, lo) ((~(uint64_t)0 >> (63 - (hi))) & (~(uint64_t)0 << (lo)))

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

// Bits hi..lo of value, shifted down.
static inline uint64_t bits_get(uint64_t value, unsigned hi, unsigned lo) { return (value & BITS(hi, lo)) >> lo; }

// value with its bit `bits - 1` copied into all higher bits.
static inline uint64_t sign_extend(uint64_t value, unsigned bits)
{
    unsigned shift = 64 - bits;
    return (uint64_t)((int64_t)(value << shift) >> shift);
}

// True if bits 63:(width-1) of the address are all equal (SDM 1, 3.3.7.1 "Canonical Addressing").
static inline bool is_canonical(gva_t address, unsigned width) { return sign_extend(address, width) == address; }

#endif
