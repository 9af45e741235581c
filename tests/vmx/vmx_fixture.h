// A processor in 64-bit mode with VMX, and a guest that VM entry accepts: for the tests of src/vmx.
//
// Memory is mapped one to one by 2-MByte pages. Instructions are given as bytes and run through decoder and run loop, one at a time.
#ifndef VMXON_TESTS_VMX_FIXTURE_H
#define VMXON_TESTS_VMX_FIXTURE_H

#include <check.h>

#include "cpu/cpu.h"
#include "cpu/system.h"
#include "vmx/controls.h"
#include "vmx/vmx.h"

#define FIXTURE_MEMORY  (16u << 20)
#define AT_PAGE_TABLES  0x1000u
#define AT_GDT          0x5000u
#define AT_TSS          0x6000u
#define AT_IDT          0x7000u
#define AT_EPT          0x8000u // four tables
#define AT_HANDLERS     0xD000u // vector v: 16 bytes at AT_HANDLERS + 16 v, all NOPs
#define AT_HOST_CODE    0x10000u
#define AT_HOST_RIP     0x11000u // where VM exits lead
#define AT_GUEST_CODE   0x20000u
#define AT_VMXON        0x30000u
#define AT_VMCS         0x31000u
#define AT_OTHER_VMCS   0x32000u
#define AT_BITMAP_A     0x33000u
#define AT_BITMAP_B     0x34000u
#define AT_MSR_BITMAP   0x35000u
#define AT_MSR_LIST     0x36000u
#define AT_VIRTUAL_APIC 0x37000u
#define AT_OPERAND      0x38000u // memory operands
#define AT_HOST_STACK   0x50000u
#define AT_GUEST_STACK  0x60000u
#define NO_RAM          0x80000000u // page-aligned, within MAXPHYADDR, nothing there

enum {
    SELECTOR_CODE = 0x08,
    SELECTOR_DATA = 0x10,
    SELECTOR_TSS = 0x18,
    SELECTOR_USER_CODE = 0x2B,
    SELECTOR_USER_DATA = 0x33
};

enum vmx_outcome { OUTCOME_SUCCEED, OUTCOME_FAIL_INVALID, OUTCOME_FAIL_VALID, OUTCOME_OTHER };

struct fixture {
    struct memory memory;
    struct bus bus;
    struct cpu cpu;
    struct vmx vmx;
    struct vmx_caps caps;
    int acknowledged; // vector that interrupt_acknowledge returns; -1: none
    bool interrupt_line;
};

struct fixture *fixture_create(void);
void fixture_destroy(struct fixture *f);

// Runs one instruction given as bytes at RIP (which must be one of the AT_ code areas). Flags are set to all six first.
enum exec_result fixture_run(struct fixture *f, const uint8_t *bytes, size_t length);
#define RUN(f, ...) fixture_run(f, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
// One step of whatever is at RIP.
enum exec_result fixture_step(struct fixture *f);
// What the six flags say.
enum vmx_outcome fixture_outcome(const struct fixture *f);
// Count of deliveries of a vector so far.
uint64_t fixture_exceptions(const struct fixture *f, enum vector vector);

void fixture_write(struct fixture *f, hpa_t address, uint64_t value, unsigned size);
uint64_t fixture_read(struct fixture *f, hpa_t address, unsigned size);

// The instructions, with operands at AT_OPERAND (RBX).
enum exec_result fixture_vmxon(struct fixture *f, uint64_t address);
enum exec_result fixture_vmclear(struct fixture *f, uint64_t address);
enum exec_result fixture_vmptrld(struct fixture *f, uint64_t address);
enum exec_result fixture_vmlaunch(struct fixture *f);
enum exec_result fixture_vmresume(struct fixture *f);
enum exec_result fixture_vmread(struct fixture *f, uint64_t encoding, uint64_t *value); // VMREAD RAX, RCX
enum exec_result fixture_vmwrite(struct fixture *f, uint64_t encoding, uint64_t value);

// VMXON, a clear current VMCS at AT_VMCS, filled so that VM entry succeeds into 64-bit guest code at AT_GUEST_CODE.
void fixture_prepare_guest(struct fixture *f);
// Enters the guest, and asserts that it runs.
void fixture_enter_guest(struct fixture *f);
// Sets or clears bits of a control field of the current VMCS.
void fixture_set(struct fixture *f, enum vmcs_field field, uint64_t bits);
void fixture_clear(struct fixture *f, enum vmcs_field field, uint64_t bits);
void fixture_enable_secondary(struct fixture *f, uint32_t bits);
void fixture_enable_ept(struct fixture *f); // identity map of the first GByte, 2-MByte pages
uint64_t fixture_get(struct fixture *f, enum vmcs_field field);
void fixture_put(struct fixture *f, enum vmcs_field field, uint64_t value);
// Asserts that the last step was a VM exit with this basic reason.
void fixture_expect_exit(struct fixture *f, enum vmx_exit_reason reason);
void fixture_set_cpl3(struct fixture *f);

#endif
