/*
 * See exits.h. SDM 3C "VMX Basic Exit Reasons", "Basic VM-Exit Information" (tables of exit qualifications).
 *
 * A VM exit for an instruction comes before the instruction has any effect: the hypervisor does what the instruction
 * would have done, as it sees fit, and adds the instruction's length to RIP.
 */
#include "exits.h"

#include "check.h"
#include "cpu.h"
#include "guest.h"
#include "serial.h"

/*
 * Qualification of a control-register access:
 *   31:16 LMSW source | 11:8 general register | 6 LMSW operand: 1 memory | 5:4 kind of access | 3:0 control register
 */
enum cr_access {
    CR_ACCESS_MOV_TO = 0 << 4,
    CR_ACCESS_MOV_FROM = 1 << 4,
    CR_ACCESS_CLTS = 2 << 4,
    CR_ACCESS_LMSW = 3 << 4,
    CR_ACCESS_KIND = 3 << 4,
    CR_ACCESS_NUMBER = 0xF,
    CR_ACCESS_REGISTER_SHIFT = 8,
    CR_ACCESS_LMSW_SOURCE_SHIFT = 16,
};

/* Qualification of an I/O instruction: 31:16 port | 6 port is immediate | 5 REP | 4 string | 3 IN | 2:0 bytes - 1 */
enum io_access {
    IO_ACCESS_BYTES_1 = 0,
    IO_ACCESS_BYTES_4 = 3,
    IO_ACCESS_BYTES = 7,
    IO_ACCESS_IN = 1 << 3,
    IO_ACCESS_IMMEDIATE = 1 << 6,
    IO_ACCESS_PORT_SHIFT = 16,
};

/* The numbers of the registers that the guest uses, as in guest_registers.by_number[]. */
enum general_register {
    REGISTER_RAX = 0,
    REGISTER_RCX = 1,
    REGISTER_RDX = 2,
    REGISTER_RSI = 6,
    REGISTER_RDI = 7,
    REGISTER_R9 = 9,
    REGISTER_R15 = 15,
};

enum { LMSW_BITS = 0xF, LMSW_SOURCE_PE_TS = 0x9 };

#define CR_QUALIFICATION(kind, general_register, cr) ((kind) | (general_register) << CR_ACCESS_REGISTER_SHIFT | (cr))
#define IO_QUALIFICATION(port, bits)                 ((port) << IO_ACCESS_PORT_SHIFT | (bits))

/* What the hardware must report, and one general register with the value the guest has put there. */
struct expected_exit {
    const char *instruction;
    enum exit_reason reason;
    uint64_t qualification;
    enum general_register operand;
    uint64_t operand_value;
};

/* One row for each instruction in guest_sensitive[]. In R15 the guest counts its complaints. */
static const struct expected_exit expected_exits[] = {
    {"CPUID", EXIT_CPUID, 0, REGISTER_RAX, SIGNATURE_LEAF},
    {"CPUID", EXIT_CPUID, 0, REGISTER_RAX, 1},
    {"VMCALL", EXIT_VMCALL, 0, REGISTER_RAX, VMCALL_ADD},
    {"HLT", EXIT_HLT, 0, REGISTER_R15, 0},
    {"OUT 0x80, AL", EXIT_IO_INSTRUCTION, IO_QUALIFICATION(OUT_PORT, IO_ACCESS_IMMEDIATE | IO_ACCESS_BYTES_1),
     REGISTER_RAX, OUT_BYTE},
    {"IN EAX, DX", EXIT_IO_INSTRUCTION, IO_QUALIFICATION(IN_PORT, IO_ACCESS_IN | IO_ACCESS_BYTES_4), REGISTER_RDX,
     IN_PORT},
    {"WRMSR", EXIT_WRMSR, 0, REGISTER_RCX, VIRTUAL_MSR},
    {"RDMSR", EXIT_RDMSR, 0, REGISTER_RCX, VIRTUAL_MSR},
    {"MOV CR0, R9", EXIT_CR_ACCESS, CR_QUALIFICATION(CR_ACCESS_MOV_TO, REGISTER_R9, 0), REGISTER_R15, 0},
    {"CLTS", EXIT_CR_ACCESS, CR_ACCESS_CLTS, REGISTER_R15, 0},
    {"LMSW AX", EXIT_CR_ACCESS, CR_ACCESS_LMSW | LMSW_SOURCE_PE_TS << CR_ACCESS_LMSW_SOURCE_SHIFT, REGISTER_RAX,
     LMSW_SOURCE_PE_TS},
    {"MOV RSI, CR3", EXIT_CR_ACCESS, CR_QUALIFICATION(CR_ACCESS_MOV_FROM, REGISTER_RSI, 3), REGISTER_R15, 0},
    {"MOV CR3, RSI", EXIT_CR_ACCESS, CR_QUALIFICATION(CR_ACCESS_MOV_TO, REGISTER_RSI, 3), REGISTER_R15, 0},
    {"MOV CR4, RDI", EXIT_CR_ACCESS, CR_QUALIFICATION(CR_ACCESS_MOV_TO, REGISTER_RDI, 4), REGISTER_R15, 0},
    {"VMCALL", EXIT_VMCALL, 0, REGISTER_RAX, VMCALL_DONE},
};

unsigned exits_expected(void) { return sizeof expected_exits / sizeof expected_exits[0]; }

static void emulate_cpuid(struct guest_registers *registers)
{
    uint32_t leaf = (uint32_t)registers->rax;
    struct cpuid_result result;

    if (leaf == SIGNATURE_LEAF) {
        result = (struct cpuid_result){SIGNATURE_LEAF, SIGNATURE_EBX, SIGNATURE_ECX, SIGNATURE_EDX};
        serial_printf("leaf 0x%x: we introduce ourselves", leaf);
    } else {
        result = cpuid(leaf, (uint32_t)registers->rcx);
        serial_printf("leaf 0x%x: the processor's answer", leaf);
        if (leaf == 1) {
            result.ecx &= ~CPUID_1_ECX_VMX;
            serial_puts(", with VMX hidden");
        }
    }
    registers->rax = result.eax; /* a 32-bit result clears bits 63:32 */
    registers->rbx = result.ebx;
    registers->rcx = result.ecx;
    registers->rdx = result.edx;
}

static void emulate_vmcall(struct virtual_machine *machine)
{
    struct guest_registers *registers = &machine->registers;

    switch (registers->rax) {
    case VMCALL_ADD:
        serial_printf("add %lu and %lu", registers->rbx, registers->rcx);
        registers->rax = registers->rbx + registers->rcx;
        break;
    case VMCALL_DONE:
        serial_puts("the guest is done");
        machine->complaints = registers->rbx;
        machine->done = true;
        break;
    default: serial_printf("unknown function %lu", registers->rax);
    }
}

static void emulate_io(struct guest_registers *registers, uint64_t qualification)
{
    unsigned port = (unsigned)(qualification >> IO_ACCESS_PORT_SHIFT);

    if (qualification & IO_ACCESS_IN) {
        registers->rax = IN_VALUE;
        serial_printf("IN from port 0x%x: we answer 0x%lx", port, registers->rax);
    } else {
        serial_printf("OUT to port 0x%x: byte 0x%x", port, (uint8_t)registers->rax);
    }
}

static void emulate_wrmsr(struct virtual_machine *machine)
{
    const struct guest_registers *registers = &machine->registers;
    machine->virtual_msr = registers->rdx << 32 | (uint32_t)registers->rax;
    serial_printf("MSR 0x%x := 0x%lx", (uint32_t)registers->rcx, machine->virtual_msr);
}

static void emulate_rdmsr(struct virtual_machine *machine)
{
    struct guest_registers *registers = &machine->registers;
    registers->rax = (uint32_t)machine->virtual_msr;
    registers->rdx = machine->virtual_msr >> 32;
    serial_printf("MSR 0x%x is 0x%lx", (uint32_t)registers->rcx, machine->virtual_msr);
}

/* The guest sees `value`; the processor gets it with the bits that VMX operation fixes. */
static void set_guest_cr0(uint64_t value)
{
    vmcs_write(VMCS_CR0_READ_SHADOW, value);
    vmcs_write(VMCS_GUEST_CR0, value | rdmsr(MSR_IA32_VMX_CR0_FIXED0));
}

static void set_guest_cr4(uint64_t value)
{
    vmcs_write(VMCS_CR4_READ_SHADOW, value);
    vmcs_write(VMCS_GUEST_CR4, value | rdmsr(MSR_IA32_VMX_CR4_FIXED0));
}

/* What a read of CR0 by the guest gives: the bits of the mask from the read shadow, the others from the register. */
static uint64_t guest_view_of_cr0(void)
{
    uint64_t mask = vmcs_read(VMCS_CR0_GUEST_HOST_MASK);
    return (vmcs_read(VMCS_CR0_READ_SHADOW) & mask) | (vmcs_read(VMCS_GUEST_CR0) & ~mask);
}

static void emulate_mov_to_cr(unsigned number, uint64_t value)
{
    switch (number) {
    case 0:
        set_guest_cr0(value);
        serial_printf("TS becomes %u in the read shadow", (value & CR0_TS) != 0);
        break;
    case 3:
        vmcs_write(VMCS_GUEST_CR3, value);
        serial_puts("CR3 written");
        break;
    case 4:
        set_guest_cr4(value);
        serial_printf("VMXE becomes %u in the read shadow", (value & CR4_VMXE) != 0);
        break;
    default: serial_printf("CR%u: we know nothing of it", number);
    }
}

static void emulate_cr_access(struct guest_registers *registers, uint64_t qualification)
{
    unsigned number = qualification & CR_ACCESS_NUMBER;
    uint64_t *operand = &registers->by_number[qualification >> CR_ACCESS_REGISTER_SHIFT & 0xF];
    uint64_t lmsw_source = qualification >> CR_ACCESS_LMSW_SOURCE_SHIFT & LMSW_BITS;

    switch (qualification & CR_ACCESS_KIND) {
    case CR_ACCESS_MOV_TO: emulate_mov_to_cr(number, *operand); break;
    case CR_ACCESS_MOV_FROM: /* only MOV from CR3 exits here */
        *operand = vmcs_read(VMCS_GUEST_CR3);
        serial_printf("CR%u read", number);
        break;
    case CR_ACCESS_CLTS:
        set_guest_cr0(guest_view_of_cr0() & ~CR0_TS);
        serial_puts("TS becomes 0 in the read shadow");
        break;
    case CR_ACCESS_LMSW:
        set_guest_cr0((guest_view_of_cr0() & ~(uint64_t)LMSW_BITS) | lmsw_source | CR0_PE); /* LMSW cannot clear PE */
        serial_printf("bits 3:0 become 0x%lx in the read shadow", lmsw_source);
        break;
    }
}

static void emulate(struct virtual_machine *machine, uint32_t reason, uint64_t qualification)
{
    switch (reason) {
    case EXIT_CPUID: emulate_cpuid(&machine->registers); break;
    case EXIT_HLT: serial_puts("we wake the guest at once"); break;
    case EXIT_VMCALL: emulate_vmcall(machine); break;
    case EXIT_CR_ACCESS: emulate_cr_access(&machine->registers, qualification); break;
    case EXIT_IO_INSTRUCTION: emulate_io(&machine->registers, qualification); break;
    case EXIT_RDMSR: emulate_rdmsr(machine); break;
    case EXIT_WRMSR: emulate_wrmsr(machine); break;
    default: serial_puts("not one that we handle\n"); require_quietly(false, "exit reason 0x%x", reason);
    }
}

/* Holds what the processor reported against what the guest is known to do. */
static void check_exit(const struct expected_exit *expected, const struct sensitive_instruction *instruction,
                       uint64_t operand_value)
{
    uint32_t reason = (uint32_t)vmcs_read(VMCS_EXIT_REASON);
    uint64_t qualification = vmcs_read(VMCS_EXIT_QUALIFICATION);
    uint64_t length = vmcs_read(VMCS_EXIT_INSTRUCTION_LENGTH);
    uint64_t expected_length = instruction->next_address - instruction->address;

    check_quietly(reason == expected->reason, "exit reason %u, want %u", reason, (unsigned)expected->reason);
    check_quietly(qualification == expected->qualification, "exit qualification 0x%lx, want 0x%lx", qualification,
                  expected->qualification);
    check_quietly(length == expected_length, "instruction length %lu, want %lu", length, expected_length);
    check_quietly(vmcs_read(VMCS_GUEST_RIP) == instruction->address, "guest RIP is that of the instruction");
    check_quietly(operand_value == expected->operand_value, "general register %u is 0x%lx, want 0x%lx",
                  (unsigned)expected->operand, operand_value, expected->operand_value);
}

void exits_handle(struct virtual_machine *machine)
{
    require_quietly(machine->exits < exits_expected(), "the guest makes %u exits", exits_expected());
    const struct expected_exit *expected = &expected_exits[machine->exits];
    const struct sensitive_instruction *instruction = &guest_sensitive[machine->exits];
    machine->exits++;

    uint32_t reason = (uint32_t)vmcs_read(VMCS_EXIT_REASON);
    uint64_t qualification = vmcs_read(VMCS_EXIT_QUALIFICATION);
    uint64_t length = vmcs_read(VMCS_EXIT_INSTRUCTION_LENGTH);
    uint64_t operand_value = machine->registers.by_number[expected->operand]; /* the emulation may change it */

    serial_printf("  exit %u: %s: reason %u, qualification 0x%lx, length %lu; ", machine->exits, expected->instruction,
                  reason, qualification, length);
    emulate(machine, reason, qualification);
    serial_putc('\n');
    check_exit(expected, instruction, operand_value);

    vmcs_write(VMCS_GUEST_RIP, vmcs_read(VMCS_GUEST_RIP) + length);
}
