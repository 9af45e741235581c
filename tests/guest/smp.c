/*
 * Several processors: start by INIT and SIPI, locked operations, IPIs and NMIs between them, INIT of a running processor,
 * INIT blocked in VMX operation, the page of the local APIC moved and switched off on one processor.
 * SDM 3A "Multiple-Processor Initialization", "Local APIC", SDM 3C "Restrictions on VMX Operation" (INIT).
 * Passes with one processor too, with little to check: tests/machine/run-smp gives it more.
 */
#include <stddef.h>

#include "apic.h"
#include "boot.h"
#include "check.h"
#include "cpu.h"
#include "idt.h"
#include "string.h"
#include "vmx.h"
#include "vmx_setup.h"

enum {
    PROCESSORS_MAX = 8,
    STACK_SIZE = 8192,
    TRAMPOLINE = 0x70000,
    ROUNDS = 1000,
    VECTOR_WORK = 0x60,
    VECTOR_REPLY = 0x61,
    MSR_IA32_APIC_BASE = 0x1B,
    APIC_MOVED = 0xFEF00000,
    ICR_INIT = 5 << 8,
    ICR_STARTUP = 6 << 8,
    ICR_ALL_BUT_SELF = 3 << 18,
    APIC_RESET_SPURIOUS = 0xFF,
};
#define APIC_BASE_ENABLE ((uint64_t)1 << 11)
#define CPUID_1_EDX_APIC (1u << 9)

/* What a processor is asked to do when an IPI wakes it. */
enum work { WORK_NONE, WORK_COUNT, WORK_VMX, WORK_MOVE_APIC, WORK_DISABLE_APIC };

struct processor {
    volatile uint32_t starts, work, done, nmis, spurious_at_start, value[4];
};
static struct processor processors[PROCESSORS_MAX];
static volatile uint32_t started, total, replies, vmx_may_end;
static uint8_t stacks[PROCESSORS_MAX][STACK_SIZE] __attribute__((aligned(16)));
static struct vmx_region vmxon_regions[PROCESSORS_MAX];

/* Copied to a page below 1 MiB. Takes CR3, GDTR and IDTR from the end of the page, and its stack by its APIC ID. */
extern const uint8_t trampoline[], trampoline_end[];
__asm__(".pushsection .text\n"
        ".code16\n"
        "trampoline:\n"
        "    cli\n"
        "    mov %cs, %ax\n"
        "    mov %ax, %ds\n"
        "    lgdtl 0xF10\n"
        "    mov %cr4, %eax; or $0x20, %eax; mov %eax, %cr4\n"
        "    mov 0xF00, %eax; mov %eax, %cr3\n"
        "    mov $0xC0000080, %ecx; rdmsr; or $0x100, %eax; wrmsr\n"
        "    mov %cr0, %eax; and $0x9FFFFFFF, %eax; or $0x80000001, %eax; mov %eax, %cr0\n"
        "    ljmpl $8, $(0x70000 + 1f - trampoline)\n"
        ".code64\n"
        "1:  mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov %eax, %fs; mov %eax, %gs\n"
        "    lidt 0x70F20\n"
        "    mov $0xFEE00020, %eax; mov (%rax), %edi; shr $24, %edi\n"
        "    lea 1(%rdi), %eax; imul 0x70F30, %rax; add 0x70F38, %rax; mov %rax, %rsp\n"
        "    call *0x70F40\n"
        "    ud2\n"
        "trampoline_end:\n"
        ".popsection");

static uint32_t own_id(void) { return apic_read(APIC_ID) >> 24; }

static void add_locked(volatile uint32_t *number, uint32_t value)
{
    __asm__ volatile("lock addl %1, %0" : "+m"(*number) : "r"(value) : "memory");
}

static void pause(void) { __asm__ volatile("pause" : : : "memory"); }

/* Waits, but not for ever. Returns whether it came. */
static bool wait_for(volatile uint32_t *number, uint32_t value)
{
    for (unsigned i = 0; i < 2000000 && *number != value; i++) {
        pause();
    }
    return *number == value;
}

static void spin(unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        pause();
    }
}

static void send(uint32_t id, uint32_t command)
{
    apic_write(APIC_ICR_HIGH, id << 24);
    apic_write(APIC_ICR_LOW, command | ICR_ASSERT);
}

static void count_rounds(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        add_locked(&total, 1);
    }
}

/* Stays in VMX root operation until told, and says when it has left. */
static void stay_in_vmx(struct processor *self, uint32_t id)
{
    vmx_region_init(&vmxon_regions[id]);
    self->value[0] = vmx_enable() && vmxon((uint64_t)&vmxon_regions[id]) == VMX_SUCCEED;
    self->done = WORK_VMX;
    while (!vmx_may_end) {
        add_locked(&self->value[1], 1);
    }
    self->value[2] = 1;
    __asm__ volatile("vmxoff; nop" : : : "cc", "memory");
    self->value[3] = 1; /* only if the INIT that waited was lost */
}

static void move_apic(struct processor *self)
{
    uint64_t base = rdmsr(MSR_IA32_APIC_BASE);
    wrmsr(MSR_IA32_APIC_BASE, (base & ~(uint64_t)0xFFFFFF000) | (uint32_t)APIC_MOVED);
    self->value[0] = *(volatile uint32_t *)((uint64_t)(uint32_t)APIC_MOVED + APIC_ID) >> 24;
    self->value[1] = apic_read(APIC_ID);
    wrmsr(MSR_IA32_APIC_BASE, base);
    self->value[2] = apic_read(APIC_ID) >> 24;
}

static void disable_apic(struct processor *self)
{
    uint64_t base = rdmsr(MSR_IA32_APIC_BASE);
    wrmsr(MSR_IA32_APIC_BASE, base & ~APIC_BASE_ENABLE);
    self->value[0] = apic_read(APIC_ID);
    self->value[1] = cpuid(1, 0).edx & CPUID_1_EDX_APIC;
    wrmsr(MSR_IA32_APIC_BASE, base);
    self->value[2] = apic_read(APIC_SPURIOUS);
    self->value[3] = cpuid(1, 0).edx & CPUID_1_EDX_APIC;
    apic_enable();
}

static void do_work(struct processor *self, uint32_t id)
{
    uint32_t work = self->work;
    self->work = WORK_NONE;
    switch (work) {
    case WORK_COUNT: count_rounds(); break;
    case WORK_VMX: stay_in_vmx(self, id); break;
    case WORK_MOVE_APIC: move_apic(self); break;
    case WORK_DISABLE_APIC: disable_apic(self); break;
    default: return;
    }
    self->done = work;
    send(0, VECTOR_REPLY);
}

__attribute__((noreturn)) static void processor_main(uint32_t id)
{
    struct processor *self = &processors[id];
    self->spurious_at_start = apic_read(APIC_SPURIOUS);
    apic_enable();
    self->starts++;
    add_locked(&started, 1);
    for (;;) {
        __asm__ volatile("sti; hlt; cli" : : : "memory");
        do_work(self, id);
    }
}

static void take_work(struct interrupt_frame *frame)
{
    (void)frame;
    apic_eoi();
}

static void take_reply(struct interrupt_frame *frame)
{
    (void)frame;
    replies++;
    apic_eoi();
}

static void take_nmi(struct interrupt_frame *frame)
{
    (void)frame;
    processors[own_id()].nmis++;
}

static void prepare_trampoline(void)
{
    struct descriptor_table_register gdtr = sgdt(), idtr = sidt();
    uint8_t *page = (uint8_t *)(uint64_t)TRAMPOLINE;
    const uint64_t parameters[] = {STACK_SIZE, (uint64_t)stacks, (uint64_t)processor_main};
    uint64_t cr3 = read_cr3();
    memcpy(page, trampoline, (size_t)(trampoline_end - trampoline));
    memcpy(page + 0xF00, &cr3, sizeof cr3);
    memcpy(page + 0xF10, &gdtr, sizeof gdtr);
    memcpy(page + 0xF20, &idtr, sizeof idtr);
    memcpy(page + 0xF30, parameters, sizeof parameters);
}

static bool ask(uint32_t id, enum work work)
{
    processors[id].done = WORK_NONE;
    processors[id].work = work;
    memset((void *)processors[id].value, 0, sizeof processors[id].value);
    send(id, VECTOR_WORK);
    return wait_for(&processors[id].done, work);
}

static void test_start(uint32_t count)
{
    send(0, ICR_INIT | ICR_ALL_BUT_SELF);
    spin(1000);
    check(started == 0, "INIT alone starts no processor");
    send(0, ICR_STARTUP | ICR_ALL_BUT_SELF | TRAMPOLINE >> 12);
    check(wait_for(&started, count - 1), "SIPI starts %u processors", count - 1);
    send(0, ICR_STARTUP | ICR_ALL_BUT_SELF | TRAMPOLINE >> 12);
    spin(2000);
    check(started == count - 1, "a second SIPI is ignored");
    for (uint32_t id = 1; id < count; id++) {
        check(processors[id].starts == 1, "processor %u runs under its own APIC ID", id);
        check(processors[id].spurious_at_start == APIC_RESET_SPURIOUS, "its APIC is as INIT leaves it");
    }
}

static void test_count(uint32_t count)
{
    __asm__ volatile("sti");
    for (uint32_t id = 1; id < count; id++) {
        processors[id].work = WORK_COUNT;
    }
    apic_write(APIC_ICR_LOW, VECTOR_WORK | ICR_ALL_BUT_SELF | ICR_ASSERT);
    count_rounds();
    check(wait_for(&total, ROUNDS * count), "locked additions of %u processors lose nothing", count);
    for (uint32_t id = 1; id < count; id++) {
        wait_for(&processors[id].done, WORK_COUNT);
    }
    spin(2000);
    __asm__ volatile("cli");
    check(replies >= 1 && replies < count, "they answer by IPIs, of which several may become one interrupt");
}

static void test_nmi(uint32_t id)
{
    send(id, ICR_NMI);
    check(wait_for(&processors[id].nmis, 1), "an NMI reaches a halted processor");
}

static void test_init(uint32_t id)
{
    send(id, ICR_INIT);
    spin(2000);
    processors[id].done = WORK_NONE;
    processors[id].work = WORK_COUNT;
    send(id, VECTOR_WORK);
    spin(20000);
    check(!processors[id].done, "after INIT the processor takes no interrupt");
    uint32_t before = started;
    send(id, ICR_STARTUP | TRAMPOLINE >> 12);
    check(wait_for(&started, before + 1) && processors[id].starts == 2, "SIPI starts it again");
    check(processors[id].spurious_at_start == APIC_RESET_SPURIOUS, "with its APIC reset");
    check(processors[id].work == WORK_COUNT, "and it has not worked meanwhile");
    processors[id].work = WORK_NONE;
}

static void test_init_in_vmx(uint32_t id)
{
    vmx_may_end = 0;
    check(ask(id, WORK_VMX) && processors[id].value[0], "the processor enters VMX operation");
    send(id, ICR_INIT);
    send(id, ICR_STARTUP | TRAMPOLINE >> 12);
    spin(2000);
    uint32_t before = processors[id].value[1], starts = processors[id].starts;
    spin(2000);
    check(processors[id].value[1] != before && processors[id].starts == starts,
          "INIT and SIPI wait while it is in VMX root operation");
    vmx_may_end = 1;
    check(wait_for(&processors[id].value[2], 1), "it goes on");
    spin(2000);
    check(!processors[id].value[3], "after VMXOFF it takes the INIT");
    send(id, ICR_STARTUP | TRAMPOLINE >> 12);
    check(wait_for(&processors[id].starts, starts + 1), "and SIPI starts it again");
}

static void test_apic_page(uint32_t id)
{
    check(ask(id, WORK_MOVE_APIC), "the page of the local APIC moves");
    check(processors[id].value[0] == id && processors[id].value[1] == UINT32_MAX && processors[id].value[2] == id,
          "it answers at its new address only, and then at the old one");
    check(own_id() == 0, "that of another processor stays");
    check(ask(id, WORK_DISABLE_APIC), "the local APIC is switched off and on");
    check(processors[id].value[0] == UINT32_MAX && !processors[id].value[1],
          "off: no page, and CPUID does not report it");
    check(processors[id].value[2] == APIC_RESET_SPURIOUS && processors[id].value[3],
          "on again: registers as after reset");
}

int main(void)
{
    uint32_t count = cpuid(1, 0).ebx >> 16 & 0xFF;
    check_begin("smp", "several processors, INIT and SIPI");
    apic_enable();
    apic_write(APIC_LVT_LINT0, APIC_LVT_MASKED);
    idt_set_handler(VECTOR_WORK, take_work);
    idt_set_handler(VECTOR_REPLY, take_reply);
    idt_set_handler(VECTOR_NMI, take_nmi);
    prepare_trampoline();
    check(own_id() == 0 && count >= 1 && count <= PROCESSORS_MAX, "the first of %u processors", count);
    if (count < 2) {
        note("one processor: nothing to start");
        return check_verdict("%u checks", check_count());
    }
    test_start(count);
    test_count(count);
    test_nmi(count - 1);
    test_init(count - 1);
    if (vmx_is_supported()) {
        test_init_in_vmx(count - 1);
    }
    test_apic_page(count - 1);
    return check_verdict("%u checks", check_count());
}
