/* Where Bochs 2.7 is known to differ from the SDM, tests/guest/run says "bochs" on the command line. */
#ifndef GUEST_SUPPORT_EMULATOR_H
#define GUEST_SUPPORT_EMULATOR_H

#include <stdbool.h>

#include "check.h"
#include "multiboot.h"

/* Whether this runs on Bochs; then also prints a note that the statements about `what` are left out. */
static inline bool bochs_lacks(const struct multiboot_info *information, const char *what)
{
    if (!information || !(information->flags & MULTIBOOT_INFO_COMMAND_LINE)) {
        return false;
    }
    for (const char *text = (const char *)(uintptr_t)information->cmdline; *text; text++) {
        if (text[0] == 'b' && text[1] == 'o' && text[2] == 'c' && text[3] == 'h' && text[4] == 's') {
            note("left out on Bochs: %s", what);
            return true;
        }
    }
    return false;
}

#endif
