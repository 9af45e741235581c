// The board: which device is wired where, as on a PC.
//
// IRQs: 0 PIT, 1 keyboard, 4 COM1, 8 RTC. The 8259A pair drives LINT0 of the
// bootstrap processor; every ISA IRQ also drives the I/O APIC (IRQ 0 at pin 2).
// DEVIATION(a20): the A20 gate is kept as a state bit, but addresses are not
// masked by it.
#include <string.h>

#include "cpu/system.h"
#include "devices/apic_route.h"
#include "machine/machine.h"

enum { IRQ_PIT = 0, IRQ_KEYBOARD = 1, IRQ_COM1 = 4, IRQ_RTC = 8 };

static struct processor *bootstrap(struct machine *machine) { return machine->processor[0]; }

static cycle_t now(void *user) { return machine_now(user); }

static void set_irq(struct machine *machine, unsigned irq, bool level)
{
    pic_set_irq(&machine->pic, irq, level);
    ioapic_set_pin(&machine->ioapic, irq == IRQ_PIT ? 2 : irq, level);
}
static void set_irq_pit(void *user, bool level) { set_irq(user, IRQ_PIT, level); }
static void set_irq_keyboard(void *user, bool level) { set_irq(user, IRQ_KEYBOARD, level); }
static void set_irq_com1(void *user, bool level) { set_irq(user, IRQ_COM1, level); }
static void set_irq_rtc(void *user, bool level) { set_irq(user, IRQ_RTC, level); }

static void set_nmi_mask(void *user, bool masked)
{
    (void)user, (void)masked; // no device raises an NMI outside the APICs
}

static void set_a20(void *user, bool enabled) { ((struct machine *)user)->a20_enabled = enabled; }

static void serial_write(void *user, const uint8_t *bytes, size_t n)
{
    struct machine *machine = user;
    if (machine->serial_output)
        machine->serial_output(machine->user, bytes, n);
}

static void request_exit(void *user, uint32_t status) { machine_end(user, VMXON_END_GUEST_EXIT, status, "debug exit"); }
static void request_power_off(void *user) { machine_end(user, VMXON_END_POWER_OFF, 0, "power off"); }
static void request_reset(void *user) { machine_end(user, VMXON_END_RESET, 0, "the guest asked for a reset"); }

static void pic_output(void *user, bool level) { lapic_set_lint(&bootstrap(user)->lapic, 0, level); }

// --- local APICs

static bool route(struct machine *machine, const struct lapic *sender, const struct apic_message *message)
{
    struct lapic *apics[VMXON_MAX_CPUS];
    for (unsigned i = 0; i < machine->processor_count; i++)
        apics[i] = &machine->processor[i]->lapic;
    return apic_route(apics, machine->processor_count, sender, message);
}

static bool ioapic_deliver(void *user, const struct apic_message *message) { return route(user, NULL, message); }

static void apic_send(void *user, const struct apic_message *message)
{
    struct processor *processor = user;
    route(processor->machine, &processor->lapic, message);
}

static cycle_t apic_now(void *user) { return machine_now(((struct processor *)user)->machine); }

static cycle_t apic_tsc_to_cycle(void *user, uint64_t tsc)
{
    const struct cpu *cpu = &((struct processor *)user)->cpu;
    return tsc - (uint64_t)cpu->tsc_offset > INT64_MAX ? 0 : tsc - (uint64_t)cpu->tsc_offset;
}

static void apic_eoi(void *user, uint8_t vector) { ioapic_eoi(&((struct processor *)user)->machine->ioapic, vector); }

static void apic_event(void *user, enum lapic_event event, uint8_t vector)
{
    struct processor *processor = user;
    switch (event) {
    case LAPIC_EVENT_NMI: processor->cpu.pending |= PENDING_NMI; break;
    case LAPIC_EVENT_SMI: break; // DEVIATION(smm): there is no SMM; an SMI is lost
    case LAPIC_EVENT_INIT: processor->cpu.pending |= PENDING_INIT; break;
    case LAPIC_EVENT_STARTUP:
        processor->cpu.pending |= PENDING_SIPI;
        processor->cpu.sipi_vector = vector;
        break;
    }
}

static void apic_changed(void *user) { interrupt_recheck(&((struct processor *)user)->cpu); }

static uint64_t apic_mmio_read(void *device, uint64_t offset, unsigned size)
{
    return lapic_mmio_read(device, offset, size);
}
static void apic_mmio_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    lapic_mmio_write(device, offset, size, value);
}

// The register page lies where IA32_APIC_BASE of the running processor says. DEVIATION(apic_over_ram): RAM there hides it.
static void show_apic(struct machine *machine)
{
    struct lapic *apic = &machine->processor[machine->running]->lapic;
    bus_set_window(&machine->bus, &(struct bus_region){.start = lapic_base(apic),
                                                       .size = lapic_mode(apic) == LAPIC_XAPIC ? LAPIC_MMIO_SIZE : 0,
                                                       .read = apic_mmio_read,
                                                       .write = apic_mmio_write,
                                                       .device = apic,
                                                       .name = "local APIC"});
}

static void apic_base_changed(void *user, hpa_t base, enum lapic_mode mode)
{
    (void)base, (void)mode;
    struct processor *processor = user;
    if (processor == processor->machine->processor[processor->machine->running])
        show_apic(processor->machine);
}

void board_select(struct machine *machine, unsigned index)
{
    if (machine->running == index)
        return;
    machine->running = index;
    show_apic(machine);
}

// --- what the processor asks its surroundings

static bool env_apic_rdmsr(void *owner, uint32_t index, uint64_t *value)
{
    return lapic_msr_read(&((struct processor *)owner)->lapic, index, value) == LAPIC_OK;
}

static void env_rescheduled(void *owner);

static bool env_apic_wrmsr(void *owner, uint32_t index, uint64_t value)
{
    bool ok = lapic_msr_write(&((struct processor *)owner)->lapic, index, value) == LAPIC_OK;
    env_rescheduled(owner);
    return ok;
}

static uint8_t env_apic_get_tpr(void *owner) { return lapic_tpr(&((struct processor *)owner)->lapic); }
static void env_apic_set_tpr(void *owner, uint8_t tpr) { lapic_set_tpr(&((struct processor *)owner)->lapic, tpr); }

static bool env_interrupt_pending(void *owner)
{
    struct processor *processor = owner;
    return lapic_extint_pending(&processor->lapic) || lapic_pending_vector(&processor->lapic) >= 0;
}

static int env_interrupt_acknowledge(void *owner)
{
    struct processor *processor = owner;
    if (lapic_extint_pending(&processor->lapic)) {
        int vector = pic_acknowledge(&processor->machine->pic);
        lapic_acknowledge_extint(&processor->lapic);
        return vector;
    }
    if (lapic_pending_vector(&processor->lapic) < 0)
        return -1;
    return lapic_acknowledge(&processor->lapic);
}

// An access to a device may have moved the next event closer: the running processor must not run past it.
static void env_rescheduled(void *owner)
{
    struct processor *processor = owner;
    struct cpu *cpu = &processor->cpu;
    cycle_t next = board_next_event(processor->machine);
    if (next < processor->machine->turn_end)
        processor->machine->turn_end = next;
    if (next < cpu->deadline) {
        cpu->cycles_left -= (int64_t)(cpu->deadline - next);
        cpu->deadline = next;
    }
}

// INIT was taken. The bootstrap processor would go on in firmware, which this machine does not have.
static void env_init_taken(void *owner)
{
    struct processor *processor = owner;
    lapic_init_signal(&processor->lapic);
    if (processor->lapic.config.bootstrap)
        machine_end(processor->machine, VMXON_END_RESET, 0, "INIT on the bootstrap processor");
}

static enum exec_result env_reference(struct cpu *cpu, const struct insn *in)
{
    struct processor *processor = cpu->env.owner;
    return reference_execute(processor->machine->reference, cpu, in);
}

static void processor_attach(struct machine *machine, struct processor *processor, unsigned index)
{
    processor->cpu.env = (struct cpu_env){
        .owner = processor,
        .apic_rdmsr = env_apic_rdmsr,
        .apic_wrmsr = env_apic_wrmsr,
        .apic_get_tpr = env_apic_get_tpr,
        .apic_set_tpr = env_apic_set_tpr,
        .interrupt_acknowledge = env_interrupt_acknowledge,
        .interrupt_pending = env_interrupt_pending,
        .init_taken = env_init_taken,
        .reference = env_reference,
        .rescheduled = env_rescheduled,
    };
    const struct lapic_config config = {
        .id = index,
        .bootstrap = index == 0,
        .x2apic = true,
        .tsc_deadline = true,
        .maxphyaddr = machine->profile->maxphyaddr,
        .cycle_hz = machine->cycle_hz,
        .timer_hz = machine->profile->crystal_hz,
    };
    const struct lapic_env env = {
        .user = processor,
        .now = apic_now,
        .tsc_to_cycle = apic_tsc_to_cycle,
        .send = apic_send,
        .eoi = apic_eoi,
        .event = apic_event,
        .changed = apic_changed,
        .base_changed = apic_base_changed,
    };
    lapic_init(&processor->lapic, &config, &env);
    if (index == 0)
        lapic_enter_virtual_wire(&processor->lapic);
}

void board_init(struct machine *machine, const struct vmxon_config *config)
{
    struct bus *bus = &machine->bus;
    machine->a20_enabled = true;
    for (unsigned i = 0; i < machine->processor_count; i++)
        processor_attach(machine, machine->processor[i], i);
    ioapic_init(&machine->ioapic, &(struct ioapic_env){machine, ioapic_deliver});
    ioapic_attach(&machine->ioapic, bus);
    pic_init(&machine->pic, &(struct pic_env){machine, pic_output});
    pic_attach(&machine->pic, bus);
    pit_init(&machine->pit, machine->cycle_hz, &(struct pit_env){machine, now, set_irq_pit});
    pit_attach(&machine->pit, bus);
    const struct rtc_config rtc_config = {.epoch_seconds = config->rtc_seconds,
                                          .cycle_hz = machine->cycle_hz,
                                          .memory_low = machine->memory.low_size,
                                          .memory_high = machine->memory.high_size,
                                          .cpus = machine->processor_count};
    rtc_init(&machine->rtc, &rtc_config, &(struct rtc_env){machine, now, set_irq_rtc, set_nmi_mask});
    rtc_attach(&machine->rtc, bus);
    uart_init(&machine->com1, &(struct uart_env){machine, serial_write, set_irq_com1});
    uart_attach(&machine->com1, bus, UART_COM1_PORT);
    debug_exit_init(&machine->debug_exit, &(struct debug_exit_env){machine, request_exit});
    debug_exit_attach(&machine->debug_exit, bus);
    i8042_init(&machine->i8042, &(struct i8042_env){machine, set_irq_keyboard, set_a20, request_reset});
    i8042_attach(&machine->i8042, bus);
    acpi_pm_init(&machine->acpi_pm, machine->cycle_hz, &(struct acpi_pm_env){machine, now, request_power_off});
    acpi_pm_attach(&machine->acpi_pm, bus);
}

cycle_t board_next_event(const struct machine *machine)
{
    cycle_t next = pit_next_event(&machine->pit);
    cycle_t rtc = rtc_next_event(&machine->rtc);
    if (rtc < next)
        next = rtc;
    for (unsigned i = 0; i < machine->processor_count; i++) {
        cycle_t apic = lapic_next_event(&machine->processor[i]->lapic);
        if (apic < next)
            next = apic;
    }
    return next;
}

void board_advance(struct machine *machine, cycle_t now)
{
    if (pit_next_event(&machine->pit) <= now)
        pit_advance(&machine->pit, now);
    if (rtc_next_event(&machine->rtc) <= now)
        rtc_advance(&machine->rtc, now);
    for (unsigned i = 0; i < machine->processor_count; i++) {
        struct processor *processor = machine->processor[i];
        if (lapic_next_event(&processor->lapic) <= now)
            lapic_advance(&processor->lapic, now);
    }
}

// A redirection entry of the I/O APIC or an LVT entry: not masked, and an NMI or INIT.
static bool signals(uint64_t entry)
{
    enum { ENTRY_MODE_SHIFT = 8, ENTRY_MASKED = 1 << 16 };
    unsigned mode = (unsigned)(entry >> ENTRY_MODE_SHIFT & 7);
    return !(entry & ENTRY_MASKED) && (mode == APIC_NMI || mode == APIC_INIT);
}

bool board_may_signal(const struct machine *machine)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if (signals(machine->ioapic.redirection[pin]))
            return true;
    }
    return signals(machine->processor[0]->lapic.lvt[LAPIC_LVT_LINT0]); // the input of the 8259A
}
