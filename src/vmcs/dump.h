// Lists the contents of a VMCS region for people and programs.
//
// The items come in the order guest, host, control, exit information, and within a group by encoding. vmcs_dump_each is neutral as
// to form (JSON, HTML, text); vmcs_dump_text writes plain text.
#ifndef VMXON_VMCS_DUMP_H
#define VMXON_VMCS_DUMP_H

#include "vmcs/vmcs.h"

// Writes what a value means into `buffer` ("HLT", "ENABLE_EPT ENABLE_VPID"); false: nothing to say. Given by the caller, since only
// the VMX module knows the meanings: vmx_decode_field.
typedef bool (*vmcs_decoder)(enum vmcs_field field, uint64_t value, char *buffer, size_t size);

struct vmcs_dump_item {
    enum vmcs_field field;
    const char *name;  // upper case, as in fields.def
    const char *title; // the SDM's name
    const char *group; // "guest", "host", "control", "exit information"
    unsigned bits;     // width: 16, 32 or 64
    uint32_t encoding;
    uint64_t value;
    const char *meaning; // "" if nothing more is to be said; valid during the call
};

#define VMCS_DUMP_MEANING_SIZE 1024 // bytes of the longest meaning, with its NUL

// Calls `each` for every field in `set` (NULL: every field known).
void vmcs_dump_each(const struct vmcs_region *vmcs, const struct vmcs_field_set *set, vmcs_decoder decode,
                    void (*each)(void *owner, const struct vmcs_dump_item *item), void *owner);

// The same as text: a line for revision and launch state, then a heading a group and a line a field. `write` receives pieces of text.
void vmcs_dump_text(const struct vmcs_region *vmcs, const struct vmcs_field_set *set, vmcs_decoder decode,
                    void (*write)(void *owner, const char *text), void *owner);

// "16", "32", "64" bits of a field's width.
unsigned vmcs_width_bits(enum vmcs_width width);
const char *vmcs_group_name(enum vmcs_group group);

#endif
