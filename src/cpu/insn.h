// struct insn: one decoded instruction, 32 bytes, and the decoder's interface.
//
// The decoder (decode.c, opcodes.def) fills everything but `exec`; the block
// builder chooses the handler. Records of a block stand in an array, so that
// the next instruction of `in` is `in + 1`.
#ifndef VMXON_CPU_INSN_H
#define VMXON_CPU_INSN_H

#include <assert.h>

#include "base/types.h"

struct cpu;
struct insn;

// What a handler (or anything that carries out part of an instruction) did.
enum exec_result {
    EXEC_NEXT,      // done; go on with in + 1 (only returned where handlers do not tail-call)
    EXEC_BLOCK,     // done; go on with cpu->next_insn (ditto)
    EXEC_DONE,      // done, RIP updated and costs settled: the run loop looks up the next block
    EXEC_FAULT,     // cpu->event holds an exception to deliver; nothing of the instruction is committed, RIP at its start
    EXEC_VMEXIT,    // a VM exit (or entry) was completed; state is the new one, RIP set
    EXEC_HALT,      // done and the activity state is no longer active; RIP set
    EXEC_STOP,      // the machine was asked to stop (debug exit, power off, VMX abort); RIP set
};

typedef enum exec_result exec_fn(struct cpu *cpu, const struct insn *in);

enum { // indexes into cpu->regs
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
    REG_NONE = 16,  // always 0: no base, no index
    REG_RIP = 17,   // RIP of the first instruction of the running block; between blocks: RIP
    REG_COUNT
};

enum segment_register { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

// Where the operands are. `reg` is the ModRM.reg operand (or the register in the opcode), rm the ModRM.rm operand.
enum insn_form {
    FORM_NONE,  // no ModRM operand (implicit operands, relative branches, moffs excepted)
    FORM_REG,   // ModRM.rm (or the opcode) names a register: insn.rm
    FORM_MEM,   // ModRM.rm (or moffs) names memory: base, index, scale, disp, segment
};

enum insn_flag {
    INSN_LOCK = 1 << 0,
    INSN_REP = 1 << 1,        // F3, not as a mandatory prefix
    INSN_REPNE = 1 << 2,      // F2, not as a mandatory prefix
    INSN_DISP = 1 << 3,       // a displacement is encoded (for VMX instruction information)
    INSN_RIP_WRAP = 1 << 4,   // RIP-relative and disp + length left 32 bits: use the checked handlers
    INSN_NO_FLAGS = 1 << 5,   // set by the block builder: the flags it writes are dead
    INSN_OPSIZE = 1 << 6,     // a 66 prefix is present and is not a mandatory prefix
    INSN_SEGMENT = 1 << 7,    // a segment override is present and effective
};

enum { INSN_MAX_LENGTH = 15 };

struct insn {
    exec_fn *exec;
    int64_t imm;        // immediate, sign- or zero-extended as the instruction uses it; relative branch: displacement
                        // from the next instruction; far pointer: selector << 32 | offset; ENTER: level << 16 | size
    int32_t disp;       // displacement; RIP-relative: from the start of the block (base = REG_RIP), set so by the builder
    uint16_t op;        // enum op
    uint16_t delta;     // bytes from the start of the block
    uint8_t reg;        // register number (segment, control, debug, XMM register number where the operand is one);
                        // if size is 1 byte and it is a GPR: byte offset into cpu->regs (AH is 1, CL is 8, ...)
    uint8_t rm;         // likewise, FORM_REG only
    uint8_t base;       // FORM_MEM: index into cpu->regs
    uint8_t index;      // FORM_MEM: index into cpu->regs
    uint8_t length;     // bytes, 1 to 15
    uint8_t flags;      // enum insn_flag
    uint8_t size_log2 : 2;    // operand size: 1, 2, 4, 8 bytes
    uint8_t addr_log2 : 2;    // address size: 1 = 16 bits, 2 = 32, 3 = 64
    uint8_t form : 2;         // enum insn_form
    uint8_t scale : 2;        // index << scale
    uint8_t segment : 4;      // enum segment_register of a memory operand
    uint8_t vex : 1;          // VEX-encoded
    uint8_t vex_l : 1;        // VEX.L
    uint8_t spare : 2;
};
static_assert(sizeof(struct insn) == 32, "a cache line holds two instructions");

enum op {
#define OP(name, mnemonic) OP_##name,
#include "cpu/ops.def"
#undef OP
    OP_COUNT
};

// Mode bits that change decoding or the choice of handlers; part of a block's key.
enum code_mode {
    MODE_CODE16 = 0,
    MODE_CODE32 = 1,
    MODE_CODE64 = 2,
    MODE_CODE_MASK = 3,
    MODE_FLAT = 1 << 2,     // 64-bit mode, or CS, DS, ES, SS have base 0 and limit 4 GiB and permit what their use needs: no segment checks
    MODE_STACK32 = 1 << 3,  // SS.B (not 64-bit mode)
    MODE_SINGLE = 1 << 4,   // blocks of one instruction (single-stepping to an exact boundary)
    MODE_REAL = 1 << 5,     // real-address mode or virtual-8086 mode: protected-mode-only instructions are #UD
    MODE_STACK64 = 1 << 6,  // 64-bit mode
};

enum decode_status {
    DECODE_OK,
    DECODE_TRUNCATED, // more bytes are needed (the instruction crosses the end of the buffer)
    DECODE_TOO_LONG,  // more than 15 bytes: #GP(0)
    DECODE_UNDEFINED, // #UD
};

// Decodes one instruction from `available` bytes (at most 15 are looked at). `mode`: enum code_mode bits. On DECODE_OK all of *in but exec, delta is set
// (a RIP-relative disp is relative to the next instruction). On DECODE_UNDEFINED in->length is the length as far as known, in->op = OP_UD.
enum decode_status decode(const uint8_t *bytes, unsigned available, unsigned mode, struct insn *in);

const char *op_name(unsigned op); // mnemonic, lower case

#endif
