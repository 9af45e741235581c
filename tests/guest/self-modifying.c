/*
 * Code that changes: its own block, the next instruction, through another linear address, by REP MOVS and atomically, across
 * a page boundary, in compatibility mode. SDM 3A "Handling Self- and Cross-Modifying Code": a jump or a serializing
 * instruction lies between store and execution where one processor family would need it, save where the test says not.
 */
#include "boot.h"
#include "check.h"
#include "cpu.h"
#include "pages.h"
#include "string.h"
#include "trap.h"
#include "user.h"

typedef uint32_t function(void);

static uint8_t code[3 * 4096] __attribute__((aligned(4096)));

/* mov $value, %eax; ret */
static void put_function(uint8_t *place, uint32_t value)
{
    place[0] = 0xB8;
    memcpy(place + 1, &value, sizeof value);
    place[5] = 0xC3;
}

static uint32_t call(const uint8_t *place) { return ((function *)(uint64_t)place)(); }

static void test_whole_functions(void)
{
    bool right = true;
    for (uint32_t i = 0; i < 200; i++) {
        put_function(code, i * 3);
        right = right && call(code) == i * 3;
    }
    check(right, "a function rewritten 200 times");

    right = true;
    for (uint32_t i = 0; i < 50; i++) {
        uint8_t template[8];
        put_function(template, i + 1000);
        void *to = code + 64;
        const void *from = template;
        uint64_t count = sizeof template;
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        right = right && call(code + 64) == i + 1000;
    }
    check(right, "by REP MOVSB");

    right = true;
    for (uint32_t i = 0; i < 50; i++) {
        put_function(code + 128, 0);
        call(code + 128);
        __asm__ volatile("lock xaddl %0, %1" : "+r"((uint32_t){i}), "+m"(*(uint32_t *)(code + 129)) : : "memory", "cc");
        right = right && call(code + 128) == i;
    }
    check(right, "by LOCK XADD on its immediate");

    /* Two linear addresses of one frame. */
    page_set(0, (uint64_t)code | PTE_P | PTE_W);
    uint8_t *alias = (uint8_t *)page_address(0);
    put_function(code, 1);
    right = call(code) == 1 && call(alias) == 1;
    put_function(alias, 2);
    right = right && call(code) == 2 && call(alias) == 2;
    put_function(code, 3);
    right = right && call(alias) == 3 && call(code) == 3;
    check(right, "through another linear address, both ways");

    /* The immediate lies on both sides of a page boundary. */
    uint8_t *edge = code + 4096 - 3;
    right = true;
    for (uint32_t i = 0; i < 20; i++) {
        put_function(edge, 0x01010101 * i);
        right = right && call(edge) == 0x01010101 * i;
        edge[4] = (uint8_t)(i + 7);
        right = right && call(edge) == ((0x01010101 * i & 0x00FFFFFF) | (i + 7) << 24);
    }
    check(right, "across a page boundary, whole and in the second page only");

    /* The same linear address leads to another frame. */
    put_function(code, 11);
    put_function(code + 4096, 22);
    page_set(1, (uint64_t)code | PTE_P | PTE_W);
    uint8_t *moved = (uint8_t *)page_address(1);
    right = call(moved) == 11;
    page_set(1, (uint64_t)(code + 4096) | PTE_P | PTE_W);
    right = right && call(moved) == 22;
    page_set(1, (uint64_t)code | PTE_P | PTE_W);
    right = right && call(moved) == 11;
    check(right, "a page that moves to other frames, with INVLPG");

    page_set(1, (uint64_t)code | PTE_P);
    right = call(moved) == 11;
    page_set(1, 0);
    TRY("call *%0", : : "r"(moved) : "rax", "memory");
    check(right && trap.taken && trap.frame.vector == VECTOR_PF && trap.frame.rip == (uint64_t)moved,
          "a page of code that goes away: #PF");
}

static void test_next_instruction(void)
{
    uint32_t result = 0;
    for (uint32_t i = 0; i < 3; i++) {
        /* The store changes the immediate of the instruction right after it. */
        __asm__ volatile("mov %1, %%ecx\n"
                         "mov %%ecx, 1f + 1\n"
                         "1: mov $0x12345678, %%eax\n"
                         "add %%eax, %0\n"
                         : "+r"(result)
                         : "r"(i + 5)
                         : "rax", "rcx", "memory", "cc");
    }
    check(result == 5 + 6 + 7, "the next instruction's immediate: seen at once (P6 family and later)");

    uint32_t turns;
    __asm__ volatile("movb $0x90, 2f\n" /* INC ECX has become two NOPs on the second way through */
                     "xor %%ecx, %%ecx\n"
                     "mov $0xC1FF, %%eax\n"
                     "mov %%ax, 2f\n"
                     "mov $4, %%edx\n"
                     "1: cmp $2, %%edx\n"
                     "jne 2f\n"
                     "movw $0x9090, 2f\n"
                     "2: .byte 0xFF, 0xC1\n"
                     "dec %%edx\n"
                     "jnz 1b\n"
                     : "=c"(turns)
                     :
                     : "rax", "rdx", "memory", "cc");
    check(turns == 2, "an instruction removed within the running loop");

    /* A loop that writes over its own end by STOSB with REP. */
    static const uint8_t body[] = {0xB0, 0x90, 0xB9, 6,    0,    0,    0,    0x48, 0x8D, 0x3D, 4,  0, 0, 0, 0xF3,
                                   0xAA, 0xEB, 0,    0x0F, 0x0B, 0x0F, 0x0B, 0x0F, 0x0B, 0xB8, 42, 0, 0, 0, 0xC3};
    memcpy(code + 256, body, sizeof body);
    check(call(code + 256) == 42, "REP STOSB over the instructions after it");
    check(code[256 + 18] == 0x90 && code[256 + 23] == 0x90, "which are NOPs now");
}

/* 32-bit code in compatibility mode, and 64-bit code, at one address: INC EAX is a REX prefix in 64-bit mode. */
uint32_t run_in_compatibility(const void *place);
__asm__("run_in_compatibility:\n"
        "push %rbx; push %rbp\n"
        "mov %edi, %ebx\n"
        "xor %eax, %eax\n"
        "movl $1f, far_pointer; movw $0x40, far_pointer + 4\n"
        "ljmp *far_pointer\n"
        ".code32\n"
        "1: call *%ebx\n"
        "ljmp $0x08, $2f\n"
        ".code64\n"
        "2: pop %rbp; pop %rbx; mov %eax, %eax; ret\n");
uint8_t far_pointer[8];

static void test_modes(void)
{
    static const uint8_t both[] = {0x40, 0xB8, 7, 0, 0, 0, 0x40, 0x90, 0xC3}; /* 32: inc, mov 7, inc, nop, ret */
    memcpy(code + 512, both, sizeof both);
    /* The stack must lie below 4 GiB, and the caller's return address fits 32 bits: it does in this image. */
    check(call(code + 512) == 7, "64-bit: the bytes 40 are prefixes");
    check(run_in_compatibility(code + 512) == 8, "the same bytes in compatibility mode: INC EAX");
    check(call(code + 512) == 7, "and in 64-bit mode again");
    code[512 + 2] = 9;
    check(run_in_compatibility(code + 512) == 10 && call(code + 512) == 9, "changed, in both modes");
}

int main(void)
{
    check_begin("self-modifying", "self-modifying and cross-modifying code");
    trap_init();
    user_init();
    pages_init();
    test_whole_functions();
    test_next_instruction();
    test_modes();
    return check_verdict("%u checks", check_count());
}
