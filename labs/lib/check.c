/* See check.h. */
#include "check.h"

#include <stdarg.h>

#include "end.h"
#include "serial.h"

/* A guest is one program on one processor. */
static const char *program = "guest";
static unsigned printed;
static unsigned failures;

void check_begin(const char *name, const char *title)
{
    program = name;
    serial_printf("%s: %s\n", name, title);
}

static void report(bool holds, const char *statement, va_list arguments)
{
    serial_puts(holds ? "  ok    " : "  FAIL  ");
    serial_vprintf(statement, arguments);
    serial_putc('\n');
    printed++;
    failures += !holds;
}

bool check(bool holds, const char *statement, ...)
{
    va_list arguments;
    va_start(arguments, statement);
    report(holds, statement, arguments);
    va_end(arguments);
    return holds;
}

bool check_quietly(bool holds, const char *statement, ...)
{
    if (!holds) {
        va_list arguments;
        va_start(arguments, statement);
        report(holds, statement, arguments);
        va_end(arguments);
    }
    return holds;
}

static void report_verdict_of_failure(void) { serial_printf("%s: FAIL (%u failures)\n", program, failures); }

void require(bool holds, const char *statement, ...)
{
    va_list arguments;
    va_start(arguments, statement);
    report(holds, statement, arguments);
    va_end(arguments);
    if (!holds) {
        report_verdict_of_failure();
        finish(1);
    }
}

void require_quietly(bool holds, const char *statement, ...)
{
    if (!holds) {
        va_list arguments;
        va_start(arguments, statement);
        report(holds, statement, arguments);
        va_end(arguments);
        report_verdict_of_failure();
        finish(1);
    }
}

void note(const char *text, ...)
{
    va_list arguments;
    va_start(arguments, text);
    serial_puts("  note  ");
    serial_vprintf(text, arguments);
    serial_putc('\n');
    va_end(arguments);
}

unsigned check_count(void) { return printed; }

unsigned check_failures(void) { return failures; }

int check_verdict(const char *detail, ...)
{
    if (failures) {
        report_verdict_of_failure();
        return 1;
    }
    va_list arguments;
    va_start(arguments, detail);
    serial_printf("%s: PASS (", program);
    serial_vprintf(detail, arguments);
    serial_puts(")\n");
    va_end(arguments);
    return 0;
}
