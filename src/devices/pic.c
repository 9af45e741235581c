// The 8259A pair: priority resolver, acknowledge cycle and command words.
//
// Intel 8259A data sheet: "Initialization Command Words", "Operation Command
// Words", "End of Interrupt". DEVIATION(pic_cascade): the slave always answers
// for the master's IR2, whatever identity its ICW3 holds.
#include "devices/pic.h"

#include "devices/port_bytes.h"

#include <string.h>

enum { MASTER, SLAVE };
enum { ICW1_IC4 = 0x01, ICW1_SNGL = 0x02, ICW1_LTIM = 0x08, ICW1_SELECT = 0x10 };
enum { ICW4_AEOI = 0x02, ICW4_SFNM = 0x10 };
enum { OCW3_RIS = 0x01, OCW3_RR = 0x02, OCW3_POLL = 0x04, OCW3_SELECT = 0x08, OCW3_SMM = 0x20, OCW3_ESMM = 0x40 };
// OCW2 bits 7:5: R, SL, EOI.
enum {
    OCW2_ROTATE_AEOI_CLEAR = 0,
    OCW2_EOI = 1,
    OCW2_EOI_SPECIFIC = 3,
    OCW2_ROTATE_AEOI_SET = 4,
    OCW2_ROTATE_EOI = 5,
    OCW2_SET_PRIORITY = 6,
    OCW2_ROTATE_EOI_SPECIFIC = 7
};
enum { POLL_PENDING = 0x80, SPURIOUS_LEVEL = 7, VECTOR_BASE_MASK = 0xf8 };
// Inputs that are always edge triggered: timer, keyboard, cascade; RTC and FPU.
static const uint8_t elcr_writable[2] = {0xf8, 0xde};

static unsigned level_bit(unsigned level) { return 1u << level; }

static bool level_sensitive(const struct pic_chip *chip, unsigned level)
{
    return chip->all_level || (chip->elcr & level_bit(level));
}

// The level that asks for service and beats all in service, or -1.
static int highest_request(const struct pic_chip *chip, bool is_master)
{
    unsigned requests = chip->irr & ~(unsigned)chip->imr;
    unsigned in_service = chip->special_mask ? chip->isr & ~(unsigned)chip->imr : chip->isr;
    for (unsigned i = 1; i <= 8; i++) {
        unsigned level = (chip->lowest_priority + i) & 7, bit = level_bit(level);
        if (in_service & bit) {
            bool nested = is_master && chip->fully_nested_special && level == PIC_CASCADE_IRQ;
            return nested && (requests & bit) ? (int)level : -1;
        }
        if (requests & bit)
            return (int)level;
    }
    return -1;
}

static void set_line(struct pic_chip *chip, unsigned level, bool high)
{
    unsigned bit = level_bit(level);
    if (high && (level_sensitive(chip, level) || !(chip->lines & bit)))
        chip->irr = (uint8_t)(chip->irr | bit);
    if (!high)
        chip->irr = (uint8_t)(chip->irr & ~bit);
    chip->lines = (uint8_t)(high ? chip->lines | bit : chip->lines & ~bit);
}

static void report(struct pic *pic, bool level)
{
    if (pic->intr_level == level)
        return;
    pic->intr_level = level;
    pic->env.set_intr(pic->env.user, level);
}

static void update_outputs(struct pic *pic)
{
    set_line(&pic->chip[MASTER], PIC_CASCADE_IRQ, highest_request(&pic->chip[SLAVE], false) >= 0);
    report(pic, pic_intr(pic));
}

bool pic_intr(const struct pic *pic) { return highest_request(&pic->chip[MASTER], true) >= 0; }

void pic_set_irq(struct pic *pic, unsigned irq, bool level)
{
    if (irq >= PIC_IRQS || irq == PIC_CASCADE_IRQ)
        return;
    set_line(&pic->chip[irq >> 3], irq & 7, level);
    update_outputs(pic);
}

// One chip's part of an acknowledge: returns the level, or -1 if the request is gone.
static int acknowledge_chip(struct pic *pic, unsigned index)
{
    struct pic_chip *chip = &pic->chip[index];
    int request = highest_request(chip, index == MASTER);
    if (request < 0)
        return -1;
    unsigned level = (unsigned)request;
    if (!level_sensitive(chip, level))
        chip->irr = (uint8_t)(chip->irr & ~level_bit(level));
    if (!chip->auto_eoi)
        chip->isr = (uint8_t)(chip->isr | level_bit(level));
    else if (chip->rotate_on_auto_eoi)
        chip->lowest_priority = (uint8_t)level;
    // The output drops during the acknowledge, so that a further request makes a new edge.
    if (index == SLAVE)
        set_line(&pic->chip[MASTER], PIC_CASCADE_IRQ, false);
    else
        report(pic, false);
    return request;
}

static bool has_cascade(const struct pic_chip *master)
{
    return !master->single && (master->icw3 & level_bit(PIC_CASCADE_IRQ));
}

uint8_t pic_acknowledge(struct pic *pic)
{
    int level = acknowledge_chip(pic, MASTER);
    unsigned responder = MASTER;
    if (level == PIC_CASCADE_IRQ && has_cascade(&pic->chip[MASTER])) {
        responder = SLAVE;
        level = acknowledge_chip(pic, SLAVE);
    }
    update_outputs(pic);
    return (uint8_t)(pic->chip[responder].vector_base | (level < 0 ? SPURIOUS_LEVEL : level));
}

// Ends the interrupt in service with the highest priority; returns its level or -1.
static int end_highest(struct pic_chip *chip)
{
    unsigned in_service = chip->special_mask ? chip->isr & ~(unsigned)chip->imr : chip->isr;
    for (unsigned i = 1; i <= 8; i++) {
        unsigned level = (chip->lowest_priority + i) & 7;
        if (in_service & level_bit(level)) {
            chip->isr = (uint8_t)(chip->isr & ~level_bit(level));
            return (int)level;
        }
    }
    return -1;
}

static void write_ocw2(struct pic_chip *chip, uint8_t value)
{
    unsigned level = value & 7;
    int ended;
    switch (value >> 5) {
    case OCW2_ROTATE_AEOI_CLEAR: chip->rotate_on_auto_eoi = false; break;
    case OCW2_ROTATE_AEOI_SET: chip->rotate_on_auto_eoi = true; break;
    case OCW2_EOI: end_highest(chip); break;
    case OCW2_ROTATE_EOI:
        ended = end_highest(chip);
        if (ended >= 0)
            chip->lowest_priority = (uint8_t)ended;
        break;
    case OCW2_EOI_SPECIFIC: chip->isr = (uint8_t)(chip->isr & ~level_bit(level)); break;
    case OCW2_ROTATE_EOI_SPECIFIC:
        chip->isr = (uint8_t)(chip->isr & ~level_bit(level));
        chip->lowest_priority = (uint8_t)level;
        break;
    case OCW2_SET_PRIORITY: chip->lowest_priority = (uint8_t)level; break;
    default: break; // 2: no operation
    }
}

static void write_ocw3(struct pic_chip *chip, uint8_t value)
{
    if (value & OCW3_ESMM)
        chip->special_mask = value & OCW3_SMM;
    if (value & OCW3_RR)
        chip->read_isr = value & OCW3_RIS;
    if (value & OCW3_POLL)
        chip->poll = true;
}

static void write_icw1(struct pic_chip *chip, uint8_t value)
{
    struct pic_chip fresh = {
        .lines = chip->lines,
        .elcr = chip->elcr,
        .vector_base = chip->vector_base,
        .icw3 = chip->icw3,
        .lowest_priority = 7,
        .init_step = PIC_EXPECT_ICW2,
        .single = value & ICW1_SNGL,
        .icw4_expected = value & ICW1_IC4,
        .all_level = value & ICW1_LTIM,
    };
    // The edge detectors are cleared; a level that is high still asks.
    fresh.irr = (uint8_t)(fresh.lines & (fresh.all_level ? 0xff : fresh.elcr));
    *chip = fresh;
}

static void write_init_word(struct pic_chip *chip, uint8_t value)
{
    switch (chip->init_step) {
    case PIC_EXPECT_ICW2:
        chip->vector_base = value & VECTOR_BASE_MASK;
        chip->init_step = chip->single ? (chip->icw4_expected ? PIC_EXPECT_ICW4 : PIC_READY) : PIC_EXPECT_ICW3;
        break;
    case PIC_EXPECT_ICW3:
        chip->icw3 = value;
        chip->init_step = chip->icw4_expected ? PIC_EXPECT_ICW4 : PIC_READY;
        break;
    default:
        chip->auto_eoi = value & ICW4_AEOI;
        chip->fully_nested_special = value & ICW4_SFNM;
        chip->init_step = PIC_READY;
        break;
    }
}

void pic_write(struct pic *pic, unsigned index, unsigned a0, uint8_t value)
{
    struct pic_chip *chip = &pic->chip[index & 1];
    if (a0 & 1) {
        if (chip->init_step == PIC_READY)
            chip->imr = value;
        else
            write_init_word(chip, value);
    } else if (value & ICW1_SELECT) {
        write_icw1(chip, value);
    } else if (value & OCW3_SELECT) {
        write_ocw3(chip, value);
    } else {
        write_ocw2(chip, value);
    }
    update_outputs(pic);
}

uint8_t pic_read(struct pic *pic, unsigned index, unsigned a0)
{
    struct pic_chip *chip = &pic->chip[index & 1];
    if (chip->poll) { // the read is an acknowledge that returns the level instead of a vector
        chip->poll = false;
        int level = acknowledge_chip(pic, index & 1);
        update_outputs(pic);
        return (uint8_t)(level < 0 ? 0 : POLL_PENDING | level);
    }
    if (a0 & 1)
        return chip->imr;
    return chip->read_isr ? chip->isr : chip->irr;
}

static void write_elcr(struct pic *pic, unsigned index, uint8_t value)
{
    struct pic_chip *chip = &pic->chip[index];
    chip->elcr = value & elcr_writable[index];
    chip->irr = (uint8_t)(chip->irr | (chip->lines & chip->elcr));
    update_outputs(pic);
}

void pic_reset(struct pic *pic)
{
    for (unsigned i = 0; i < 2; i++) {
        uint8_t lines = pic->chip[i].lines;
        pic->chip[i] = (struct pic_chip){.lines = lines, .lowest_priority = 7};
    }
    set_line(&pic->chip[MASTER], PIC_CASCADE_IRQ, false);
    report(pic, false);
}

void pic_init(struct pic *pic, const struct pic_env *env)
{
    memset(pic, 0, sizeof *pic);
    pic->env = *env;
    pic_reset(pic);
}

static uint8_t master_byte_read(void *device, unsigned offset) { return pic_read(device, MASTER, offset); }

static void master_byte_write(void *device, unsigned offset, uint8_t value)
{
    pic_write(device, MASTER, offset, value);
}

static uint64_t master_read(void *device, uint64_t offset, unsigned size)
{
    return port_bytes_read(master_byte_read, device, offset, size);
}

static void master_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    port_bytes_write(master_byte_write, device, offset, size, value);
}

static uint8_t slave_byte_read(void *device, unsigned offset) { return pic_read(device, SLAVE, offset); }

static void slave_byte_write(void *device, unsigned offset, uint8_t value) { pic_write(device, SLAVE, offset, value); }

static uint64_t slave_read(void *device, uint64_t offset, unsigned size)
{
    return port_bytes_read(slave_byte_read, device, offset, size);
}

static void slave_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    port_bytes_write(slave_byte_write, device, offset, size, value);
}

static uint8_t elcr_byte_read(void *device, unsigned offset)
{
    struct pic *pic = device;
    return pic->chip[offset & 1].elcr;
}

static void elcr_byte_write(void *device, unsigned offset, uint8_t value) { write_elcr(device, offset & 1, value); }

static uint64_t elcr_read(void *device, uint64_t offset, unsigned size)
{
    return port_bytes_read(elcr_byte_read, device, offset, size);
}

static void elcr_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    port_bytes_write(elcr_byte_write, device, offset, size, value);
}

void pic_attach(struct pic *pic, struct bus *bus)
{
    struct bus_region master = {PIC_MASTER_PORT, 2, master_read, master_write, pic, "pic-master"};
    struct bus_region slave = {PIC_SLAVE_PORT, 2, slave_read, slave_write, pic, "pic-slave"};
    struct bus_region elcr = {PIC_ELCR_PORT, 2, elcr_read, elcr_write, pic, "pic-elcr"};
    bus_register_port(bus, &master);
    bus_register_port(bus, &slave);
    bus_register_port(bus, &elcr);
}
