/* See idt.h. SDM 3A "Exception and Interrupt Handling in 64-bit Mode". */
#include "idt.h"

#include <stddef.h>

#include "boot.h"
#include "cpu.h"
#include "end.h"
#include "serial.h"

/*
 * A 64-bit gate:  127:96 reserved | 95:48 offset 63:16 | 47:40 P DPL 0 type | 34:32 IST | 31:16 selector | 15:0 offset
 */
struct gate {
    uint16_t offset_15_0;
    uint16_t selector;
    uint8_t ist;
    uint8_t type;
    uint16_t offset_31_16;
    uint32_t offset_63_32;
    uint32_t reserved;
};
_Static_assert(sizeof(struct gate) == 16, "a gate of IA-32e mode has 16 bytes");
_Static_assert(sizeof(struct interrupt_frame) == 22 * 8, "idt_stubs.S pushes 22 quadwords");

enum {
    GATE_INTERRUPT = 0x8E, /* present, DPL 0, 64-bit interrupt gate */
    STUB_BYTES = 16,       /* distance between two entries of idt_stubs */
};

extern const uint8_t idt_stubs[VECTOR_COUNT * STUB_BYTES];
void idt_dispatch(struct interrupt_frame *frame);

static struct gate idt[VECTOR_COUNT] __attribute__((aligned(16)));
static idt_handler *handlers[VECTOR_COUNT];

void idt_init(void)
{
    for (unsigned vector = 0; vector < VECTOR_COUNT; vector++) {
        uint64_t stub = (uint64_t)&idt_stubs[vector * STUB_BYTES];
        idt[vector] = (struct gate){
            .offset_15_0 = (uint16_t)stub,
            .selector = BOOT_CS,
            .ist = vector == VECTOR_DF ? BOOT_IST_DOUBLE_FAULT : 0,
            .type = GATE_INTERRUPT,
            .offset_31_16 = (uint16_t)(stub >> 16),
            .offset_63_32 = (uint32_t)(stub >> 32),
        };
    }
    struct descriptor_table_register idtr = {.limit = sizeof idt - 1, .base = (uint64_t)idt};
    lidt(&idtr);
}

void idt_set_handler(unsigned vector, idt_handler *handler) { handlers[vector] = handler; }

static void report_and_end(const struct interrupt_frame *frame)
{
    serial_printf("\nunexpected vector %lu, error code 0x%lx, CR2 0x%lx\n", frame->vector, frame->error_code,
                  read_cr2());
    serial_printf("RIP %016lx  RFLAGS %016lx  RSP %016lx\n", frame->rip, frame->rflags, frame->rsp);
    serial_printf("RAX %016lx  RBX %016lx  RCX %016lx  RDX %016lx\n", frame->rax, frame->rbx, frame->rcx, frame->rdx);
    serial_printf("RSI %016lx  RDI %016lx  RBP %016lx\n", frame->rsi, frame->rdi, frame->rbp);
    finish(1);
}

/* Called by every stub. */
void idt_dispatch(struct interrupt_frame *frame)
{
    idt_handler *handler = handlers[frame->vector];
    if (handler) {
        handler(frame);
    } else {
        report_and_end(frame);
    }
}
