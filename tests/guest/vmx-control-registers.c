/*
 * What a guest sees and may change of CR0, CR3, CR4 and CR8: guest/host masks, read shadows, CR3 targets, CLTS, LMSW and
 * SMSW. SDM 3C "Changes to Instruction Behavior in VMX Non-Root Operation"; "Exit Qualification for Control-Register
 * Accesses".
 */
#include "check.h"
#include "cpu.h"
#include "trap.h"
#include "vm.h"

/* 31:16 LMSW source | 11:8 general register | 6 LMSW operand in memory | 5:4 access | 3:0 control register */
enum {
    ACCESS_TO_CR = 0 << 4,
    ACCESS_FROM_CR = 1 << 4,
    ACCESS_CLTS = 2 << 4,
    ACCESS_LMSW = 3 << 4,
    LMSW_MEMORY = 1 << 6,
    LMSW_SOURCE_SHIFT = 16,
    RAX = 0 << 8,
    RBX = 3 << 8,
    R9 = 9 << 8,
};

#define SNIPPET(name, code)      \
    extern const uint8_t name[]; \
    __asm__(#name ": " code "; vmcall")
SNIPPET(guest_read_cr0, "mov %cr0, %rax");
SNIPPET(guest_read_cr3, "mov %cr3, %rax");
SNIPPET(guest_read_cr3_r9, "mov %cr3, %r9");
SNIPPET(guest_read_cr4, "mov %cr4, %rax");
SNIPPET(guest_write_cr0, "mov %rbx, %cr0");
SNIPPET(guest_write_cr3, "mov %rbx, %cr3");
SNIPPET(guest_write_cr4, "mov %rbx, %cr4");
SNIPPET(guest_write_cr8, "mov %rbx, %cr8");
SNIPPET(guest_read_cr8, "mov %cr8, %rax");
SNIPPET(guest_clts, "clts");
SNIPPET(guest_lmsw, "lmsw %bx");
SNIPPET(guest_lmsw_memory, "lmsw (%rbx)");
SNIPPET(guest_smsw, "smsw %rax");

static uint32_t run(const uint8_t *code, uint64_t rbx)
{
    vm_registers.rax = 0;
    vm_registers.rbx = rbx;
    return vm_run(code);
}

static bool exits(const uint8_t *code, uint64_t rbx)
{
    uint32_t reason = run(code, rbx);
    check_quietly(reason == EXIT_CR_ACCESS || reason == EXIT_VMCALL, "exit reason %u", reason);
    return reason == EXIT_CR_ACCESS;
}

static void test_cr0(void)
{
    uint64_t cr0 = read_cr0() & ~(CR0_TS | CR0_MP | CR0_EM);
    vm_create((struct vm_controls){0});
    vmcs_write(VMCS_GUEST_CR0, cr0);
    vmcs_write(VMCS_CR0_GUEST_HOST_MASK, CR0_TS | CR0_WP);
    vmcs_write(VMCS_CR0_READ_SHADOW, CR0_WP);
    check(!exits(guest_read_cr0, 0), "MOV from CR0 does not exit");
    check(vm_registers.rax == ((cr0 & ~CR0_WP) | CR0_WP), "it reads the shadow where the mask is 1");
    vmcs_write(VMCS_CR0_READ_SHADOW, CR0_TS);
    exits(guest_read_cr0, 0);
    check(vm_registers.rax == ((cr0 & ~CR0_WP) | CR0_TS), "and the register where it is 0");
    exits(guest_smsw, 0);
    check(vm_registers.rax == ((cr0 & ~CR0_WP) | CR0_TS), "SMSW likewise");

    vmcs_write(VMCS_CR0_READ_SHADOW, CR0_WP);
    check(!exits(guest_write_cr0, cr0 | CR0_WP | CR0_AM), "MOV to CR0 that agrees with the shadow: no exit");
    check_field(VMCS_GUEST_CR0, cr0 | CR0_AM, "the host's bits are unchanged, the others written");
    check(exits(guest_write_cr0, cr0 | CR0_WP | CR0_TS), "one that differs: exit");
    check_field(VMCS_EXIT_QUALIFICATION, ACCESS_TO_CR | RBX | 0, "qualification: MOV to CR0, RBX");
    check_exit_at(EXIT_CR_ACCESS, guest_write_cr0, "RIP is at the MOV");
    check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 3, "instruction length");
    vmcs_write(VMCS_GUEST_CR0, cr0);

    vmcs_write(VMCS_CR0_GUEST_HOST_MASK, 0);
    vmcs_write(VMCS_GUEST_CR0, cr0 | CR0_TS);
    check(!exits(guest_clts, 0), "CLTS of the guest's own TS: no exit");
    check_field(VMCS_GUEST_CR0, cr0, "TS is cleared");
    vmcs_write(VMCS_CR0_GUEST_HOST_MASK, CR0_TS);
    vmcs_write(VMCS_GUEST_CR0, cr0 | CR0_TS);
    vmcs_write(VMCS_CR0_READ_SHADOW, CR0_TS);
    check(exits(guest_clts, 0), "CLTS of the host's TS, shadow 1: exit");
    check_field(VMCS_EXIT_QUALIFICATION, ACCESS_CLTS, "qualification: CLTS");
    vmcs_write(VMCS_CR0_READ_SHADOW, 0);
    check(!exits(guest_clts, 0), "CLTS of the host's TS, shadow 0: no exit");
    check_field(VMCS_GUEST_CR0, cr0 | CR0_TS, "TS stays");

    uint64_t low = cr0 & 0xF;
    vmcs_write(VMCS_CR0_GUEST_HOST_MASK, 0);
    vmcs_write(VMCS_GUEST_CR0, cr0);
    check(!exits(guest_lmsw, low | CR0_TS | CR0_EM), "LMSW of the guest's own bits: no exit");
    check_field(VMCS_GUEST_CR0, cr0 | CR0_TS | CR0_EM, "they are written");
    check(!exits(guest_lmsw, 0), "LMSW of 0: no exit");
    check_field(VMCS_GUEST_CR0, cr0 & ~UINT64_C(0xE), "PE stays 1");
    vmcs_write(VMCS_CR0_GUEST_HOST_MASK, CR0_TS | CR0_PE);
    vmcs_write(VMCS_CR0_READ_SHADOW, 0);
    check(exits(guest_lmsw, CR0_TS), "LMSW that differs in the host's TS: exit");
    check_field(VMCS_EXIT_QUALIFICATION, ACCESS_LMSW | (uint64_t)CR0_TS << LMSW_SOURCE_SHIFT,
                "qualification: LMSW, source");
    check(!exits(guest_lmsw, CR0_MP), "LMSW that agrees: no exit");
    check(exits(guest_lmsw, CR0_PE), "LMSW that sets the host's PE, shadow 0: exit");
    vmcs_write(VMCS_CR0_READ_SHADOW, CR0_PE);
    check(!exits(guest_lmsw, 0), "LMSW with PE 0, shadow 1: no exit");
    static const uint16_t word = CR0_TS | CR0_PE;
    check(exits(guest_lmsw_memory, (uint64_t)&word), "LMSW from memory: exit");
    check_field(VMCS_EXIT_QUALIFICATION, ACCESS_LMSW | LMSW_MEMORY | (uint64_t)word << LMSW_SOURCE_SHIFT,
                "qualification: LMSW, memory, source");
    check_field(VMCS_GUEST_LINEAR_ADDRESS, (uint64_t)&word, "guest linear address: the operand");

    vmcs_write(VMCS_CR0_GUEST_HOST_MASK, 0);
    vmcs_write(VMCS_GUEST_CR0, cr0);
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_GP);
    check(run(guest_write_cr0, cr0 & ~CR0_NE) == EXIT_EXCEPTION_OR_NMI, "clearing CR0.NE, fixed to 1: #GP");
    check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_GP,
                "interruption information");
    check_field(VMCS_EXIT_INTERRUPTION_ERROR_CODE, 0, "error code");
}

static void test_cr3(void)
{
    uint64_t cr3 = read_cr3();
    vm_create((struct vm_controls){.primary = PRIMARY_CR3_LOAD_EXITING | PRIMARY_CR3_STORE_EXITING});
    check(exits(guest_read_cr3, 0), "MOV from CR3, CR3-store exiting: exit");
    check_field(VMCS_EXIT_QUALIFICATION, ACCESS_FROM_CR | RAX | 3, "qualification: MOV from CR3, RAX");
    check(exits(guest_read_cr3_r9, 0), "MOV from CR3 to R9");
    check_field(VMCS_EXIT_QUALIFICATION, ACCESS_FROM_CR | R9 | 3, "qualification: MOV from CR3, R9");
    check(exits(guest_write_cr3, cr3), "MOV to CR3, CR3-load exiting, no target: exit");
    check_field(VMCS_EXIT_QUALIFICATION, ACCESS_TO_CR | RBX | 3, "qualification: MOV to CR3, RBX");
    vmcs_write(VMCS_CR3_TARGET_0, cr3);
    vmcs_write(VMCS_CR3_TARGET_1, cr3 | 8);
    vmcs_write(VMCS_CR3_TARGET_COUNT, 1);
    check(!exits(guest_write_cr3, cr3), "a value that is target 0: no exit");
    check(exits(guest_write_cr3, cr3 | 8), "target 1 with a count of 1: exit");
    vmcs_write(VMCS_CR3_TARGET_COUNT, 2);
    check(!exits(guest_write_cr3, cr3 | 8), "with a count of 2: none");
    check_field(VMCS_GUEST_CR3, cr3 | 8, "CR3 is written");
    vm_set_controls((struct vm_controls){0});
    if (vmx_controls_allow(CONTROLS_PRIMARY, 0) &&
        !(rdmsr(MSR_IA32_VMX_TRUE_PROCBASED_CTLS) & PRIMARY_CR3_LOAD_EXITING)) {
        check(!exits(guest_read_cr3, 0) && vm_registers.rax == (cr3 | 8), "without the controls: no exits");
        check(!exits(guest_write_cr3, cr3), "neither way");
    }
}

static void test_cr4(void)
{
    uint64_t cr4 = read_cr4();
    vm_create((struct vm_controls){0});
    vmcs_write(VMCS_CR4_GUEST_HOST_MASK, CR4_VMXE);
    vmcs_write(VMCS_CR4_READ_SHADOW, 0);
    check(!exits(guest_read_cr4, 0) && vm_registers.rax == (cr4 & ~CR4_VMXE), "VMXE can be hidden from the guest");
    check(!exits(guest_write_cr4, (cr4 & ~CR4_VMXE) | CR4_PGE), "a write that leaves VMXE 0: no exit");
    check_field(VMCS_GUEST_CR4, cr4 | CR4_PGE, "CR4 keeps VMXE, PGE is written");
    check(exits(guest_write_cr4, cr4), "a write that sets VMXE: exit");
    check_field(VMCS_EXIT_QUALIFICATION, ACCESS_TO_CR | RBX | 4, "qualification: MOV to CR4, RBX");
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_GP);
    vmcs_write(VMCS_CR4_GUEST_HOST_MASK, 0);
    check(run(guest_write_cr4, cr4 & ~CR4_VMXE) == EXIT_EXCEPTION_OR_NMI, "clearing VMXE, fixed to 1: #GP");
    check(run(guest_write_cr4, cr4 & ~CR4_PAE) == EXIT_EXCEPTION_OR_NMI, "clearing PAE in 64-bit mode: #GP");
    check_field(VMCS_GUEST_CR4, cr4 | CR4_PGE, "CR4 is unchanged");
}

static void test_cr8(void)
{
    vm_create((struct vm_controls){.primary = PRIMARY_CR8_LOAD_EXITING | PRIMARY_CR8_STORE_EXITING});
    check(exits(guest_write_cr8, 5), "MOV to CR8, CR8-load exiting: exit");
    check_field(VMCS_EXIT_QUALIFICATION, ACCESS_TO_CR | RBX | 8, "qualification: MOV to CR8, RBX");
    check(exits(guest_read_cr8, 0), "MOV from CR8, CR8-store exiting: exit");
    check_field(VMCS_EXIT_QUALIFICATION, ACCESS_FROM_CR | RAX | 8, "qualification: MOV from CR8, RAX");
    vm_set_controls((struct vm_controls){0});
    check(!exits(guest_write_cr8, 5) && !exits(guest_read_cr8, 0) && vm_registers.rax == 5, "without them: no exits");
    exits(guest_write_cr8, 0);
}

int main(void)
{
    vm_begin("vmx-control-registers", "masks, shadows and targets");
    test_cr0();
    test_cr3();
    test_cr4();
    test_cr8();
    return check_verdict("%u checks", check_count());
}
