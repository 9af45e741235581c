/*
 * Ordinary code: integer, string, x87 and SSE kernels against results computed on a host processor (by gcc and clang at
 * several optimisation levels), REP strings, CMPXCHG16B, FXSAVE and XSAVE.
 */
#include "compute_kernels.h"

#include <stddef.h>

#include "check.h"
#include "cpu.h"
#include "string.h"
#include "trap.h"

enum {
    CR4_OSFXSR = 1 << 9,
    CR4_OSXMMEXCPT = 1 << 10,
    BUFFER_BYTES = 8192,
};

static const struct {
    const char *name;
    uint64_t (*run)(void);
    uint64_t expected;
} kernels[] = {
    {"division", kernel_division, UINT64_C(0x5E499F6FB709B745)},
    {"bits", kernel_bits, UINT64_C(0x95C8FE10A615A679)},
    {"crc", kernel_crc, UINT64_C(0x00000000CAAD732A)},
    {"sort", kernel_sort, UINT64_C(0xECF51A3BC8C6CAC1)},
    {"sieve", kernel_sieve, UINT64_C(0x000004CD005787CC)},
    {"double", kernel_double, UINT64_C(0x4FD4E107AFB2D3E0)},
    {"single", kernel_single, UINT64_C(0x377685A5A9656C4B)},
    {"extended", kernel_extended, UINT64_C(0xCDAFBEF480D2F43E)},
    {"vector", kernel_vector, UINT64_C(0x1BF0904F0CD06CBA)},
    {"matrix", kernel_matrix, UINT64_C(0x0CDB426839D42CB3)},
};

static uint8_t source[BUFFER_BYTES], destination[BUFFER_BYTES];

static void test_strings(void)
{
    for (unsigned i = 0; i < BUFFER_BYTES; i++) {
        source[i] = (uint8_t)(i * 7 + i / 256);
    }
    void *to = destination + 3;
    const void *from = source + 1;
    uint64_t count = 5000, flags;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    check(memcmp(destination + 3, source + 1, 5000) == 0 && count == 0 && to == destination + 5003 &&
              from == source + 5001,
          "REP MOVSB, misaligned, across a page");
    to = destination + 1;
    from = destination;
    count = 100;
    destination[0] = 0xAA;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    check(destination[1] == 0xAA && destination[100] == 0xAA, "REP MOVSB that overlaps itself spreads one byte");
    to = destination + 1000;
    from = destination + 992;
    count = 50;
    memcpy(destination, source, BUFFER_BYTES);
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    check(memcmp(destination + 1392, destination + 992, 8) == 0 && memcmp(destination + 1000, source + 992, 8) == 0,
          "REP MOVSQ that overlaps by one element");
    to = destination + 4096 + 100;
    from = source + 4096 + 100;
    count = 200;
    memset(destination, 0, BUFFER_BYTES);
    __asm__ volatile("std; rep movsb; cld" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    check(memcmp(destination + 4096 - 99, source + 4096 - 99, 200) == 0 && destination[4096 - 100] == 0, "backwards");
    to = destination;
    count = 1000;
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(0x01020304) : "memory");
    check(destination[3999] == 1 && destination[4000] == source[4000], "REP STOSD");
    to = destination;
    count = UINT64_MAX;
    __asm__ volatile("repne scasb; pushfq; pop %2" : "+D"(to), "+c"(count), "=r"(flags) : "a"(1) : "cc", "memory");
    check(to == destination + 4 && count == UINT64_MAX - 4 && (flags & RFLAGS_ZF), "REPNE SCASB finds");
    memcpy(destination, source, BUFFER_BYTES);
    destination[777] ^= 1;
    to = destination;
    from = source;
    count = BUFFER_BYTES;
    __asm__ volatile("repe cmpsb; pushfq; pop %3" : "+D"(to), "+S"(from), "+c"(count), "=r"(flags) : : "cc", "memory");
    check(to == destination + 778 && count == BUFFER_BYTES - 778 && !(flags & RFLAGS_ZF),
          "REPE CMPSB stops after a difference");
    count = 0;
    __asm__ volatile("or $1, %%al; repe cmpsb; pushfq; pop %3"
                     : "+D"(to), "+S"(from), "+c"(count), "=r"(flags)
                     :
                     : "rax", "cc", "memory");
    check(!(flags & RFLAGS_ZF), "a count of 0 leaves the flags alone");
    uint64_t wide = UINT64_C(0x100000005);
    to = destination;
    __asm__ volatile("addr32 rep stosb" : "+D"(to), "+c"(wide) : "a"(0x77) : "memory");
    check(wide == 0 && destination[4] == 0x77 && destination[5] == source[5],
          "32-bit addresses: the count is ECX, RCX is zero-extended");
}

static void test_atomics(void)
{
    static uint64_t pair[3] __attribute__((aligned(16))) = {1, 2, 3};
    uint64_t low = 1, high = 2;
    bool equal;
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(equal), "+m"(pair), "+a"(low), "+d"(high)
                     : "b"(UINT64_C(10)), "c"(UINT64_C(20)));
    check(equal && pair[0] == 10 && pair[1] == 20, "CMPXCHG16B of equal values");
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(equal), "+m"(pair), "+a"(low), "+d"(high)
                     : "b"(UINT64_C(0)), "c"(UINT64_C(0)));
    check(!equal && low == 10 && high == 20 && pair[0] == 10, "of others: they are loaded");
    TRY("cmpxchg16b %0", : "+m"(pair[1]) : : "rax", "rbx", "rcx", "rdx", "cc");
    check_trap(VECTOR_GP, 0, 0, "misaligned: #GP(0)");
    uint32_t word = 5, old = 3;
    __asm__ volatile("lock xadd %0, %1" : "+r"(old), "+m"(word) : : "cc");
    check(old == 5 && word == 8, "XADD");
    uint64_t accumulator = UINT64_C(0xFFFFFFFF00000008);
    __asm__ volatile("lock cmpxchg %2, %1" : "+a"(accumulator), "+m"(word) : "r"(9) : "cc");
    check(word == 9, "CMPXCHG of 32 bits compares EAX");
}

static uint8_t area[1024] __attribute__((aligned(64)));

static void test_state(void)
{
    uint64_t value = 0;
    static const uint64_t pattern[2] = {UINT64_C(0x1122334455667788), UINT64_C(0x99AABBCCDDEEFF00)};
    memset(area, 0xFF, sizeof area);
    __asm__ volatile("fninit; fld1; fldpi; movdqu %1, %%xmm5; fxsave64 %0; fninit; pxor %%xmm5, %%xmm5; fxrstor64 %0\n"
                     "movq %%xmm5, %2; fstp %%st(0); fistpll %3"
                     : "+m"(area), "+m"(*(uint64_t(*)[2])pattern), "=r"(value), "=m"(*(uint64_t *)destination)
                     :
                     : "memory");
    check(value == pattern[0] && *(uint64_t *)destination == 1, "FXSAVE and FXRSTOR bring back XMM5 and the x87 stack");
    check(*(uint16_t *)area == 0x037F && area[4] == 0xC0, "FXSAVE: control word, abridged tag word of two registers");
    check(memcmp(area + 160 + 5 * 16, pattern, 16) == 0, "XMM5 lies at its place");
    check(area[512] == 0xFF, "512 bytes are written");
    TRY("fxsave %0", : "=m"(area[8]));
    check_trap(VECTOR_GP, 0, 0, "FXSAVE to a misaligned area: #GP(0)");
    TRY("movaps %0, %%xmm0", : : "m"(area[8]));
    check_trap(VECTOR_GP, 0, 0, "MOVAPS from a misaligned address: #GP(0)");
    TRY("movups %0, %%xmm0", : : "m"(area[8]));
    check_no_trap("MOVUPS may");

    if (!(cpuid(1, 0).ecx & 1 << 26)) {
        note("left out: XSAVE");
        return;
    }
    TRY("xsave %0", : "=m"(area) : "a"(3), "d"(0));
    check_trap(VECTOR_UD, 0, 0, "XSAVE without CR4.OSXSAVE: #UD");
    write_cr4(read_cr4() | CR4_OSXSAVE);
    check(cpuid(1, 0).ecx & 1 << 27, "CPUID tells CR4.OSXSAVE");
    TRY("xsetbv", : : "a"(2), "d"(0), "c"(0));
    check_trap(VECTOR_GP, 0, 0, "XCR0 without x87: #GP(0)");
    __asm__ volatile("xsetbv" : : "a"(3), "d"(0), "c"(0));
    memset(area, 0, sizeof area);
    __asm__ volatile("movdqu %1, %%xmm5; xsave64 %0; pxor %%xmm5, %%xmm5; xrstor64 %0; movq %%xmm5, %2"
                     : "+m"(area), "+m"(*(uint64_t(*)[2])pattern), "=r"(value)
                     : "a"(3), "d"(0)
                     : "memory");
    check(value == pattern[0], "XSAVE and XRSTOR bring back XMM5");
    check((area[512] & 2) == 2, "XSTATE_BV has SSE");
    area[512] &= (uint8_t)~2;
    __asm__ volatile("xrstor64 %1; movq %%xmm5, %0" : "=r"(value) : "m"(area), "a"(3), "d"(0) : "memory");
    check(value == 0, "XRSTOR of a component not in XSTATE_BV initialises it");
    area[512] |= 0x80;
    TRY("xrstor64 %0", : : "m"(area), "a"(3), "d"(0));
    check_trap(VECTOR_GP, 0, 0, "XSTATE_BV beyond XCR0: #GP(0)");
}

int main(void)
{
    check_begin("compute", "ordinary code");
    trap_init();
    write_cr0((read_cr0() & ~(CR0_EM | CR0_TS)) | CR0_MP | CR0_NE);
    write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    __asm__ volatile("fninit");
    for (unsigned i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        uint64_t result = kernels[i].run();
        check(result == kernels[i].expected, "%s: 0x%lx", kernels[i].name, result);
    }
    test_strings();
    test_atomics();
    test_state();
    return check_verdict("%u checks", check_count());
}
