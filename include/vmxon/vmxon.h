// libvmxon: a deterministic x86-64 PC with Intel VMX, as a library.
//
// A machine is created from a configuration, loaded with an image, run, and
// looked at. It reads no clock, no random numbers and no environment; two
// machines with the same configuration, image and inputs go through the same
// states. Machines share nothing: each may live on a thread of its own.
//
//   struct vmxon_config config;
//   vmxon_config_init(&config);
//   struct vmxon *vm;
//   struct vmxon_error error;
//   if (vmxon_create(&config, &vm, &error) != VMXON_OK) puts(error.text);
//   ... vmxon_load(vm, &image, &error); vmxon_run(vm, NULL, &outcome); ...
//   vmxon_destroy(vm);
#ifndef VMXON_VMXON_H
#define VMXON_VMXON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vmxon; // a machine

enum vmxon_status {
    VMXON_OK,
    VMXON_BAD_CONFIG,  // a value of vmxon_config is out of range; error.text says which
    VMXON_NO_MEMORY,   // the host cannot provide the memory asked for
    VMXON_BAD_IMAGE,   // the image or a module was refused
    VMXON_NOT_LOADED,  // vmxon_run before a successful vmxon_load
    VMXON_BAD_ADDRESS, // an address range is not RAM, or not mapped
    VMXON_BAD_CPU,     // no such processor number
};

struct vmxon_error {
    enum vmxon_status status;
    char text[256]; // one line, no newline: the input, the place in it, the value seen, the limit
};

struct vmxon_config {
    uint64_t memory_size;    // bytes of RAM; multiple of 4096
    unsigned cpus;           // number of processors, 1 to VMXON_MAX_CPUS
    const char *cpu_profile; // see vmxon_profile_name
    uint64_t seed;           // seeds RDRAND and RDSEED
    int64_t rtc_seconds;     // date of the real-time clock at start, seconds since 1970
    bool lockstep;           // compare every ordinary instruction with the reference executor
    // Bytes the guest sends on COM1. May be NULL.
    void (*serial_output)(void *user, const uint8_t *bytes, size_t n);
    void *user;
};

#define VMXON_MAX_CPUS 8

// Defaults: 128 MiB, one processor, profile "skylake", seed 0, 2000-01-01 00:00:00.
void vmxon_config_init(struct vmxon_config *config);

enum vmxon_status vmxon_create(const struct vmxon_config *config, struct vmxon **machine, struct vmxon_error *error);
void vmxon_destroy(struct vmxon *machine);

// An image in memory. The buffers need to live only during vmxon_load.
struct vmxon_module {
    const char *string; // Multiboot module string: name and arguments
    const uint8_t *bytes;
    uint64_t size;
};
struct vmxon_image {
    const char *name; // for messages and as first word of the command line
    const uint8_t *bytes;
    uint64_t size;
    const char *command_line; // may be NULL
    const struct vmxon_module *modules;
    unsigned module_count;
    const char *flat; // NULL: the kind is detected. Else a raw binary, ADDR[:ENTRY[:real|prot|long]] says where it goes
};
// VMXON_BAD_IMAGE or VMXON_BAD_CONFIG (of `flat`) leave the machine unchanged.
enum vmxon_status vmxon_load(struct vmxon *machine, const struct vmxon_image *image, struct vmxon_error *error);

enum vmxon_end {
    VMXON_END_LIMIT,        // a limit was reached; the run can go on
    VMXON_END_GUEST_EXIT,   // the guest wrote to the debug-exit port; `status` is (V << 1) | 1
    VMXON_END_POWER_OFF,    // the guest powered off
    VMXON_END_HALTED,       // every processor is halted for ever with interrupts off
    VMXON_END_TRIPLE_FAULT, // shutdown after a triple fault
    VMXON_END_VMX_ABORT,    // shutdown after a VMX abort; `status` is the VMX-abort indicator
    VMXON_END_RESET,        // the guest asked for a reset; the machine does not restart by itself
    VMXON_END_CHECK,        // lockstep: the native core and the reference executor disagree
};
struct vmxon_limits {      // 0: no limit
    uint64_t instructions; // total of the machine, not of this call
    uint64_t cycles;       // likewise
    bool single_step;      // drive the machine one instruction at a time (same result, slower)
};
struct vmxon_outcome {
    enum vmxon_end end;
    uint32_t status;
    unsigned cpu;   // the processor concerned
    uint64_t rip;   // its RIP
    char text[512]; // one line saying what happened
};
// Runs until the machine ends or a limit is reached. limits may be NULL.
enum vmxon_status vmxon_run(struct vmxon *machine, const struct vmxon_limits *limits, struct vmxon_outcome *outcome);
// Executes one instruction, or delivers one event, on the next processor in turn.
enum vmxon_status vmxon_step(struct vmxon *machine, struct vmxon_outcome *outcome);

// Offers bytes to COM1's receiver; returns how many it took.
size_t vmxon_serial_input(struct vmxon *machine, const uint8_t *bytes, size_t n);

struct vmxon_registers {
    uint64_t gpr[16]; // RAX RCX RDX RBX RSP RBP RSI RDI R8-R15
    uint64_t rip, rflags, cr0, cr2, cr3, cr4, cr8, efer;
    struct {
        uint16_t selector;
        uint32_t limit, access_rights; // access rights as in the VMCS
        uint64_t base;
    } segment[8]; // ES CS SS DS FS GS LDTR TR
    uint64_t gdtr_base, idtr_base;
    uint16_t gdtr_limit, idtr_limit;
    bool vmx_operation, non_root;
    uint64_t current_vmcs; // all ones: none
};
enum vmxon_status vmxon_get_registers(const struct vmxon *machine, unsigned cpu, struct vmxon_registers *registers);
// Physical memory; linear memory as processor `cpu` sees it now, without side effects.
enum vmxon_status vmxon_read_physical(const struct vmxon *machine, uint64_t address, void *buffer, size_t size);
enum vmxon_status vmxon_write_physical(struct vmxon *machine, uint64_t address, const void *buffer, size_t size);
enum vmxon_status vmxon_read_linear(const struct vmxon *machine, unsigned cpu, uint64_t address, void *buffer,
                                    size_t size);

#define VMXON_EXIT_REASONS 86
struct vmxon_stats { // sums over the processors
    uint64_t instructions, cycles;
    uint64_t vm_entries, vm_entry_failures;
    uint64_t vm_exits[VMXON_EXIT_REASONS]; // by basic exit reason
    uint64_t tlb_misses, ept_walks;
    uint64_t interrupts, exceptions[32];
    uint64_t reference_instructions; // carried out by the reference executor
};
void vmxon_get_stats(const struct vmxon *machine, struct vmxon_stats *stats);
const char *vmxon_exit_reason_name(unsigned reason); // NULL: no such reason

// Hash of the whole state of the machine: memory, processors with their TLBs, devices, clock.
// 32 hexadecimal digits and a terminating zero. Equal states give equal hashes on every host.
void vmxon_state_hash(const struct vmxon *machine, char text[33]);

// Processor profiles. NULL past the last one.
const char *vmxon_profile_name(unsigned index);
const char *vmxon_profile_description(unsigned index);

// The VMX capability MSRs of a profile, decoded: calls `line` once a line of text, without newlines. False: no such profile.
bool vmxon_describe_capabilities(const char *profile, void (*line)(void *user, const char *text), void *user);

#ifdef __cplusplus
}
#endif

#endif
