// The VMCS: fields, regions, launch state. SDM 3C ch. 25 "Virtual-Machine Control Structures".
//
// The data of a VMCS lives in its region in guest memory at all times, in our own layout (IA32_VMX_BASIC gives the size), so
// that a VMCS needs no state outside memory: several may be active, VMCLEAR has nothing to flush, a snapshot of memory is complete.
// What a guest writes into a region by plain stores is taken as it comes (documented in docs/sdm.md).
#ifndef VMXON_VMCS_VMCS_H
#define VMXON_VMCS_VMCS_H

#include <assert.h>

#include "base/types.h"
#include "mem/memory.h"

// enum vmcs_field: VMCS_GUEST_RIP etc.; dense, in the order of fields.def.
enum vmcs_field {
#define FIELD(name, encoding, width, group, exists_when, title) VMCS_##name,
#include "vmcs/fields.def"
#undef FIELD
    VMCS_FIELD_COUNT
};

enum vmcs_width { VMCS_WIDTH_16, VMCS_WIDTH_64, VMCS_WIDTH_32, VMCS_WIDTH_NATURAL }; // numbered as encoding bits 14:13
enum vmcs_group {
    VMCS_GROUP_CONTROL,
    VMCS_GROUP_EXIT_INFO,
    VMCS_GROUP_GUEST,
    VMCS_GROUP_HOST
}; // as encoding bits 11:10

enum launch_state { LAUNCH_STATE_CLEAR = 0, LAUNCH_STATE_LAUNCHED = 1 };

#define VMCS_SHADOW_INDICATOR BIT(31)
#define VMCS_NO_POINTER       UINT64_MAX // "no current VMCS", and the link pointer's "none"

struct vmcs_region {
    uint32_t revision;     // bits 30:0 VMCS revision identifier, bit 31 shadow-VMCS indicator
    uint32_t abort;        // VMX-abort indicator
    uint32_t launch_state; // enum launch_state; any other value counts as not launched and not clear
    uint32_t reserved;
    uint64_t field[VMCS_FIELD_COUNT];
};
static_assert(sizeof(struct vmcs_region) <= 4096, "a VMCS region is at most 4 KBytes");

static inline uint64_t vmcs_get(const struct vmcs_region *vmcs, enum vmcs_field field) { return vmcs->field[field]; }
static inline void vmcs_put(struct vmcs_region *vmcs, enum vmcs_field field, uint64_t value)
{
    vmcs->field[field] = value;
}

// Region at a physical address, or NULL if the 4 KBytes there are not RAM.
static inline struct vmcs_region *vmcs_region_at(const struct memory *memory, hpa_t address)
{
    return (struct vmcs_region *)(void *)memory_host(memory, address & PAGE_FRAME_MASK);
}

// What is known of a field.
struct vmcs_field_info {
    const char *name;  // as in fields.def: "GUEST_RIP"
    const char *title; // the SDM's name
    uint32_t encoding; // of the full field
    enum vmcs_width width;
    enum vmcs_group group;
};
extern const struct vmcs_field_info vmcs_fields[VMCS_FIELD_COUNT];

// Which optional fields exist: one bit a field, computed once from the capabilities.
struct vmcs_field_set {
    uint64_t present[(VMCS_FIELD_COUNT + 63) / 64];
};

// Field + 1 by width, group and index of the encoding; 0: no field.
#define VMCS_INDEX_COUNT 64 // index values (bits 9:1) that any field of ours has
extern const uint8_t vmcs_field_index[4][4][VMCS_INDEX_COUNT];

// Finds the field of an encoding. *high: the encoding is that of the high half. False: no such field on this processor.
static inline bool vmcs_find(const struct vmcs_field_set *set, uint64_t encoding, enum vmcs_field *field, bool *high)
{
    uint64_t width = bits_get(encoding, 14, 13), group = bits_get(encoding, 11, 10), index = bits_get(encoding, 9, 1);
    if ((encoding & ~(BITS(14, 13) | BITS(11, 0))) || index >= VMCS_INDEX_COUNT ||
        ((encoding & 1) && width != VMCS_WIDTH_64))
        return false;
    unsigned found = vmcs_field_index[width][group][index];
    if (!found--)
        return false;
    *field = (enum vmcs_field)found;
    *high = encoding & 1;
    return set->present[found / 64] >> found % 64 & 1;
}

// The field of a name, upper or lower case, `length` characters. False: no such field.
bool vmcs_field_by_name(const char *name, size_t length, enum vmcs_field *field);
// The field of an encoding (full or high half), whether it exists on the processor or not. False: none.
bool vmcs_field_by_encoding(uint64_t encoding, enum vmcs_field *field);

#endif
