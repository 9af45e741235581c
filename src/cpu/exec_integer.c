// Arithmetic and logic with one and two operands: ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT (SDM 2).
#include "cpu/exec_alu.h"
#include "cpu/fast_handlers.h"

// ---- General handlers ----

NEVER_INLINE bool do_alu(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in), op = in->op;
    uint64_t a, b;
    uint32_t aux;
    bool to_memory = in->form == FORM_MEM && !in->to_reg;
    bool read =
        alu_writes(op) && !in->to_reg ? operand_read_for_write(cpu, in, size, &a) : operand_read(cpu, in, size, &a);
    if (!read)
        return false;
    if (in->to_reg) {
        b = a;
        a = reg_read(cpu, in->reg, size);
    } else {
        b = in->has_imm ? (uint64_t)in->imm : reg_read(cpu, in->reg, size);
    }
    uint64_t result = alu_compute(cpu, op, size, a, b, &aux);
    if (alu_writes(op)) {
        if (to_memory) {
            if (!mem_write(cpu, in->segment, exec_offset(cpu, in), size, result))
                return false;
        } else {
            reg_write(cpu, in->to_reg ? in->reg : in->rm, size, result);
        }
    }
    set_flags(cpu, result, size, aux);
    return true;
}

enum exec_result exec_alu(struct cpu *cpu, const struct insn *in) { return exec_complete(cpu, in, do_alu(cpu, in)); }

NEVER_INLINE bool do_unary(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t a;
    uint32_t aux;
    if (!operand_read_for_write(cpu, in, size, &a))
        return false;
    uint64_t result = unary_compute(cpu, in->op, size, a, &aux);
    if (!operand_write(cpu, in, size, result))
        return false;
    if (in->op != OP_NOT)
        set_flags(cpu, result, size, aux);
    return true;
}

enum exec_result exec_unary(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_unary(cpu, in));
}

// ---- Specialised handlers ----

ALWAYS_INLINE enum exec_result alu(struct cpu *cpu, const struct insn *in, unsigned op, enum insn_kind kind,
                                   unsigned size, unsigned variant)
{
    uint64_t a, b;
    const void *source = NULL;
    void *target = NULL;
    bool memory = kind == KIND_RM || kind == KIND_MR || kind == KIND_MI;
    if (memory) {
        gva_t linear = fast_linear(cpu, in, (enum insn_address)variant);
        bool reads = kind == KIND_RM || !alu_writes(op);
        if (unlikely(reads ? !fast_read(cpu, linear, size, &source) : !fast_write(cpu, linear, size, &target)))
            return exec_alu(cpu, in);
        if (!reads)
            source = target;
    }
    if (kind == KIND_RM) {
        a = reg_read(cpu, in->reg, size);
        b = host_load(source, size);
    } else {
        a = memory ? host_load(source, size) : reg_read(cpu, in->rm, size);
        b = kind == KIND_RI || kind == KIND_MI ? (uint64_t)in->imm : reg_read(cpu, in->reg, size);
    }
    uint32_t aux;
    uint64_t result = alu_compute(cpu, op, size, a, b, &aux);
    if (alu_writes(op)) {
        if (kind == KIND_MR || kind == KIND_MI)
            host_store(target, size, result);
        else
            reg_write(cpu, kind == KIND_RM ? in->reg : in->rm, size, result);
    }
    if (memory || variant == 0)
        set_flags(cpu, result, size, aux);
    return exec_next(cpu, in);
}

ALWAYS_INLINE enum exec_result unary(struct cpu *cpu, const struct insn *in, unsigned op, enum insn_kind kind,
                                     unsigned size, unsigned variant)
{
    void *target = NULL;
    if (kind == KIND_M) {
        if (unlikely(!fast_write(cpu, fast_linear(cpu, in, (enum insn_address)variant), size, &target)))
            return exec_unary(cpu, in);
    }
    uint64_t a = kind == KIND_M ? host_load(target, size) : reg_read(cpu, in->rm, size);
    uint32_t aux;
    uint64_t result = unary_compute(cpu, op, size, a, &aux);
    if (kind == KIND_M)
        host_store(target, size, result);
    else
        reg_write(cpu, in->rm, size, result);
    if (op != OP_NOT && (kind == KIND_M || variant == 0))
        set_flags(cpu, result, size, aux);
    return exec_next(cpu, in);
}

#define DEFINE_1(template, op, kind, size, variant)                                                  \
    enum exec_result fast_##op##_##kind##_##size##_##variant(struct cpu *cpu, const struct insn *in) \
    {                                                                                                \
        return template(cpu, in, OP_##op, KIND_##kind, 1u << size, variant);                         \
    }
#define DEFINE(template, op, kind, size) DEFINE_1(template, op, kind, size, 0) DEFINE_1(template, op, kind, size, 1)
#define DEFINE_4(template, op, kind) \
    DEFINE(template, op, kind, 0)    \
    DEFINE(template, op, kind, 1) DEFINE(template, op, kind, 2) DEFINE(template, op, kind, 3)
#define ALU(op, kind)   DEFINE_4(alu, op, kind)
#define UNARY(op, kind) DEFINE_4(unary, op, kind)
#include "cpu/handlers.def"
#undef DEFINE_1
#undef DEFINE
#undef DEFINE_4

// ADCX and ADOX: additions whose carry is CF or OF and nothing else.
NEVER_INLINE bool do_adx(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t b;
    if (!operand_read(cpu, in, size, &b))
        return false;
    bool cf = flag_cf(cpu), of = flag_of(cpu);
    uint64_t a = reg_read(cpu, in->reg, size), sum;
    uint64_t carry_in = in->op == OP_ADCX ? cf : of;
    bool carry;
    if (size == 4) {
        sum = a + b + carry_in;
        carry = sum >> 32;
    } else {
        bool first = __builtin_add_overflow(a, b, &sum);
        carry = __builtin_add_overflow(sum, carry_in, &sum) || first;
    }
    reg_write(cpu, in->reg, size, sum);
    if (in->op == OP_ADCX)
        set_cf_of(cpu, carry, of);
    else
        set_cf_of(cpu, cf, carry);
    return true;
}

enum exec_result exec_adx(struct cpu *cpu, const struct insn *in) { return exec_complete(cpu, in, do_adx(cpu, in)); }
