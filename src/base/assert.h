// ASSERT: a defect of vmxon itself. Always on, in every build.
//
// A failed assertion prints one line and ends the process with exit status 70
// ("a defect of vmxon itself" in the command-line contract). It is never used
// for what a guest or a user can cause.
#ifndef VMXON_BASE_ASSERT_H
#define VMXON_BASE_ASSERT_H

#include "base/types.h"

_Noreturn void assert_failed(const char *file, int line, const char *condition, const char *why);

#define ASSERT(condition, why)                                  \
    do {                                                        \
        if (unlikely(!(condition)))                             \
            assert_failed(__FILE__, __LINE__, #condition, why); \
    } while (0)

#endif
