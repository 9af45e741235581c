/* What start.S leaves behind: selectors, the TSS, the IDT. Usable from C and from assembly. */
#ifndef GUEST_LIB32_START_H
#define GUEST_LIB32_START_H

#define KERNEL_CS  0x08
#define KERNEL_DS  0x10
#define MAIN_TSS   0x18
#define USER_CS    0x23 /* with RPL 3 */
#define USER_DS    0x2B
#define CODE16     0x30
#define DATA16     0x38
#define SPARE      0x40 /* the first of GDT_SPARES empty descriptors */
#define GDT_SPARES 12
#define TSS_BYTES  104

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stdint.h>

extern uint64_t gdt[];
extern uint8_t stack_top[];

struct tss32 {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, io_map;
};
_Static_assert(sizeof(struct tss32) == TSS_BYTES, "a 32-bit TSS");
extern struct tss32 main_tss;

/* The interrupted program; start.S knows the layout. esp and ss only if the privilege level changed. */
struct frame {
    uint32_t ds, es, fs, gs;
    uint32_t edi, esi, ebp, ignored_esp, ebx, edx, ecx, eax;
    uint32_t vector, error_code, eip, cs, eflags, esp, ss;
    uint32_t v86_es, v86_ds, v86_fs, v86_gs; /* only from virtual-8086 mode */
};

/* The exception that ended the last TRY(). */
extern volatile struct trap32 {
    bool taken;
    struct frame frame;
    uint32_t offset;
} trap;
extern volatile uint32_t trap_resume_eip, trap_resume_esp, trap_first_eip;

void idt_init(void);
void idt_write(unsigned vector, uint64_t gate);
uint64_t idt_read(unsigned vector);
bool trapped(unsigned vector, uint32_t error_code);
void check_trap(unsigned vector, uint32_t error_code, uint32_t offset, const char *what);

/* As support/trap.h, in 32 bits. */
#define TRY(instructions, ...)                                          \
    do {                                                                \
        trap.taken = false;                                             \
        __asm__ volatile("movl $77f, trap_resume_eip\n"                 \
                         "movl %%esp, trap_resume_esp\n"                \
                         "movl $76f, trap_first_eip\n"                  \
                         "76: " instructions "\n"                       \
                         "77: movl $0, trap_resume_eip\n" __VA_ARGS__); \
    } while (0)

/* Descriptors of bounded segments and gates. `access`: P, DPL, S and type; `flags`: G, D/B, L, AVL. */
static inline uint64_t descriptor(uint32_t base, uint32_t limit, uint8_t access, uint8_t flags)
{
    return (limit & 0xFFFF) | (uint64_t)(base & 0xFFFFFF) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 0xF) << 48 | (uint64_t)(flags & 0xF) << 52 | (uint64_t)(base >> 24) << 56;
}

static inline uint64_t gate(uint16_t selector, uint32_t offset, uint8_t access, uint8_t words)
{
    return (offset & 0xFFFF) | (uint64_t)selector << 16 | (uint64_t)words << 32 | (uint64_t)access << 40 |
           (uint64_t)(offset >> 16) << 48;
}
#endif

#endif
