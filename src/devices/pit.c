// The 8254: counting in closed form, and its registers (data sheet 231164).
//
// A channel remembers when its counting element was loaded; count, OUT and the
// next change of OUT follow by arithmetic. A count written is loaded on the
// next tick. DEVIATION(pit_count_1): a count of 1, illegal in modes 2 and 3,
// acts as 2 there. A digit above 9 in a BCD count keeps its weight.
#include "devices/pit.h"

#include "devices/port_bytes.h"

#include <string.h>

enum { CONTROL_CHANNEL_READ_BACK = 3 };
enum { ACCESS_LATCH = 0, ACCESS_LOW = 1, ACCESS_HIGH = 2, ACCESS_BOTH = 3 };
enum { READ_BACK_NO_COUNT = 0x20, READ_BACK_NO_STATUS = 0x10 };
enum { STATUS_OUT = 0x80, STATUS_NULL_COUNT = 0x40 };
enum {
    PORT_B_GATE2 = 0x01,
    PORT_B_WRITABLE = 0x0f, // gate 2, speaker data, and the enables of parity and channel check
    PORT_B_REFRESH = 0x10,
    PORT_B_OUT2 = 0x20
};
enum { REFRESH_TICKS = 18 }; // a refresh every 15.09 microseconds
#define TICK_NEVER INT64_MAX

static uint32_t count_modulus(const struct pit_channel *ch) { return ch->bcd ? 10000 : 65536; }

static uint32_t count_from_bytes(const struct pit_channel *ch, uint16_t raw)
{
    uint32_t count = raw;
    if (ch->bcd)
        count = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u + (raw & 15);
    if (count == 0)
        count = count_modulus(ch);
    if (count == 1 && (ch->mode == 2 || ch->mode == 3))
        count = 2;
    return count;
}

static uint16_t bytes_from_count(const struct pit_channel *ch, uint32_t count)
{
    if (!ch->bcd)
        return (uint16_t)count;
    count %= 10000;
    return (uint16_t)(count / 1000 << 12 | count / 100 % 10 << 8 | count / 10 % 10 << 4 | count % 10);
}

static uint32_t high_ticks(uint32_t period) // of a square wave
{
    return (period + 1) / 2;
}

static int64_t elapsed_at(const struct pit_channel *ch, int64_t tick)
{
    return ch->paused ? ch->held : tick - ch->start;
}

static uint32_t square_wave_count(uint32_t period, uint32_t phase)
{
    uint32_t high = high_ticks(period);
    uint32_t in_half = phase < high ? phase : phase - high;
    return (period & ~1u) - 2 * in_half;
}

// The counting element as a guest reads it.
static uint16_t count_at(const struct pit_channel *ch, int64_t tick)
{
    int64_t elapsed = elapsed_at(ch, tick);
    if (!ch->counting || elapsed < 0)
        return ch->idle_count;
    uint32_t phase = (uint32_t)(elapsed % ch->period);
    uint32_t modulus = count_modulus(ch);
    switch (ch->mode) {
    case 2: return bytes_from_count(ch, ch->period - phase);
    case 3: return bytes_from_count(ch, square_wave_count(ch->period, phase));
    default: // the others run on through zero
        return bytes_from_count(ch, (ch->period + modulus - (uint32_t)(elapsed % modulus)) % modulus);
    }
}

static bool out_at(const struct pit_channel *ch, int64_t tick)
{
    int64_t elapsed = elapsed_at(ch, tick);
    if (!ch->counting || elapsed < 0)
        return ch->out_before;
    uint32_t phase = (uint32_t)(elapsed % ch->period);
    switch (ch->mode) {
    case 0:
    case 1: return elapsed >= ch->period;
    case 2: return ch->paused || phase != ch->period - 1;
    case 3: return ch->paused || phase < high_ticks(ch->period);
    default: return elapsed != ch->period;
    }
}

// First tick after `tick` at which OUT changes; needs a channel synchronised to `tick`.
static int64_t next_change(const struct pit_channel *ch, int64_t tick)
{
    if (!ch->counting || ch->paused)
        return TICK_NEVER;
    int64_t elapsed = tick - ch->start, period = ch->period;
    int64_t phase = elapsed < 0 ? elapsed : elapsed % period;
    int64_t high = high_ticks(ch->period);
    switch (ch->mode) {
    case 0: return elapsed < period ? ch->start + period : TICK_NEVER;
    case 1:
        if (elapsed < 0 && ch->out_before)
            return ch->start;
        return elapsed < period ? ch->start + period : TICK_NEVER;
    case 2: return phase < period - 1 ? tick + (period - 1 - phase) : tick + 1;
    case 3: return phase < high ? tick + (high - phase) : tick + (period - phase);
    default:
        if (elapsed < period)
            return ch->start + period;
        return elapsed == period ? tick + 1 : TICK_NEVER;
    }
}

// A count written during modes 2 and 3 takes over at the end of the (half) cycle.
static void apply_reload(struct pit_channel *ch, int64_t tick)
{
    if (!ch->reload_pending || tick < ch->reload_at)
        return;
    bool starts_low = ch->mode == 3 && (ch->reload_at - ch->start) % ch->period != 0;
    ch->period = ch->count_register;
    ch->start = ch->reload_at - (starts_low ? (int64_t)high_ticks(ch->period) : 0);
    ch->reload_pending = false;
}

static void report(struct pit *pit, bool level)
{
    if (pit->irq_level == level)
        return;
    pit->irq_level = level;
    pit->env.set_irq(pit->env.user, level);
}

static void advance_to_tick(struct pit *pit, int64_t tick)
{
    if (tick <= pit->tick)
        return;
    bool changed = next_change(&pit->channel[0], pit->tick) <= tick;
    for (unsigned i = 0; i < PIT_CHANNELS; i++)
        apply_reload(&pit->channel[i], tick);
    pit->tick = tick;
    bool level = out_at(&pit->channel[0], tick);
    if (changed && level == pit->irq_level)
        report(pit, !level); // at least one whole pulse passed: show its edges
    report(pit, level);
}

void pit_advance(struct pit *pit, cycle_t now)
{
    uint64_t ticks = timebase_ticks(now, pit->cycle_hz, PIT_HZ);
    advance_to_tick(pit, ticks > INT64_MAX / 2 ? INT64_MAX / 2 : (int64_t)ticks);
}

cycle_t pit_next_event(const struct pit *pit)
{
    int64_t tick = next_change(&pit->channel[0], pit->tick);
    return tick == TICK_NEVER ? CYCLE_NEVER : timebase_cycle((uint64_t)tick, pit->cycle_hz, PIT_HZ);
}

bool pit_out(const struct pit *pit, unsigned channel) { return out_at(&pit->channel[channel], pit->tick); }

// Loads the counting element on the next tick.
static void start_counting(struct pit_channel *ch, int64_t tick)
{
    uint16_t shown = count_at(ch, tick);
    bool out = out_at(ch, tick);
    ch->idle_count = shown;
    ch->out_before = ch->mode == 0 ? false : ch->mode == 1 ? out : true;
    ch->period = ch->count_register;
    ch->start = tick + 1;
    ch->loaded_at = tick + 1;
    ch->counting = true;
    ch->reload_pending = false;
    ch->paused = false;
    if (!ch->gate && ch->mode != 1 && ch->mode != 5) {
        ch->paused = true;
        ch->held = 0;
    }
}

static void reload_later(struct pit_channel *ch, int64_t tick)
{
    int64_t elapsed = elapsed_at(ch, tick);
    if (ch->paused || elapsed < 0) {
        ch->period = ch->count_register;
        ch->held = 0;
        return;
    }
    int64_t phase = elapsed % ch->period, high = high_ticks(ch->period);
    int64_t end = ch->mode == 3 && phase < high ? high : ch->period;
    ch->reload_pending = true;
    ch->reload_at = ch->loaded_at = tick + end - phase;
}

static void count_written(struct pit_channel *ch, int64_t tick, uint16_t raw)
{
    ch->count_register = count_from_bytes(ch, raw);
    ch->armed = true;
    if (ch->mode == 1 || ch->mode == 5)
        ch->loaded_at = TICK_NEVER; // waits for a trigger
    else if ((ch->mode == 2 || ch->mode == 3) && ch->counting)
        reload_later(ch, tick);
    else
        start_counting(ch, tick);
}

static void write_count(struct pit_channel *ch, int64_t tick, uint8_t value)
{
    if (ch->access == ACCESS_LOW) {
        count_written(ch, tick, value);
    } else if (ch->access == ACCESS_HIGH) {
        count_written(ch, tick, (uint16_t)(value << 8));
    } else if (!ch->write_high_next) {
        ch->low_byte = value;
        ch->write_high_next = true;
        if (ch->mode == 0) { // the first byte stops the count and drops OUT
            ch->idle_count = count_at(ch, tick);
            ch->counting = ch->out_before = false;
        }
    } else {
        ch->write_high_next = false;
        count_written(ch, tick, (uint16_t)(value << 8 | ch->low_byte));
    }
}

static void set_gate(struct pit_channel *ch, int64_t tick, bool gate)
{
    bool rising = gate && !ch->gate;
    bool falling = !gate && ch->gate;
    ch->gate = gate;
    if (!ch->armed)
        return;
    if (ch->mode == 1 || ch->mode == 5) {
        if (rising)
            start_counting(ch, tick);
        return;
    }
    if (falling && ch->counting && !ch->paused) {
        int64_t elapsed = elapsed_at(ch, tick);
        ch->held = elapsed < 0 ? 0 : elapsed;
        ch->paused = true;
    } else if (rising && ch->paused) {
        if (ch->mode == 2 || ch->mode == 3) {
            start_counting(ch, tick);
        } else {
            ch->start = tick - ch->held;
            ch->paused = false;
        }
    }
}

static void latch_count(struct pit_channel *ch, int64_t tick)
{
    if (ch->count_latched)
        return;
    ch->latched_count = count_at(ch, tick);
    ch->count_latched = true;
}

static void latch_status(struct pit_channel *ch, int64_t tick)
{
    if (ch->status_latched)
        return;
    unsigned status = ch->bcd | (unsigned)ch->mode << 1 | (unsigned)ch->access << 4;
    status |= out_at(ch, tick) ? STATUS_OUT : 0;
    status |= tick < ch->loaded_at ? STATUS_NULL_COUNT : 0;
    ch->latched_status = (uint8_t)status;
    ch->status_latched = true;
}

static void read_back(struct pit *pit, uint8_t value)
{
    for (unsigned i = 0; i < PIT_CHANNELS; i++) {
        if (!(value & 2u << i))
            continue;
        if (!(value & READ_BACK_NO_COUNT))
            latch_count(&pit->channel[i], pit->tick);
        if (!(value & READ_BACK_NO_STATUS))
            latch_status(&pit->channel[i], pit->tick);
    }
}

static void program_channel(struct pit_channel *ch, int64_t tick, uint8_t value)
{
    uint8_t mode = value >> 1 & 7;
    struct pit_channel fresh = {
        .mode = mode > 5 ? (uint8_t)(mode - 4) : mode,
        .access = value >> 4 & 3,
        .bcd = value & 1,
        .gate = ch->gate,
        .idle_count = count_at(ch, tick),
        .loaded_at = TICK_NEVER,
    };
    fresh.out_before = fresh.mode != 0;
    *ch = fresh;
}

static void write_control(struct pit *pit, uint8_t value)
{
    unsigned channel = value >> 6;
    if (channel == CONTROL_CHANNEL_READ_BACK)
        read_back(pit, value);
    else if ((value >> 4 & 3) == ACCESS_LATCH)
        latch_count(&pit->channel[channel], pit->tick);
    else
        program_channel(&pit->channel[channel], pit->tick, value);
}

static uint8_t read_count(struct pit_channel *ch, int64_t tick)
{
    if (ch->status_latched) {
        ch->status_latched = false;
        return ch->latched_status;
    }
    uint16_t count = ch->count_latched ? ch->latched_count : count_at(ch, tick);
    bool high = ch->access == ACCESS_HIGH || (ch->access == ACCESS_BOTH && ch->read_high_next);
    bool last = ch->access != ACCESS_BOTH || ch->read_high_next;
    ch->read_high_next = !last;
    if (last)
        ch->count_latched = false;
    return (uint8_t)(high ? count >> 8 : count);
}

static void advance_to_now(struct pit *pit) { pit_advance(pit, pit->env.now(pit->env.user)); }

static uint8_t timer_byte_read(void *device, unsigned offset)
{
    struct pit *pit = device;
    advance_to_now(pit);
    return offset < PIT_CHANNELS ? read_count(&pit->channel[offset], pit->tick) : 0xff;
}

static void timer_byte_write(void *device, unsigned offset, uint8_t value)
{
    struct pit *pit = device;
    advance_to_now(pit);
    if (offset < PIT_CHANNELS)
        write_count(&pit->channel[offset], pit->tick, value);
    else
        write_control(pit, value);
    report(pit, out_at(&pit->channel[0], pit->tick));
}

static uint64_t timer_read(void *device, uint64_t offset, unsigned size)
{
    return port_bytes_read(timer_byte_read, device, offset, size);
}

static void timer_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    port_bytes_write(timer_byte_write, device, offset, size, value);
}

static uint64_t port_b_read(void *device, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    struct pit *pit = device;
    advance_to_now(pit);
    unsigned value = pit->port_b;
    value |= pit->tick / REFRESH_TICKS & 1 ? PORT_B_REFRESH : 0;
    value |= pit_out(pit, 2) ? PORT_B_OUT2 : 0;
    return value;
}

static void port_b_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size;
    struct pit *pit = device;
    advance_to_now(pit);
    pit->port_b = value & PORT_B_WRITABLE;
    set_gate(&pit->channel[2], pit->tick, value & PORT_B_GATE2);
}

void pit_reset(struct pit *pit)
{
    for (unsigned i = 0; i < PIT_CHANNELS; i++)
        pit->channel[i] =
            (struct pit_channel){.access = ACCESS_BOTH, .gate = i != 2, .period = 65536, .loaded_at = TICK_NEVER};
    pit->port_b = 0;
    report(pit, false);
}

void pit_init(struct pit *pit, uint64_t cycle_hz, const struct pit_env *env)
{
    memset(pit, 0, sizeof *pit);
    pit->cycle_hz = cycle_hz;
    pit->env = *env;
    pit_reset(pit);
}

void pit_attach(struct pit *pit, struct bus *bus)
{
    struct bus_region timer = {PIT_PORT, 4, timer_read, timer_write, pit, "pit"};
    struct bus_region port_b = {PIT_SYSTEM_PORT_B, 1, port_b_read, port_b_write, pit, "port-61"};
    bus_register_port(bus, &timer);
    bus_register_port(bus, &port_b);
}
