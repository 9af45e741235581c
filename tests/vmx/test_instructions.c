// The VMX instructions: faults, VMfails and effects in the order of SDM 3C ch. 31.
#include <stdlib.h>

#include "vmx_fixture.h"

#define ENCODING_GUEST_RIP         0x681E
#define ENCODING_EXIT_REASON       0x4402
#define ENCODING_LINK_POINTER      0x2800
#define ENCODING_GUEST_ES_SELECTOR 0x0800
#define ENCODING_ERROR             0x4400
#define ENCODING_NONE              0x6FFE

static struct fixture *f;

static void setup(void) { f = fixture_create(); }
static void teardown(void) { fixture_destroy(f); }

static uint64_t instruction_error(void) { return fixture_get(f, VMCS_VM_INSTRUCTION_ERROR); }

static void expect_fault(enum vector vector)
{
    ck_assert_uint_eq(fixture_exceptions(f, vector), 1);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_HANDLERS + 16 * vector);
}

static void expect_fail_valid(unsigned error)
{
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_VALID);
    ck_assert_uint_eq(instruction_error(), error);
    ck_assert_uint_eq(f->vmx.last_failure.instruction_error, error);
}

// --- VMXON

START_TEST(vmxon_succeeds_and_has_no_current_vmcs)
{
    fixture_vmxon(f, AT_VMXON);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    ck_assert(f->cpu.vmx_operation);
    ck_assert_uint_eq(f->vmx.current_pointer, VMCS_NO_POINTER);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_HOST_CODE + 4);
}
END_TEST

START_TEST(vmxon_without_vmxe_is_ud)
{
    f->cpu.cr4 &= ~CR4_VMXE;
    fixture_vmxon(f, AT_VMXON);
    expect_fault(VECTOR_UD);
}
END_TEST

START_TEST(vmxon_at_cpl3_is_gp)
{
    fixture_set_cpl3(f);
    fixture_vmxon(f, AT_VMXON);
    expect_fault(VECTOR_GP);
}
END_TEST

START_TEST(vmxon_with_unlocked_feature_control_is_gp)
{
    f->cpu.feature_control = 4;
    fixture_vmxon(f, AT_VMXON);
    expect_fault(VECTOR_GP);
}
END_TEST

START_TEST(vmxon_without_ne_is_gp)
{
    cpu_load_control_registers(&f->cpu, f->cpu.cr0 & ~CR0_NE, f->cpu.cr3, f->cpu.cr4, f->cpu.efer);
    fixture_vmxon(f, AT_VMXON);
    expect_fault(VECTOR_GP);
}
END_TEST

START_TEST(vmxon_with_bad_address_or_revision_fails_invalid)
{
    const uint64_t bad[] = {AT_VMXON + 8, (uint64_t)1 << 52, AT_OPERAND & ~0xFFFull, NO_RAM};
    fixture_write(f, AT_OPERAND & ~0xFFFull, f->caps.revision | 0x80000000u, 4); // the shadow indicator has to be 0
    for (unsigned i = 0; i < 2; i++) {
        fixture_vmxon(f, bad[i]);
        ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_INVALID);
    }
    fixture_vmxon(f, NO_RAM);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_INVALID);
    fixture_write(f, AT_VMXON, f->caps.revision | 0x80000000u, 4);
    fixture_vmxon(f, AT_VMXON);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_INVALID);
    ck_assert(!f->cpu.vmx_operation);
}
END_TEST

START_TEST(vmxon_in_root_fails_before_its_operand_is_read)
{
    fixture_vmxon(f, AT_VMXON);
    f->cpu.regs[REG_RBX] = (uint64_t)1 << 46; // not mapped
    RUN(f, 0xF3, 0x0F, 0xC7, 0x33);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_INVALID);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_PF), 0);
    fixture_vmptrld(f, AT_VMCS);
    fixture_vmxon(f, AT_VMXON);
    expect_fail_valid(15);
}
END_TEST

// --- VMXOFF

START_TEST(vmxoff_leaves_vmx_operation)
{
    RUN(f, 0x0F, 0x01, 0xC4);
    expect_fault(VECTOR_UD);
    f->cpu.regs[REG_RIP] = AT_HOST_CODE;
    fixture_vmxon(f, AT_VMXON);
    RUN(f, 0x0F, 0x01, 0xC4);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    ck_assert(!f->cpu.vmx_operation);
}
END_TEST

START_TEST(vmx_instructions_outside_vmx_operation_are_ud)
{
    static const uint8_t code[][5] = {
        {3, 0x0F, 0xC7, 0x33}, {4, 0x66, 0x0F, 0xC7, 0x33}, {3, 0x0F, 0xC7, 0x3B}, {3, 0x0F, 0x78, 0xC8},
        {3, 0x0F, 0x79, 0xC8}, {3, 0x0F, 0x01, 0xC1},       {3, 0x0F, 0x01, 0xC2}, {3, 0x0F, 0x01, 0xC3},
        {3, 0x0F, 0x01, 0xC4}, {3, 0x0F, 0x01, 0xD4},
    };
    f->cpu.regs[REG_RBX] = AT_OPERAND;
    for (unsigned i = 0; i < sizeof code / sizeof code[0]; i++) {
        f->cpu.regs[REG_RIP] = AT_HOST_CODE;
        fixture_run(f, code[i] + 1, code[i][0]);
        ck_assert_uint_eq(fixture_exceptions(f, VECTOR_UD), i + 1);
    }
}
END_TEST

// --- VMCLEAR, VMPTRLD, VMPTRST

START_TEST(vmclear_rejects_bad_addresses)
{
    fixture_vmxon(f, AT_VMXON);
    fixture_vmclear(f, AT_VMCS + 4);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_INVALID); // no current VMCS to hold the number
    fixture_vmptrld(f, AT_VMCS);
    fixture_vmclear(f, AT_OTHER_VMCS + 4);
    expect_fail_valid(2);
    fixture_vmclear(f, (uint64_t)1 << 52);
    expect_fail_valid(2);
    fixture_vmclear(f, AT_VMXON);
    expect_fail_valid(3);
}
END_TEST

START_TEST(vmclear_clears_the_launch_state_and_the_current_pointer)
{
    fixture_vmxon(f, AT_VMXON);
    fixture_vmptrld(f, AT_VMCS);
    vmcs_region_at(&f->memory, AT_OTHER_VMCS)->launch_state = LAUNCH_STATE_LAUNCHED;
    fixture_vmclear(f, AT_OTHER_VMCS);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    ck_assert_uint_eq(vmcs_region_at(&f->memory, AT_OTHER_VMCS)->launch_state, LAUNCH_STATE_CLEAR);
    ck_assert_uint_eq(f->vmx.current_pointer, AT_VMCS);
    fixture_vmclear(f, AT_VMCS);
    ck_assert_uint_eq(f->vmx.current_pointer, VMCS_NO_POINTER);
}
END_TEST

START_TEST(vmclear_outside_ram_succeeds_without_effect)
{
    fixture_vmxon(f, AT_VMXON);
    fixture_vmclear(f, NO_RAM);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
}
END_TEST

START_TEST(vmptrld_rejects_bad_regions_and_keeps_the_current_one)
{
    fixture_vmxon(f, AT_VMXON);
    fixture_vmptrld(f, AT_VMCS);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    fixture_vmptrld(f, AT_OTHER_VMCS + 8);
    expect_fail_valid(9);
    fixture_vmptrld(f, AT_VMXON);
    expect_fail_valid(10);
    fixture_write(f, AT_OTHER_VMCS, f->caps.revision ^ 1, 4);
    fixture_vmptrld(f, AT_OTHER_VMCS);
    expect_fail_valid(11);
    fixture_vmptrld(f, NO_RAM);
    expect_fail_valid(11);
    ck_assert_uint_eq(f->vmx.current_pointer, AT_VMCS);
}
END_TEST

START_TEST(vmptrst_stores_the_current_pointer)
{
    fixture_vmxon(f, AT_VMXON);
    f->cpu.regs[REG_RBX] = AT_OPERAND;
    RUN(f, 0x0F, 0xC7, 0x3B);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    ck_assert_uint_eq(fixture_read(f, AT_OPERAND, 8), UINT64_MAX);
    fixture_vmptrld(f, AT_VMCS);
    RUN(f, 0x0F, 0xC7, 0x3B);
    ck_assert_uint_eq(fixture_read(f, AT_OPERAND, 8), AT_VMCS);
}
END_TEST

START_TEST(operand_faults_come_after_the_privilege_check)
{
    fixture_vmxon(f, AT_VMXON);
    f->cpu.regs[REG_RBX] = (uint64_t)1 << 46;
    RUN(f, 0x0F, 0xC7, 0x33);
    expect_fault(VECTOR_PF);
    fixture_set_cpl3(f);
    f->cpu.regs[REG_RIP] = AT_HOST_CODE;
    RUN(f, 0x0F, 0xC7, 0x33);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_PF), 1);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_GP), 1);
}
END_TEST

// --- VMREAD, VMWRITE

START_TEST(vmread_and_vmwrite_without_current_vmcs_fail_invalid)
{
    uint64_t value;
    fixture_vmxon(f, AT_VMXON);
    fixture_vmread(f, ENCODING_GUEST_RIP, &value);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_INVALID);
    fixture_vmwrite(f, ENCODING_GUEST_RIP, 1);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_INVALID);
}
END_TEST

START_TEST(vmwrite_then_vmread_by_width)
{
    static const struct {
        uint64_t encoding, reads;
    } rows[] = {
        {ENCODING_GUEST_RIP, 0x1122334455667788},    {ENCODING_GUEST_ES_SELECTOR, 0x7788},    {0x4012, 0x55667788},
        {ENCODING_LINK_POINTER, 0x1122334455667788}, {ENCODING_LINK_POINTER + 1, 0x55667788},
    };
    uint64_t value;
    fixture_vmxon(f, AT_VMXON);
    fixture_vmptrld(f, AT_VMCS);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fixture_vmwrite(f, rows[i].encoding, 0x1122334455667788);
        ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
        fixture_vmread(f, rows[i].encoding, &value);
        ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
        ck_assert_uint_eq(value, rows[i].reads);
    }
    ck_assert_uint_eq(fixture_get(f, VMCS_VMCS_LINK_POINTER), 0x5566778855667788);
}
END_TEST

START_TEST(unsupported_fields_fail_with_12)
{
    static const uint64_t bad[] = {ENCODING_NONE, ENCODING_GUEST_RIP + 1, ENCODING_GUEST_RIP | 0x8000,
                                   ((uint64_t)1 << 32) | ENCODING_GUEST_RIP, 0x482C};
    uint64_t value;
    fixture_vmxon(f, AT_VMXON);
    fixture_vmptrld(f, AT_VMCS);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fixture_vmread(f, bad[i], &value);
        expect_fail_valid(12);
        fixture_vmwrite(f, bad[i], 0);
        expect_fail_valid(12);
    }
}
END_TEST

START_TEST(read_only_fields_follow_the_capability)
{
    fixture_vmxon(f, AT_VMXON);
    fixture_vmptrld(f, AT_VMCS);
    f->caps.misc &= ~(uint64_t)BIT(29);
    fixture_vmwrite(f, ENCODING_EXIT_REASON, 5);
    expect_fail_valid(13);
    f->caps.misc |= BIT(29);
    fixture_vmwrite(f, ENCODING_EXIT_REASON, 5);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_REASON), 5);
}
END_TEST

START_TEST(a_faulting_vmread_changes_no_flags_and_unsupported_fields_win)
{
    fixture_vmxon(f, AT_VMXON);
    fixture_vmptrld(f, AT_VMCS);
    f->cpu.regs[REG_RBX] = (uint64_t)1 << 46;
    f->cpu.regs[REG_RCX] = ENCODING_NONE;
    RUN(f, 0x0F, 0x78, 0x0B); // VMREAD [RBX], RCX: the field is looked up first
    expect_fail_valid(12);
    f->cpu.regs[REG_RCX] = ENCODING_GUEST_RIP;
    RUN(f, 0x0F, 0x78, 0x0B);
    expect_fault(VECTOR_PF);
    ck_assert_uint_eq(cpu_rflags(&f->cpu) & RFLAGS_ARITHMETIC, RFLAGS_ARITHMETIC);
    f->cpu.regs[REG_RIP] = AT_HOST_CODE;
    f->cpu.regs[REG_RCX] = ENCODING_NONE;
    RUN(f, 0x0F, 0x79, 0x0B); // VMWRITE RCX, [RBX]: the source is read first
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_PF), 2);
}
END_TEST

START_TEST(vmread_to_memory_and_rip_relative_operands)
{
    fixture_vmxon(f, AT_VMXON);
    fixture_vmptrld(f, AT_VMCS);
    fixture_put(f, VMCS_GUEST_RIP, 0xAABBCCDD00112233);
    f->cpu.regs[REG_RCX] = ENCODING_GUEST_RIP;
    uint32_t disp = AT_OPERAND - (uint32_t)(f->cpu.regs[REG_RIP] + 7);
    RUN(f, 0x0F, 0x78, 0x0D, (uint8_t)disp, (uint8_t)(disp >> 8), (uint8_t)(disp >> 16), (uint8_t)(disp >> 24));
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    ck_assert_uint_eq(fixture_read(f, AT_OPERAND, 8), 0xAABBCCDD00112233);
}
END_TEST

// --- VMCALL, VMLAUNCH

START_TEST(vmcall_in_root_fails_with_1)
{
    fixture_vmxon(f, AT_VMXON);
    RUN(f, 0x0F, 0x01, 0xC1);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_INVALID);
    fixture_vmptrld(f, AT_VMCS);
    RUN(f, 0x0F, 0x01, 0xC1);
    expect_fail_valid(1);
}
END_TEST

START_TEST(vmlaunch_without_current_vmcs_fails_invalid)
{
    fixture_vmxon(f, AT_VMXON);
    fixture_vmlaunch(f);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_INVALID);
}
END_TEST

START_TEST(vmlaunch_of_a_shadow_vmcs_fails_invalid)
{
    fixture_prepare_guest(f);
    vmcs_region_at(&f->memory, AT_VMCS)->revision |= VMCS_SHADOW_INDICATOR;
    fixture_vmlaunch(f);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_INVALID);
}
END_TEST

// --- INVEPT, INVVPID

static void invalidate(uint8_t opcode, uint64_t type, uint64_t low, uint64_t high)
{
    fixture_write(f, AT_OPERAND, low, 8);
    fixture_write(f, AT_OPERAND + 8, high, 8);
    f->cpu.regs[REG_RBX] = AT_OPERAND;
    f->cpu.regs[REG_RCX] = type;
    RUN(f, 0x66, 0x0F, 0x38, opcode, 0x0B);
}

START_TEST(invept_checks_type_then_descriptor)
{
    fixture_vmxon(f, AT_VMXON);
    fixture_vmptrld(f, AT_VMCS);
    invalidate(0x80, 0, 0, 0);
    expect_fail_valid(28);
    invalidate(0x80, 3, 0, 0);
    expect_fail_valid(28);
    invalidate(0x80, ((uint64_t)1 << 32) | 1, AT_EPT | 0x1E, 0);
    expect_fail_valid(28);
    invalidate(0x80, 1, AT_EPT | 0x1E, 0);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    invalidate(0x80, 1, AT_EPT | 0x1F, 0); // memory type 7
    expect_fail_valid(28);
    invalidate(0x80, 1, AT_EPT | 0x16, 0); // page-walk length 3
    expect_fail_valid(28);
    invalidate(0x80, 1, AT_EPT | 0x91E, 0); // reserved bits
    expect_fail_valid(28);
    invalidate(0x80, 2, 0xFFFFFFFFFFFFFFFF, 0);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    // the type is checked before the descriptor is read
    f->cpu.regs[REG_RBX] = (uint64_t)1 << 46;
    f->cpu.regs[REG_RCX] = 0;
    RUN(f, 0x66, 0x0F, 0x38, 0x80, 0x0B);
    expect_fail_valid(28);
    f->cpu.regs[REG_RCX] = 2;
    RUN(f, 0x66, 0x0F, 0x38, 0x80, 0x0B);
    expect_fault(VECTOR_PF);
}
END_TEST

START_TEST(invvpid_checks_type_and_descriptor)
{
    fixture_vmxon(f, AT_VMXON);
    fixture_vmptrld(f, AT_VMCS);
    invalidate(0x81, 4, 1, 0);
    expect_fail_valid(28);
    for (uint64_t type = 0; type < 4; type++) {
        invalidate(0x81, type, 0x10001, 0);
        expect_fail_valid(28);
        invalidate(0x81, type, 0, 0);
        if (type == 2)
            ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
        else
            expect_fail_valid(28);
        invalidate(0x81, type, 1, 0x1000);
        ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    }
    invalidate(0x81, 0, 1, (uint64_t)1 << 48);
    expect_fail_valid(28);
}
END_TEST

// --- Non-root operation

START_TEST(vmx_instructions_in_non_root_exit_even_at_cpl3)
{
    static const struct {
        uint8_t length, code[5];
        enum vmx_exit_reason reason;
    } rows[] = {
        {3, {0x0F, 0x01, 0xC1}, EXIT_VMCALL},
        {3, {0x0F, 0x01, 0xC2}, EXIT_VMLAUNCH},
        {3, {0x0F, 0x01, 0xC3}, EXIT_VMRESUME},
        {3, {0x0F, 0x01, 0xC4}, EXIT_VMXOFF},
        {4, {0x0F, 0xC7, 0x73, 0x10}, EXIT_VMPTRLD},
        {4, {0x0F, 0xC7, 0x7B, 0x10}, EXIT_VMPTRST},
        {5, {0x66, 0x0F, 0xC7, 0x73, 0x10}, EXIT_VMCLEAR},
        {5, {0xF3, 0x0F, 0xC7, 0x73, 0x10}, EXIT_VMXON},
        {4, {0x0F, 0x78, 0x4B, 0x10}, EXIT_VMREAD},
        {4, {0x0F, 0x79, 0x4B, 0x10}, EXIT_VMWRITE},
    };
    fixture_prepare_guest(f);
    for (unsigned cpl = 0; cpl < 4; cpl += 3) {
        for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            fixture_put(f, VMCS_GUEST_RIP, AT_GUEST_CODE);
            fixture_put(f, VMCS_GUEST_CS_SELECTOR, SELECTOR_CODE);
            fixture_put(f, VMCS_GUEST_CS_ACCESS_RIGHTS, 0xA09B);
            fixture_put(f, VMCS_GUEST_SS_SELECTOR, SELECTOR_DATA);
            fixture_put(f, VMCS_GUEST_SS_ACCESS_RIGHTS, 0xC093);
            fixture_enter_guest(f);
            if (cpl)
                fixture_set_cpl3(f);
            fixture_run(f, rows[i].code, rows[i].length);
            fixture_expect_exit(f, rows[i].reason);
            ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INSTRUCTION_LENGTH), rows[i].length);
            ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
            ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), rows[i].length == 3 ? 0 : 0x10);
        }
    }
}
END_TEST

START_TEST(instruction_information_names_the_operands)
{
    fixture_prepare_guest(f);
    fixture_enter_guest(f);
    // VMREAD FS:[R9*4+RBX+10H], R10
    RUN(f, 0x64, 0x46, 0x0F, 0x78, 0x54, 0x8B, 0x10);
    fixture_expect_exit(f, EXIT_VMREAD);
    uint64_t info = fixture_get(f, VMCS_EXIT_INSTRUCTION_INFO);
    ck_assert_uint_eq(info & 3, 2);       // scale
    ck_assert_uint_eq(info >> 7 & 7, 2);  // 64-bit addresses
    ck_assert_uint_eq(info >> 10 & 1, 0); // memory
    ck_assert_uint_eq(info >> 15 & 7, SEG_FS);
    ck_assert_uint_eq(info >> 18 & 15, 9); // index
    ck_assert_uint_eq(info >> 22 & 1, 0);
    ck_assert_uint_eq(info >> 23 & 15, REG_RBX);
    ck_assert_uint_eq(info >> 27 & 1, 0);
    ck_assert_uint_eq(info >> 28, 10); // Reg2

    fixture_enter_guest(f);
    f->cpu.regs[REG_RIP] = AT_GUEST_CODE;
    RUN(f, 0x0F, 0x79, 0xD8); // VMWRITE RBX, RAX
    info = fixture_get(f, VMCS_EXIT_INSTRUCTION_INFO);
    ck_assert_uint_eq(info >> 3 & 15, REG_RAX);
    ck_assert_uint_eq(info >> 10 & 1, 1);
    ck_assert_uint_eq(info >> 28, REG_RBX);

    fixture_enter_guest(f);
    f->cpu.regs[REG_RIP] = AT_GUEST_CODE;
    RUN(f, 0x0F, 0xC7, 0x35, 0x20, 0, 0, 0); // VMPTRLD [RIP+20H]
    info = fixture_get(f, VMCS_EXIT_INSTRUCTION_INFO);
    ck_assert_uint_eq(info >> 22 & 1, 1);
    ck_assert_uint_eq(info >> 27 & 1, 1);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), AT_GUEST_CODE + 7 + 0x20);
}
END_TEST

START_TEST(shadowed_vmread_and_vmwrite_use_the_link_pointer)
{
    fixture_prepare_guest(f);
    fixture_enable_secondary(f, SECONDARY_VMCS_SHADOWING);
    fixture_put(f, VMCS_VMREAD_BITMAP, AT_BITMAP_A);
    fixture_put(f, VMCS_VMWRITE_BITMAP, AT_BITMAP_B);
    fixture_write(f, AT_OTHER_VMCS, f->caps.revision | (uint32_t)VMCS_SHADOW_INDICATOR, 4);
    fixture_put(f, VMCS_VMCS_LINK_POINTER, AT_OTHER_VMCS);
    fixture_enter_guest(f);
    uint64_t value;
    fixture_vmwrite(f, ENCODING_GUEST_RIP, 0x1234);
    ck_assert(f->cpu.non_root);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_SUCCEED);
    ck_assert_uint_eq(vmcs_get(vmcs_region_at(&f->memory, AT_OTHER_VMCS), VMCS_GUEST_RIP), 0x1234);
    fixture_vmread(f, ENCODING_GUEST_RIP, &value);
    ck_assert_uint_eq(value, 0x1234);
    fixture_vmread(f, ENCODING_NONE, &value);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_VALID);
    ck_assert_uint_eq(instruction_error(), 12); // in the controlling VMCS
    fixture_write(f, AT_BITMAP_A + ENCODING_GUEST_RIP / 8, 1u << (ENCODING_GUEST_RIP & 7), 1);
    fixture_vmread(f, ENCODING_GUEST_RIP, &value);
    fixture_expect_exit(f, EXIT_VMREAD);
}
END_TEST

START_TEST(vmfunc_switches_eptp)
{
    fixture_prepare_guest(f);
    fixture_enable_ept(f);
    fixture_enable_secondary(f, SECONDARY_ENABLE_VM_FUNCTIONS);
    fixture_put(f, VMCS_VM_FUNCTION_CONTROLS, 1);
    fixture_put(f, VMCS_EPTP_LIST_ADDR, AT_MSR_LIST);
    fixture_write(f, AT_MSR_LIST + 8, AT_EPT | 0x5E, 8); // accessed and dirty flags on: as good an EPTP
    fixture_enter_guest(f);
    f->cpu.regs[REG_RAX] = 0;
    f->cpu.regs[REG_RCX] = 1;
    RUN(f, 0x0F, 0x01, 0xD4);
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(fixture_get(f, VMCS_EPTP), AT_EPT | 0x5E);
    ck_assert_uint_eq(cpu_rflags(&f->cpu) & RFLAGS_ARITHMETIC, RFLAGS_ARITHMETIC);
    f->cpu.regs[REG_RCX] = 0; // an empty entry
    RUN(f, 0x0F, 0x01, 0xD4);
    fixture_expect_exit(f, EXIT_VMFUNC);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RCX] = 512;
    RUN(f, 0x0F, 0x01, 0xD4);
    fixture_expect_exit(f, EXIT_VMFUNC);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RAX] = 64;
    RUN(f, 0x0F, 0x01, 0xD4);
    expect_fault(VECTOR_UD);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx instructions");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, vmxon_succeeds_and_has_no_current_vmcs);
    tcase_add_test(tc, vmxon_without_vmxe_is_ud);
    tcase_add_test(tc, vmxon_at_cpl3_is_gp);
    tcase_add_test(tc, vmxon_with_unlocked_feature_control_is_gp);
    tcase_add_test(tc, vmxon_without_ne_is_gp);
    tcase_add_test(tc, vmxon_with_bad_address_or_revision_fails_invalid);
    tcase_add_test(tc, vmxon_in_root_fails_before_its_operand_is_read);
    tcase_add_test(tc, vmxoff_leaves_vmx_operation);
    tcase_add_test(tc, vmx_instructions_outside_vmx_operation_are_ud);
    tcase_add_test(tc, vmclear_rejects_bad_addresses);
    tcase_add_test(tc, vmclear_clears_the_launch_state_and_the_current_pointer);
    tcase_add_test(tc, vmclear_outside_ram_succeeds_without_effect);
    tcase_add_test(tc, vmptrld_rejects_bad_regions_and_keeps_the_current_one);
    tcase_add_test(tc, vmptrst_stores_the_current_pointer);
    tcase_add_test(tc, operand_faults_come_after_the_privilege_check);
    tcase_add_test(tc, vmread_and_vmwrite_without_current_vmcs_fail_invalid);
    tcase_add_test(tc, vmwrite_then_vmread_by_width);
    tcase_add_test(tc, unsupported_fields_fail_with_12);
    tcase_add_test(tc, read_only_fields_follow_the_capability);
    tcase_add_test(tc, a_faulting_vmread_changes_no_flags_and_unsupported_fields_win);
    tcase_add_test(tc, vmread_to_memory_and_rip_relative_operands);
    tcase_add_test(tc, vmcall_in_root_fails_with_1);
    tcase_add_test(tc, vmlaunch_without_current_vmcs_fails_invalid);
    tcase_add_test(tc, vmlaunch_of_a_shadow_vmcs_fails_invalid);
    tcase_add_test(tc, invept_checks_type_then_descriptor);
    tcase_add_test(tc, invvpid_checks_type_and_descriptor);
    tcase_add_test(tc, vmx_instructions_in_non_root_exit_even_at_cpl3);
    tcase_add_test(tc, instruction_information_names_the_operands);
    tcase_add_test(tc, shadowed_vmread_and_vmwrite_use_the_link_pointer);
    tcase_add_test(tc, vmfunc_switches_eptp);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
