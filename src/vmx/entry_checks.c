// Runs the checks of VM entry. SDM 3C 27.2 and 27.3.1; the rules are in entry_checks.def.
//
// The table is expanded into straight-line code, one predicted branch a row. The functions below are what its expressions use.
#include "vmx/entry_checks.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "vmx/transition.h"

#define VIRTUAL_APIC_VTPR 0x80

#define CR0_NOT_CHECKED (CR0_NW | CR0_CD)
#define CR3_PAE_BASE    BITS(31, 5)
#define SELECTOR_RPL    BITS(1, 0)
#define SELECTOR_TI     BIT(2)
#define SELECTOR_RPL_TI (SELECTOR_RPL | SELECTOR_TI)

// Segment types (SDM 3A 3.4.5.1, 3.5).
#define TYPE_ACCESSED         BIT(0)
#define TYPE_READABLE         BIT(1)
#define TYPE_EXPAND_DOWN      BIT(2)
#define TYPE_CONFORMING       BIT(2)
#define TYPE_CODE             BIT(3)
#define TYPE_LDT              2
#define TYPE_DATA_RW_ACCESSED 3
#define TYPE_BUSY_TSS_16      3
#define TYPE_BUSY_TSS         11

#define RFLAGS_RESERVED             (BITS(63, 22) | BIT(15) | BIT(5) | BIT(3))
#define EFER_RESERVED               (~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE))
#define DEBUGCTL_BTF                BIT(1)
#define DEBUGCTL_RTM                BIT(15)
#define DEBUGCTL_RESERVED           (BITS(63, 16) | BITS(5, 2))
#define ENCLAVE_INTERRUPTION        BIT(4)
#define PENDING_DEBUG_ENABLED       BIT(12)
#define PENDING_DEBUG_BS            BIT(14)
#define PENDING_DEBUG_RTM           BIT(16)
#define PENDING_DEBUG_RESERVED_BITS (BITS(63, 17) | BIT(15) | BIT(13) | BITS(11, 4))

// --- What the expressions of the table use ------------------------------------------------------------------------

static inline bool page_aligned(hpa_t address) { return !(address & PAGE_OFFSET_MASK); }
static inline bool usable(uint64_t access_rights) { return !(access_rights & SEGMENT_UNUSABLE); }
static inline bool limit_ends_page(uint64_t limit) { return (limit & 0xFFF) == 0xFFF; }

// Each byte a memory type: 0 UC, 1 WC, 4 WT, 5 WP, 6 WB, 7 UC-. So no bit above 2, and bit 1 only together with bit 2.
static inline bool pat_valid(uint64_t pat)
{
    const uint64_t bit_1 = 0x0202020202020202, high = 0xF8F8F8F8F8F8F8F8;
    return !(pat & high) && !(pat & bit_1 & ~(pat >> 1));
}

static inline bool eptp_memory_type_valid(const struct vmx_caps *caps, uint64_t eptp)
{
    uint64_t type = bits_get(eptp, 2, 0);
    return (type == 0 && (caps->ept_vpid & VMX_EPT_VPID_CAP_EPT_UC)) ||
           (type == 6 && (caps->ept_vpid & VMX_EPT_VPID_CAP_EPT_WB));
}

static inline bool eptp_walk_length_valid(const struct vmx_caps *caps, uint64_t eptp)
{
    uint64_t length_minus_1 = bits_get(eptp, 5, 3);
    return (length_minus_1 == 3 && (caps->ept_vpid & VMX_EPT_VPID_CAP_WALK_LENGTH_4)) ||
           (length_minus_1 == 4 && (caps->ept_vpid & VMX_EPT_VPID_CAP_WALK_LENGTH_5));
}

static inline bool eptp_accessed_dirty_valid(const struct vmx_caps *caps, uint64_t eptp)
{
    return !(eptp & EPTP_ACCESSED_DIRTY) || (caps->ept_vpid & VMX_EPT_VPID_CAP_ACCESSED_DIRTY);
}

static inline bool eptp_shadow_stack_valid(const struct vmx_caps *caps, uint64_t eptp)
{
    return !(eptp & BIT(7)) || (caps->ept_vpid & VMX_EPT_VPID_CAP_SHADOW_STACK);
}

static inline bool eptp_reserved_valid(uint64_t eptp) { return !(eptp & BITS(11, 8)); }

static inline uint64_t inject_type(uint64_t info) { return bits_get(info, 10, 8); }
static inline uint64_t inject_vector(uint64_t info) { return info & INTERRUPTION_VECTOR; }

static inline bool delivers_error_code(uint64_t info)
{
    const uint64_t with_error_code = BIT(VECTOR_DF) | BIT(VECTOR_TS) | BIT(VECTOR_NP) | BIT(VECTOR_SS) |
                                     BIT(VECTOR_GP) | BIT(VECTOR_PF) | BIT(VECTOR_AC);
    return inject_type(info) == EVENT_HARDWARE_EXCEPTION && inject_vector(info) <= 31 &&
           (with_error_code >> inject_vector(info) & 1);
}

static inline bool is_software_event(uint64_t info)
{
    return inject_type(info) >= EVENT_SOFTWARE_INTERRUPT && inject_type(info) <= EVENT_SOFTWARE_EXCEPTION;
}

static inline bool wakes_shutdown(uint64_t info)
{
    return inject_type(info) == EVENT_NMI ||
           (inject_type(info) == EVENT_HARDWARE_EXCEPTION && inject_vector(info) == VECTOR_MC);
}

static inline bool wakes_hlt(uint64_t info)
{
    return wakes_shutdown(info) || inject_type(info) == EVENT_EXTERNAL_INTERRUPT ||
           (inject_type(info) == EVENT_HARDWARE_EXCEPTION && inject_vector(info) == VECTOR_DB) ||
           (inject_type(info) == EVENT_OTHER && inject_vector(info) == 0);
}

static inline bool activity_supported(const struct vmx_caps *caps, uint64_t activity)
{
    switch (activity) {
    case ACTIVITY_ACTIVE: return true;
    case ACTIVITY_HLT: return caps->misc & VMX_MISC_ACTIVITY_HLT;
    case ACTIVITY_SHUTDOWN: return caps->misc & VMX_MISC_ACTIVITY_SHUTDOWN;
    case ACTIVITY_WAIT_FOR_SIPI: return caps->misc & VMX_MISC_ACTIVITY_WAIT_FOR_SIPI;
    default: return false;
    }
}

// The states in which BS has to agree with RFLAGS.TF, since the single step of the instruction before must be pending.
static inline bool single_step_is_pending(uint64_t interruptibility, uint64_t activity)
{
    return (interruptibility & (BLOCKING_STI | BLOCKING_MOV_SS)) || activity == ACTIVITY_HLT;
}

static inline bool pdpte_valid(const struct vmx_caps *caps, uint64_t pdpte)
{
    return !(pdpte & BIT(0)) || (!(pdpte & (BITS(8, 5) | BITS(2, 1))) && !(pdpte >> caps->maxphyaddr));
}

// Memory that is not RAM reads as ones.
static uint32_t read_memory32(const struct entry_context *context, hpa_t address)
{
    uint32_t value;
    return memory_read(context->memory, address, &value, sizeof value) ? value : UINT32_MAX;
}

static uint64_t read_memory64(const struct entry_context *context, hpa_t address)
{
    uint64_t value;
    return memory_read(context->memory, address, &value, sizeof value) ? value : UINT64_MAX;
}

// --- Running the table --------------------------------------------------------------------------------------------

enum { NO_CHECK = -1 };
enum phase { PHASE_CONTROLS_AND_HOST, PHASE_GUEST, PHASE_ONE };

static inline enum phase outcome_phase(enum check_outcome outcome)
{
    return outcome <= FAIL_HOST ? PHASE_CONTROLS_AND_HOST : PHASE_GUEST;
}

// The first row of a phase that fails, or of PHASE_ONE the row `one`. Inlined with a constant phase, so that each caller contains
// its own rows only.
static inline __attribute__((always_inline)) int run(const struct entry_context *context, enum phase phase, int one)
{
#define f(name)            (vmcs->field[VMCS_##name])
#define physical(address)  (!((address) >> maxphyaddr))
#define canonical(address) is_canonical(address, linear_width)
    const struct vmcs_region *vmcs = context->vmcs;
    const struct vmx_caps *caps = context->caps;
    const unsigned maxphyaddr = caps->maxphyaddr, linear_width = caps->linear_width;
    const uint64_t efer = context->efer;
    const uint64_t current_pointer = context->current_pointer;
    const bool has_rtm = context->rtm, has_sgx = context->sgx;

    const uint64_t pin = f(PIN_BASED_CONTROLS), primary = f(PRIMARY_PROC_BASED_CONTROLS);
    const uint64_t secondary = primary & PRIMARY_ACTIVATE_SECONDARY_CONTROLS ? f(SECONDARY_PROC_BASED_CONTROLS) : 0;
    const uint64_t exit_controls = f(PRIMARY_EXIT_CONTROLS), entry_controls = f(ENTRY_CONTROLS);
    const bool host_64bit = exit_controls & EXIT_HOST_ADDRESS_SPACE_SIZE;
    const bool ia32e_guest = entry_controls & ENTRY_IA32E_MODE_GUEST;
    const bool unrestricted = secondary & SECONDARY_UNRESTRICTED_GUEST;
    const bool v8086 = f(GUEST_RFLAGS) & RFLAGS_VM;
    const bool injecting = f(ENTRY_INTERRUPTION_INFO) & INTERRUPTION_VALID;
    const bool pae_guest = (f(GUEST_CR0) & CR0_PG) && (f(GUEST_CR4) & CR4_PAE) && !ia32e_guest;

#define CHECK(id, outcome, spec_id, sdm, message, applies_when, must_hold)            \
    if ((phase == PHASE_ONE ? one == CHECK_##id : phase == outcome_phase(outcome)) && \
        unlikely((applies_when) && !(must_hold)))                                     \
        return CHECK_##id;
#include "vmx/entry_checks.def"
#undef CHECK
#undef f
#undef physical
#undef canonical
    (void)efer, (void)current_pointer, (void)has_rtm, (void)has_sgx;
    return NO_CHECK;
}

int entry_check_controls_and_host(const struct entry_context *context)
{
    return run(context, PHASE_CONTROLS_AND_HOST, NO_CHECK);
}

int entry_check_guest(const struct entry_context *context) { return run(context, PHASE_GUEST, NO_CHECK); }

bool entry_check_holds(enum entry_check_id id, const struct entry_context *context)
{
    return run(context, PHASE_ONE, (int)id) == NO_CHECK;
}

bool entry_check_eptp(const struct vmx_caps *caps, uint64_t eptp)
{
    return eptp_memory_type_valid(caps, eptp) && eptp_walk_length_valid(caps, eptp) &&
           eptp_accessed_dirty_valid(caps, eptp) && eptp_shadow_stack_valid(caps, eptp) && eptp_reserved_valid(eptp) &&
           !(eptp >> caps->maxphyaddr);
}

// --- What the rows say --------------------------------------------------------------------------------------------

const struct entry_check_info entry_checks[ENTRY_CHECK_COUNT] = {
#define CHECK(id, outcome, spec_id, sdm, message, applies_when, must_hold) \
    [CHECK_##id] = {#id, spec_id, sdm, message, outcome, #applies_when, #must_hold},
#include "vmx/entry_checks.def"
#undef CHECK
};

unsigned entry_check_instruction_error(enum check_outcome outcome)
{
    switch (outcome) {
    case FAIL_CONTROL: return ERROR_INVALID_CONTROL_FIELD;
    case FAIL_HOST: return ERROR_INVALID_HOST_STATE_FIELD;
    default: return 0;
    }
}

uint64_t entry_check_exit_qualification(enum check_outcome outcome)
{
    switch (outcome) {
    case FAIL_GUEST_PDPTE: return 2;
    case FAIL_GUEST_NMI: return 3;
    case FAIL_GUEST_LINK: return 4;
    default: return 0;
    }
}

// The words of an expression that stand for VMCS fields without naming them in f(X).
struct term {
    const char *word;
    enum vmcs_field fields[3];
    unsigned count;
};
static const struct term terms[] = {
    {"pin", {VMCS_PIN_BASED_CONTROLS}, 1},
    {"primary", {VMCS_PRIMARY_PROC_BASED_CONTROLS}, 1},
    {"secondary", {VMCS_SECONDARY_PROC_BASED_CONTROLS}, 1},
    {"exit_controls", {VMCS_PRIMARY_EXIT_CONTROLS}, 1},
    {"entry_controls", {VMCS_ENTRY_CONTROLS}, 1},
    {"host_64bit", {VMCS_PRIMARY_EXIT_CONTROLS}, 1},
    {"ia32e_guest", {VMCS_ENTRY_CONTROLS}, 1},
    {"unrestricted", {VMCS_SECONDARY_PROC_BASED_CONTROLS}, 1},
    {"v8086", {VMCS_GUEST_RFLAGS}, 1},
    {"injecting", {VMCS_ENTRY_INTERRUPTION_INFO}, 1},
    {"pae_guest", {VMCS_GUEST_CR0, VMCS_GUEST_CR4, VMCS_ENTRY_CONTROLS}, 3},
};

struct field_list {
    enum vmcs_field *fields;
    unsigned size, count;
};

static void list_add(struct field_list *list, enum vmcs_field field)
{
    for (unsigned i = 0; i < list->count && i < list->size; i++)
        if (list->fields[i] == field)
            return;
    if (list->count < list->size)
        list->fields[list->count] = field;
    list->count++;
}

static void list_add_word(struct field_list *list, const char *word, size_t length, bool is_field)
{
    if (is_field) {
        enum vmcs_field field;
        bool found = vmcs_field_by_name(word, length, &field);
        ASSERT(found, "f(X) compiled, so X is a field");
        list_add(list, field);
        return;
    }
    for (unsigned i = 0; i < sizeof terms / sizeof *terms; i++)
        if (strlen(terms[i].word) == length && !memcmp(terms[i].word, word, length))
            for (unsigned k = 0; k < terms[i].count; k++)
                list_add(list, terms[i].fields[k]);
}

// Members (caps->pin) and constants (PIN_NMI_EXITING) are words as well, but name no field.
static void list_add_expression(struct field_list *list, const char *text)
{
    const char *at = text;
    while (*at) {
        if (!isalnum((unsigned char)*at) && *at != '_') {
            at++;
            continue;
        }
        const char *start = at;
        while (isalnum((unsigned char)*at) || *at == '_')
            at++;
        bool is_member = start - text >= 2 && start[-2] == '-' && start[-1] == '>';
        bool is_field = start - text >= 2 && start[-1] == '(' && start[-2] == 'f' &&
                        (start - text == 2 || !isalnum((unsigned char)start[-3]));
        if (!is_member)
            list_add_word(list, start, (size_t)(at - start), is_field);
    }
}

unsigned entry_check_fields(enum entry_check_id id, enum vmcs_field *fields, unsigned size)
{
    struct field_list list = {fields, size, 0};
    list_add_expression(&list, entry_checks[id].must_hold);
    list_add_expression(&list, entry_checks[id].applies_when);
    return list.count;
}

static __attribute__((format(printf, 4, 5))) void append(char *buffer, size_t size, size_t *used, const char *format,
                                                         ...)
{
    if (*used >= size)
        return;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(buffer + *used, size - *used, format, arguments);
    va_end(arguments);
    if (length > 0)
        *used += (size_t)length;
}

void entry_check_explain(enum entry_check_id id, const struct vmcs_region *vmcs, char *buffer, size_t size)
{
    const struct entry_check_info *check = &entry_checks[id];
    enum vmcs_field fields[8];
    unsigned count = entry_check_fields(id, fields, 8);
    size_t used = 0;
    append(buffer, size, &used, "%s: %s [SDM 3C %s]", check->name, check->message, check->sdm);
    for (unsigned i = 0; i < count && i < 8; i++)
        append(buffer, size, &used, "%s %s=0x%llx", i ? "," : ":", vmcs_fields[fields[i]].name,
               (unsigned long long)vmcs_get(vmcs, fields[i]));
}
