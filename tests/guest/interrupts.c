/*
 * Interrupts: the 8259s with the 8254's and the RTC's lines, the local APIC's timer, self-IPIs, priorities, NMIs, x2APIC
 * mode, the I/O APIC, HLT and blocking by STI. SDM 3A "Advanced Programmable Interrupt Controller"; data sheets of the
 * 8259A, 8254, MC146818 and 82093AA.
 */
#include "apic.h"
#include "check.h"
#include "cpu.h"
#include "emulator.h"
#include "io.h"
#include "trap.h"

enum {
    PIC_BASE = 0x40, /* 8 vectors of the master, then 8 of the slave */
    PIC_MASTER = 0x20,
    PIC_MASTER_DATA = 0x21,
    PIC_SLAVE = 0xA0,
    PIC_SLAVE_DATA = 0xA1,
    PIC_EOI = 0x20,
    PIC_READ_IRR = 0x0A,
    PIC_READ_ISR = 0x0B,
    PIT_CHANNEL_0 = 0x40,
    PIT_COMMAND = 0x43,
    RTC_INDEX = 0x70,
    RTC_DATA = 0x71,
    VECTOR = 0x61,
    VECTOR_HIGH = 0x91,
    VECTOR_TIMER = 0x71,
    IOAPIC_PIT_PIN = 2,
    IOAPIC_RTC_PIN = 8,
    MSR_APIC_BASE = 0x1B,
    APIC_BASE_X2 = 1 << 10,
    MSR_TSC_DEADLINE = 0x6E0,
    MSR_X2APIC = 0x800,
};

static volatile unsigned counts[256];
static volatile uint8_t order[16];
static volatile unsigned order_count;
static volatile uint64_t last_rip;

static void note_interrupt(struct interrupt_frame *frame)
{
    counts[frame->vector]++;
    last_rip = frame->rip;
    if (order_count < sizeof order) {
        order[order_count++] = (uint8_t)frame->vector;
    }
}

static void on_pic(struct interrupt_frame *frame)
{
    note_interrupt(frame);
    if (frame->vector >= PIC_BASE + 8) {
        outb(PIC_SLAVE, PIC_EOI);
    }
    outb(PIC_MASTER, PIC_EOI);
}

static void on_apic(struct interrupt_frame *frame)
{
    note_interrupt(frame);
    apic_eoi();
}

static void on_x2apic(struct interrupt_frame *frame)
{
    note_interrupt(frame);
    wrmsr(MSR_X2APIC + (APIC_EOI >> 4), 0);
}

static void allow(void) { __asm__ volatile("sti; nop; nop; cli" : : : "memory"); }

/* Sleeps until an interrupt was handled. */
static void sleep(void) { __asm__ volatile("sti; hlt; cli" : : : "memory"); }

static void init_pics(void)
{
    outb(PIC_MASTER, 0x11);
    outb(PIC_SLAVE, 0x11);
    outb(PIC_MASTER_DATA, PIC_BASE);
    outb(PIC_SLAVE_DATA, PIC_BASE + 8);
    outb(PIC_MASTER_DATA, 4);
    outb(PIC_SLAVE_DATA, 2);
    outb(PIC_MASTER_DATA, 1);
    outb(PIC_SLAVE_DATA, 1);
    outb(PIC_MASTER_DATA, 0xFF);
    outb(PIC_SLAVE_DATA, 0xFF);
    for (unsigned i = 0; i < 16; i++) {
        idt_set_handler(PIC_BASE + i, on_pic);
    }
}

static void start_pit(unsigned mode, uint16_t count)
{
    outb(PIT_COMMAND, (uint8_t)(0x30 | mode << 1));
    outb(PIT_CHANNEL_0, (uint8_t)count);
    outb(PIT_CHANNEL_0, (uint8_t)(count >> 8));
}

static uint8_t read_pic(uint16_t port, uint8_t which)
{
    outb(port, which);
    return inb(port);
}

static void wait_for_irr(void)
{
    for (unsigned i = 0; i < 1000000 && !(read_pic(PIC_MASTER, PIC_READ_IRR) & 1); i++) {
    }
}

static void test_pic(void)
{
    apic_write(APIC_LVT_LINT0, APIC_LVT_EXTINT); /* virtual wire: the 8259s by LINT0 */
    start_pit(2, 1193);
    outb(PIC_MASTER_DATA, 0xFE);
    for (unsigned i = 0; i < 3; i++) {
        sleep();
    }
    check(counts[PIC_BASE] == 3, "PIT mode 2 by the 8259: 3 interrupts in 3 HLTs: %u", counts[PIC_BASE]);
    start_pit(3, 1193);
    sleep();
    sleep();
    check(counts[PIC_BASE] == 5, "mode 3");

    outb(PIC_MASTER_DATA, 0xFF);
    allow();
    start_pit(0, 100); /* its output stays high */
    wait_for_irr();
    unsigned before = counts[PIC_BASE];
    allow();
    check(counts[PIC_BASE] == before, "masked: requested, not delivered");
    check(read_pic(PIC_MASTER, PIC_READ_IRR) & 1, "IRR tells");
    outb(PIC_MASTER_DATA, 0xFE);
    allow();
    check(counts[PIC_BASE] == before + 1, "unmasked: delivered");
    check(!(read_pic(PIC_MASTER, PIC_READ_ISR) & 1), "after EOI ISR is clear");

    start_pit(2, 1193);
    idt_set_handler(PIC_BASE, note_interrupt); /* without EOI */
    sleep();
    before = counts[PIC_BASE];
    check(read_pic(PIC_MASTER, PIC_READ_ISR) & 1, "without EOI ISR is set");
    wait_for_irr();
    allow();
    check(counts[PIC_BASE] == before, "and no further interrupt comes");
    idt_set_handler(PIC_BASE, on_pic);
    outb(PIC_MASTER, PIC_EOI);
    sleep();
    check(counts[PIC_BASE] == before + 1, "until EOI");
    start_pit(0, 100); /* one-shot, and then silence */
    sleep();
    before = counts[PIC_BASE];
    for (volatile unsigned i = 0; i < 1000; i++) {
    }
    allow();
    check(counts[PIC_BASE] <= before + 1, "PIT mode 0: once");
    outb(PIC_MASTER_DATA, 0xFF);
}

static void write_rtc(uint8_t index, uint8_t value)
{
    outb(RTC_INDEX, index);
    outb(RTC_DATA, value);
}

static uint8_t read_rtc(uint8_t index)
{
    outb(RTC_INDEX, index);
    return inb(RTC_DATA);
}

static void test_rtc(void)
{
    write_rtc(0x0A, 0x26); /* 32768 Hz >> 5 = 1024 Hz */
    write_rtc(0x0B, (uint8_t)(read_rtc(0x0B) | 0x40));
    (void)read_rtc(0x0C);
    outb(PIC_MASTER_DATA, 0xFB);
    outb(PIC_SLAVE_DATA, 0xFE);
    sleep();
    check(counts[PIC_BASE + 8] == 1, "RTC periodic interrupt by the slave");
    check((read_rtc(0x0C) & 0xC0) == 0xC0, "register C tells, and is cleared by reading");
    sleep();
    check(counts[PIC_BASE + 8] == 2, "the next comes after that");
    (void)read_rtc(0x0C);
    outb(PIC_MASTER_DATA, 0xFF);
    outb(PIC_SLAVE_DATA, 0xFF);
}

static void test_blocking(void)
{
    apic_self_ipi(VECTOR);
    extern const uint8_t after_sti[];
    __asm__ volatile("sti; nop\n.globl after_sti\nafter_sti: nop; cli" : : : "memory");
    check(counts[VECTOR] == 1 && last_rip == (uint64_t)after_sti, "STI: the interrupt comes one instruction later");
    apic_self_ipi(VECTOR);
    __asm__ volatile("sti; cli" : : : "memory");
    check(counts[VECTOR] == 1, "STI; CLI: none comes");
    extern const uint8_t after_mov_ss[];
    __asm__ volatile("mov %%ss, %%eax; pushfq; orq $0x200, (%%rsp); sti; mov %%eax, %%ss; nop\n"
                     ".globl after_mov_ss\nafter_mov_ss: nop; cli; add $8, %%rsp"
                     :
                     :
                     : "rax", "memory", "cc");
    check(counts[VECTOR] == 2 && last_rip == (uint64_t)after_mov_ss, "MOV SS holds it back once more");
    apic_self_ipi(VECTOR);
    __asm__ volatile("pushfq; pushfq; orq $0x200, (%%rsp); popfq; nop; popfq" : : : "memory", "cc");
    check(counts[VECTOR] == 3, "POPF that sets IF");
}

static void test_priority(const struct multiboot_info *information)
{
    order_count = 0;
    apic_self_ipi(VECTOR);
    apic_self_ipi(VECTOR_HIGH);
    check(apic_bit(APIC_IRR, VECTOR) && apic_bit(APIC_IRR, VECTOR_HIGH), "two self-IPIs are requested");
    allow();
    check(order_count == 2 && order[0] == VECTOR_HIGH && order[1] == VECTOR, "the higher vector comes first");

    apic_write(APIC_TPR, VECTOR & 0xF0);
    unsigned before = counts[VECTOR];
    apic_self_ipi(VECTOR);
    allow();
    check(counts[VECTOR] == before, "TPR of its class holds it back");
    check(apic_read(APIC_PPR) == (VECTOR & 0xF0), "PPR tells");
    uint64_t cr8;
    __asm__ volatile("mov %%cr8, %0" : "=r"(cr8));
    check(cr8 == VECTOR >> 4, "CR8 is TPR[7:4]");
    apic_self_ipi(VECTOR_HIGH);
    unsigned high = counts[VECTOR_HIGH];
    allow();
    check(counts[VECTOR_HIGH] == high + 1, "a higher class comes through");
    __asm__ volatile("sti; mov %0, %%cr8; nop; nop; cli" : : "r"(UINT64_C(0)) : "memory");
    check(counts[VECTOR] == before + 1 && apic_read(APIC_TPR) == 0, "CR8 := 0 lets it in");

    idt_set_handler(VECTOR_HIGH, note_interrupt); /* stays in service */
    apic_self_ipi(VECTOR_HIGH);
    allow();
    before = counts[VECTOR];
    apic_self_ipi(VECTOR);
    allow();
    check(counts[VECTOR] == before && apic_bit(APIC_ISR, VECTOR_HIGH), "one in service holds lower ones back");
    apic_eoi();
    allow();
    check(counts[VECTOR] == before + 1, "until EOI");
    idt_set_handler(VECTOR_HIGH, on_apic);

    apic_self_ipi(5);
    check(apic_read(APIC_IRR) == 0, "a self-IPI of vector 5 is not accepted");
    apic_write(APIC_ERROR, 0);
    if (!bochs_lacks(information, "the error status of an illegal vector")) {
        check(apic_read(APIC_ERROR) & 0x20, "error status: send illegal vector");
    }
    apic_write(APIC_ERROR, 0);
}

static void test_apic_timer(const struct multiboot_info *information)
{
    apic_write(APIC_TIMER_DIVIDE, 0xB); /* 1 */
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    apic_write(APIC_TIMER_INITIAL, 50000);
    uint32_t first = apic_read(APIC_TIMER_CURRENT), second = apic_read(APIC_TIMER_CURRENT);
    check(first <= 50000 && second <= first && second > 0, "one-shot: it counts down");
    sleep();
    check(counts[VECTOR_TIMER] == 1, "one interrupt");
    check(apic_read(APIC_TIMER_CURRENT) == 0, "then it stays at 0");
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | APIC_LVT_PERIODIC);
    apic_write(APIC_TIMER_INITIAL, 50000);
    for (unsigned i = 0; i < 3; i++) {
        sleep();
    }
    check(counts[VECTOR_TIMER] == 4, "periodic: again and again");
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | APIC_LVT_PERIODIC | APIC_LVT_MASKED);
    for (volatile unsigned i = 0; i < 20000; i++) {
    }
    allow();
    unsigned before = counts[VECTOR_TIMER];
    check(before <= 5, "masked: none");
    apic_write(APIC_TIMER_INITIAL, 0);

    if (!(cpuid(1, 0).ecx & 1 << 24)) {
        note("left out: TSC-deadline mode");
        return;
    }
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | APIC_LVT_TSC_DEADLINE);
    __asm__ volatile("mfence");
    before = counts[VECTOR_TIMER];
    uint64_t deadline = rdtsc() + 100000;
    wrmsr(MSR_TSC_DEADLINE, deadline);
    check(rdmsr(MSR_TSC_DEADLINE) == deadline, "TSC deadline: armed");
    sleep();
    check(counts[VECTOR_TIMER] == before + 1 && rdtsc() >= deadline, "the interrupt comes not before it");
    if (!bochs_lacks(information, "the deadline that is 0 after its interrupt")) {
        check(rdmsr(MSR_TSC_DEADLINE) == 0, "and disarms it");
    }
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 1000000000);
    wrmsr(MSR_TSC_DEADLINE, 0);
    wrmsr(MSR_TSC_DEADLINE, 1);
    allow();
    check(counts[VECTOR_TIMER] == before + 2, "a deadline in the past: at once");
    apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED);
}

static void test_nmi(void)
{
    idt_set_handler(VECTOR_NMI, note_interrupt);
    apic_self_nmi();
    for (volatile unsigned i = 0; i < 100; i++) {
    }
    check(counts[VECTOR_NMI] == 1, "an NMI comes with interrupts off");
    trap_on_vector(VECTOR_NMI);
}

static volatile uint32_t *const ioapic = (volatile uint32_t *)UINT64_C(0xFEC00000);

static void write_redirection(unsigned pin, uint64_t entry)
{
    ioapic[0] = 0x10 + 2 * pin;
    ioapic[4] = (uint32_t)entry;
    ioapic[0] = 0x11 + 2 * pin;
    ioapic[4] = (uint32_t)(entry >> 32);
}

static void test_ioapic(void)
{
    apic_write(APIC_LVT_LINT0, APIC_LVT_MASKED);
    ioapic[0] = 1;
    check((ioapic[4] >> 16 & 0xFF) == 23, "the I/O APIC has 24 pins");
    uint64_t destination = (uint64_t)(apic_read(APIC_ID) >> 24) << 56;
    unsigned before = counts[VECTOR];
    write_redirection(IOAPIC_PIT_PIN, destination | VECTOR);
    start_pit(2, 1193);
    sleep();
    sleep();
    check(counts[VECTOR] == before + 2, "PIT by the I/O APIC, edge-triggered: %u", counts[VECTOR] - before);
    write_redirection(IOAPIC_PIT_PIN, destination | APIC_LVT_MASKED | VECTOR);
    start_pit(0, 0);
    allow();
    before = counts[VECTOR_HIGH];
    write_redirection(IOAPIC_RTC_PIN, destination | VECTOR_HIGH);
    (void)read_rtc(0x0C);
    sleep();
    (void)read_rtc(0x0C);
    sleep();
    check(counts[VECTOR_HIGH] == before + 2, "RTC by the I/O APIC: %u", counts[VECTOR_HIGH] - before);
    write_redirection(IOAPIC_RTC_PIN, APIC_LVT_MASKED);
    write_rtc(0x0B, (uint8_t)(read_rtc(0x0B) & ~0x40));
    (void)read_rtc(0x0C);
}

static void test_x2apic(void)
{
    if (!(cpuid(1, 0).ecx & 1 << 21)) {
        note("left out: x2APIC mode");
        return;
    }
    TRY("rdmsr", : : "c"(MSR_X2APIC + 2) : "rax", "rdx");
    check_trap(VECTOR_GP, 0, 0, "RDMSR of an x2APIC register in xAPIC mode: #GP(0)");
    uint32_t id = apic_read(APIC_ID) >> 24;
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2);
    check(rdmsr(MSR_X2APIC + 2) == id, "x2APIC mode: the ID");
    idt_set_handler(VECTOR, on_x2apic);
    unsigned before = counts[VECTOR];
    wrmsr(MSR_X2APIC + 0x3F, VECTOR);
    allow();
    check(counts[VECTOR] == before + 1, "the self-IPI register");
    wrmsr(MSR_X2APIC + 0x30, (uint64_t)id << 32 | ICR_ASSERT | VECTOR);
    allow();
    check(counts[VECTOR] == before + 2, "ICR in one write");
    TRY("wrmsr", : : "c"(MSR_X2APIC + 0xB), "a"(1), "d"(0));
    check_trap(VECTOR_GP, 0, 0, "EOI of a value not 0: #GP(0)");
    TRY("wrmsr", : : "c"(MSR_X2APIC + 2), "a"(0), "d"(0));
    check_trap(VECTOR_GP, 0, 0, "writing the ID: #GP(0)");
    TRY("rdmsr", : : "c"(MSR_X2APIC + 0x31) : "rax", "rdx");
    check_trap(VECTOR_GP, 0, 0, "the register of ICR's high half: #GP(0)");
    uint64_t base = rdmsr(MSR_APIC_BASE);
    TRY("wrmsr", : : "c"(MSR_APIC_BASE), "a"((uint32_t)base & ~APIC_BASE_X2), "d"(0));
    check_trap(VECTOR_GP, 0, 0, "from x2APIC back to xAPIC mode: #GP(0)");
}

int main(const struct multiboot_info *information)
{
    check_begin("interrupts", "interrupt controllers and timers");
    trap_init();
    init_pics();
    apic_enable();
    idt_set_handler(VECTOR, on_apic);
    idt_set_handler(VECTOR_HIGH, on_apic);
    idt_set_handler(VECTOR_TIMER, on_apic);
    test_pic();
    test_rtc();
    test_blocking();
    test_priority(information);
    test_apic_timer(information);
    test_nmi();
    test_ioapic();
    test_x2apic();
    return check_verdict("%u checks", check_count());
}
