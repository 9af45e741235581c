/*
 * I/O and MSR bitmaps: which bit stands for what, at the boundaries. SDM 3C "I/O-Bitmap Addresses", "MSR-Bitmap
 * Address", "Instructions That Cause VM Exits Conditionally"; the exit qualification of I/O instructions.
 */
#include "check.h"
#include "cpu.h"
#include "io.h"
#include "string.h"
#include "trap.h"
#include "vm.h"

enum {
    PAGE_BYTES = 4096,
    QUALIFICATION_IN = 1 << 3,
    QUALIFICATION_STRING = 1 << 4,
    QUALIFICATION_REP = 1 << 5,
    QUALIFICATION_IMMEDIATE = 1 << 6,
};

static uint8_t io_bitmaps[2][PAGE_BYTES] __attribute__((aligned(4096))); /* A: ports to 7FFF; B: from 8000 */
static uint8_t msr_bitmap[4][1024] __attribute__((aligned(4096))); /* read low, read high, write low, write high */
static uint8_t data[64];

/* The guest: one instruction and a VMCALL each. Ports written are unused ones. */
#define SNIPPET(name, code)      \
    extern const uint8_t name[]; \
    __asm__(#name ": " code "; vmcall")
SNIPPET(guest_out8, "out %al, %dx");
SNIPPET(guest_out16, "out %ax, %dx");
SNIPPET(guest_out32, "out %eax, %dx");
SNIPPET(guest_in8, "in %dx, %al");
SNIPPET(guest_in32, "in %dx, %eax");
SNIPPET(guest_out_immediate, "out %al, $0x80");
SNIPPET(guest_outs, "rep outsb");
SNIPPET(guest_ins, "insw");
SNIPPET(guest_outs_32, "addr32 outsl");
SNIPPET(guest_rdmsr, "rdmsr");
SNIPPET(guest_wrmsr, "wrmsr");

static void set_bit(uint8_t *bitmap, unsigned bit) { bitmap[bit / 8] |= (uint8_t)(1 << bit % 8); }

static void set_port(unsigned port) { set_bit(io_bitmaps[port >> 15], port & 0x7FFF); }

/* Whether the instruction exits by itself, or goes on to the VMCALL. */
static bool exits(const uint8_t *code, uint32_t reason, uint64_t rdx, uint64_t rcx)
{
    vm_registers.rax = 0;
    vm_registers.rdx = rdx;
    vm_registers.rcx = rcx;
    uint32_t seen = vm_run(code);
    check_quietly(seen == reason || seen == EXIT_VMCALL, "exit reason %u", seen);
    return seen == reason;
}

static bool io_exits(const uint8_t *code, unsigned port) { return exits(code, EXIT_IO_INSTRUCTION, port, 1); }

static void test_io(void)
{
    vm_create((struct vm_controls){.primary = PRIMARY_USE_IO_BITMAPS | PRIMARY_UNCONDITIONAL_IO_EXITING});
    vmcs_write(VMCS_IO_BITMAP_A, (uint64_t)io_bitmaps[0]);
    vmcs_write(VMCS_IO_BITMAP_B, (uint64_t)io_bitmaps[1]);
    memset(io_bitmaps, 0, sizeof io_bitmaps);
    check(!io_exits(guest_out8, 0x80), "clear bitmaps: no exit, though the unconditional control is 1");

    set_port(0x1234);
    check(io_exits(guest_out8, 0x1234), "bitmap A, port 1234: exit");
    check_field(VMCS_EXIT_QUALIFICATION, 0x12340000, "qualification: OUT, 1 byte, DX");
    check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 1, "instruction length");
    check_exit_at(EXIT_IO_INSTRUCTION, guest_out8, "RIP is at the OUT");
    check(!io_exits(guest_out8, 0x1233) && !io_exits(guest_out8, 0x1235), "its neighbours: none");
    check(io_exits(guest_out16, 0x1233), "a word from 1233 touches it: exit");
    check(io_exits(guest_out32, 0x1231), "a dword from 1231 touches it: exit");
    check_field(VMCS_EXIT_QUALIFICATION, 0x12310003, "qualification: 4 bytes");
    check(!io_exits(guest_out32, 0x1230) && !io_exits(guest_out32, 0x1235), "dwords beside it: none");
    check(io_exits(guest_in8, 0x1234), "IN too");
    check_field(VMCS_EXIT_QUALIFICATION, 0x12340000 | QUALIFICATION_IN, "qualification: IN");

    set_port(0x7FFF);
    check(io_exits(guest_out8, 0x7FFF) && !io_exits(guest_out8, 0x8000), "port 7FFF is the last of bitmap A");
    check(io_exits(guest_out16, 0x7FFF), "a word from 7FFF, bitmap A's bit: exit");
    memset(io_bitmaps, 0, sizeof io_bitmaps);
    set_port(0x8000);
    check(io_exits(guest_out8, 0x8000) && !io_exits(guest_out8, 0x7FFF), "port 8000 is the first of bitmap B");
    check(io_exits(guest_out16, 0x7FFF), "a word from 7FFF, bitmap B's bit: exit");
    memset(io_bitmaps, 0, sizeof io_bitmaps);
    set_port(0xFFFF);
    check(io_exits(guest_out8, 0xFFFF) && !io_exits(guest_out8, 0xFFFE), "port FFFF is the last of bitmap B");
    memset(io_bitmaps, 0, sizeof io_bitmaps);
    check(!io_exits(guest_in8, 0xFFFF), "port FFFF, bit clear: none");
    check(io_exits(guest_out16, 0xFFFF), "a word from FFFF wraps around: exit");
    check(io_exits(guest_in32, 0xFFFD), "a dword from FFFD wraps around: exit");

    set_port(0x80);
    check(io_exits(guest_out_immediate, 0), "immediate port: exit");
    check_field(VMCS_EXIT_QUALIFICATION, 0x800000 | QUALIFICATION_IMMEDIATE, "qualification: immediate operand");
    check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 2, "instruction length");

    vm_registers.rsi = (uint64_t)data;
    vm_registers.rdi = (uint64_t)data;
    check(exits(guest_outs, EXIT_IO_INSTRUCTION, 0x80, 5), "REP OUTSB: exit before the first iteration");
    check_field(VMCS_EXIT_QUALIFICATION, 0x800000 | QUALIFICATION_STRING | QUALIFICATION_REP,
                "qualification: string, REP");
    check_field(VMCS_GUEST_LINEAR_ADDRESS, (uint64_t)data, "guest linear address: the data");
    check(vm_registers.rcx == 5 && vm_registers.rsi == (uint64_t)data, "RCX and RSI are unchanged");
    check(exits(guest_ins, EXIT_IO_INSTRUCTION, 0x80, 5), "INSW: exit");
    check_field(VMCS_EXIT_QUALIFICATION, 0x800001 | QUALIFICATION_STRING | QUALIFICATION_IN,
                "qualification: string, IN");
    check_field(VMCS_GUEST_LINEAR_ADDRESS, (uint64_t)data, "guest linear address: the data");
    if (rdmsr(MSR_IA32_VMX_BASIC) & UINT64_C(1) << 54) {
        /* 17:15 segment | 9:7 address size: 0 16-bit, 1 32-bit, 2 64-bit */
        check((vmcs_read(VMCS_EXIT_INSTRUCTION_INFO) >> 7 & 7) == 2, "instruction information: 64-bit address");
        check(exits(guest_outs_32, EXIT_IO_INSTRUCTION, 0x80, 5), "OUTSD with 32-bit addresses: exit");
        check((vmcs_read(VMCS_EXIT_INSTRUCTION_INFO) >> 7 & 7) == 1, "instruction information: 32-bit address");
        check((vmcs_read(VMCS_EXIT_INSTRUCTION_INFO) >> 15 & 7) == 3, "instruction information: segment DS");
    }

    vm_set_controls((struct vm_controls){.primary = PRIMARY_UNCONDITIONAL_IO_EXITING});
    check(io_exits(guest_in8, 0x61), "without bitmaps the unconditional control counts: exit");
    vm_set_controls((struct vm_controls){0});
    check(!io_exits(guest_in8, 0x61), "without either: none");
}

static bool rdmsr_exits(uint32_t msr) { return exits(guest_rdmsr, EXIT_RDMSR, 0, msr); }
static bool wrmsr_exits(uint32_t msr) { return exits(guest_wrmsr, EXIT_WRMSR, 0, msr); }

static void test_msrs(void)
{
    enum { READ_LOW, READ_HIGH, WRITE_LOW, WRITE_HIGH };
    vm_create((struct vm_controls){.primary = PRIMARY_USE_MSR_BITMAPS});
    vmcs_write(VMCS_MSR_BITMAP, (uint64_t)msr_bitmap);
    check(!rdmsr_exits(MSR_IA32_SYSENTER_ESP) && !wrmsr_exits(MSR_IA32_SYSENTER_ESP),
          "clear bitmap, a low MSR: no exit");
    check(!rdmsr_exits(MSR_IA32_EFER) && !wrmsr_exits(MSR_IA32_GS_BASE), "clear bitmap, a high MSR: no exit");

    set_bit(msr_bitmap[READ_LOW], MSR_IA32_SYSENTER_ESP);
    check(rdmsr_exits(MSR_IA32_SYSENTER_ESP) && !wrmsr_exits(MSR_IA32_SYSENTER_ESP), "read-low bit: RDMSR only");
    check(!rdmsr_exits(MSR_IA32_SYSENTER_EIP) && !rdmsr_exits(MSR_IA32_SYSENTER_CS), "its neighbours: none");
    check(rdmsr_exits(MSR_IA32_SYSENTER_ESP), "again");
    check_exit_at(EXIT_RDMSR, guest_rdmsr, "RIP is at the RDMSR");
    check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 2, "instruction length");
    check_field(VMCS_EXIT_QUALIFICATION, 0, "qualification");
    set_bit(msr_bitmap[WRITE_LOW], MSR_IA32_SYSENTER_EIP);
    check(!rdmsr_exits(MSR_IA32_SYSENTER_EIP) && wrmsr_exits(MSR_IA32_SYSENTER_EIP), "write-low bit: WRMSR only");
    set_bit(msr_bitmap[READ_HIGH], MSR_IA32_EFER & 0x1FFF);
    check(rdmsr_exits(MSR_IA32_EFER), "read-high bit: RDMSR");
    set_bit(msr_bitmap[WRITE_HIGH], MSR_IA32_GS_BASE & 0x1FFF);
    check(!rdmsr_exits(MSR_IA32_GS_BASE) && wrmsr_exits(MSR_IA32_GS_BASE), "write-high bit: WRMSR only");
    check(rdmsr_exits(0x2000) && rdmsr_exits(0xBFFFFFFF) && rdmsr_exits(0xC0002000) && rdmsr_exits(0x40000000),
          "MSRs outside the bitmap's ranges: exit");
    set_bit(msr_bitmap[READ_LOW], 0x1FFF);
    check(rdmsr_exits(0x1FFF), "the last of the low range: exit, though there is no such MSR");
    set_bit(msr_bitmap[READ_HIGH], 0x1FFF);
    check(rdmsr_exits(0xC0001FFF), "the last of the high range");
    set_bit(msr_bitmap[READ_HIGH], 0);
    check(rdmsr_exits(0xC0000000), "the first of the high range");

    vm_set_controls((struct vm_controls){0});
    check(rdmsr_exits(MSR_IA32_SYSENTER_CS) && wrmsr_exits(MSR_IA32_SYSENTER_CS), "without bitmaps: always an exit");
    check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 2, "instruction length");
}

int main(void)
{
    vm_begin("vmx-bitmaps", "I/O and MSR bitmaps");
    test_io();
    test_msrs();
    return check_verdict("%u checks", check_count());
}
