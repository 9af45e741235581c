/* See user.h. */
#include "user.h"

#include "boot.h"
#include "cpu.h"
#include "string.h"
#include "trap.h"

enum {
    TSS_RSP0 = 4,
    PTE_USER = 1 << 2,
    PTE_LARGE = 1 << 7,
    TABLE_ENTRIES = 512,
};
#define PTE_ADDRESS UINT64_C(0x000FFFFFFFFFF000)

uint64_t user_gdt[GDT_SPARE / 8 + GDT_SPARES] __attribute__((aligned(16))) = {
    [BOOT_CS / 8] = 0x00AF9B000000FFFF,     [BOOT_DS / 8] = 0x00CF93000000FFFF,
    [USER_CS32 / 8] = 0x00CFFB000000FFFF,   [USER_DS / 8] = 0x00CFF3000000FFFF,
    [USER_CS64 / 8] = 0x00AFFB000000FFFF,   [KERNEL_CS32 / 8] = 0x00CF9B000000FFFF,
    [KERNEL_CS16 / 8] = 0x000F9B000000FFFF,
};
uint8_t user_stack[4096] __attribute__((aligned(16)));
uint8_t kernel_stack[8192] __attribute__((aligned(16)));

static void allow_user(uint64_t *table, unsigned levels)
{
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        if (table[i] & 1) {
            table[i] |= PTE_USER;
            if (levels > 1 && !(table[i] & PTE_LARGE)) {
                idt_gate(VECTOR_BP)->type |= GATE_DPL_3;
                allow_user((uint64_t *)(table[i] & PTE_ADDRESS), levels - 1);
            }
        }
    }
}

void user_init(void)
{
    const uint64_t *boot_gdt = (const uint64_t *)sgdt().base;
    user_gdt[BOOT_TR / 8] = boot_gdt[BOOT_TR / 8];
    user_gdt[BOOT_TR / 8 + 1] = boot_gdt[BOOT_TR / 8 + 1];
    struct descriptor_table_register gdtr = {.limit = sizeof user_gdt - 1, .base = (uint64_t)user_gdt};
    __asm__ volatile("lgdt %0" : : "m"(gdtr));

    uint64_t rsp0 = (uint64_t)(kernel_stack + sizeof kernel_stack);
    memcpy(boot_tss + TSS_RSP0, &rsp0, sizeof rsp0);
    idt_gate(VECTOR_BP)->type |= GATE_DPL_3;
    allow_user((uint64_t *)(read_cr3() & PTE_ADDRESS), 3);
    write_cr3(read_cr3());
}

void user_enter(const struct user_state *state)
{
    trap.taken = false;
    trap_first_rip = state->rip;
    __asm__ volatile("push %%rbp\n"
                     "movq $77f, trap_resume_rip\n"
                     "movq %%rsp, trap_resume_rsp\n"
                     "pushq 32(%0)\n"
                     "pushq 24(%0)\n"
                     "pushq 16(%0)\n"
                     "pushq 8(%0)\n"
                     "pushq (%0)\n"
                     "iretq\n"
                     "77: mov %1, %%eax\n"
                     "mov %%eax, %%ds\n"
                     "mov %%eax, %%es\n"
                     "mov %%eax, %%fs\n"
                     "mov %%eax, %%gs\n"
                     "pop %%rbp\n"
                     "movq $0, trap_resume_rip\n"
                     : "+D"(state)
                     : "i"(BOOT_DS)
                     : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                       "memory", "cc");
}

void user_run(const void *code)
{
    user_enter(&(struct user_state){
        .rip = (uint64_t)code,
        .cs = USER_CS64,
        .rflags = RFLAGS_FIXED,
        .rsp = (uint64_t)(user_stack + sizeof user_stack),
        .ss = USER_DS,
    });
}
