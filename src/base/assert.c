// The reporter behind ASSERT: one line on stderr, exit status 70.
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

enum { EXIT_STATUS_DEFECT = 70 };

_Noreturn void assert_failed(const char *file, int line, const char *condition, const char *why)
{
    fprintf(stderr, "vmxon: defect at %s:%d: %s (%s)\n", file, line, why, condition);
    fflush(stderr);
    _Exit(EXIT_STATUS_DEFECT);
}
