// libFuzzer target: any bytes as a guest, in every mode of the processor, with VMX and with several processors.
//
// A 16-byte header chooses mode and set-up (struct plan), then come changes to page tables, EPT, VMCS and descriptors,
// and the rest is code and data. Exception handlers step over one byte and go on, and so does the handler of VM exits,
// so that most bytes get to run. Checked besides the sanitizers: no ASSERT, and the same state however the machine is
// driven: free-running, single-stepped, and in pieces cut by limits.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "cpu/system.h"
#include "machine/machine.h"
#include "vmx/controls.h"

enum {
    MEMORY_SIZE = 1 << 20,
    MAX_INSTRUCTIONS = 4000,
    MAX_CYCLES = 400000,
    PIECE_CYCLES = 7001,
    PIECE_INSTRUCTIONS = 997,
    STEPS = 1000,
};

// Where things lie. All below 2 MiB, which the tables map to itself in pages of 4 KiB.
enum {
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,           // with an I/O bitmap of zeros up to the end of the page
    LONG_TABLES = 0x4000,   // PML4, PDPT, PD, PT
    LEGACY_TABLES = 0x8000, // page directory, page table
    PAE_TABLES = 0x90000,   // PDPT, PD, PT
    EPT_TABLES = 0xA000,
    VMXON_REGION = 0xE000,
    VMCS_REGION = 0xF000,
    SHADOW_REGION = 0x10000,
    MSR_BITMAP = 0x11000,
    IO_BITMAPS = 0x12000,
    VIRTUAL_APIC = 0x14000,
    MSR_LISTS = 0x15000,
    EPTP_LIST = 0x16000,
    PML_BUFFER = 0x17000,
    HANDLERS = 0x18000,
    VM_EXIT_HANDLER = 0x18800,
    VMX_START = 0x18C00,
    CODE = 0x20000,
    CODE_SIZE = 0x8000,
    DATA = 0x30000,
    DATA_SIZE = 0x10000,
    STACKS = 0x4F000,
    GUEST_STACK = 0x57000,
};

enum {
    SELECTOR_CODE64 = 0x08,
    SELECTOR_DATA = 0x10,
    SELECTOR_CODE32 = 0x18,
    SELECTOR_TSS = 0x20,
    SELECTOR_USER_CODE64 = 0x30,
    SELECTOR_USER_DATA = 0x38,
    SELECTOR_USER_CODE32 = 0x40,
    SELECTOR_CODE16 = 0x48,
    SELECTOR_GATE = 0x50,
    SELECTOR_TSS2 = 0x60
};

enum guest_mode {
    GUEST_REAL,
    GUEST_PROTECTED,
    GUEST_PAGED,
    GUEST_PAE,
    GUEST_LONG,
    GUEST_COMPATIBILITY,
    GUEST_V8086,
    GUEST_KINDS
};

// The header of an input, byte by byte.
struct plan {
    uint8_t mode;    // enum guest_mode, modulo GUEST_KINDS: of the processor, or of the VMX guest
    uint8_t options; // OPTION_*
    uint8_t ways;    // WAY_*
    uint8_t profile;
    uint8_t vmcs_changes, table_changes, ept_changes, descriptor_changes; // how many follow, modulo MAX_CHANGES
    uint8_t pin, entry, exit;                                             // control bits to try, spread over the words
    uint8_t primary[2], secondary[2];
    uint8_t cr4;
};
static_assert(sizeof(struct plan) == 16, "the header is 16 bytes");

enum {
    OPTION_VMX = 1,
    OPTION_TIMERS = 2,
    OPTION_NO_HANDLERS = 4,
    OPTION_USER = 8,
    OPTION_TRAP = 16,
    OPTION_SMP = 32,
    OPTION_EPT = 64,
    OPTION_RAW_CONTROLS = 128,
};
enum { WAY_PIECES = 1, WAY_STEPS = 2 };
enum { MAX_CHANGES = 24 };

struct input {
    const uint8_t *bytes;
    size_t size;
};

static void fail(const char *why)
{
    fprintf(stderr, "fuzz_machine: %s\n", why);
    abort();
}

// Instead of the one of base/assert.c, so that the fuzzer keeps the input.
_Noreturn void assert_failed(const char *file, int line, const char *condition, const char *why)
{
    fprintf(stderr, "vmxon: defect at %s:%d: %s (%s)\n", file, line, why, condition);
    abort();
}

static uint64_t take(struct input *input, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size && input->size > 0; i++, input->bytes++, input->size--)
        value |= (uint64_t)*input->bytes << (8 * i);
    return value;
}

static void put_bytes(struct machine *machine, hpa_t address, const void *bytes, size_t size)
{
    if (!memory_write(&machine->memory, address, bytes, size))
        fail("the set-up writes outside of RAM");
}

static void put64(struct machine *machine, hpa_t address, uint64_t value) { put_bytes(machine, address, &value, 8); }

static uint64_t get64(struct machine *machine, hpa_t address)
{
    uint64_t value = 0;
    memory_read(&machine->memory, address, &value, 8);
    return value;
}

// ---- Tables ----

static uint64_t descriptor(uint32_t base, uint32_t limit, uint32_t access_rights)
{
    return (limit & 0xFFFF) | (uint64_t)(base & 0xFFFFFF) << 16 | (uint64_t)(access_rights & 0xFF) << 40 |
           (uint64_t)(limit >> 16 & 0xF) << 48 | (uint64_t)(access_rights >> 12 & 0xF) << 52 |
           (uint64_t)(base >> 24) << 56;
}

static void write_descriptors(struct machine *machine)
{
    const uint64_t gdt[] = {
        [SELECTOR_CODE64 / 8] = descriptor(0, 0xFFFFF, 0xA09B),
        [SELECTOR_DATA / 8] = descriptor(0, 0xFFFFF, 0xC093),
        [SELECTOR_CODE32 / 8] = descriptor(0, 0xFFFFF, 0xC09B),
        [SELECTOR_TSS / 8] = descriptor(TSS, 0xFFF, 0x008B),
        [SELECTOR_USER_CODE64 / 8] = descriptor(0, 0xFFFFF, 0xA0FB),
        [SELECTOR_USER_DATA / 8] = descriptor(0, 0xFFFFF, 0xC0F3),
        [SELECTOR_USER_CODE32 / 8] = descriptor(0, 0xFFFFF, 0xC0FB),
        [SELECTOR_CODE16 / 8] = descriptor(CODE, 0xFFFF, 0x009B),
        [SELECTOR_GATE / 8] = (uint64_t)SELECTOR_CODE64 << 16 | (uint64_t)0xEC00 << 32 | (HANDLERS & 0xFFFF) |
                              (uint64_t)(HANDLERS >> 16) << 48,
        [SELECTOR_TSS2 / 8] = descriptor(DATA, 0xFFF, 0x0089),
    };
    put_bytes(machine, GDT, gdt, sizeof gdt);
    uint8_t tss[256] = {0};
    uint32_t stack = STACKS;
    for (unsigned at = 4; at < 0x60; at += 8) // both layouts: 32-bit ESP0 to ESP2 and SS, 64-bit RSP0 to RSP2 and IST
        memcpy(tss + at, &stack, 4);
    const uint16_t ss = SELECTOR_DATA, bitmap = 0x88;
    for (unsigned at = 8; at <= 0x18; at += 8)
        memcpy(tss + at, &ss, 2);
    memset(tss + 8, 0, 4), memset(tss + 0x10, 0, 4); // the upper halves of RSP0 and RSP1 win
    memcpy(tss + 8, &ss, 2);
    memcpy(tss + 0x66, &bitmap, 2);
    put_bytes(machine, TSS, tss, sizeof tss);
}

// Handlers: step over one byte of the program, or end an interrupt.
static const uint8_t handler_real[] = {0x55, 0x89, 0xE5, 0xFF, 0x46, 0x02, 0x5D, 0xCF};
static const uint8_t handler_32[] = {0x83, 0x04, 0x24, 0x01, 0xCF};
static const uint8_t handler_32_error[] = {0x83, 0xC4, 0x04, 0x83, 0x04, 0x24, 0x01, 0xCF};
static const uint8_t handler_64[] = {0x48, 0x83, 0x04, 0x24, 0x01, 0x48, 0xCF};
static const uint8_t handler_64_error[] = {0x48, 0x83, 0xC4, 0x08, 0x48, 0x83, 0x04, 0x24, 0x01, 0x48, 0xCF};
static const uint8_t handler_interrupt[] = {0x50, 0xB0, 0x20, 0xE6, 0x20, 0x58, 0xCF};
static const uint8_t handler_interrupt_64[] = {0x50, 0xB0, 0x20, 0xE6, 0x20, 0x58, 0x48, 0xCF};
enum {
    HANDLER_REAL = HANDLERS,
    HANDLER_32 = HANDLERS + 0x20,
    HANDLER_32_ERROR = HANDLERS + 0x40,
    HANDLER_64 = HANDLERS + 0x60,
    HANDLER_64_ERROR = HANDLERS + 0x80,
    HANDLER_INTERRUPT = HANDLERS + 0xA0,
    HANDLER_INTERRUPT_64 = HANDLERS + 0xC0
};

static bool has_error_code(unsigned vector) { return vector < 32 && (0x27D00u >> vector & 1) && vector != 9; }

static void write_handlers(struct machine *machine, bool long_mode)
{
    put_bytes(machine, HANDLER_REAL, handler_real, sizeof handler_real);
    put_bytes(machine, HANDLER_32, handler_32, sizeof handler_32);
    put_bytes(machine, HANDLER_32_ERROR, handler_32_error, sizeof handler_32_error);
    put_bytes(machine, HANDLER_64, handler_64, sizeof handler_64);
    put_bytes(machine, HANDLER_64_ERROR, handler_64_error, sizeof handler_64_error);
    put_bytes(machine, HANDLER_INTERRUPT, handler_interrupt, sizeof handler_interrupt);
    put_bytes(machine, HANDLER_INTERRUPT_64, handler_interrupt_64, sizeof handler_interrupt_64);
    for (unsigned vector = 0; vector < 256; vector++) {
        uint32_t at;
        if (long_mode)
            at = vector >= 32 ? HANDLER_INTERRUPT_64 : has_error_code(vector) ? HANDLER_64_ERROR : HANDLER_64;
        else
            at = vector >= 32 ? HANDLER_INTERRUPT : has_error_code(vector) ? HANDLER_32_ERROR : HANDLER_32;
        uint64_t gate = (at & 0xFFFF) | (uint64_t)(long_mode ? SELECTOR_CODE64 : SELECTOR_CODE32) << 16 |
                        (uint64_t)0xEE00 << 32 | (uint64_t)(at >> 16) << 48;
        put64(machine, (hpa_t)(IDT + vector * (long_mode ? 16 : 8)), gate);
        uint32_t real = (HANDLER_REAL & 0xF) | (uint32_t)(HANDLER_REAL >> 4) << 16;
        if (vector >= 32)
            real = (HANDLER_INTERRUPT & 0xF) | (uint32_t)(HANDLER_INTERRUPT >> 4) << 16;
        put_bytes(machine, vector * 4, &real, 4);
    }
}

// A table whose first entry leads to the next, `levels` deep; the last maps 2 MiB to itself.
static void write_chain(struct machine *machine, hpa_t first, unsigned levels, uint64_t flags, uint64_t leaf_flags,
                        uint64_t first_flags)
{
    for (unsigned level = 0; level + 1 < levels; level++)
        put64(machine, first + level * PAGE_SIZE,
              (first + (level + 1) * PAGE_SIZE) | (level == 0 ? first_flags : flags));
    hpa_t last = first + (levels - 1) * PAGE_SIZE;
    for (uint64_t i = 0; i < 512; i++)
        put64(machine, last + 8 * i, i * PAGE_SIZE | leaf_flags);
}

static void write_tables(struct machine *machine)
{
    write_chain(machine, LONG_TABLES, 4, 7, 7, 7);
    write_chain(machine, PAE_TABLES, 3, 7, 7, 1);
    write_chain(machine, EPT_TABLES, 4, 7, 0x37, 7);
    uint32_t entry = (LEGACY_TABLES + 0x1000) | 7;
    put_bytes(machine, LEGACY_TABLES, &entry, 4);
    for (uint32_t i = 0; i < 1024; i++) {
        entry = i * 0x1000 | 7;
        put_bytes(machine, LEGACY_TABLES + 0x1000 + 4 * i, &entry, 4);
    }
}

// Changes to 8-byte entries of `pages` pages from `first`: page and entry (biased to what the program uses), then what to flip.
static void change_tables(struct machine *machine, struct input *input, unsigned count, hpa_t first, unsigned pages)
{
    for (unsigned i = 0; i < count % MAX_CHANGES; i++) {
        uint64_t where = take(input, 2), low = take(input, 2), high = take(input, 1);
        hpa_t at = first + (where >> 12) % pages * PAGE_SIZE + (where & 511) * 8;
        put64(machine, at, get64(machine, at) ^ low ^ high << 56);
    }
}

// ---- VMX ----

static void spread_controls(struct machine *machine, const struct plan *plan, struct vmcs_region *vmcs)
{
    const struct vmx_caps *caps = &machine->vmx_caps;
    uint64_t pin = plan->pin, primary = ((uint64_t)plan->primary[0] << 24 | (uint64_t)plan->primary[1] << 7) |
                                        PRIMARY_ACTIVATE_SECONDARY_CONTROLS;
    uint64_t secondary = (uint64_t)plan->secondary[0] | (uint64_t)plan->secondary[1] << 8;
    uint64_t entry = (uint64_t)(plan->entry & 0xFC) << 11,
             exit = (uint64_t)(plan->exit & 0xFC) << 12 | EXIT_HOST_ADDRESS_SPACE_SIZE;
    if (plan->options & OPTION_EPT)
        secondary |= SECONDARY_ENABLE_EPT;
    if (plan->mode % GUEST_KINDS < GUEST_PAGED)
        secondary |= SECONDARY_ENABLE_EPT | SECONDARY_UNRESTRICTED_GUEST;
    if (plan->mode % GUEST_KINDS == GUEST_LONG || plan->mode % GUEST_KINDS == GUEST_COMPATIBILITY)
        entry |= ENTRY_IA32E_MODE_GUEST;
    if (!(plan->options & OPTION_RAW_CONTROLS)) {
        pin = (pin & caps->pin.may) | caps->pin.must;
        primary = (primary & caps->primary.may) | caps->primary.must;
        secondary = (secondary & caps->secondary.may) | caps->secondary.must;
        entry = (entry & caps->entry.may) | caps->entry.must;
        exit = (exit & caps->exit.may) | caps->exit.must;
    }
    vmcs_put(vmcs, VMCS_PIN_BASED_CONTROLS, pin);
    vmcs_put(vmcs, VMCS_PRIMARY_PROC_BASED_CONTROLS, primary);
    if (secondary & SECONDARY_VMCS_SHADOWING)
        vmcs_put(vmcs, VMCS_VMCS_LINK_POINTER, SHADOW_REGION);
    vmcs_put(vmcs, VMCS_SECONDARY_PROC_BASED_CONTROLS, secondary);
    vmcs_put(vmcs, VMCS_ENTRY_CONTROLS, entry);
    vmcs_put(vmcs, VMCS_PRIMARY_EXIT_CONTROLS, exit);
}

static void write_addresses(struct vmcs_region *vmcs)
{
    vmcs_put(vmcs, VMCS_IO_BITMAP_A, IO_BITMAPS);
    vmcs_put(vmcs, VMCS_IO_BITMAP_B, IO_BITMAPS + PAGE_SIZE);
    vmcs_put(vmcs, VMCS_MSR_BITMAP, MSR_BITMAP);
    vmcs_put(vmcs, VMCS_VIRTUAL_APIC_ADDR, VIRTUAL_APIC);
    vmcs_put(vmcs, VMCS_APIC_ACCESS_ADDR, DATA);
    vmcs_put(vmcs, VMCS_EPTP, EPT_TABLES | 0x1E);
    vmcs_put(vmcs, VMCS_EPTP_LIST_ADDR, EPTP_LIST);
    vmcs_put(vmcs, VMCS_PML_ADDR, PML_BUFFER);
    vmcs_put(vmcs, VMCS_PML_INDEX, 3);
    vmcs_put(vmcs, VMCS_VMREAD_BITMAP, DATA);
    vmcs_put(vmcs, VMCS_VMWRITE_BITMAP, DATA);
    vmcs_put(vmcs, VMCS_VIRT_EXCEPTION_INFO_ADDR, DATA + PAGE_SIZE);
    vmcs_put(vmcs, VMCS_VMCS_LINK_POINTER, UINT64_MAX);
    vmcs_put(vmcs, VMCS_VPID, 1);
    vmcs_put(vmcs, VMCS_PREEMPTION_TIMER_VALUE, 100);
    vmcs_put(vmcs, VMCS_EXIT_MSR_STORE_ADDR, MSR_LISTS);
    vmcs_put(vmcs, VMCS_EXIT_MSR_LOAD_ADDR, MSR_LISTS);
    vmcs_put(vmcs, VMCS_ENTRY_MSR_LOAD_ADDR, MSR_LISTS);
    vmcs_put(vmcs, VMCS_PLE_GAP, 20);
    vmcs_put(vmcs, VMCS_PLE_WINDOW, 200);
}

static void write_host_state(const struct cpu *cpu, struct vmcs_region *vmcs)
{
    vmcs_put(vmcs, VMCS_HOST_CR0, cpu->cr0);
    vmcs_put(vmcs, VMCS_HOST_CR3, cpu->cr3);
    vmcs_put(vmcs, VMCS_HOST_CR4, cpu->cr4);
    vmcs_put(vmcs, VMCS_HOST_CS_SELECTOR, SELECTOR_CODE64);
    for (unsigned i = VMCS_HOST_ES_SELECTOR; i <= VMCS_HOST_GS_SELECTOR; i++)
        if (i != VMCS_HOST_CS_SELECTOR)
            vmcs_put(vmcs, (enum vmcs_field)i, SELECTOR_DATA);
    vmcs_put(vmcs, VMCS_HOST_TR_SELECTOR, SELECTOR_TSS);
    vmcs_put(vmcs, VMCS_HOST_TR_BASE, TSS);
    vmcs_put(vmcs, VMCS_HOST_GDTR_BASE, GDT);
    vmcs_put(vmcs, VMCS_HOST_IDTR_BASE, IDT);
    vmcs_put(vmcs, VMCS_HOST_RSP, STACKS - 0x800);
    vmcs_put(vmcs, VMCS_HOST_RIP, VM_EXIT_HANDLER);
    vmcs_put(vmcs, VMCS_HOST_IA32_PAT, 0x0007040600070406);
    vmcs_put(vmcs, VMCS_HOST_IA32_EFER, cpu->efer);
}

// Guest state from the state that `cpu` would have if it ran the program without VMX.
static void write_guest_state(const struct cpu *cpu, struct vmcs_region *vmcs, uint64_t fixed_cr0)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct segment *segment = &cpu->segments[i];
        vmcs_put(vmcs, (enum vmcs_field)(VMCS_GUEST_ES_SELECTOR + i), segment->selector);
        vmcs_put(vmcs, (enum vmcs_field)(VMCS_GUEST_ES_BASE + i), segment->base);
        vmcs_put(vmcs, (enum vmcs_field)(VMCS_GUEST_ES_LIMIT + i), segment->limit);
        vmcs_put(vmcs, (enum vmcs_field)(VMCS_GUEST_ES_ACCESS_RIGHTS + i), segment->access_rights);
    }
    vmcs_put(vmcs, VMCS_GUEST_GDTR_BASE, cpu->gdtr.base);
    vmcs_put(vmcs, VMCS_GUEST_GDTR_LIMIT, cpu->gdtr.limit);
    vmcs_put(vmcs, VMCS_GUEST_IDTR_BASE, cpu->idtr.base);
    vmcs_put(vmcs, VMCS_GUEST_IDTR_LIMIT, cpu->idtr.limit);
    vmcs_put(vmcs, VMCS_GUEST_CR0, cpu->cr0 | fixed_cr0);
    vmcs_put(vmcs, VMCS_GUEST_CR3, cpu->cr3);
    vmcs_put(vmcs, VMCS_GUEST_CR4, cpu->cr4 | CR4_VMXE);
    vmcs_put(vmcs, VMCS_CR0_READ_SHADOW, cpu->cr0);
    vmcs_put(vmcs, VMCS_CR4_READ_SHADOW, cpu->cr4);
    vmcs_put(vmcs, VMCS_GUEST_DR7, 0x400);
    vmcs_put(vmcs, VMCS_GUEST_RSP, cpu->regs[REG_RSP]);
    vmcs_put(vmcs, VMCS_GUEST_RIP, cpu->regs[REG_RIP]);
    vmcs_put(vmcs, VMCS_GUEST_RFLAGS, cpu_rflags(cpu));
    vmcs_put(vmcs, VMCS_GUEST_IA32_EFER, cpu->efer);
    vmcs_put(vmcs, VMCS_GUEST_IA32_PAT, 0x0007040600070406);
}

// VMXON [0E000H - 40H]; VMPTRLD; VMLAUNCH; and if that fails, the program itself in VMX root operation.
static const uint8_t vmx_start[] = {
    0xF3, 0x0F, 0xC7, 0x34, 0x25, 0x00, 0x8F, 0x01, 0x00, // VMXON [18F00H]
    0x0F, 0xC7, 0x34, 0x25, 0x08, 0x8F, 0x01, 0x00,       // VMPTRLD [18F08H]
    0x0F, 0x01, 0xC2,                                     // VMLAUNCH
    0xE9, 0,    0,    0,    0,                            // JMP CODE
};
// Steps over the instruction that exited, makes the next change to the VMCS (encoding, value: pairs of 8 bytes at DATA + 8000H), resumes.
static const uint8_t vm_exit_handler[] = {
    0x50, 0x53, 0x51, 0x52,                               // PUSH RAX, RBX, RCX, RDX
    0xB8, 0x0C, 0x44, 0x00, 0x00, 0x0F, 0x78, 0xC1,       // MOV EAX, 440CH; VMREAD RCX, RAX (instruction length)
    0xB8, 0x1E, 0x68, 0x00, 0x00, 0x0F, 0x78, 0xC2,       // MOV EAX, 681EH; VMREAD RDX, RAX (RIP)
    0x83, 0xF9, 0x01, 0x83, 0xD1, 0x00,                   // CMP ECX, 1; ADC ECX, 0
    0x48, 0x01, 0xCA, 0x0F, 0x79, 0xC2,                   // ADD RDX, RCX; VMWRITE RAX, RDX
    0x48, 0x8B, 0x1C, 0x25, 0x10, 0x8F, 0x01, 0x00,       // MOV RBX, [18F10H]
    0x48, 0x83, 0x04, 0x25, 0x10, 0x8F, 0x01, 0x00, 0x0A, // ADD QWORD [18F10H], 10
    0x81, 0xE3, 0xFF, 0x7F, 0x03, 0x00,                   // AND EBX, 37FFFH
    0x0F, 0xB7, 0x03,                                     // MOVZX EAX, WORD [RBX]
    0x25, 0x1E, 0x6C, 0x00, 0x00,                         // AND EAX, 6C1EH
    0x48, 0x8B, 0x53, 0x02,                               // MOV RDX, [RBX + 2]
    0xF6, 0xC2, 0x03, 0x75, 0x03,                         // TEST DL, 3; JNZ +3
    0x0F, 0x79, 0xC2,                                     // VMWRITE RAX, RDX
    0x5A, 0x59, 0x5B, 0x58,                               // POP
    0x0F, 0x01, 0xC3,                                     // VMRESUME
    0xE9, 0,    0,    0,    0,                            // JMP CODE
};

static void put_with_jump(struct machine *machine, hpa_t at, const uint8_t *code, size_t size)
{
    uint32_t distance = (uint32_t)(CODE - (at + size));
    put_bytes(machine, at, code, size);
    put_bytes(machine, at + size - 4, &distance, 4);
}

static void change_vmcs(struct vmcs_region *vmcs, struct input *input, unsigned count)
{
    for (unsigned i = 0; i < count % MAX_CHANGES; i++) {
        enum vmcs_field field = (enum vmcs_field)(take(input, 1) % VMCS_FIELD_COUNT);
        unsigned kind = (unsigned)take(input, 1);
        uint64_t value = take(input, kind & 1 ? 8 : 2) << (kind >> 2 & 48);
        vmcs_put(vmcs, field, kind & 2 ? vmcs_get(vmcs, field) ^ value : value);
        if (vmcs_fields[field].width != VMCS_WIDTH_64 && vmcs_fields[field].width != VMCS_WIDTH_NATURAL && !(kind & 4))
            vmcs_put(vmcs, field, (uint32_t)vmcs_get(vmcs, field));
    }
}

// ---- Processor ----

static void set_segment(struct cpu *cpu, enum segment_register index, uint16_t selector, uint64_t base, uint32_t limit,
                        uint32_t access_rights)
{
    cpu->segments[index] =
        (struct segment){.selector = selector, .base = base, .limit = limit, .access_rights = access_rights};
}

static void set_data_segments(struct cpu *cpu, uint16_t selector, uint64_t base, uint32_t limit, uint32_t access_rights)
{
    static const enum segment_register data[] = {SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < 5; i++)
        set_segment(cpu, data[i], selector, base, limit, access_rights);
}

static void set_common(struct cpu *cpu)
{
    set_segment(cpu, SEG_LDTR, 0, 0, 0, SEGMENT_UNUSABLE);
    set_segment(cpu, SEG_TR, SELECTOR_TSS, TSS, 0xFFF, 0x8B);
    cpu->gdtr = (struct descriptor_table){GDT, 0x6F};
    cpu->idtr = (struct descriptor_table){IDT, 0xFFF};
    for (unsigned i = 0; i < 16; i++)
        cpu->regs[i] = DATA + 0x100 * i;
    cpu->regs[REG_RCX] = 5;
    cpu->regs[REG_RSP] = GUEST_STACK;
    cpu->regs[REG_RIP] = CODE;
}

static void set_mode(struct cpu *cpu, enum guest_mode mode, const struct plan *plan)
{
    bool user = plan->options & OPTION_USER;
    uint64_t cr0 = 0x30, cr3 = 0, cr4 = (uint64_t)(plan->cr4 & 0x0F) | (uint64_t)(plan->cr4 & 0x30) << 5, efer = 0;
    uint64_t rflags =
        RFLAGS_ONE | (plan->options & OPTION_TIMERS ? RFLAGS_IF : 0) | (plan->options & OPTION_TRAP ? RFLAGS_TF : 0);
    set_common(cpu);
    cpu->cpl = user ? 3 : 0;
    uint32_t dpl = user ? 0x60 : 0;
    if (mode == GUEST_REAL || mode == GUEST_V8086) {
        bool v8086 = mode == GUEST_V8086;
        set_segment(cpu, SEG_CS, CODE >> 4, CODE, 0xFFFF, v8086 ? 0xF3 : 0x9B);
        set_data_segments(cpu, DATA >> 4, DATA, 0xFFFF, v8086 ? 0xF3 : 0x93);
        cpu->regs[REG_RIP] = 0;
        cpu->regs[REG_RSP] = 0xF000;
        cpu->idtr = (struct descriptor_table){v8086 ? IDT : 0, v8086 ? 0x7FF : 0x3FF};
        cpu->cpl = v8086 ? 3 : 0;
        rflags |= v8086 ? RFLAGS_VM | RFLAGS_IOPL : 0;
    } else {
        bool code64 = mode == GUEST_LONG;
        uint16_t selector = code64 ? (user ? SELECTOR_USER_CODE64 | 3 : SELECTOR_CODE64)
                                   : (user ? SELECTOR_USER_CODE32 | 3 : SELECTOR_CODE32);
        set_segment(cpu, SEG_CS, selector, 0, UINT32_MAX, (code64 ? 0xA09Bu : 0xC09Bu) | dpl);
        set_data_segments(cpu, user ? SELECTOR_USER_DATA | 3 : SELECTOR_DATA, 0, UINT32_MAX, 0xC093 | dpl);
    }
    if (mode != GUEST_REAL)
        cr0 |= CR0_PE;
    if (mode == GUEST_PAGED || mode == GUEST_V8086)
        cr0 |= CR0_PG, cr3 = LEGACY_TABLES;
    if (mode == GUEST_PAE)
        cr0 |= CR0_PG, cr4 |= CR4_PAE, cr3 = PAE_TABLES;
    if (mode == GUEST_LONG || mode == GUEST_COMPATIBILITY)
        cr0 |= CR0_PG, cr4 |= CR4_PAE, cr3 = LONG_TABLES, efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
    cpu_load_control_registers(cpu, cr0, cr3, cr4, efer);
    cpu_set_rflags(cpu, rflags);
    cpu_update_mode(cpu);
    if (mode == GUEST_PAE)
        cpu_write_cr3(cpu, cr3); // loads the PDPTEs
}

// The processor starts in 64-bit mode and enters the program as its guest.
static void start_vmx(struct machine *machine, const struct plan *plan, struct input *input)
{
    struct cpu *cpu = &machine->processor[0]->cpu;
    enum guest_mode mode = plan->mode % GUEST_KINDS;
    struct vmcs_region vmcs = {.revision = machine->vmx_caps.revision};
    set_mode(cpu, mode, plan);
    uint64_t fixed = mode < GUEST_PAGED ? CR0_NE : machine->vmx_caps.cr0_fixed0;
    write_guest_state(cpu, &vmcs, fixed);

    set_mode(cpu, GUEST_LONG, &(struct plan){0});
    cpu_load_control_registers(cpu, cpu->cr0 | machine->vmx_caps.cr0_fixed0, cpu->cr3, cpu->cr4 | CR4_VMXE, cpu->efer);
    cpu_update_mode(cpu);
    cpu->feature_control = 5;
    cpu->regs[REG_RIP] = VMX_START;
    cpu->regs[REG_RSP] = STACKS - 0x800;
    write_host_state(cpu, &vmcs);
    write_addresses(&vmcs);
    spread_controls(machine, plan, &vmcs);
    change_vmcs(&vmcs, input, plan->vmcs_changes);
    put_bytes(machine, VMCS_REGION, &vmcs, sizeof vmcs);
    put_bytes(machine, VMXON_REGION, &machine->vmx_caps.revision, 4);
    uint32_t shadow = machine->vmx_caps.revision | VMCS_SHADOW_INDICATOR;
    put_bytes(machine, SHADOW_REGION, &shadow, 4);
    put64(machine, EPTP_LIST, EPT_TABLES | 0x1E);
    put64(machine, EPTP_LIST + 8, EPT_TABLES | 0x5E);
    put_with_jump(machine, VMX_START, vmx_start, sizeof vmx_start);
    put_with_jump(machine, VM_EXIT_HANDLER, vm_exit_handler, sizeof vm_exit_handler);
    put64(machine, 0x18F00, VMXON_REGION);
    put64(machine, 0x18F08, VMCS_REGION);
    put64(machine, 0x18F10, DATA + 0x4000);
}

static void start_timers(struct machine *machine, const struct plan *plan)
{
    static const uint8_t writes[][2] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1},    {0xA0, 0x11},
                                        {0xA1, 0x28}, {0xA1, 2},    {0xA1, 1}, {0x21, 0xF8}, {0xA1, 0xFE},
                                        {0x43, 0x34}, {0x40, 0x21}, {0x40, 0}};
    for (unsigned i = 0; i < sizeof writes / sizeof writes[0]; i++)
        bus_port_write(&machine->bus, writes[i][0], 1, writes[i][1]);
    struct lapic *apic = &machine->processor[0]->lapic;
    lapic_mmio_write(apic, 0xF0, 4, 0x1FF);
    lapic_mmio_write(apic, 0x320, 4, 0x20040);
    lapic_mmio_write(apic, 0x3E0, 4, 0xB);
    lapic_mmio_write(apic, 0x380, 4, 3u + plan->pin);
}

// Registers the reference executor once: opening an engine costs more than a run.
static struct reference *shared_reference(void)
{
    static struct reference *reference;
    if (!reference)
        reference = reference_create();
    return reference;
}

static struct machine *build(struct input input)
{
    struct plan plan;
    for (unsigned i = 0; i < sizeof plan; i++)
        ((uint8_t *)&plan)[i] = (uint8_t)take(&input, 1);
    struct vmxon_config config;
    struct vmxon_error error;
    struct vmxon *vmxon;
    vmxon_config_init(&config);
    config.memory_size = MEMORY_SIZE;
    config.cpus = plan.options & OPTION_SMP ? 2 + (plan.profile >> 7) : 1;
    unsigned profiles = 0;
    while (vmxon_profile_name(profiles))
        profiles++;
    config.cpu_profile = vmxon_profile_name((plan.profile & 0x7F) % profiles);
    if (vmxon_create(&config, &vmxon, &error) != VMXON_OK)
        fail(error.text);
    struct machine *machine = (struct machine *)vmxon;
    reference_destroy(machine->reference);
    machine->reference = shared_reference();

    enum guest_mode mode = plan.mode % GUEST_KINDS;
    bool long_mode = mode == GUEST_LONG || mode == GUEST_COMPATIBILITY || (plan.options & OPTION_VMX);
    write_tables(machine);
    write_descriptors(machine);
    if (!(plan.options & OPTION_NO_HANDLERS))
        write_handlers(machine, long_mode);
    change_tables(machine, &input, plan.table_changes,
                  mode == GUEST_PAE    ? PAE_TABLES
                  : mode >= GUEST_LONG ? LONG_TABLES
                                       : LEGACY_TABLES,
                  4);
    change_tables(machine, &input, plan.ept_changes, EPT_TABLES, 4);
    change_tables(machine, &input, plan.descriptor_changes, GDT, 3);
    if (plan.options & OPTION_VMX)
        start_vmx(machine, &plan, &input);
    else
        set_mode(&machine->processor[0]->cpu, mode, &plan);
    put_bytes(machine, CODE, input.bytes, input.size < CODE_SIZE ? input.size : CODE_SIZE);
    for (uint32_t at = 0; input.size && at < DATA_SIZE; at += (uint32_t)input.size)
        put_bytes(machine, DATA + at, input.bytes, input.size < DATA_SIZE - at ? input.size : DATA_SIZE - at);
    if (plan.options & OPTION_TIMERS)
        start_timers(machine, &plan);
    for (unsigned i = 1; i < machine->processor_count; i++) {
        machine->processor[i]->cpu.pending |= PENDING_SIPI;
        machine->processor[i]->cpu.sipi_vector = CODE >> 12;
    }
    machine->loaded = true;
    return machine;
}

static void discard(struct machine *machine)
{
    machine->reference = NULL; // shared
    vmxon_destroy((struct vmxon *)machine);
}

// ---- Checks ----

enum way { FREE, STEPPED, IN_PIECES, BY_STEPS, WAY_COUNT };
static const char *const way_names[] = {"free-running", "single-stepped", "in pieces", "by vmxon_step"};

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void run_in_pieces(struct vmxon *vmxon, struct vmxon_outcome *outcome)
{
    struct vmxon_limits limits = {.instructions = PIECE_INSTRUCTIONS, .cycles = PIECE_CYCLES};
    for (;;) {
        struct vmxon_stats stats;
        vmxon_run(vmxon, &limits, outcome);
        if (outcome->end != VMXON_END_LIMIT ||
            (strstr(outcome->text, "instructions") && limits.instructions == MAX_INSTRUCTIONS) ||
            (strstr(outcome->text, "cycles") && limits.cycles == MAX_CYCLES))
            return;
        vmxon_get_stats(vmxon, &stats);
        if (strstr(outcome->text, "instructions"))
            limits.instructions = smaller(limits.instructions + PIECE_INSTRUCTIONS, MAX_INSTRUCTIONS);
        else
            limits.cycles = smaller(limits.cycles + PIECE_CYCLES, MAX_CYCLES);
    }
}

// False: the way went past a limit, which vmxon_step does not know.
static bool run_way(struct vmxon *vmxon, enum way way, struct vmxon_outcome *outcome)
{
    struct vmxon_limits limits = {
        .instructions = MAX_INSTRUCTIONS, .cycles = MAX_CYCLES, .single_step = way == STEPPED};
    if (way == BY_STEPS) {
        struct vmxon_stats stats;
        for (unsigned i = 0; i < STEPS; i++)
            vmxon_step(vmxon, outcome);
        vmxon_get_stats(vmxon, &stats);
        if (stats.cycles >= MAX_CYCLES)
            return false;
        vmxon_run(vmxon, &limits, outcome);
    } else if (way == IN_PIECES) {
        run_in_pieces(vmxon, outcome);
    } else {
        vmxon_run(vmxon, &limits, outcome);
    }
    return true;
}

// The state after at most `last` instructions, of which the first `stepped` were single-stepped and the others ran free.
static struct machine *run_to(struct input input, uint64_t stepped, uint64_t last, char hash[33])
{
    struct machine *machine = build(input);
    struct vmxon *vmxon = (struct vmxon *)machine;
    struct vmxon_outcome outcome;
    if (stepped)
        vmxon_run(vmxon, &(struct vmxon_limits){stepped, MAX_CYCLES, true}, &outcome);
    if (stepped < last)
        vmxon_run(vmxon, &(struct vmxon_limits){last, MAX_CYCLES, false}, &outcome);
    vmxon_state_hash(vmxon, hash);
    return machine;
}

static bool differs(struct input input, uint64_t stepped, uint64_t last)
{
    char one[33], two[33];
    discard(run_to(input, stepped, last, one));
    discard(run_to(input, last, last, two));
    return strcmp(one, two) != 0;
}

// The smallest number in (low, high] for which the runs of `differs` tell the difference, if it grows with `last` (or falls with `stepped`).
static uint64_t search(struct input input, uint64_t stepped, bool search_last)
{
    uint64_t low = search_last ? stepped : 0, high = MAX_INSTRUCTIONS;
    while (high - low > 1) {
        uint64_t middle = (low + high) / 2;
        bool seen = search_last ? differs(input, stepped, middle) : !differs(input, middle, MAX_INSTRUCTIONS);
        *(seen ? &high : &low) = middle;
    }
    return search_last ? high : low;
}

static void print_processors(const char *what, const struct machine *machine)
{
    for (unsigned i = 0; i < machine->processor_count; i++) {
        const struct cpu *cpu = &machine->processor[i]->cpu;
        uint64_t rip = cpu->regs[REG_RIP];
        uint8_t bytes[16] = {0};
        vmxon_read_linear((const struct vmxon *)machine, i, cpu->segments[SEG_CS].base + rip, bytes, 15);
        fprintf(stderr,
                "%s processor %u: %llu instructions, cycle %llu, RIP %llx, RFLAGS %llx, CR0 %llx, mode %x, %s, "
                "activity %d, pending %x,"
                " interruptibility %x, pending debug %llx, turn end %llu, code",
                what, i, (unsigned long long)cpu->instructions, (unsigned long long)cpu_now(cpu),
                (unsigned long long)rip, (unsigned long long)cpu_rflags(cpu), (unsigned long long)cpu->cr0, cpu->mode,
                cpu->non_root ? "non-root" : "root", (int)cpu->activity, cpu->pending, cpu->interruptibility,
                (unsigned long long)cpu->pending_debug, (unsigned long long)machine->turn_end);
        for (unsigned b = 0; b < 15; b++)
            fprintf(stderr, " %02x", bytes[b]);
        fprintf(stderr, "\n   ");
        for (unsigned r = 0; r < 16; r++)
            fprintf(stderr, " %llx", (unsigned long long)cpu->regs[r]);
        fprintf(stderr, "\n");
    }
}

#define TELL(what, condition)                                          \
    do {                                                               \
        if (condition)                                                 \
            fprintf(stderr, "processor %u: the %s differ\n", i, what); \
    } while (0)

// Parts of the state that print_processors does not show.
static void print_differing_parts(const struct machine *one, const struct machine *two)
{
    for (unsigned i = 0; i < one->processor_count; i++) {
        const struct processor *p = one->processor[i], *q = two->processor[i];
        const struct cpu *a = &p->cpu, *b = &q->cpu;
        for (unsigned n = 0; n < SEG_COUNT; n++)
            TELL("segments", a->segments[n].base != b->segments[n].base ||
                                 a->segments[n].limit != b->segments[n].limit ||
                                 a->segments[n].selector != b->segments[n].selector ||
                                 a->segments[n].access_rights != b->segments[n].access_rights);
        TELL("control registers", a->cr2 != b->cr2 || a->cr3 != b->cr3 || a->cr4 != b->cr4 || a->efer != b->efer);
        TELL("debug registers",
             memcmp(a->dr, b->dr, sizeof a->dr) || a->dr6 != b->dr6 || a->dr7 != b->dr7 || a->debugctl != b->debugctl);
        TELL("vector registers", memcmp(a->xmm, b->xmm, sizeof a->xmm) || a->mxcsr != b->mxcsr);
        TELL("x87 state", memcmp(&a->fpu, &b->fpu, sizeof a->fpu));
        TELL("MSRs", a->star != b->star || a->lstar != b->lstar || a->cstar != b->cstar || a->fmask != b->fmask ||
                         a->kernel_gs_base != b->kernel_gs_base || a->tsc_aux != b->tsc_aux ||
                         a->tsc_offset != b->tsc_offset || a->pat != b->pat || a->misc_enable != b->misc_enable ||
                         a->xcr0 != b->xcr0 || a->xss != b->xss || a->feature_control != b->feature_control ||
                         a->tsc_adjust != b->tsc_adjust);
        TELL("random numbers", a->random_state != b->random_state);
        TELL("descriptor tables", a->gdtr.base != b->gdtr.base || a->idtr.base != b->idtr.base ||
                                      a->gdtr.limit != b->gdtr.limit || a->idtr.limit != b->idtr.limit);
        TELL("physical contexts", a->mmu.physical_context != b->mmu.physical_context);
        TELL("PDPTEs", memcmp(a->mmu.pdpte, b->mmu.pdpte, sizeof a->mmu.pdpte));
        TELL("VMX states",
             p->vmx.vmxon_pointer != q->vmx.vmxon_pointer || p->vmx.current_pointer != q->vmx.current_pointer ||
                 p->vmx.mtf_pending != q->vmx.mtf_pending ||
                 p->vmx.virtual_nmi_blocking != q->vmx.virtual_nmi_blocking ||
                 p->vmx.preemption_deadline != q->vmx.preemption_deadline || p->vmx.entries != q->vmx.entries);
        TELL("monitor", a->monitor_address != b->monitor_address || a->monitor_armed != b->monitor_armed);
        TELL("pages of code", a->mmu.code.page != b->mmu.code.page);
        TELL("TLB contexts",
             a->mmu.linear_context != b->mmu.linear_context || a->mmu.global_context != b->mmu.global_context);
        for (unsigned entry = 0; entry < TLB_BANKS * TLB_ENTRIES; entry++)
            if (memcmp(&a->mmu.tlb[entry / TLB_ENTRIES][entry % TLB_ENTRIES],
                       &b->mmu.tlb[entry / TLB_ENTRIES][entry % TLB_ENTRIES], sizeof(struct tlb_entry)) != 0)
                fprintf(stderr, "processor %u: TLB entry %u: page %llx, %llx\n", i, entry,
                        (unsigned long long)a->mmu.tlb[entry / TLB_ENTRIES][entry % TLB_ENTRIES].page,
                        (unsigned long long)b->mmu.tlb[entry / TLB_ENTRIES][entry % TLB_ENTRIES].page);
        TELL("counts of VM exits", memcmp(p->vmx.exits, q->vmx.exits, sizeof p->vmx.exits));
        TELL("local APICs", memcmp(p->lapic.irr, q->lapic.irr, sizeof p->lapic.irr) ||
                                memcmp(p->lapic.isr, q->lapic.isr, sizeof p->lapic.isr) ||
                                p->lapic.timer_start != q->lapic.timer_start ||
                                p->lapic.timer_count != q->lapic.timer_count);
    }
    for (uint64_t page = 0; page < MEMORY_SIZE / PAGE_SIZE; page++)
        if ((one->memory.page_flags[page] ^ two->memory.page_flags[page]) & PAGE_DIRTY)
            fprintf(stderr, "page 0x%llx is dirty in one only\n", (unsigned long long)page);
}
#undef TELL

static void print_board(const struct machine *machine)
{
    for (unsigned chip = 0; chip < 2; chip++)
        fprintf(stderr, "PIC %u: IRR %x IMR %x ISR %x; ", chip, machine->pic.chip[chip].irr,
                machine->pic.chip[chip].imr, machine->pic.chip[chip].isr);
    for (unsigned i = 0; i < PIT_CHANNELS; i++)
        fprintf(stderr, "PIT %u: mode %u, count %u, start %llu; ", i, machine->pit.channel[i].mode,
                machine->pit.channel[i].count_register, (unsigned long long)machine->pit.channel[i].start);
    fprintf(stderr, "RTC %x %x, COM1 %x %x %x\n", machine->rtc.reg_a, machine->rtc.reg_b, machine->com1.ier,
            machine->com1.lcr, machine->com1.mcr);
}

// Searches the instruction from which free-running goes astray and how soon it shows, and prints the states before and after.
static void report_divergence(struct input input)
{
    char hash[33];
    uint64_t from = search(input, 0, false), to = search(input, from, true);
    struct machine *before = run_to(input, from, from, hash), *one = run_to(input, from, to, hash),
                   *two = run_to(input, to, to, hash);
    print_processors("before:", before);
    print_processors("free-running:", one);
    print_processors("single-stepped:", two);
    print_differing_parts(one, two);
    print_board(one), print_board(two);
    for (uint64_t at = 0; at < MEMORY_SIZE; at += 8)
        if (get64(one, at) != get64(two, at))
            fprintf(stderr, "memory 0x%llx: %llx, %llx\n", (unsigned long long)at, (unsigned long long)get64(one, at),
                    (unsigned long long)get64(two, at));
    discard(before), discard(one), discard(two);
}

static void check_same(struct input input, struct machine *one, struct machine *two, enum way way,
                       const struct vmxon_outcome *a, const struct vmxon_outcome *b)
{
    char hash_a[33], hash_b[33];
    vmxon_state_hash((struct vmxon *)one, hash_a);
    vmxon_state_hash((struct vmxon *)two, hash_b);
    if (a->end == b->end && a->rip == b->rip && a->cpu == b->cpu && strcmp(a->text, b->text) == 0 &&
        strcmp(hash_a, hash_b) == 0)
        return;
    struct vmxon_stats stats_a, stats_b;
    vmxon_get_stats((struct vmxon *)one, &stats_a);
    vmxon_get_stats((struct vmxon *)two, &stats_b);
    fprintf(stderr,
            "%s: %llu instructions, %llu cycles, RIP 0x%llx, %s, %s\n%s: %llu instructions, %llu cycles, RIP 0x%llx, "
            "%s, %s\n",
            way_names[FREE], (unsigned long long)stats_a.instructions, (unsigned long long)stats_a.cycles,
            (unsigned long long)a->rip, a->text, hash_a, way_names[way], (unsigned long long)stats_b.instructions,
            (unsigned long long)stats_b.cycles, (unsigned long long)b->rip, b->text, hash_b);
    report_divergence(input);
    fail("one program, two results");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    if (size <= sizeof(struct plan))
        return 0;
    struct machine *machine = build(input);
    struct vmxon_outcome outcome = {0};
    run_way((struct vmxon *)machine, FREE, &outcome);
    const enum way ways[] = {STEPPED, data[2] & WAY_PIECES ? IN_PIECES : FREE, data[2] & WAY_STEPS ? BY_STEPS : FREE};
    for (unsigned i = 0; i < 3; i++) {
        if (ways[i] == FREE)
            continue;
        struct machine *other = build(input);
        struct vmxon_outcome seen = {0};
        if (run_way((struct vmxon *)other, ways[i], &seen))
            check_same(input, machine, other, ways[i], &outcome, &seen);
        discard(other);
    }
    discard(machine);
    return 0;
}
