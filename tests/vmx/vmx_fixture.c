// See vmx_fixture.h.
#include "vmx_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/exec.h"
#include "cpu/profile.h"

#define ACCESS_CODE64 0xA09Bu
#define ACCESS_DATA   0xC093u
#define ACCESS_TSS    0x8Bu

static int acknowledge(void *owner) { return ((struct fixture *)owner)->acknowledged; }
static bool line_asserted(void *owner) { return ((struct fixture *)owner)->interrupt_line; }

void fixture_write(struct fixture *f, hpa_t address, uint64_t value, unsigned size)
{
    bus_write(&f->bus, address, size, value);
}
uint64_t fixture_read(struct fixture *f, hpa_t address, unsigned size) { return bus_read(&f->bus, address, size); }

static void make_tables(struct fixture *f)
{
    fixture_write(f, AT_PAGE_TABLES, (AT_PAGE_TABLES + 0x1000) | 7, 8);
    fixture_write(f, AT_PAGE_TABLES + 0x1000, (AT_PAGE_TABLES + 0x2000) | 7, 8);
    for (unsigned i = 0; i < 512; i++)
        fixture_write(f, AT_PAGE_TABLES + 0x2000 + 8 * i, ((uint64_t)i << 21) | 0x87, 8);
    fixture_write(f, AT_GDT + SELECTOR_CODE, 0x00AF9B000000FFFF, 8);
    fixture_write(f, AT_GDT + SELECTOR_DATA, 0x00CF93000000FFFF, 8);
    fixture_write(f, AT_GDT + SELECTOR_TSS, 0x00008B0000000067 | ((uint64_t)AT_TSS << 16), 8);
    fixture_write(f, AT_GDT + (SELECTOR_USER_CODE & ~7u), 0x00AFFB000000FFFF, 8);
    fixture_write(f, AT_GDT + (SELECTOR_USER_DATA & ~7u), 0x00CFF3000000FFFF, 8);
    fixture_write(f, AT_TSS + 4, AT_HOST_STACK, 8);
    for (unsigned v = 0; v < 256; v++) {
        fixture_write(f, AT_IDT + 16 * v,
                      (uint64_t)(AT_HANDLERS + 16 * v) | ((uint64_t)SELECTOR_CODE << 16) | (0xEE00ull << 32), 8);
        fixture_write(f, AT_IDT + 16 * v + 8, 0, 8);
    }
    for (unsigned i = 0; i < 0x1000; i += 8)
        fixture_write(f, AT_HANDLERS + i, 0x9090909090909090, 8);
}

static void enter_long_mode(struct cpu *cpu)
{
    cpu->segments[SEG_CS] =
        (struct segment){.selector = SELECTOR_CODE, .limit = UINT32_MAX, .access_rights = ACCESS_CODE64};
    for (unsigned s = SEG_ES; s <= SEG_GS; s++) {
        if (s != SEG_CS)
            cpu->segments[s] =
                (struct segment){.selector = SELECTOR_DATA, .limit = UINT32_MAX, .access_rights = ACCESS_DATA};
    }
    cpu->segments[SEG_TR] =
        (struct segment){.selector = SELECTOR_TSS, .base = AT_TSS, .limit = 0x67, .access_rights = ACCESS_TSS};
    cpu->gdtr = (struct descriptor_table){.base = AT_GDT, .limit = 0x3F};
    cpu->idtr = (struct descriptor_table){.base = AT_IDT, .limit = 0xFFF};
    cpu->regs[REG_RIP] = AT_HOST_CODE;
    cpu->regs[REG_RSP] = AT_HOST_STACK;
    cpu_load_control_registers(cpu, CR0_PE | CR0_PG | CR0_NE | CR0_ET, AT_PAGE_TABLES, CR4_PAE | CR4_VMXE,
                               EFER_LME | EFER_LMA);
    cpu_update_mode(cpu);
}

struct fixture *fixture_create(void)
{
    struct fixture *f = calloc(1, sizeof *f);
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(memory_create(&f->memory, FIXTURE_MEMORY), MEMORY_OK);
    bus_init(&f->bus, &f->memory);
    const struct cpu_profile *profile = cpu_profile_find("skylake");
    ck_assert_ptr_nonnull(profile);
    ck_assert(cpu_init(&f->cpu, &f->bus, profile, 0));
    ck_assert(vmx_caps_init(&f->caps, "skylake", profile->maxphyaddr));
    f->acknowledged = -1;
    f->cpu.env.owner = f;
    f->cpu.env.interrupt_acknowledge = acknowledge;
    f->cpu.env.interrupt_pending = line_asserted;
    vmx_init(&f->vmx, &f->cpu, &f->caps);
    make_tables(f);
    enter_long_mode(&f->cpu);
    fixture_write(f, AT_VMXON, f->caps.revision, 4);
    fixture_write(f, AT_VMCS, f->caps.revision, 4);
    fixture_write(f, AT_OTHER_VMCS, f->caps.revision, 4);
    return f;
}

void fixture_destroy(struct fixture *f)
{
    cpu_destroy(&f->cpu);
    memory_destroy(&f->memory);
    free(f);
}

enum exec_result fixture_step(struct fixture *f) { return cpu_run(&f->cpu, cpu_now(&f->cpu) + 1000000, true); }

enum exec_result fixture_run(struct fixture *f, const uint8_t *bytes, size_t length)
{
    ck_assert(memory_write(&f->memory, f->cpu.regs[REG_RIP], bytes, length));
    flags_set_arithmetic(&f->cpu, RFLAGS_ARITHMETIC);
    return fixture_step(f);
}

enum vmx_outcome fixture_outcome(const struct fixture *f)
{
    switch (cpu_rflags(&f->cpu) & RFLAGS_ARITHMETIC) {
    case 0: return OUTCOME_SUCCEED;
    case RFLAGS_CF: return OUTCOME_FAIL_INVALID;
    case RFLAGS_ZF: return OUTCOME_FAIL_VALID;
    default: return OUTCOME_OTHER;
    }
}

uint64_t fixture_exceptions(const struct fixture *f, enum vector vector) { return f->cpu.exception_count[vector]; }

static void set_operand(struct fixture *f, uint64_t address)
{
    fixture_write(f, AT_OPERAND, address, 8);
    f->cpu.regs[REG_RBX] = AT_OPERAND;
}

enum exec_result fixture_vmxon(struct fixture *f, uint64_t address)
{
    set_operand(f, address);
    return RUN(f, 0xF3, 0x0F, 0xC7, 0x33);
}

enum exec_result fixture_vmclear(struct fixture *f, uint64_t address)
{
    set_operand(f, address);
    return RUN(f, 0x66, 0x0F, 0xC7, 0x33);
}

enum exec_result fixture_vmptrld(struct fixture *f, uint64_t address)
{
    set_operand(f, address);
    return RUN(f, 0x0F, 0xC7, 0x33);
}

enum exec_result fixture_vmlaunch(struct fixture *f) { return RUN(f, 0x0F, 0x01, 0xC2); }
enum exec_result fixture_vmresume(struct fixture *f) { return RUN(f, 0x0F, 0x01, 0xC3); }

enum exec_result fixture_vmread(struct fixture *f, uint64_t encoding, uint64_t *value)
{
    f->cpu.regs[REG_RCX] = encoding;
    enum exec_result result = RUN(f, 0x0F, 0x78, 0xC8);
    *value = f->cpu.regs[REG_RAX];
    return result;
}

enum exec_result fixture_vmwrite(struct fixture *f, uint64_t encoding, uint64_t value)
{
    f->cpu.regs[REG_RCX] = encoding;
    f->cpu.regs[REG_RAX] = value;
    return RUN(f, 0x0F, 0x79, 0xC8);
}

uint64_t fixture_get(struct fixture *f, enum vmcs_field field)
{
    return vmcs_get(vmcs_region_at(&f->memory, AT_VMCS), field);
}
void fixture_put(struct fixture *f, enum vmcs_field field, uint64_t value)
{
    vmcs_put(vmcs_region_at(&f->memory, AT_VMCS), field, value);
}
void fixture_set(struct fixture *f, enum vmcs_field field, uint64_t bits)
{
    fixture_put(f, field, fixture_get(f, field) | bits);
}
void fixture_clear(struct fixture *f, enum vmcs_field field, uint64_t bits)
{
    fixture_put(f, field, fixture_get(f, field) & ~bits);
}

static void put_host_state(struct fixture *f)
{
    const struct cpu *cpu = &f->cpu;
    fixture_put(f, VMCS_HOST_CR0, cpu->cr0);
    fixture_put(f, VMCS_HOST_CR3, cpu->cr3);
    fixture_put(f, VMCS_HOST_CR4, cpu->cr4);
    fixture_put(f, VMCS_HOST_CS_SELECTOR, SELECTOR_CODE);
    for (unsigned i = VMCS_HOST_SS_SELECTOR; i <= VMCS_HOST_GS_SELECTOR; i++)
        fixture_put(f, (enum vmcs_field)i, SELECTOR_DATA);
    fixture_put(f, VMCS_HOST_ES_SELECTOR, SELECTOR_DATA);
    fixture_put(f, VMCS_HOST_TR_SELECTOR, SELECTOR_TSS);
    fixture_put(f, VMCS_HOST_TR_BASE, AT_TSS);
    fixture_put(f, VMCS_HOST_GDTR_BASE, AT_GDT);
    fixture_put(f, VMCS_HOST_IDTR_BASE, AT_IDT);
    fixture_put(f, VMCS_HOST_RSP, AT_HOST_STACK);
    fixture_put(f, VMCS_HOST_RIP, AT_HOST_RIP);
}

static void put_guest_segments(struct fixture *f)
{
    for (unsigned i = 0; i < 6; i++) {
        fixture_put(f, (enum vmcs_field)(VMCS_GUEST_ES_SELECTOR + i), SELECTOR_DATA);
        fixture_put(f, (enum vmcs_field)(VMCS_GUEST_ES_LIMIT + i), UINT32_MAX);
        fixture_put(f, (enum vmcs_field)(VMCS_GUEST_ES_ACCESS_RIGHTS + i), ACCESS_DATA);
    }
    fixture_put(f, VMCS_GUEST_CS_SELECTOR, SELECTOR_CODE);
    fixture_put(f, VMCS_GUEST_CS_ACCESS_RIGHTS, ACCESS_CODE64);
    fixture_put(f, VMCS_GUEST_LDTR_ACCESS_RIGHTS, SEGMENT_UNUSABLE);
    fixture_put(f, VMCS_GUEST_TR_SELECTOR, SELECTOR_TSS);
    fixture_put(f, VMCS_GUEST_TR_BASE, AT_TSS);
    fixture_put(f, VMCS_GUEST_TR_LIMIT, 0x67);
    fixture_put(f, VMCS_GUEST_TR_ACCESS_RIGHTS, ACCESS_TSS);
    fixture_put(f, VMCS_GUEST_GDTR_BASE, AT_GDT);
    fixture_put(f, VMCS_GUEST_GDTR_LIMIT, 0x3F);
    fixture_put(f, VMCS_GUEST_IDTR_BASE, AT_IDT);
    fixture_put(f, VMCS_GUEST_IDTR_LIMIT, 0xFFF);
}

static void put_guest_state(struct fixture *f)
{
    const struct cpu *cpu = &f->cpu;
    put_guest_segments(f);
    fixture_put(f, VMCS_GUEST_CR0, cpu->cr0);
    fixture_put(f, VMCS_GUEST_CR3, cpu->cr3);
    fixture_put(f, VMCS_GUEST_CR4, cpu->cr4);
    fixture_put(f, VMCS_GUEST_DR7, 0x400);
    fixture_put(f, VMCS_GUEST_RIP, AT_GUEST_CODE);
    fixture_put(f, VMCS_GUEST_RSP, AT_GUEST_STACK);
    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE);
    fixture_put(f, VMCS_VMCS_LINK_POINTER, VMCS_NO_POINTER);
}

void fixture_prepare_guest(struct fixture *f)
{
    fixture_vmxon(f, AT_VMXON);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    fixture_vmclear(f, AT_VMCS);
    fixture_vmptrld(f, AT_VMCS);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    fixture_put(f, VMCS_PIN_BASED_CONTROLS, f->caps.pin.must);
    fixture_put(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, f->caps.primary.must);
    fixture_put(f, VMCS_SECONDARY_PROC_BASED_CONTROLS, f->caps.secondary.must);
    fixture_put(f, VMCS_PRIMARY_EXIT_CONTROLS, f->caps.exit.must | EXIT_HOST_ADDRESS_SPACE_SIZE);
    fixture_put(f, VMCS_ENTRY_CONTROLS, f->caps.entry.must | ENTRY_IA32E_MODE_GUEST);
    put_host_state(f);
    put_guest_state(f);
}

void fixture_enter_guest(struct fixture *f)
{
    bool launched = vmcs_region_at(&f->memory, AT_VMCS)->launch_state == LAUNCH_STATE_LAUNCHED;
    if (launched)
        fixture_vmresume(f);
    else
        fixture_vmlaunch(f);
    ck_assert_msg(f->cpu.non_root, "VM entry failed: check %d, error %u", f->vmx.last_failure.check_id,
                  f->vmx.last_failure.instruction_error);
}

void fixture_enable_secondary(struct fixture *f, uint32_t bits)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_ACTIVATE_SECONDARY_CONTROLS);
    fixture_set(f, VMCS_SECONDARY_PROC_BASED_CONTROLS, bits);
}

void fixture_enable_ept(struct fixture *f)
{
    fixture_write(f, AT_EPT, (AT_EPT + 0x1000) | 7, 8);
    fixture_write(f, AT_EPT + 0x1000, (AT_EPT + 0x2000) | 7, 8);
    for (unsigned i = 0; i < 512; i++)
        fixture_write(f, AT_EPT + 0x2000 + 8 * i, ((uint64_t)i << 21) | 0xB7, 8);
    fixture_enable_secondary(f, SECONDARY_ENABLE_EPT);
    fixture_put(f, VMCS_EPTP, AT_EPT | 6 | (3 << 3));
}

void fixture_expect_exit(struct fixture *f, enum vmx_exit_reason reason)
{
    ck_assert_msg(!f->cpu.non_root, "the guest still runs, RIP %lx", (unsigned long)f->cpu.regs[REG_RIP]);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_REASON), reason);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_HOST_RIP);
}

void fixture_set_cpl3(struct fixture *f)
{
    f->cpu.segments[SEG_CS] =
        (struct segment){.selector = SELECTOR_USER_CODE, .limit = UINT32_MAX, .access_rights = ACCESS_CODE64 | 0x60};
    f->cpu.segments[SEG_SS] =
        (struct segment){.selector = SELECTOR_USER_DATA, .limit = UINT32_MAX, .access_rights = ACCESS_DATA | 0x60};
    cpu_update_mode(&f->cpu);
}
