// Names of what VMX reports: for messages, traces and dumps. Derived from the .def tables.
#ifndef VMXON_VMX_NAMES_H
#define VMXON_VMX_NAMES_H

#include "base/types.h"
#include "vmcs/vmcs.h"

const char *vmx_exit_reason_name(unsigned reason);  // "EPT_VIOLATION"; basic reason 0 to 85; NULL: unused number
const char *vmx_exit_reason_title(unsigned reason); // "EPT violation"; NULL: unused number
// The basic reason of a name (upper or lower case), or -1.
int vmx_exit_reason_by_name(const char *name);

const char *vmx_instruction_error_text(unsigned error); // the SDM's description; NULL: unused number
const char *vmx_instruction_error_name(unsigned error); // "VMLAUNCH_NOT_CLEAR"; NULL: unused number

// What a field's value means, one line without newline: the names of set control bits, the exit reason, an interruption information
// field taken apart... False: the value needs no words (addresses, counts); then `buffer` is not written. A vmcs_decoder (vmcs/dump.h).
bool vmx_decode_field(enum vmcs_field field, uint64_t value, char *buffer, size_t size);

#endif
