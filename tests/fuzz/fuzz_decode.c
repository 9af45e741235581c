// Fuzz target of the decoder. First byte: mode; the rest: instruction bytes.
// Run by `tools/fuzz decode SECONDS`.
//
// Holds: no read beyond `available`; TRUNCATED exactly while bytes that are needed are missing; every field in its range; the
// memory properties answer; length and validity as Capstone has them, except the listed deviations.
#include <capstone/capstone.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/capstone_deviations.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Not ASSERT: libFuzzer keeps the input of a process that aborts.
static void require(bool condition, const char *property)
{
    if (condition)
        return;
    fprintf(stderr, "does not hold: %s\n", property);
    abort();
}

static bool fields_in_range(const struct insn *in)
{
    return in->op < OP_COUNT && in->length >= 1 && in->length <= INSN_MAX_LENGTH && in->form <= FORM_MEM &&
           in->segment <= SEG_GS && in->addr_log2 >= 1 && (in->base <= REG_RIP) && (in->index <= REG_NONE) &&
           in->index != REG_RSP && in->reg < 128 && in->rm < 128;
}

static void check_against_capstone(const uint8_t *bytes, unsigned available, unsigned mode, enum decode_status status,
                                   const struct insn *in)
{
    static csh handles[3];
    static cs_insn *insn;
    static const cs_mode modes[3] = {CS_MODE_16, CS_MODE_32, CS_MODE_64};
    if (!insn) {
        for (unsigned i = 0; i < 3; i++)
            require(cs_open(CS_ARCH_X86, modes[i], &handles[i]) == CS_ERR_OK, "Capstone knows x86");
        insn = cs_malloc(handles[0]);
    }
    const uint8_t *code = bytes;
    size_t left = available < INSN_MAX_LENGTH ? available : INSN_MAX_LENGTH;
    uint64_t address = 0;
    bool valid = cs_disasm_iter(handles[mode], &code, &left, &address, insn);
    struct capstone_answer answer = {.valid = valid, .length = valid ? insn->size : 0};
    require(capstone_agrees(status, in, answer) || capstone_deviation(bytes, available, mode, status, in, answer),
            "Capstone disagrees on length or validity, and no known deviation explains it");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    if (size > 17) // a mode and more than an instruction
        size = 17;
    unsigned mode = data[0] % 3, real = data[0] & 0x80 ? MODE_REAL : 0, available = (unsigned)size - 1;
    uint8_t *bytes = malloc(available ? available : 1); // exact, so that a read beyond it is seen
    if (!bytes)
        return 0;
    memcpy(bytes, data + 1, available);

    struct insn in = {0};
    enum decode_status status = decode(bytes, available, mode | real, &in);
    if (status == DECODE_OK) {
        require(in.length <= available, "an instruction lies within the bytes");
        require(fields_in_range(&in), "every field is in its range");
        require(op_memory_size(&in) <= 576, "the largest operand is the XSAVE area");
        require(!op_memory_size(&in) == !(op_memory_read(&in) || op_memory_written(&in)),
                "a memory operand is read or written");
    }
    require(status != DECODE_TRUNCATED || available < INSN_MAX_LENGTH, "15 bytes are enough to know");
    require(status != DECODE_TOO_LONG || available >= INSN_MAX_LENGTH, "only 15 bytes can be too many");
    if (status == DECODE_OK || status == DECODE_UNDEFINED) {
        struct insn again = {0};
        require(decode(bytes, in.length - 1u, mode | real, &again) == DECODE_TRUNCATED,
                "all bytes up to the length were needed");
        require(decode(bytes, in.length, mode | real, &again) == status && !memcmp(&again, &in, sizeof in),
                "and no more");
    }
    if (!real && status != DECODE_TRUNCATED)
        check_against_capstone(bytes, available, mode, status, &in);
    free(bytes);
    return 0;
}
