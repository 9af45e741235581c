// `vmxon caps`: the VMX capability MSRs of a profile as lines of text.
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "machine/machine.h"

struct line_sink {
    void (*line)(void *user, const char *text);
    void *user;
};

static void print(struct line_sink *sink, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void print(struct line_sink *sink, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    sink->line(sink->user, text);
}

static void describe_bit(void *owner, const struct vmx_capability_bit *bit)
{
    char range[16];
    if (bit->high == bit->low)
        snprintf(range, sizeof range, "%u", bit->low);
    else
        snprintf(range, sizeof range, "%u:%u", bit->high, bit->low);
    char value[32];
    if (bit->high != bit->low)
        snprintf(value, sizeof value, "0x%" PRIx64, bit->value);
    else
        snprintf(value, sizeof value, "%s",
                 bit->must_be_1  ? "must be 1"
                 : bit->value    ? "yes"
                 : bit->withheld ? "no (not offered by vmxon)"
                                 : "no");
    print(owner, "    %-7s %-64s %s", range, bit->title, value);
}

bool vmxon_describe_capabilities(const char *profile_name, void (*line)(void *user, const char *text), void *user)
{
    const struct cpu_profile *profile = cpu_profile_find(profile_name);
    struct vmx_caps caps;
    if (!profile || !vmx_caps_init(&caps, profile->name, profile->maxphyaddr))
        return false;
    struct line_sink sink = {line, user};
    print(&sink, "%s: %s", profile->name, profile->description);
    print(&sink, "3AH  IA32_FEATURE_CONTROL at reset = 0x%016" PRIx64, caps.feature_control);
    for (uint32_t index = MSR_IA32_VMX_BASIC; index <= MSR_IA32_VMX_VMFUNC; index++) {
        if (!caps.msr_present[index - MSR_IA32_VMX_BASIC])
            continue;
        print(&sink, "%XH %s = 0x%016" PRIx64, index, vmx_caps_msr_name(index), caps.msr[index - MSR_IA32_VMX_BASIC]);
        vmx_caps_decode(&caps, index, describe_bit, &sink);
    }
    return true;
}
