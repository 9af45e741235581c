// libFuzzer target: any bytes as an image, with and without a module and --flat.
//
// Build: clang -fsanitize=fuzzer,address,undefined with the loader, mem and
// base sources. The first input byte chooses the variant, the rest is the
// image. Checked besides the sanitizers: a refusal has a text and writes
// nothing, and what is accepted enters inside RAM.
#include "base/assert.h"
#include "loader/loader.h"

#include <stdlib.h>
#include <string.h>

enum { MEMORY_SIZE = 4 << 20, VARIANT_MODULE = 1, VARIANT_FLAT = 2, VARIANT_TEXT = 4 };

static void check_accepted(const struct load_result *result, const struct memory *memory)
{
    ASSERT(memory_is_ram(memory, result->cs.base + result->rip, 1), "an accepted image has its entry in RAM");
    ASSERT(result->mode != LOAD_LONG64 || memory_is_ram(memory, result->cr3, 6 * PAGE_SIZE), "page tables are RAM");
}

static void check_refused(const struct load_error *error, const struct memory *memory)
{
    ASSERT(error->text[0] && memchr(error->text, 0, sizeof error->text), "a refusal has a text that ends");
    ASSERT(!strchr(error->text, '\n') || !error->text[0], "a refusal is one line");
    for (uint64_t page = 0; page < MEMORY_SIZE / PAGE_SIZE; page++)
        ASSERT(memory->page_flags[page] == 0, "a refused image leaves memory unchanged");
}

static void parse_text(const uint8_t *data, size_t size)
{
    struct load_flat flat;
    struct load_error error;
    char *text = malloc(size + 1);
    if (!text)
        return;
    memcpy(text, data, size);
    text[size] = 0;
    loader_parse_flat(text, &flat, &error);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t module_bytes[5000] = {1, 2, 3};
    const struct load_file module = {"module", "argument", module_bytes, sizeof module_bytes};
    struct memory memory;
    struct load_result result;
    struct load_error error;
    if (size == 0 || memory_create(&memory, MEMORY_SIZE) != MEMORY_OK)
        return 0;
    uint8_t variant = data[0];
    if (variant & VARIANT_TEXT)
        parse_text(data + 1, size - 1);
    struct load_request request = {.image = {"image", "argument", data + 1, size - 1}};
    request.modules = &module;
    request.module_count = variant & VARIANT_MODULE;
    struct load_flat flat = {(uint64_t)variant << 12, (uint64_t)variant << 12, (enum load_mode)(variant % 3)};
    if (variant & VARIANT_FLAT)
        request.flat = &flat;
    if (loader_load(&request, &memory, &result, &error) == LOAD_OK)
        check_accepted(&result, &memory);
    else
        check_refused(&error, &memory);
    memory_destroy(&memory);
    return 0;
}
