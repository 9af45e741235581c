// The VMX control words: a constant a bit, PIN_NMI_EXITING, ENTRY_IA32E_MODE_GUEST and so on, from controls.def.
//
// SDM 3C 25.6 to 25.8. Words are numbered for tables; vmx_control_name gives a bit's name for messages.
#ifndef VMXON_VMX_CONTROLS_H
#define VMXON_VMX_CONTROLS_H

#include "base/types.h"

enum control_word {
    CONTROL_WORD_PIN,
    CONTROL_WORD_PRIMARY,
    CONTROL_WORD_SECONDARY,
    CONTROL_WORD_TERTIARY,
    CONTROL_WORD_EXIT,
    CONTROL_WORD_EXIT2,
    CONTROL_WORD_ENTRY,
    CONTROL_WORD_VMFUNC,
    CONTROL_WORD_COUNT
};

enum vmx_control {
#define CONTROL(word, bit, name, title, implemented) word##_##name = (uint32_t)1 << (bit),
#include "vmx/controls.def"
#undef CONTROL
};

// VM-instruction error numbers (SDM 3C 31.4): ERROR_VMCALL_IN_ROOT = 1 and so on.
enum vmx_instruction_error {
#define INSTRUCTION_ERROR(number, name, text) ERROR_##name = (number),
#include "vmx/instruction_errors.def"
#undef INSTRUCTION_ERROR
    INSTRUCTION_ERROR_COUNT = 29
};

struct vmx_control_info {
    enum control_word word;
    unsigned bit;
    const char *name;  // "ENABLE_EPT"
    const char *title; // the SDM's name: "Enable EPT"
    bool implemented;  // the 1-setting may be offered
};
// All rows of controls.def; *count receives their number.
const struct vmx_control_info *vmx_controls(unsigned *count);
// The bit of a word, or NULL if it is reserved.
const struct vmx_control_info *vmx_control_find(enum control_word word, unsigned bit);
// "pin-based VM-execution controls" and so on.
const char *vmx_control_word_title(enum control_word word);

#endif
