// The tables of VMCS fields and the look-ups that are not inline. SDM 3D appendix B "Field Encoding in VMCS".
#include "vmcs/vmcs.h"

#include <strings.h>
#include <string.h>

#define WIDTH_OF(encoding) ((encoding) >> 13 & 3)
#define GROUP_OF(encoding) ((encoding) >> 10 & 3)
#define INDEX_OF(encoding) ((encoding) >> 1 & 0x1FF)

// The encoding says what the columns say.
#define FIELD(name, encoding, width, group, exists_when, title)                                                     \
    static_assert(((encoding) & ~0x6FFEu) == 0, #name ": bits 0, 12 and 31:15 of the encoding of a field are 0");   \
    static_assert(WIDTH_OF(encoding) == VMCS_WIDTH_##width, #name ": encoding bits 14:13 disagree with the width"); \
    static_assert(GROUP_OF(encoding) == VMCS_GROUP_##group, #name ": encoding bits 11:10 disagree with the group"); \
    static_assert(INDEX_OF(encoding) < VMCS_INDEX_COUNT, #name ": raise VMCS_INDEX_COUNT");
#include "vmcs/fields.def"
#undef FIELD
static_assert(VMCS_FIELD_COUNT < UINT8_MAX, "vmcs_field_index holds field + 1 in a byte");

const struct vmcs_field_info vmcs_fields[VMCS_FIELD_COUNT] = {
#define FIELD(name, encoding, width, group, exists_when, title) \
    [VMCS_##name] = {#name, title, encoding, VMCS_WIDTH_##width, VMCS_GROUP_##group},
#include "vmcs/fields.def"
#undef FIELD
};

const uint8_t vmcs_field_index[4][4][VMCS_INDEX_COUNT] = {
#define FIELD(name, encoding, width, group, exists_when, title) \
    [WIDTH_OF(encoding)][GROUP_OF(encoding)][INDEX_OF(encoding)] = VMCS_##name + 1,
#include "vmcs/fields.def"
#undef FIELD
};

bool vmcs_field_by_name(const char *name, size_t length, enum vmcs_field *field)
{
    for (unsigned i = 0; i < VMCS_FIELD_COUNT; i++) {
        if (strlen(vmcs_fields[i].name) == length && !strncasecmp(vmcs_fields[i].name, name, length)) {
            *field = (enum vmcs_field)i;
            return true;
        }
    }
    return false;
}

bool vmcs_field_by_encoding(uint64_t encoding, enum vmcs_field *field)
{
    struct vmcs_field_set all;
    bool high;
    memset(&all, 0xFF, sizeof all);
    return vmcs_find(&all, encoding, field, &high);
}
