// The VMX instructions: SDM 3C ch. 31 "VMX Instruction Reference".
//
// Each follows its row of checks: #UD, VM exit in non-root operation, #GP by CPL, operand faults and VMfails in the order of the
// SDM's operation section. One function an instruction; what several share stands first.
// Leaves out: SMX, A20M (never asserted in VMX operation), the dual-monitor treatment of SMIs.
#include "vmx/entry_checks.h"
#include "vmx/transition.h"

// --- Ends of an instruction (31.2 "Conventions") ------------------------------------------------------------------

enum exec_result vmx_succeed(struct cpu *cpu, const struct insn *in)
{
    cpu->lazy = (struct lazy_flags){.result = 1, .aux = 0}; // CF, PF, AF, ZF, SF, OF = 0
    return exec_end_system(cpu, in);
}

enum exec_result vmx_fail_invalid(struct cpu *cpu, const struct insn *in)
{
    cpu->vmx->instruction_failures++;
    cpu->vmx->last_failure = (struct vmx_failure){.check_id = -1};
    flags_set_arithmetic(cpu, RFLAGS_CF);
    return exec_end_system(cpu, in);
}

enum exec_result vmx_fail_valid(struct cpu *cpu, const struct insn *in, unsigned error)
{
    struct vmx *vmx = cpu->vmx;
    vmx->instruction_failures++;
    vmx->last_failure = (struct vmx_failure){.check_id = -1, .instruction_error = error};
    memory_note_write(cpu->memory, vmx->current_pointer, sizeof *vmx->current);
    vmcs_put(vmx->current, VMCS_VM_INSTRUCTION_ERROR, error);
    flags_set_arithmetic(cpu, RFLAGS_ZF);
    return exec_end_system(cpu, in);
}

enum exec_result vmx_fail(struct cpu *cpu, const struct insn *in, unsigned error)
{
    if (cpu->vmx->current)
        return vmx_fail_valid(cpu, in, error);
    enum exec_result result = vmx_fail_invalid(cpu, in);
    cpu->vmx->last_failure.instruction_error = error; // for the explanation: no VMCS could hold it
    return result;
}

// --- What several instructions share ------------------------------------------------------------------------------

static const uint8_t exit_reasons[OP_INVVPID - OP_VMCALL + 1] = {
    [OP_VMCALL - OP_VMCALL] = EXIT_VMCALL,     [OP_VMLAUNCH - OP_VMCALL] = EXIT_VMLAUNCH,
    [OP_VMRESUME - OP_VMCALL] = EXIT_VMRESUME, [OP_VMXOFF - OP_VMCALL] = EXIT_VMXOFF,
    [OP_VMFUNC - OP_VMCALL] = EXIT_VMFUNC,     [OP_VMXON - OP_VMCALL] = EXIT_VMXON,
    [OP_VMCLEAR - OP_VMCALL] = EXIT_VMCLEAR,   [OP_VMPTRLD - OP_VMCALL] = EXIT_VMPTRLD,
    [OP_VMPTRST - OP_VMCALL] = EXIT_VMPTRST,   [OP_VMREAD - OP_VMCALL] = EXIT_VMREAD,
    [OP_VMWRITE - OP_VMCALL] = EXIT_VMWRITE,   [OP_INVEPT - OP_VMCALL] = EXIT_INVEPT,
    [OP_INVVPID - OP_VMCALL] = EXIT_INVVPID,
};

// Real-address mode, virtual-8086 mode and compatibility mode.
static bool is_undefined_mode(const struct cpu *cpu)
{
    return !cpu_protected(cpu) || (cpu_long_mode(cpu) && !cpu_64bit(cpu));
}

// The exit of a VMX instruction in non-root operation: with the operand's displacement and information where it has operands.
static enum exec_result exit_to_host(struct cpu *cpu, const struct insn *in)
{
    enum vmx_exit_reason reason = (enum vmx_exit_reason)exit_reasons[in->op - OP_VMCALL];
    switch (in->op) {
    case OP_VMCALL:
    case OP_VMLAUNCH:
    case OP_VMRESUME:
    case OP_VMXOFF:
    case OP_VMFUNC: return vmx_exit_instruction(cpu, in, reason, 0);
    case OP_VMREAD:
    case OP_VMWRITE:
    case OP_INVEPT:
    case OP_INVVPID:
        return vmx_exit_instruction_info(cpu, in, reason, instruction_displacement(cpu, in),
                                         instruction_information_reg2(in));
    default:
        return vmx_exit_instruction_info(cpu, in, reason, instruction_displacement(cpu, in),
                                         instruction_information(in));
    }
}

// #UD, the exit and #GP, for all but VMXON, VMREAD, VMWRITE, VMCALL and VMFUNC. EXEC_NEXT: in root operation at CPL 0.
static enum exec_result enter_instruction(struct cpu *cpu, const struct insn *in)
{
    if (!cpu->vmx_operation || is_undefined_mode(cpu))
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->non_root)
        return exit_to_host(cpu, in);
    return cpu->cpl ? raise_error(cpu, VECTOR_GP, 0) : EXEC_NEXT;
}

// Page-aligned and within what VMX addresses may reach.
static bool is_region_address(const struct vmx *vmx, uint64_t address)
{
    unsigned width = vmx->caps->basic & VMX_BASIC_ADDRESSES_32_BIT ? 32 : vmx->caps->maxphyaddr;
    return !(address & PAGE_OFFSET_MASK) && !(address >> width);
}

static unsigned register_size(const struct cpu *cpu) { return cpu_64bit(cpu) ? 8 : 4; }

// --- VMXON, VMXOFF ------------------------------------------------------------------------------------------------

static bool control_registers_allowed(const struct cpu *cpu)
{
    const struct vmx_caps *caps = cpu->vmx->caps;
    return !(caps->cr0_fixed0 & ~cpu->cr0) && !(cpu->cr0 & ~caps->cr0_fixed1) && !(caps->cr4_fixed0 & ~cpu->cr4) &&
           !(cpu->cr4 & ~caps->cr4_fixed1);
}

static bool vmxon_enabled(const struct cpu *cpu)
{
    const uint64_t needed = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON;
    return (cpu->feature_control & needed) == needed;
}

static void enter_vmx_operation(struct cpu *cpu, hpa_t region)
{
    struct vmx *vmx = cpu->vmx;
    vmx->vmxon_pointer = region;
    vmx->current_pointer = VMCS_NO_POINTER;
    vmx->current = NULL;
    cpu->vmx_operation = true;
    cpu->monitor_armed = false;
}

static enum exec_result vmxon(struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    struct vmx *vmx = cpu->vmx;
    if (!(cpu->cr4 & CR4_VMXE) || is_undefined_mode(cpu))
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->non_root)
        return exit_to_host(cpu, in);
    if (cpu->cpl || (!cpu->vmx_operation && (!control_registers_allowed(cpu) || !vmxon_enabled(cpu))))
        return raise_error(cpu, VECTOR_GP, 0);
    if (cpu->vmx_operation)
        return vmx_fail(cpu, in, ERROR_VMXON_IN_ROOT);
    uint64_t region;
    if (!mem_read(cpu, (enum segment_register)in->segment, offset, 8, &region))
        return EXEC_FAULT;
    cpu_charge(cpu, TIMING_VMXON);
    if (!is_region_address(vmx, region) || bus_read(cpu->bus, region, 4) != vmx->caps->revision) // bit 31 has to be 0
        return vmx_fail_invalid(cpu, in);
    enter_vmx_operation(cpu, region);
    return vmx_succeed(cpu, in);
}

static enum exec_result vmxoff(struct cpu *cpu, const struct insn *in)
{
    enum exec_result result = enter_instruction(cpu, in);
    if (result != EXEC_NEXT)
        return result;
    cpu_charge(cpu, TIMING_VMXOFF);
    cpu->vmx_operation = false; // INIT is no longer blocked
    cpu->monitor_armed = false;
    cpu->vmx->current_pointer = VMCS_NO_POINTER;
    cpu->vmx->current = NULL;
    return vmx_succeed(cpu, in);
}

// --- VMCLEAR, VMPTRLD, VMPTRST ------------------------------------------------------------------------------------

static enum exec_result vmclear(struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    struct vmx *vmx = cpu->vmx;
    enum exec_result result = enter_instruction(cpu, in);
    if (result != EXEC_NEXT)
        return result;
    uint64_t address;
    if (!mem_read(cpu, (enum segment_register)in->segment, offset, 8, &address))
        return EXEC_FAULT;
    if (!is_region_address(vmx, address))
        return vmx_fail(cpu, in, ERROR_VMCLEAR_INVALID_ADDRESS);
    if (address == vmx->vmxon_pointer)
        return vmx_fail(cpu, in, ERROR_VMCLEAR_VMXON_POINTER);
    cpu_charge(cpu, TIMING_VMCLEAR);
    struct vmcs_region *region = vmcs_region_at(cpu->memory, address);
    if (region) {
        memory_note_write(cpu->memory, address, sizeof *region);
        region->launch_state = LAUNCH_STATE_CLEAR;
    }
    if (address == vmx->current_pointer) {
        vmx->current_pointer = VMCS_NO_POINTER;
        vmx->current = NULL;
    }
    return vmx_succeed(cpu, in);
}

// The revision identifier must be ours; the shadow-VMCS indicator may be set if the processor has shadow VMCSs.
static bool revision_matches(const struct vmx *vmx, uint32_t revision)
{
    bool has_shadow = (vmx->caps->secondary.may & SECONDARY_VMCS_SHADOWING) != 0;
    return (has_shadow ? revision & ~(uint32_t)VMCS_SHADOW_INDICATOR : revision) == vmx->caps->revision;
}

static enum exec_result vmptrld(struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    struct vmx *vmx = cpu->vmx;
    enum exec_result result = enter_instruction(cpu, in);
    if (result != EXEC_NEXT)
        return result;
    uint64_t address;
    if (!mem_read(cpu, (enum segment_register)in->segment, offset, 8, &address))
        return EXEC_FAULT;
    if (!is_region_address(vmx, address))
        return vmx_fail(cpu, in, ERROR_VMPTRLD_INVALID_ADDRESS);
    if (address == vmx->vmxon_pointer)
        return vmx_fail(cpu, in, ERROR_VMPTRLD_VMXON_POINTER);
    // DEVIATION(vmcs-outside-ram): what is not RAM holds no VMCS, whatever a device there would answer.
    struct vmcs_region *region = vmcs_region_at(cpu->memory, address);
    if (!region || !revision_matches(vmx, region->revision))
        return vmx_fail(cpu, in, ERROR_VMPTRLD_WRONG_REVISION);
    cpu_charge(cpu, TIMING_VMPTRLD);
    vmx->current_pointer = address;
    vmx->current = region;
    return vmx_succeed(cpu, in);
}

static enum exec_result vmptrst(struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    enum exec_result result = enter_instruction(cpu, in);
    if (result != EXEC_NEXT)
        return result;
    if (!mem_write(cpu, (enum segment_register)in->segment, offset, 8, cpu->vmx->current_pointer))
        return EXEC_FAULT;
    cpu_charge(cpu, TIMING_VMPTRST);
    return vmx_succeed(cpu, in);
}

// --- VMREAD, VMWRITE ----------------------------------------------------------------------------------------------

// In non-root operation: whether the access goes to the shadow VMCS instead of exiting (31.3, 25.6.15 "VMCS Shadowing Bitmap Addresses").
static bool is_shadowed(const struct cpu *cpu, enum vmcs_field bitmap, uint64_t encoding)
{
    const struct vmx *vmx = cpu->vmx;
    if (!(vmx->secondary & SECONDARY_VMCS_SHADOWING) || (encoding >> 15))
        return false;
    return !((bus_read(cpu->bus, vmcs_get(vmx->current, bitmap) + encoding / 8, 1) >> (encoding & 7)) & 1);
}

// The checks up to the VMCS: EXEC_NEXT with *vmcs and its address.
static enum exec_result find_accessed_vmcs(struct cpu *cpu, const struct insn *in, enum vmcs_field bitmap,
                                           uint64_t encoding, struct vmcs_region **vmcs, hpa_t *address)
{
    struct vmx *vmx = cpu->vmx;
    if (!cpu->vmx_operation || is_undefined_mode(cpu))
        return raise_exception(cpu, VECTOR_UD);
    *vmcs = vmx->current;
    *address = vmx->current_pointer;
    if (unlikely(cpu->non_root)) {
        if (!is_shadowed(cpu, bitmap, encoding))
            return exit_to_host(cpu, in);
        *vmcs = vmx->shadow;
        *address = vmcs_get(vmx->current, VMCS_VMCS_LINK_POINTER);
    }
    if (cpu->cpl)
        return raise_error(cpu, VECTOR_GP, 0);
    return *vmcs ? EXEC_NEXT : vmx_fail_invalid(cpu, in);
}

static uint64_t field_encoding(const struct cpu *cpu, const struct insn *in)
{
    return reg_read(cpu, in->reg, register_size(cpu));
}

static enum exec_result vmread(struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    struct vmx *vmx = cpu->vmx;
    uint64_t encoding = field_encoding(cpu, in);
    struct vmcs_region *vmcs;
    hpa_t address;
    enum exec_result result = find_accessed_vmcs(cpu, in, VMCS_VMREAD_BITMAP, encoding, &vmcs, &address);
    if (result != EXEC_NEXT)
        return result;
    enum vmcs_field field;
    bool high;
    if (!vmcs_find(&vmx->fields, encoding, &field, &high))
        return vmx_fail_valid(cpu, in, ERROR_UNSUPPORTED_FIELD);
    uint64_t value = vmcs_get(vmcs, field);
    if (high)
        value >>= 32;
    if (in->form == FORM_REG)
        reg_write(cpu, in->rm, register_size(cpu), value);
    else if (!mem_write(cpu, (enum segment_register)in->segment, offset, register_size(cpu), value))
        return EXEC_FAULT;
    cpu_charge(cpu, TIMING_VMREAD);
    return vmx_succeed(cpu, in);
}

// What a VMWRITE of `value` leaves in a field: as wide as the field; a write of the high half keeps the low one.
static uint64_t written_value(const struct vmcs_region *vmcs, enum vmcs_field field, bool high, uint64_t value)
{
    if (high)
        return (vmcs_get(vmcs, field) & UINT32_MAX) | (value << 32);
    switch (vmcs_fields[field].width) {
    case VMCS_WIDTH_16: return (uint16_t)value;
    case VMCS_WIDTH_32: return (uint32_t)value;
    default: return value; // outside 64-bit mode bits 63:32 are written as 0
    }
}

static enum exec_result vmwrite(struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    struct vmx *vmx = cpu->vmx;
    uint64_t encoding = field_encoding(cpu, in);
    struct vmcs_region *vmcs;
    hpa_t address;
    enum exec_result result = find_accessed_vmcs(cpu, in, VMCS_VMWRITE_BITMAP, encoding, &vmcs, &address);
    if (result != EXEC_NEXT)
        return result;
    uint64_t value;
    if (in->form == FORM_REG)
        value = reg_read(cpu, in->rm, register_size(cpu));
    else if (!mem_read(cpu, (enum segment_register)in->segment, offset, register_size(cpu), &value))
        return EXEC_FAULT;
    enum vmcs_field field;
    bool high;
    if (!vmcs_find(&vmx->fields, encoding, &field, &high))
        return vmx_fail_valid(cpu, in, ERROR_UNSUPPORTED_FIELD);
    if (vmcs_fields[field].group == VMCS_GROUP_EXIT_INFO && !(vmx->caps->misc & VMX_MISC_VMWRITE_ALL))
        return vmx_fail_valid(cpu, in, ERROR_VMWRITE_READ_ONLY_FIELD);
    memory_note_write(cpu->memory, address, sizeof *vmcs);
    vmcs_put(vmcs, field, written_value(vmcs, field, high, value));
    cpu_charge(cpu, TIMING_VMWRITE);
    return vmx_succeed(cpu, in);
}

// --- VMLAUNCH, VMRESUME, VMCALL -----------------------------------------------------------------------------------

static enum exec_result vmlaunch(struct cpu *cpu, const struct insn *in, bool launch)
{
    enum exec_result result = enter_instruction(cpu, in);
    return result == EXEC_NEXT ? vmx_enter(cpu, in, launch) : result;
}

// In non-root operation at any privilege level and in any mode; in root it could only activate the dual-monitor treatment.
static enum exec_result vmcall(struct cpu *cpu, const struct insn *in)
{
    if (!cpu->vmx_operation)
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->non_root)
        return exit_to_host(cpu, in);
    if (is_undefined_mode(cpu))
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cpl)
        return raise_error(cpu, VECTOR_GP, 0);
    return vmx_fail(cpu, in, ERROR_VMCALL_IN_ROOT);
}

// --- INVEPT, INVVPID ----------------------------------------------------------------------------------------------

// Reads the 128-bit descriptor.
static bool read_descriptor(struct cpu *cpu, const struct insn *in, uint64_t offset, uint64_t descriptor[2])
{
    return mem_read_bytes(cpu, (enum segment_register)in->segment, offset, descriptor, 16, 1);
}

static enum exec_result invept(struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    const struct vmx_caps *caps = cpu->vmx->caps;
    if (!(caps->ept_vpid & VMX_EPT_VPID_CAP_INVEPT))
        return raise_exception(cpu, VECTOR_UD);
    enum exec_result result = enter_instruction(cpu, in);
    if (result != EXEC_NEXT)
        return result;
    uint64_t type = reg_read(cpu, in->reg, register_size(cpu));
    if (type < 1 || type > 2 || !(caps->ept_vpid & VMX_EPT_VPID_CAP_INVEPT_SINGLE << (type - 1)))
        return vmx_fail(cpu, in, ERROR_INVALID_OPERAND);
    uint64_t descriptor[2];
    if (!read_descriptor(cpu, in, offset, descriptor))
        return EXEC_FAULT;
    if (type == 1 && !entry_check_eptp(caps, descriptor[0]))
        return vmx_fail(cpu, in, ERROR_INVALID_OPERAND);
    cpu_charge(cpu, TIMING_INVEPT);
    if (type == 1)
        mmu_invalidate_eptp(&cpu->mmu, descriptor[0]);
    else
        mmu_invalidate_all_epts(&cpu->mmu);
    return vmx_succeed(cpu, in);
}

enum invvpid_type { INVVPID_ADDRESS, INVVPID_SINGLE, INVVPID_ALL, INVVPID_SINGLE_KEEP_GLOBALS };

static bool invvpid_descriptor_valid(const struct vmx_caps *caps, uint64_t type, const uint64_t descriptor[2])
{
    if (descriptor[0] >> 16)
        return false;
    if (type != INVVPID_ALL && !descriptor[0])
        return false;
    return type != INVVPID_ADDRESS || is_canonical(descriptor[1], caps->linear_width);
}

static enum exec_result invvpid(struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    const struct vmx_caps *caps = cpu->vmx->caps;
    if (!(caps->ept_vpid & VMX_EPT_VPID_CAP_INVVPID))
        return raise_exception(cpu, VECTOR_UD);
    enum exec_result result = enter_instruction(cpu, in);
    if (result != EXEC_NEXT)
        return result;
    uint64_t type = reg_read(cpu, in->reg, register_size(cpu));
    if (type > 3 || !(caps->ept_vpid & VMX_EPT_VPID_CAP_INVVPID_ADDRESS << type))
        return vmx_fail(cpu, in, ERROR_INVALID_OPERAND);
    uint64_t descriptor[2];
    if (!read_descriptor(cpu, in, offset, descriptor))
        return EXEC_FAULT;
    if (!invvpid_descriptor_valid(caps, type, descriptor))
        return vmx_fail(cpu, in, ERROR_INVALID_OPERAND);
    cpu_charge(cpu, TIMING_INVVPID);
    uint16_t vpid = (uint16_t)descriptor[0];
    switch ((enum invvpid_type)type) {
    case INVVPID_ADDRESS: mmu_invalidate_vpid_page(&cpu->mmu, vpid, descriptor[1]); break;
    case INVVPID_SINGLE: mmu_invalidate_vpid(&cpu->mmu, vpid, false); break;
    case INVVPID_ALL: mmu_invalidate_all_vpids(&cpu->mmu); break;
    case INVVPID_SINGLE_KEEP_GLOBALS: mmu_invalidate_vpid(&cpu->mmu, vpid, true); break;
    }
    return vmx_succeed(cpu, in);
}

// --- VMFUNC (26.5.6 "VM Functions") -------------------------------------------------------------------------------

#define EPTP_LIST_ENTRIES 512

static bool switch_eptp(struct cpu *cpu)
{
    struct vmx *vmx = cpu->vmx;
    uint32_t index = (uint32_t)cpu->regs[REG_RCX];
    if (index >= EPTP_LIST_ENTRIES)
        return false;
    hpa_t list = vmcs_get(vmx->current, VMCS_EPTP_LIST_ADDR) & PAGE_FRAME_MASK;
    uint64_t eptp = bus_read(cpu->bus, list + 8 * index, 8);
    if (!entry_check_eptp(vmx->caps, eptp))
        return false;
    memory_note_write(cpu->memory, vmx->current_pointer, sizeof *vmx->current);
    vmcs_put(vmx->current, VMCS_EPTP, eptp);
    if (vmx->caps->secondary.may & SECONDARY_EPT_VIOLATION_VE)
        vmcs_put(vmx->current, VMCS_EPTP_INDEX, index);
    mmu_set_vm(&cpu->mmu, cpu->mmu.vpid, true, eptp);
    if (!is_effective_vpid(vmx))
        mmu_invalidate_vpid(&cpu->mmu, 0, false);
    return true;
}

// At any privilege level and in any mode; changes no flags.
static enum exec_result vmfunc(struct cpu *cpu, const struct insn *in)
{
    const struct vmx *vmx = cpu->vmx;
    uint32_t function = (uint32_t)cpu->regs[REG_RAX];
    if (!cpu->non_root || !(vmx->secondary & SECONDARY_ENABLE_VM_FUNCTIONS) || function >= 64)
        return raise_exception(cpu, VECTOR_UD);
    cpu_charge(cpu, TIMING_VMFUNC);
    bool enabled = (vmcs_get(vmx->current, VMCS_VM_FUNCTION_CONTROLS) >> function) & 1;
    if (!enabled || !switch_eptp(cpu)) // EPTP switching is the only function there is
        return exit_to_host(cpu, in);
    return exec_end_system(cpu, in);
}

// --- Interface ----------------------------------------------------------------------------------------------------

enum exec_result vmx_instruction(struct cpu *cpu, const struct insn *in)
{
    // Before exec_begin_system: a RIP-relative operand counts from the start of the block.
    uint64_t offset = in->form == FORM_MEM ? exec_offset(cpu, in) : 0;
    if (cpu->block)
        exec_begin_system(cpu, in);
    switch (in->op) {
    case OP_VMREAD: return vmread(cpu, in, offset);
    case OP_VMWRITE: return vmwrite(cpu, in, offset);
    case OP_VMLAUNCH: return vmlaunch(cpu, in, true);
    case OP_VMRESUME: return vmlaunch(cpu, in, false);
    case OP_VMPTRLD: return vmptrld(cpu, in, offset);
    case OP_VMPTRST: return vmptrst(cpu, in, offset);
    case OP_VMCLEAR: return vmclear(cpu, in, offset);
    case OP_VMXON: return vmxon(cpu, in, offset);
    case OP_VMXOFF: return vmxoff(cpu, in);
    case OP_VMCALL: return vmcall(cpu, in);
    case OP_VMFUNC: return vmfunc(cpu, in);
    case OP_INVEPT: return invept(cpu, in, offset);
    case OP_INVVPID: return invvpid(cpu, in, offset);
    default: return raise_exception(cpu, VECTOR_UD);
    }
}
