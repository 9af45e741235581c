// The processor state in which an image is entered: descriptors, paging, stack.
//
// SDM 3A 3.4.5 "Segment Descriptors", 4.5 "4-Level Paging", 10.8.5 "Initializing
// IA-32e Mode". The IDT is empty until the image loads its own, so an early
// exception is a triple fault, as after any PC boot loader.
#include "loader/loader_internal.h"

#include <string.h>

enum { SELECTOR_CODE = 0x08, SELECTOR_DATA = 0x10, GDT_ENTRIES = 4 };
enum { PAGE_TABLE_PAGES = 6, STACK_SIZE = 16384 };
enum { PTE_PRESENT = 0x01, PTE_WRITE = 0x02, PDE_LARGE = 0x80 };
// Access rights in the VMX format. Code: execute/read, accessed. Data: read/write, accessed.
enum { CODE_64 = 0xa09b, CODE_32 = 0xc09b, DATA_32 = 0xc093, CODE_16 = 0x009b, DATA_16 = 0x0093, TSS_BUSY = 0x008b };
#define BOOT_CR0_PE   BIT(0)
#define BOOT_CR0_ET   BIT(4)
#define BOOT_CR0_PG   BIT(31)
#define BOOT_CR4_PAE  BIT(5)
#define BOOT_EFER_LME BIT(8)
#define BOOT_EFER_LMA BIT(10)

static struct load_segment_register flat_segment(uint16_t selector, uint32_t access_rights)
{
    return (struct load_segment_register){selector, access_rights, UINT32_MAX, 0};
}

static void describe_real_mode(struct load_result *result)
{
    uint64_t entry = result->rip;
    uint16_t selector = (uint16_t)(entry >> 4 & 0xf000); // below 64 KiB: 0
    result->rip = entry & 0xffff;
    result->cs = (struct load_segment_register){selector, CODE_16, 0xffff, (uint64_t)selector << 4};
    result->data = (struct load_segment_register){0, DATA_16, 0xffff, 0};
    result->cr0 = BOOT_CR0_ET;
    result->idt_limit = 0x3ff; // the vector table of real mode
}

static void describe_protected_mode(struct load_result *result)
{
    bool long_mode = result->mode == LOAD_LONG64;
    result->cs = flat_segment(SELECTOR_CODE, long_mode ? CODE_64 : CODE_32);
    result->data = flat_segment(SELECTOR_DATA, DATA_32);
    result->cr0 = BOOT_CR0_PE | BOOT_CR0_ET | (long_mode ? BOOT_CR0_PG : 0);
    result->cr4 = long_mode ? BOOT_CR4_PAE : 0;
    result->efer = long_mode ? BOOT_EFER_LME | BOOT_EFER_LMA : 0;
    result->gdt_limit = GDT_ENTRIES * 8 - 1;
}

enum load_status load_reserve_boot_state(struct load_job *job, enum load_mode mode)
{
    struct load_result *result = job->result;
    result->mode = mode;
    result->tr = (struct load_segment_register){0, TSS_BUSY, 0xffff, 0};
    if (mode == LOAD_REAL16) {
        describe_real_mode(result);
        return LOAD_OK;
    }
    describe_protected_mode(result);
    result->gdt_base = load_reserve_boot(job, GDT_ENTRIES * 8);
    if (result->gdt_base == LOADER_NOWHERE)
        return load_refuse(job, LOAD_NO_ROOM, LOADER_NO_OFFSET, PAGE_SIZE, job->memory->low_size);
    if (mode == LOAD_PROT32)
        return LOAD_OK;
    result->cr3 = load_reserve_boot(job, PAGE_TABLE_PAGES * PAGE_SIZE);
    uint64_t stack = result->cr3 == LOADER_NOWHERE ? LOADER_NOWHERE : load_reserve_boot(job, STACK_SIZE);
    if (stack == LOADER_NOWHERE)
        return load_refuse(job, LOAD_NO_ROOM, LOADER_NO_OFFSET, PAGE_TABLE_PAGES * PAGE_SIZE + STACK_SIZE,
                           job->memory->low_size);
    result->gpr[LOAD_RSP] = stack + STACK_SIZE;
    return LOAD_OK;
}

// A descriptor with base 0 and limit 4 GiB from access rights in the VMX format.
static uint64_t flat_descriptor(uint32_t access_rights)
{
    uint64_t type = access_rights & 0xff, flags = access_rights >> 12 & 0xf;
    return 0xffff | type << 40 | (uint64_t)0xf << 48 | flags << 52;
}

static void write_gdt(struct load_job *job)
{
    const struct load_result *result = job->result;
    uint8_t bytes[GDT_ENTRIES * 8] = {0};
    const uint64_t entries[GDT_ENTRIES] = {0, flat_descriptor(result->cs.access_rights),
                                           flat_descriptor(result->data.access_rights), 0};
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(entries[i / 8] >> (8 * (i % 8)));
    load_copy(job, result->gdt_base, bytes, sizeof bytes);
}

// Entry i of a table: first + i * step, for `count` entries of 8 bytes; the rest is zero.
static void write_table(struct load_job *job, gpa_t table, unsigned count, uint64_t first, uint64_t step)
{
    uint8_t bytes[PAGE_SIZE] = {0};
    for (unsigned i = 0; i < count; i++)
        for (unsigned b = 0; b < 8; b++)
            bytes[8 * i + b] = (uint8_t)((first + i * step) >> (8 * b));
    load_copy(job, table, bytes, sizeof bytes);
}

static void write_identity_map(struct load_job *job)
{
    const uint64_t large_page = 2 * 1024 * 1024, table_flags = PTE_PRESENT | PTE_WRITE;
    gpa_t pml4 = job->result->cr3, pdpt = pml4 + PAGE_SIZE, directories = pdpt + PAGE_SIZE;
    write_table(job, pml4, 1, pdpt | table_flags, 0);
    write_table(job, pdpt, 4, directories | table_flags, PAGE_SIZE);
    for (unsigned i = 0; i < 4; i++)
        write_table(job, directories + i * PAGE_SIZE, 512, 512 * i * large_page | table_flags | PDE_LARGE, large_page);
}

void load_write_boot_state(struct load_job *job)
{
    if (job->result->mode != LOAD_REAL16)
        write_gdt(job);
    if (job->result->mode == LOAD_LONG64)
        write_identity_map(job);
}
