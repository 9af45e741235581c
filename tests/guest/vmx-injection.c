/*
 * Event injection at VM entry: every type, error codes, instruction lengths, what is pushed, and the entries that are
 * refused. SDM 3C "VM-Entry Controls for Event Injection", "Event Injection".
 */
#include "boot.h"
#include "check.h"
#include "cpu.h"
#include "trap.h"
#include "vm.h"

enum {
    VECTOR = 0x40,
    CR_ERROR = 0xABC,
};

#define SNIPPET(name, code)      \
    extern const uint8_t name[]; \
    __asm__(#name ": " code "; vmcall")
SNIPPET(guest_start, "nop; nop; nop; nop");

/* What the guest's handler of VECTOR saw. */
static void expect_delivery(uint64_t vector, uint64_t error_code, uint64_t length, uint64_t rflags, const char *what)
{
    bool right = (uint32_t)vmcs_read(VMCS_EXIT_REASON) == EXIT_VMCALL && trap.taken && trap.frame.vector == vector &&
                 trap.frame.error_code == error_code && trap.frame.rip == (uint64_t)guest_start + length &&
                 trap.frame.rflags == rflags;
    if (!check(right, "%s: vector %lu, RIP + %lu", what, vector, length)) {
        note("exit %lu, vector %lu, error code 0x%lx, RIP + %ld, RFLAGS 0x%lx", vmcs_read(VMCS_EXIT_REASON),
             trap.frame.vector, trap.frame.error_code, (long)(trap.frame.rip - (uint64_t)guest_start),
             trap.frame.rflags);
    }
}

/* Enters with the event; a handler goes on at the VMCALL. */
static uint32_t inject(uint32_t info, uint32_t error_code, uint32_t length)
{
    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, info);
    vmcs_write(VMCS_ENTRY_EXCEPTION_ERROR_CODE, error_code);
    vmcs_write(VMCS_ENTRY_INSTRUCTION_LENGTH, length);
    trap.taken = false;
    trap_resume_rip = (uint64_t)guest_start + 4;
    trap_resume_rsp = (uint64_t)(vm_stack + sizeof vm_stack);
    bool interrupt = info & EVENT_VALID && (info >> 8 & 7) == 0; /* VM entry demands IF = 1 */
    return vm_run_with(guest_start, RFLAGS_FIXED | (interrupt ? RFLAGS_IF : 0));
}

static void test_types(void)
{
    vm_create((struct vm_controls){0});
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0xFFFFFFFF); /* an injected event itself never exits */
    inject(EVENT_INTERRUPT | VECTOR, 0, 0);
    expect_delivery(VECTOR, 0, 0, RFLAGS_FIXED | RFLAGS_IF, "external interrupt");
    check_field(VMCS_ENTRY_INTERRUPTION_INFO, VECTOR, "the exit cleared the valid bit");
    inject(EVENT_NMI | VECTOR_NMI, 0, 0);
    expect_delivery(VECTOR_NMI, 0, 0, RFLAGS_FIXED, "NMI");
    inject(EVENT_EXCEPTION | VECTOR_UD, 0, 0);
    expect_delivery(VECTOR_UD, 0, 0, RFLAGS_FIXED, "hardware exception without error code");
    inject(EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_GP, CR_ERROR, 0);
    expect_delivery(VECTOR_GP, CR_ERROR, 0, RFLAGS_FIXED, "hardware exception with error code");
    __asm__ volatile("mov %0, %%cr2" : : "r"(UINT64_C(0x2222)));
    inject(EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_PF, 2, 0);
    expect_delivery(VECTOR_PF, 2, 0, RFLAGS_FIXED, "page fault");
    check(trap.cr2 == 0x2222, "CR2 is not written");
    __asm__ volatile("mov %0, %%dr6" : : "r"(UINT64_C(0xFFFF0FF0)));
    inject(EVENT_EXCEPTION | VECTOR_DB, 0, 0);
    expect_delivery(VECTOR_DB, 0, 0, RFLAGS_FIXED, "debug exception");
    check(trap.dr6 == 0xFFFF0FF0, "DR6 is not written");
    inject(EVENT_SOFTWARE | VECTOR, 0, 2);
    expect_delivery(VECTOR, 0, 2, RFLAGS_FIXED, "software interrupt");
    inject(EVENT_SOFTWARE | VECTOR, 0, 3);
    expect_delivery(VECTOR, 0, 3, RFLAGS_FIXED, "software interrupt of another length");
    inject(EVENT_INT1 | VECTOR_DB, 0, 1);
    expect_delivery(VECTOR_DB, 0, 1, RFLAGS_FIXED, "privileged software exception (INT1)");
    inject(EVENT_INT3 | VECTOR_BP, 0, 1);
    expect_delivery(VECTOR_BP, 0, 1, RFLAGS_FIXED, "software exception (INT3)");
    inject(EVENT_INT3 | VECTOR_OF, 0, 1);
    expect_delivery(VECTOR_OF, 0, 1, RFLAGS_FIXED, "software exception (INTO)");

    trap.taken = false;
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0);
    check(vm_run(guest_start) == EXIT_VMCALL && !trap.taken, "nothing is injected twice");
}

static void test_guest_flags(void)
{
    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_INTERRUPT | VECTOR);
    vmcs_write(VMCS_GUEST_RIP, (uint64_t)guest_start);
    vmcs_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_CF | RFLAGS_RF);
    trap_resume_rip = (uint64_t)guest_start + 4;
    vm_resume();
    expect_delivery(VECTOR, 0, 0, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_CF | RFLAGS_RF, "RFLAGS is pushed as in the field");

    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_INTERRUPT | VECTOR);
    vmcs_write(VMCS_GUEST_RIP, (uint64_t)guest_start);
    vmcs_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_IF);
    vmcs_write(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_HLT);
    trap_resume_rip = (uint64_t)guest_start + 4;
    if (rdmsr(MSR_IA32_VMX_MISC) & 1 << 6) {
        vm_resume();
        expect_delivery(VECTOR, 0, 0, RFLAGS_FIXED | RFLAGS_IF, "into a guest in HLT");
        check_field(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_ACTIVE, "which is active then");
    }
    vmcs_write(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_ACTIVE);

    /* Its gate: software interrupts need DPL >= CPL, others do not; both need the gate to be present. */
    idt_gate(VECTOR)->type &= (uint8_t)~GATE_PRESENT;
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_NP);
    inject(EVENT_INTERRUPT | VECTOR, 0, 0);
    check_exit_at(EXIT_EXCEPTION_OR_NMI, guest_start, "a gate not present");
    check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_NP,
                "interruption information: #NP");
    check_field(VMCS_EXIT_INTERRUPTION_ERROR_CODE, VECTOR * 8 + 3, "error code: the gate, EXT");
    check_field(VMCS_IDT_VECTORING_INFO, EVENT_INTERRUPT | VECTOR, "IDT-vectoring information: the injected event");
    inject(EVENT_SOFTWARE | VECTOR, 0, 2);
    check_exit_at(EXIT_EXCEPTION_OR_NMI, guest_start, "the same for a software interrupt; RIP without the length");
    check_field(VMCS_EXIT_INTERRUPTION_ERROR_CODE, VECTOR * 8 + 2, "error code: the gate, no EXT");
    check_field(VMCS_IDT_VECTORING_INFO, EVENT_SOFTWARE | VECTOR, "IDT-vectoring information");
    check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 2, "instruction length: the injected one");
    inject(EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_GP, CR_ERROR, 0);
    idt_gate(VECTOR)->type |= GATE_PRESENT;
    expect_delivery(VECTOR_GP, CR_ERROR, 0, RFLAGS_FIXED, "another vector is not disturbed");
}

static void test_refused(void)
{
    static const struct {
        uint32_t info, error_code, length;
        const char *what;
    } bad[] = {
        {EVENT_VALID | 1 << 8 | VECTOR, 0, 0, "type 1, reserved"},
        {EVENT_NMI | 3, 0, 0, "an NMI of vector 3"},
        {EVENT_EXCEPTION | 32, 0, 0, "an exception of vector 32"},
        {EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_GP | 1 << 12, 0, 0, "reserved bit 12"},
        {EVENT_INTERRUPT | EVENT_ERROR_CODE | VECTOR, 0, 0, "an error code of an interrupt"},
        {EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_GP, 1 << 31, 0, "bit 31 of the error code"},
        {EVENT_SOFTWARE | VECTOR, 0, 16, "an instruction length of 16"},
        {EVENT_OTHER | 1, 0, 0, "type 7 of vector 1"},
    };
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0);
    vmcs_write(VMCS_GUEST_RIP, (uint64_t)guest_start);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, bad[i].info);
        vmcs_write(VMCS_ENTRY_EXCEPTION_ERROR_CODE, bad[i].error_code);
        vmcs_write(VMCS_ENTRY_INSTRUCTION_LENGTH, bad[i].length);
        bool refused = vm_enter() == VMX_FAIL_VALID;
        check(refused && vmcs_read(VMCS_VM_INSTRUCTION_ERROR) == VM_ERROR_ENTRY_INVALID_CONTROL, "refused: %s",
              bad[i].what);
    }
    bool length_0_allowed = rdmsr(MSR_IA32_VMX_MISC) & 1 << 30;
    trap.taken = false;
    trap_resume_rip = (uint64_t)guest_start + 4;
    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_SOFTWARE | VECTOR);
    vmcs_write(VMCS_ENTRY_INSTRUCTION_LENGTH, 0);
    bool entered = vm_enter() == VMX_SUCCEED;
    check(entered == length_0_allowed, "a length of 0 is allowed as IA32_VMX_MISC[30] says");

    vmcs_write(VMCS_GUEST_RIP, (uint64_t)guest_start);
    vmcs_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_INTERRUPT | VECTOR);
    vmcs_write(VMCS_GUEST_INTERRUPTIBILITY_STATE, 0);
    check(vm_enter() == VMX_SUCCEED &&
              (uint32_t)vmcs_read(VMCS_EXIT_REASON) == (EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAIL_GUEST_STATE),
          "an external interrupt with RFLAGS.IF 0: entry fails on guest state");
}

int main(void)
{
    vm_begin("vmx-injection", "event injection at VM entry");
    trap_on_vector(VECTOR);
    test_types();
    test_guest_flags();
    test_refused();
    return check_verdict("%u checks", check_count());
}
