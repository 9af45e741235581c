/* See guest.h. SDM 3A "4-Level Paging". */
#include "guest.h"

#include "check.h"
#include "vmx.h"
#include "vmx_setup.h"

enum {
    ENTRIES = 512,
    PTE_PRESENT = 1 << 0,
    PTE_WRITABLE = 1 << 1,
    PDE_2M_PAGE = 1 << 7,
    IDENTITY_GIB = 2,
    STACK_BYTES = 4096,
};

typedef uint64_t paging_table[ENTRIES];

static paging_table pml4 __attribute__((aligned(4096)));
static paging_table pdpt_identity __attribute__((aligned(4096)));
static paging_table pd_identity[IDENTITY_GIB] __attribute__((aligned(4096)));
static paging_table pdpt_window __attribute__((aligned(4096)));
static paging_table pd_window __attribute__((aligned(4096)));
static paging_table pt_window __attribute__((aligned(4096)));
static paging_table pt_walk __attribute__((aligned(4096)));
static uint8_t stack[STACK_BYTES] __attribute__((aligned(16)));

static struct guest_registers registers;

extern const uint8_t guest_start[];

/* The tables lie in memory that EPT maps one to one: their host address is their guest-physical address. */
static uint64_t entry_for(uint64_t gpa) { return gpa | PTE_PRESENT | PTE_WRITABLE; }

void guest_build_page_tables(void)
{
    pml4[0] = entry_for((uint64_t)pdpt_identity);
    for (unsigned gib = 0; gib < IDENTITY_GIB; gib++) {
        pdpt_identity[gib] = entry_for((uint64_t)pd_identity[gib]);
        for (unsigned i = 0; i < ENTRIES; i++) {
            pd_identity[gib][i] = entry_for((uint64_t)(gib * ENTRIES + i) << 21) | PDE_2M_PAGE;
        }
    }

    pml4[WINDOW_GVA >> 39] = entry_for((uint64_t)pdpt_window);
    pdpt_window[0] = entry_for((uint64_t)pd_window);
    pd_window[0] = entry_for((uint64_t)pt_window);
    pd_window[1] = entry_for(WALK_TABLE_GPA);
    for (unsigned i = 0; i < ENTRIES; i++) {
        pt_window[i] = pt_walk[i] = entry_for(WINDOW_GPA + i * 4096);
    }
}

uint64_t *guest_walk_table(void) { return pt_walk; }

uint64_t *guest_window_entry(unsigned page) { return &pt_window[page]; }

static void enter(enum vmx_entry_instruction instruction)
{
    require_quietly(vmx_enter(&registers, instruction) == VMX_SUCCEED, "the VM entry succeeds");
}

/* The guest must have asked for the next operation. */
static void require_question(void)
{
    uint32_t reason = (uint32_t)vmcs_read(VMCS_EXIT_REASON);
    require_quietly(reason == EXIT_VMCALL, "the guest completes the access; exit reason 0x%x, qualification 0x%lx",
                    reason, vmcs_read(VMCS_EXIT_QUALIFICATION));
}

void guest_launch(void)
{
    vmx_write_guest_state_64((uint64_t)guest_start, (uint64_t)(stack + sizeof stack));
    vmcs_write(VMCS_GUEST_CR3, (uint64_t)pml4);
    enter(VMX_VMLAUNCH);
    require_question();
}

void guest_begin(unsigned operation, uint64_t gva, uint64_t value)
{
    registers.rdi = operation;
    registers.rsi = gva;
    registers.rdx = value;
    vmcs_write(VMCS_GUEST_RIP, vmcs_read(VMCS_GUEST_RIP) + vmcs_read(VMCS_EXIT_INSTRUCTION_LENGTH)); /* after VMCALL */
    enter(VMX_VMRESUME);
}

uint64_t guest_end(void)
{
    enter(VMX_VMRESUME);
    require_question();
    return registers.rax;
}

uint64_t guest_do(unsigned operation, uint64_t gva, uint64_t value)
{
    guest_begin(operation, gva, value);
    require_question();
    return registers.rax;
}
