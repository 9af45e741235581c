// Remembers what the VM-entry checks last accepted, so that an entry with nothing changed skips them.
//
// Processors since Westmere do the same (timing.md: a control write makes the checks run again). The memory is by value: an entry
// is accepted if every field that a check reads has the value it had when all checks held, wherever the VMCS lies and however it was
// written. What a check reads beyond the fields makes the entry not rememberable.
#ifndef VMXON_VMX_ENTRY_MEMO_H
#define VMXON_VMX_ENTRY_MEMO_H

#include "vmx/entry_checks.h"

struct entry_memo {
    bool valid;
    uint64_t efer;                    // of the processor at the time
    uint64_t field[VMCS_FIELD_COUNT]; // RFLAGS without its arithmetic flags
};

// True if all checks would hold for this context, because they held for the same values before.
bool entry_memo_knows(const struct entry_memo *memo, const struct entry_context *context);
// To be called after all checks held.
void entry_memo_store(struct entry_memo *memo, const struct entry_context *context);

#endif
