// Two cascaded 8259A interrupt controllers, as in a PC/AT.
//
// Source: Intel 8259A data sheet (231468), and the ELCR of the PIIX/ICH south
// bridges. The slave's output drives the master's IR2. An input must stay
// high until it is acknowledged; one that drops early gives the spurious
// IRQ 7 (or 15). The MCS-80 call mode is left out: vectors are always 8086 ones.
#ifndef VMXON_DEVICES_PIC_H
#define VMXON_DEVICES_PIC_H

#include "base/types.h"
#include "mem/bus.h"

enum {
    PIC_IRQS = 16,
    PIC_CASCADE_IRQ = 2,
    PIC_MASTER_PORT = 0x20, // 2 ports
    PIC_SLAVE_PORT = 0xa0,  // 2 ports
    PIC_ELCR_PORT = 0x4d0,  // 2 ports
};

enum pic_init_step { PIC_READY, PIC_EXPECT_ICW2, PIC_EXPECT_ICW3, PIC_EXPECT_ICW4 };

struct pic_env {
    void *user;
    void (*set_intr)(void *user, bool level); // the master's INT output, on every change
};

struct pic_chip {
    uint8_t irr, imr, isr;
    uint8_t lines;       // levels of the eight inputs
    uint8_t elcr;        // 1: input is level sensitive
    uint8_t vector_base; // ICW2 bits 7:3
    uint8_t icw3;
    uint8_t lowest_priority;               // level with the lowest priority; the next one has the highest
    uint8_t init_step;                     // enum pic_init_step
    bool single, icw4_expected, all_level; // ICW1 SNGL, IC4, LTIM
    bool auto_eoi, fully_nested_special;   // ICW4 AEOI, SFNM
    bool rotate_on_auto_eoi, special_mask, read_isr, poll;
};

struct pic {
    struct pic_chip chip[2]; // 0: master, 1: slave
    bool intr_level;         // as last reported to env.set_intr
    struct pic_env env;
};

void pic_init(struct pic *pic, const struct pic_env *env);
// Power-on state: nothing masked or in service, vector base 0. The levels of the inputs stay.
void pic_reset(struct pic *pic);
// Registers the master's, the slave's and the ELCR ports.
void pic_attach(struct pic *pic, struct bus *bus);

// Drives input irq (0..15, not the cascade input 2) to a level.
void pic_set_irq(struct pic *pic, unsigned irq, bool level);
// The level of the INT output: true while an interrupt waits to be acknowledged.
bool pic_intr(const struct pic *pic);
// An INTA cycle: marks the interrupt in service and returns its vector, the spurious one if none waits.
uint8_t pic_acknowledge(struct pic *pic);

// Register access; chip 0 or 1, a0: the port's lowest address bit.
uint8_t pic_read(struct pic *pic, unsigned chip, unsigned a0);
void pic_write(struct pic *pic, unsigned chip, unsigned a0, uint8_t value);

#endif
