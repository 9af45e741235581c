// The text of the --flat option: ADDR[:ENTRY[:real|prot|long]].
//
// Numbers are decimal, or hexadecimal after 0x. Signs, blanks and numbers
// beyond 64 bits are refused with the place in the text.
#include "loader/loader_internal.h"

#include <string.h>

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 16;
}

// Reads a number at *text and moves *text behind it. False if there is none or it is too large.
static bool read_number(const char **text, uint64_t *number)
{
    const char *at = *text;
    bool hexadecimal = at[0] == '0' && (at[1] == 'x' || at[1] == 'X');
    unsigned base = hexadecimal ? 16 : 10;
    uint64_t value = 0;
    at += hexadecimal ? 2 : 0;
    const char *first = at;
    for (; (unsigned)digit_value(*at) < base; at++) {
        unsigned digit = (unsigned)digit_value(*at);
        if (value > (UINT64_MAX - digit) / base)
            break;
        value = value * base + digit;
    }
    *text = at;
    *number = value;
    return at != first && (*at == ':' || *at == 0);
}

static enum load_status fail(struct load_error *error, enum load_status status, const char *text, const char *at)
{
    return load_fail(error, text, status, LOADER_NO_OFFSET, (uint64_t)(at - text) + 1, 0);
}

enum load_status loader_parse_flat(const char *text, struct load_flat *flat, struct load_error *error)
{
    const char *at = text;
    *flat = (struct load_flat){.mode = LOAD_REAL16};
    *error = (struct load_error){.status = LOAD_OK, .offset = LOADER_NO_OFFSET};
    if (!read_number(&at, &flat->address))
        return fail(error, LOAD_FLAT_BAD_NUMBER, text, at);
    flat->entry = flat->address;
    if (*at == 0)
        return LOAD_OK;
    at++;
    if (!read_number(&at, &flat->entry))
        return fail(error, LOAD_FLAT_BAD_NUMBER, text, at);
    if (*at == 0)
        return LOAD_OK;
    at++;
    static const char *const modes[] = {[LOAD_REAL16] = "real", [LOAD_PROT32] = "prot", [LOAD_LONG64] = "long"};
    for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(at, modes[i]) == 0) {
            flat->mode = (enum load_mode)i;
            return LOAD_OK;
        }
    }
    return fail(error, LOAD_FLAT_BAD_MODE, text, at);
}
