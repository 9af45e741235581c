/*
 * See real_mode.h. SDM 3C "Unrestricted Guests"; SDM 3B "Real-Address Mode Operation".
 *
 * Without this control CR0.PE and CR0.PG are fixed to 1 in the guest too, and a hypervisor has to emulate the first
 * instructions of every operating system itself.
 */
#include "real_mode.h"

#include "check.h"
#include "cpu.h"
#include "ept.h"
#include "string.h"
#include "vmx.h"
#include "vmx_setup.h"

enum {
    PAGE_BYTES = 4096,
    SEGMENT_LIMIT = 0xFFFF,
    INTERRUPT_VECTOR_TABLE_LIMIT = 0x3FF,
    /* Qualification of an I/O instruction: 31:16 port | 6 port is immediate | 3 IN | 2:0 bytes - 1 */
    OUT_QUALIFICATION = REAL_MODE_PORT << 16 | 1 << 6,
};

extern const uint8_t real_mode_start[], real_mode_out[], real_mode_hlt[], real_mode_vmcall[], real_mode_end[];

static uint8_t code_page[PAGE_BYTES] __attribute__((aligned(4096)));
static uint8_t data_page[PAGE_BYTES] __attribute__((aligned(4096)));

static struct guest_registers registers;

/* The guest's low memory is not ours: EPT puts pages of this program there. */
static void place_program(uint64_t eptp)
{
    memcpy(code_page, real_mode_start, (size_t)(real_mode_end - real_mode_start));
    ept_map(REAL_MODE_CODE_SEGMENT << 4, (uint64_t)code_page, EPT_PAGE_4K, EPT_READ | EPT_EXECUTE);
    ept_map(REAL_MODE_DATA_SEGMENT << 4, (uint64_t)data_page, EPT_PAGE_4K, EPT_READ | EPT_WRITE);
    ept_invalidate(eptp);
}

static void write_controls(uint64_t eptp)
{
    vmcs_write(VMCS_PIN_BASED_CONTROLS, vmx_controls_value(CONTROLS_PIN, 0));
    vmcs_write(VMCS_PRIMARY_PROC_BASED_CONTROLS,
               vmx_controls_value(CONTROLS_PRIMARY, PRIMARY_ACTIVATE_SECONDARY_CONTROLS | PRIMARY_HLT_EXITING |
                                                        PRIMARY_UNCONDITIONAL_IO_EXITING));
    vmcs_write(VMCS_SECONDARY_PROC_BASED_CONTROLS,
               vmx_controls_value(CONTROLS_SECONDARY, SECONDARY_ENABLE_EPT | SECONDARY_UNRESTRICTED_GUEST));
    vmcs_write(VMCS_PRIMARY_EXIT_CONTROLS,
               vmx_controls_value(CONTROLS_EXIT, EXIT_HOST_ADDRESS_SPACE_SIZE | EXIT_LOAD_IA32_EFER));
    vmcs_write(VMCS_ENTRY_CONTROLS, vmx_controls_value(CONTROLS_ENTRY, ENTRY_LOAD_IA32_EFER)); /* no IA-32e mode */
    vmcs_write(VMCS_EPTP, eptp);
}

static void write_guest_state(void)
{
    vmx_write_guest_state_64(0, 0); /* what is the same in every mode; the rest follows */

    vmcs_write(VMCS_GUEST_CR0, read_cr0() & ~(CR0_PE | CR0_PG));
    vmcs_write(VMCS_CR0_READ_SHADOW, 0); /* the mask is 0: the guest sees the register itself */
    vmcs_write(VMCS_GUEST_CR3, 0);
    vmcs_write(VMCS_GUEST_CR4, rdmsr(MSR_IA32_VMX_CR4_FIXED0));
    vmcs_write(VMCS_GUEST_IA32_EFER, 0);

    vmx_write_guest_segment(SEGMENT_CS, REAL_MODE_CODE_SEGMENT, REAL_MODE_CODE_SEGMENT << 4, SEGMENT_LIMIT,
                            ACCESS_RIGHTS_CODE16);
    for (enum segment_register segment = SEGMENT_ES; segment <= SEGMENT_GS; segment++) {
        if (segment != SEGMENT_CS) {
            vmx_write_guest_segment(segment, 0, 0, SEGMENT_LIMIT, ACCESS_RIGHTS_DATA16);
        }
    }
    vmcs_write(VMCS_GUEST_IDTR_BASE, 0);
    vmcs_write(VMCS_GUEST_IDTR_LIMIT, INTERRUPT_VECTOR_TABLE_LIMIT);
}

/* Runs to the next exit, which must be the one expected at `instruction`. */
static void run_to(const uint8_t *instruction, enum exit_reason expected_reason, enum vmx_entry_instruction entry,
                   const char *name)
{
    uint64_t offset = (uint64_t)(instruction - real_mode_start);
    require_quietly(vmx_enter(&registers, entry) == VMX_SUCCEED, "the VM entry succeeds");
    uint32_t reason = (uint32_t)vmcs_read(VMCS_EXIT_REASON);
    require(reason == expected_reason, "%s: exit reason %u", name, reason);
    check_quietly(vmcs_read(VMCS_GUEST_RIP) == offset, "IP is 0x%lx, want 0x%lx", vmcs_read(VMCS_GUEST_RIP), offset);
}

static void skip_instruction(uint64_t expected_length)
{
    uint64_t length = vmcs_read(VMCS_EXIT_INSTRUCTION_LENGTH);
    check_quietly(length == expected_length, "the instruction length is %lu, want %lu", length, expected_length);
    vmcs_write(VMCS_GUEST_RIP, vmcs_read(VMCS_GUEST_RIP) + length);
}

void real_mode_demonstrate(uint64_t eptp)
{
    place_program(eptp);
    write_controls(eptp);
    vmcs_write(VMCS_HOST_IA32_EFER, rdmsr(MSR_IA32_EFER));
    vmx_write_host_state();
    write_guest_state();

    run_to(real_mode_out, EXIT_IO_INSTRUCTION, VMX_VMLAUNCH, "OUT");
    check(vmcs_read(VMCS_EXIT_QUALIFICATION) == OUT_QUALIFICATION, "OUT: qualification 0x%lx",
          vmcs_read(VMCS_EXIT_QUALIFICATION));
    check((registers.rax & 0xFF) == REAL_MODE_BYTE, "OUT: AL is 0x%lx", registers.rax & 0xFF);
    uint16_t word;
    memcpy(&word, &data_page[REAL_MODE_DATA_OFFSET], sizeof word);
    check(word == REAL_MODE_WORD, "the word at %04x:%04x is 0x%x", REAL_MODE_DATA_SEGMENT, REAL_MODE_DATA_OFFSET, word);
    skip_instruction(2);

    run_to(real_mode_hlt, EXIT_HLT, VMX_VMRESUME, "HLT");
    check((registers.rcx & 0xFFFF) == REAL_MODE_WORD, "HLT: the guest's stack works, CX is 0x%lx",
          registers.rcx & 0xFFFF);
    check((registers.rbx & CR0_PE) == 0, "HLT: the guest sees CR0.PE = 0");
    check((vmcs_read(VMCS_GUEST_CR0) & (CR0_PE | CR0_PG)) == 0, "HLT: the field guest_cr0 has PE = PG = 0");
    check(vmcs_read(VMCS_GUEST_DS_BASE) == REAL_MODE_DATA_SEGMENT << 4, "HLT: DS has the base 0x%lx",
          vmcs_read(VMCS_GUEST_DS_BASE));
    skip_instruction(1);

    run_to(real_mode_vmcall, EXIT_VMCALL, VMX_VMRESUME, "VMCALL");
}
