/*
 * One virtual machine for the guests about VMX: VMX operation, a VMCS of chosen controls around 64-bit guest code that
 * shares the program's address space, IDT and memory, and the way from VM exit to VM exit.
 */
#ifndef GUEST_SUPPORT_VM_H
#define GUEST_SUPPORT_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "vmx.h"
#include "vmx_setup.h"

/* What vmx.h leaves out. SDM 3C "VMX Basic Exit Reasons", "VM-Execution Control Fields". */
enum {
    EXIT_INTERRUPT_WINDOW = 7,
    EXIT_NMI_WINDOW = 8,
    EXIT_TASK_SWITCH = 9,
    EXIT_ENTRY_FAIL_MSR_LOAD = 34,
    EXIT_MONITOR_TRAP_FLAG = 37,
    EXIT_GDTR_IDTR = 46,
    EXIT_LDTR_TR = 47,
    EXIT_PAUSE = 40,
    EXIT_RDTSCP = 51,
    EXIT_WBINVD = 54,
    EXIT_XSETBV = 55,

    SECONDARY_DESCRIPTOR_TABLE_EXITING = 1 << 2,
    SECONDARY_WBINVD_EXITING = 1 << 6,
    EXIT_ACK_INTERRUPT = 1 << 15,
    EXIT_SAVE_PREEMPTION_TIMER = 1 << 22,
    EXIT_SAVE_IA32_PAT = 1 << 18,
    EXIT_LOAD_IA32_PAT = 1 << 19,
    ENTRY_LOAD_IA32_PAT = 1 << 14,
};
#define PRIMARY_INTERRUPT_WINDOW  (UINT32_C(1) << 2)
#define PRIMARY_TSC_OFFSETTING    (UINT32_C(1) << 3)
#define PRIMARY_CR8_LOAD_EXITING  (UINT32_C(1) << 19)
#define PRIMARY_CR8_STORE_EXITING (UINT32_C(1) << 20)
#define PRIMARY_NMI_WINDOW        (UINT32_C(1) << 22)
#define PRIMARY_MONITOR_TRAP_FLAG (UINT32_C(1) << 27)
#define PRIMARY_PAUSE_EXITING     (UINT32_C(1) << 30)

/* 31 valid | 12 NMI unblocking due to IRET | 11 error code | 10:8 type | 7:0 vector */
#define EVENT_VALID       (UINT32_C(1) << 31)
#define EVENT_NMI_UNBLOCK (UINT32_C(1) << 12)
#define EVENT_ERROR_CODE  (UINT32_C(1) << 11)
#define EVENT_INTERRUPT   (UINT32_C(0) << 8 | EVENT_VALID)
#define EVENT_NMI         (UINT32_C(2) << 8 | EVENT_VALID)
#define EVENT_EXCEPTION   (UINT32_C(3) << 8 | EVENT_VALID)
#define EVENT_SOFTWARE    (UINT32_C(4) << 8 | EVENT_VALID)
#define EVENT_INT1        (UINT32_C(5) << 8 | EVENT_VALID)
#define EVENT_INT3        (UINT32_C(6) << 8 | EVENT_VALID)
#define EVENT_OTHER       (UINT32_C(7) << 8 | EVENT_VALID)

enum interruptibility {
    BLOCKING_BY_STI = 1 << 0,
    BLOCKING_BY_MOV_SS = 1 << 1,
    BLOCKING_BY_NMI = 1 << 3,
};

enum activity {
    ACTIVITY_ACTIVE,
    ACTIVITY_HLT,
    ACTIVITY_SHUTDOWN,
    ACTIVITY_WAIT_FOR_SIPI,
};

/* Added to the controls that the processor demands, and to those every guest here has: 64-bit host and guest. */
struct vm_controls {
    uint32_t pin, primary, secondary, exit, entry;
};

/* General registers at the last exit, and for the next entry. */
extern struct guest_registers vm_registers;
extern uint8_t vm_stack[8192]; /* the guest's */

/* Says who speaks, installs trap.h's handlers, enters VMX operation; ends the run where there is no VMX. */
void vm_begin(const char *name, const char *title);

/* Makes the virtual machine anew. Its guest is in 64-bit mode, with interrupts off. */
void vm_create(struct vm_controls controls);

/* Writes the five control fields again, without changing anything else. */
void vm_set_controls(struct vm_controls controls);

/* Enters with RIP at `code`, an empty stack, RFLAGS 2, active, nothing blocked; returns the exit reason. */
uint32_t vm_run(const void *code);
uint32_t vm_run_with(const void *code, uint64_t rflags); /* the same with other RFLAGS */

/* Enters where the guest stopped. A VMfail ends the run with a report. */
uint32_t vm_resume(void);

/* The entry as it comes. */
enum vmx_result vm_enter(void);

/* RIP := the instruction after the one that caused the exit; and back to the guest. */
uint32_t vm_skip(void);

/* Statements about the last exit. */
void check_exit(uint32_t reason, const char *what);
void check_exit_at(uint32_t reason, const void *rip, const char *what);
void check_field(enum vmcs_field field, uint64_t expected, const char *what);

/* True if the processor allows these controls; else prints a note that `what` is left out. */
bool vm_allows(enum control_field field, uint32_t controls, const char *what);

/*
 * Extended page tables: the first 4 GiB as they are, the first 8 MiB of it in 4-KiB pages.
 * vm_ept_entry(): the entry of a page of those 8 MiB.
 */
#define EPT_ALL UINT64_C(0x37) /* read, write, execute, write-back */
uint64_t vm_eptp(void);
volatile uint64_t *vm_ept_entry(const volatile void *address);

#endif
