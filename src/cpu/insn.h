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
    EXEC_NEXT,   // done; go on with in + 1 (only returned where handlers do not tail-call)
    EXEC_BLOCK,  // done; go on with cpu->next_insn (ditto)
    EXEC_DONE,   // done, RIP updated and costs settled: the run loop looks up the next block
    EXEC_FAULT,  // cpu->event holds an exception to deliver; nothing of the instruction is committed, RIP at its start
    EXEC_VMEXIT, // a VM exit (or entry) was completed; state is the new one, RIP set
    EXEC_HALT,   // done and the activity state is no longer active; RIP set
    EXEC_STOP,   // the machine was asked to stop (debug exit, power off, VMX abort); RIP set
};

typedef enum exec_result exec_fn(struct cpu *cpu, const struct insn *in);

enum { // indexes into cpu->regs
    REG_RAX,
    REG_RCX,
    REG_RDX,
    REG_RBX,
    REG_RSP,
    REG_RBP,
    REG_RSI,
    REG_RDI,
    REG_R8,
    REG_R9,
    REG_R10,
    REG_R11,
    REG_R12,
    REG_R13,
    REG_R14,
    REG_R15,
    REG_NONE = 16, // always 0: no base, no index
    REG_RIP = 17,  // RIP of the first instruction of the running block; between blocks: RIP
    REG_COUNT
};

enum segment_register { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

// Where the operands are. `reg` is the ModRM.reg operand (or the register in the opcode), rm the ModRM.rm operand.
enum insn_form {
    FORM_NONE, // no ModRM operand (implicit operands, relative branches, moffs excepted)
    FORM_REG,  // ModRM.rm (or the opcode) names a register: insn.rm
    FORM_MEM,  // ModRM.rm (or moffs) names memory: base, index, scale, disp, segment
};

enum insn_flag {
    INSN_LOCK = 1 << 0,
    INSN_REP = 1 << 1,      // F3, not as a mandatory prefix
    INSN_REPNE = 1 << 2,    // F2, not as a mandatory prefix
    INSN_DISP = 1 << 3,     // a displacement is encoded (for VMX instruction information)
    INSN_RIP_WRAP = 1 << 4, // RIP-relative and disp + length left 32 bits: use the checked handlers
    INSN_NO_FLAGS = 1 << 5, // set by the block builder: the flags it writes are dead
    INSN_OPSIZE = 1 << 6,   // a 66 prefix is present and is not a mandatory prefix
    INSN_SEGMENT = 1 << 7,  // a segment override is present and effective
};

enum { INSN_MAX_LENGTH = 15 };

// What the fields hold, instruction by instruction (docs/decoder.md has the same list with examples):
//   direction   to_reg = 1: the first operand is a register named by ModRM.reg (Gv,Ev forms; SSE loads; BLSI group: VEX.vvvv) and
//               ModRM.rm is a source. to_reg = 0: ModRM.rm (or the only operand) is the first operand.
//   immediates  has_imm = 1: the last operand is imm. Arithmetic, MOV, TEST, PUSH, IMUL3: sign-extended to 64 bits from the encoded
//               width, MOV r64,imm64 in full. Shift and rotate counts (1 for D0/D1), BT group, SHLD/SHRD, IN, OUT, INT, AAM, AAD,
//               RET imm16, SSE imm8: zero-extended. Shifts by CL: has_imm = 0.
//   accumulator ADD AL,imm8 and the like, IN, OUT: FORM_REG, rm = 0 (RAX, AL), reg = 0. XCHG rAX,r: reg = 0, rm = r.
//   opcode reg  PUSH/POP/INC/DEC/MOV r,imm/BSWAP: FORM_REG, rm = register.
//   moffs       MOV A0-A3: FORM_MEM, moffs = 1, base = index = REG_NONE, disp = 0, imm = the offset (zero-extended); reg = 0 (RAX, AL).
//   source size MOVZX, MOVSX, MOVSXD, CRC32: size_log2 is the destination's, imm the source's in bytes (1, 2, 4, 8).
//   VEX (BMI)   imm = VEX.vvvv register number; RORX: imm8. BLSR, BLSMSK, BLSI: the destination is vvvv, reg is not an operand.
//   SREG, CR, DR  reg = the segment, control or debug register; PUSH/POP of a fixed segment register: FORM_NONE, reg = segment.
//   16-bit memory MOV_FROM_SREG, SLDT, STR, SMSW with FORM_MEM: size_log2 = 1, whatever the operand size.
//   x87         imm = last opcode (FOP, SDM 1 8.1.9): escape byte bits 2:0 << 8 | ModRM; reg = ModRM.reg, rm = ModRM.rm (FORM_REG).
//   MMX, SSSE3, SSE41, AES  imm bits 7:0 = imm8; higher bits: the row of opcodes.def, for op_memory_*.
//   strings, XLAT, MASKMOV: FORM_NONE; segment = DS or its override.
struct insn {
    exec_fn *exec;
    int64_t imm;    // immediate as the instruction uses it, see above; relative branch: displacement
                    // from the next instruction; far pointer: selector << 32 | offset; ENTER: level << 16 | size
    int32_t disp;   // displacement; RIP-relative: from the start of the block (base = REG_RIP), set so by the builder
    uint16_t op;    // enum op
    uint16_t delta; // bytes from the start of the block
    uint8_t reg;    // register number (segment, control, debug, XMM, MMX register number where the operand is one);
                    // if the operand is a byte register: byte offset into cpu->regs (AH is 1, CL is 8, ...)
    uint8_t rm;     // likewise, FORM_REG only
    uint8_t base;   // FORM_MEM: index into cpu->regs
    uint8_t index;  // FORM_MEM: index into cpu->regs
    uint8_t length; // bytes, 1 to 15
    uint8_t flags;  // enum insn_flag
    uint8_t size_log2 : 2; // operand size: 1, 2, 4, 8 bytes
    uint8_t addr_log2 : 2; // address size: 1 = 16 bits, 2 = 32, 3 = 64
    uint8_t form : 2;      // enum insn_form
    uint8_t scale : 2;     // index << scale
    uint8_t segment : 3;   // enum segment_register of a memory operand (explicit, or implicit as in MOVS)
    uint8_t moffs : 1;     // the offset is in imm
    uint8_t vex : 1;       // VEX-encoded
    uint8_t vex_l : 1;     // VEX.L
    uint8_t to_reg : 1;    // the destination is ModRM.reg (or VEX.vvvv), ModRM.rm is a source
    uint8_t has_imm : 1;   // the last operand is imm
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
    MODE_FLAT =
        1
        << 2, // 64-bit mode, or CS, DS, ES, SS have base 0 and limit 4 GiB and permit what their use needs: no segment checks
    MODE_STACK32 = 1 << 3, // SS.B (not 64-bit mode)
    MODE_SINGLE = 1 << 4,  // blocks of one instruction (single-stepping to an exact boundary)
    MODE_REAL = 1 << 5,    // real-address mode or virtual-8086 mode: protected-mode-only instructions are #UD
    MODE_STACK64 = 1 << 6, // 64-bit mode
};

enum decode_status {
    DECODE_OK,
    DECODE_TRUNCATED, // more bytes are needed (the instruction crosses the end of the buffer)
    DECODE_TOO_LONG,  // more than 15 bytes: #GP(0)
    DECODE_UNDEFINED, // #UD
};

// Decodes one instruction from `available` bytes (at most 15 are looked at). `mode`: enum code_mode bits. On DECODE_OK all of *in but
// exec and delta is set (a RIP-relative disp is relative to the next instruction). On DECODE_UNDEFINED in->op is OP_UD and in->length
// the bytes that were needed to know. DECODE_TRUNCATED is returned only if available < 15.
enum decode_status decode(const uint8_t *bytes, unsigned available, unsigned mode, struct insn *in);

// What an operation is made of, for costs, for the choice of handlers and for statistics.
enum op_class {
    OP_CLASS_INTEGER, // general registers and memory only
    OP_CLASS_SSE,     // XMM registers
    OP_CLASS_MMX,     // MMX registers (also those conversions between XMM and MMX)
    OP_CLASS_X87,
    OP_CLASS_SYSTEM, // privileged state, descriptor tables, intercepts, I/O
    OP_CLASS_BRANCH, // control transfer
    OP_CLASS_VMX,
};

const char *op_name(unsigned op); // mnemonic, lower case
enum op_class op_class(unsigned op);
bool op_ends_block(unsigned op); // control transfers, system instructions, and what changes the code mode

// The memory operand that ModRM or moffs names (FORM_MEM). Implicit operands (stack, strings, XLAT, MASKMOV, descriptor tables) do
// not count. Bytes accessed; 0: none, or only its address is used (LEA, NOP, INVLPG, prefetches).
// XSAVE family: 576, its legacy area and header. BT with a register bit offset: of the operand size, at an address the offset moves.
unsigned op_memory_size(const struct insn *in);
bool op_memory_read(const struct insn *in);
bool op_memory_written(const struct insn *in);

#endif
