// Names of exit reasons, errors and control bits, and the meaning of VMCS field values. SDM 3C 25.4 to 25.9.
#include "vmx/names.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "vmx/controls.h"
#include "vmx/transition.h"

struct name {
    const char *name, *title;
};

static const struct name exit_reasons[EXIT_REASON_COUNT] = {
#define EXIT_REASON(number, name, title) [number] = {#name, title},
#include "vmx/exit_reasons.def"
#undef EXIT_REASON
};

static const struct name instruction_errors[INSTRUCTION_ERROR_COUNT] = {
#define INSTRUCTION_ERROR(number, name, text) [number] = {#name, text},
#include "vmx/instruction_errors.def"
#undef INSTRUCTION_ERROR
};

static const struct vmx_control_info controls[] = {
#define CONTROL(word, bit, name, title, implemented) {CONTROL_WORD_##word, bit, #name, title, implemented},
#include "vmx/controls.def"
#undef CONTROL
};
enum { CONTROL_COUNT = sizeof controls / sizeof *controls };

const char *vmx_exit_reason_name(unsigned reason)
{
    return reason < EXIT_REASON_COUNT ? exit_reasons[reason].name : NULL;
}
const char *vmx_exit_reason_title(unsigned reason)
{
    return reason < EXIT_REASON_COUNT ? exit_reasons[reason].title : NULL;
}

int vmx_exit_reason_by_name(const char *name)
{
    for (unsigned i = 0; i < EXIT_REASON_COUNT; i++)
        if (exit_reasons[i].name && !strcasecmp(exit_reasons[i].name, name))
            return (int)i;
    return -1;
}

const char *vmx_instruction_error_text(unsigned error)
{
    return error < INSTRUCTION_ERROR_COUNT ? instruction_errors[error].title : NULL;
}

const char *vmx_instruction_error_name(unsigned error)
{
    return error < INSTRUCTION_ERROR_COUNT ? instruction_errors[error].name : NULL;
}

const struct vmx_control_info *vmx_controls(unsigned *count)
{
    *count = CONTROL_COUNT;
    return controls;
}

const struct vmx_control_info *vmx_control_find(enum control_word word, unsigned bit)
{
    for (unsigned i = 0; i < CONTROL_COUNT; i++)
        if (controls[i].word == word && controls[i].bit == bit)
            return &controls[i];
    return NULL;
}

const char *vmx_control_word_title(enum control_word word)
{
    static const char *const titles[CONTROL_WORD_COUNT] = {
        [CONTROL_WORD_PIN] = "Pin-based VM-execution controls",
        [CONTROL_WORD_PRIMARY] = "Primary processor-based VM-execution controls",
        [CONTROL_WORD_SECONDARY] = "Secondary processor-based VM-execution controls",
        [CONTROL_WORD_TERTIARY] = "Tertiary processor-based VM-execution controls",
        [CONTROL_WORD_EXIT] = "Primary VM-exit controls",
        [CONTROL_WORD_EXIT2] = "Secondary VM-exit controls",
        [CONTROL_WORD_ENTRY] = "VM-entry controls",
        [CONTROL_WORD_VMFUNC] = "VM-function controls",
    };
    return titles[word];
}

// --- Field values -------------------------------------------------------------------------------------------------

struct text {
    char *buffer;
    size_t size, used;
};

// Appends, after a blank unless it is the first word. Cuts off what does not fit.
static __attribute__((format(printf, 2, 3))) void say(struct text *text, const char *format, ...)
{
    if (text->used && text->used + 1 < text->size) {
        text->buffer[text->used++] = ' ';
        text->buffer[text->used] = '\0';
    }
    if (text->used + 1 >= text->size)
        return;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text->buffer + text->used, text->size - text->used, format, arguments);
    va_end(arguments);
    if (length > 0)
        text->used += (size_t)length;
    if (text->used >= text->size)
        text->used = text->size - 1;
}

static bool control_word_of(enum vmcs_field field, enum control_word *word)
{
    switch (field) {
    case VMCS_PIN_BASED_CONTROLS: *word = CONTROL_WORD_PIN; return true;
    case VMCS_PRIMARY_PROC_BASED_CONTROLS: *word = CONTROL_WORD_PRIMARY; return true;
    case VMCS_SECONDARY_PROC_BASED_CONTROLS: *word = CONTROL_WORD_SECONDARY; return true;
    case VMCS_TERTIARY_PROC_BASED_CONTROLS: *word = CONTROL_WORD_TERTIARY; return true;
    case VMCS_PRIMARY_EXIT_CONTROLS: *word = CONTROL_WORD_EXIT; return true;
    case VMCS_SECONDARY_EXIT_CONTROLS: *word = CONTROL_WORD_EXIT2; return true;
    case VMCS_ENTRY_CONTROLS: *word = CONTROL_WORD_ENTRY; return true;
    case VMCS_VM_FUNCTION_CONTROLS: *word = CONTROL_WORD_VMFUNC; return true;
    default: return false;
    }
}

static void say_controls(struct text *text, enum control_word word, uint64_t value)
{
    for (unsigned i = 0; i < CONTROL_COUNT; i++)
        if (controls[i].word == word && (value >> controls[i].bit & 1))
            say(text, "%s", controls[i].name);
    if (!text->used)
        say(text, "none");
}

static void say_exit_reason(struct text *text, uint64_t value)
{
    unsigned basic = (unsigned)bits_get(value, 15, 0);
    const char *name = vmx_exit_reason_name(basic);
    say(text, "%s (%u)", name ? name : "unknown", basic);
    if (value & EXIT_REASON_ENTRY_FAILURE)
        say(text, "VM-entry failure");
}

static void say_interruption(struct text *text, uint64_t value)
{
    static const char *const types[] = {"external interrupt", "reserved type 1",    "NMI",
                                        "hardware exception", "software interrupt", "privileged software exception",
                                        "software exception", "other event"};
    if (!(value & INTERRUPTION_VALID)) {
        say(text, "not valid");
        return;
    }
    say(text, "%s, vector %u", types[bits_get(value, 10, 8)], (unsigned)bits_get(value, 7, 0));
    if (value & INTERRUPTION_ERROR_CODE)
        say(text, "with error code");
    if (value & INTERRUPTION_NMI_UNBLOCKED)
        say(text, "(NMI unblocking due to IRET)");
}

static void say_access_rights(struct text *text, uint64_t value)
{
    if (value & SEGMENT_UNUSABLE)
        say(text, "unusable");
    say(text, "type %u S %u DPL %u P %u", (unsigned)bits_get(value, 3, 0), (unsigned)bits_get(value, 4, 4),
        (unsigned)bits_get(value, 6, 5), (unsigned)bits_get(value, 7, 7));
    if (value & SEGMENT_L)
        say(text, "64-bit");
    if (value & SEGMENT_DB)
        say(text, "D/B");
    if (value & SEGMENT_G)
        say(text, "G");
}

static void say_flags(struct text *text, uint64_t value, const char *const *names, unsigned count)
{
    for (unsigned bit = 0; bit < count; bit++)
        if (names[bit] && (value >> bit & 1))
            say(text, "%s", names[bit]);
    if (!text->used)
        say(text, "none");
}

static bool is_access_rights(enum vmcs_field field)
{
    return vmcs_fields[field].encoding >= 0x4814 && vmcs_fields[field].encoding <= 0x4822;
}

bool vmx_decode_field(enum vmcs_field field, uint64_t value, char *buffer, size_t size)
{
    static const char *const activities[] = {"active", "HLT", "shutdown", "wait-for-SIPI"};
    static const char *const blockings[] = {"STI", "MOV_SS", "SMI", "NMI", "ENCLAVE"};
    static const char *const cr0_bits[] = {[0] = "PE",  [1] = "MP",  [2] = "EM",  [3] = "TS",  [4] = "ET", [5] = "NE",
                                           [16] = "WP", [18] = "AM", [29] = "NW", [30] = "CD", [31] = "PG"};
    static const char *const cr4_bits[] = {"VME",      "PVI",    "TSD",        "DE",   "PSE",  "PAE",  "MCE",  "PGE",
                                           "PCE",      "OSFXSR", "OSXMMEXCPT", "UMIP", "LA57", "VMXE", "SMXE", NULL,
                                           "FSGSBASE", "PCIDE",  "OSXSAVE",    NULL,   "SMEP", "SMAP", "PKE"};
    static const char *const rflags_bits[] = {
        [0] = "CF",  [2] = "PF",  [4] = "AF",  [6] = "ZF",  [7] = "SF",  [8] = "TF",   [9] = "IF",   [10] = "DF",
        [11] = "OF", [14] = "NT", [16] = "RF", [17] = "VM", [18] = "AC", [19] = "VIF", [20] = "VIP", [21] = "ID"};
    static const char *const efer_bits[] = {[0] = "SCE", [8] = "LME", [10] = "LMA", [11] = "NXE"};
    static const char *const pending_bits[] = {
        [0] = "B0", [1] = "B1", [2] = "B2", [3] = "B3", [12] = "ENABLED", [14] = "BS", [16] = "RTM"};
    struct text text = {buffer, size, 0};
    enum control_word word;
    if (control_word_of(field, &word)) {
        say_controls(&text, word, value);
        return true;
    }
    if (is_access_rights(field)) {
        say_access_rights(&text, value);
        return true;
    }
#define NAMES(table) table, sizeof table / sizeof *table
    switch (field) {
    case VMCS_EXIT_REASON: say_exit_reason(&text, value); return true;
    case VMCS_VM_INSTRUCTION_ERROR: {
        const char *error = value < INSTRUCTION_ERROR_COUNT ? vmx_instruction_error_text((unsigned)value) : NULL;
        say(&text, "%s", error ? error : value ? "unknown" : "none");
        return true;
    }
    case VMCS_ENTRY_INTERRUPTION_INFO:
    case VMCS_EXIT_INTERRUPTION_INFO:
    case VMCS_IDT_VECTORING_INFO: say_interruption(&text, value); return true;
    case VMCS_GUEST_ACTIVITY_STATE: say(&text, "%s", value < 4 ? activities[value] : "unknown"); return true;
    case VMCS_GUEST_INTERRUPTIBILITY_STATE: say_flags(&text, value, NAMES(blockings)); return true;
    case VMCS_GUEST_CR0:
    case VMCS_HOST_CR0:
    case VMCS_CR0_GUEST_HOST_MASK:
    case VMCS_CR0_READ_SHADOW: say_flags(&text, value, NAMES(cr0_bits)); return true;
    case VMCS_GUEST_CR4:
    case VMCS_HOST_CR4:
    case VMCS_CR4_GUEST_HOST_MASK:
    case VMCS_CR4_READ_SHADOW: say_flags(&text, value, NAMES(cr4_bits)); return true;
    case VMCS_GUEST_RFLAGS: say_flags(&text, value, NAMES(rflags_bits)); return true;
    case VMCS_GUEST_IA32_EFER:
    case VMCS_HOST_IA32_EFER: say_flags(&text, value, NAMES(efer_bits)); return true;
    case VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS: say_flags(&text, value, NAMES(pending_bits)); return true;
    case VMCS_VMCS_LINK_POINTER:
        if (value != VMCS_NO_POINTER)
            return false;
        say(&text, "none");
        return true;
    default: return false;
    }
#undef NAMES
}
