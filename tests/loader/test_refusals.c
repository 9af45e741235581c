// Every reason to refuse an image: a table of bad inputs, complete by a meta-test.
#include "image_builder.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

enum { MEMORY_SIZE = 16 << 20 };

static struct memory memory;
static struct image image;
static struct load_file modules[LOADER_MAX_MODULES + 1];
static struct load_flat flat;
static struct load_request request;
static const char *flat_text; // if set, the case is about the option

static void base(void)
{
    memset(&request, 0, sizeof request);
    memset(modules, 0, sizeof modules);
    flat_text = NULL;
    request.image.name = "kernel.elf";
}

static void use_flat(uint64_t address, uint64_t entry, enum load_mode mode)
{
    memset(&image, 0x90, sizeof image.bytes);
    image.size = 0x200;
    flat = (struct load_flat){address, entry, mode};
    request.flat = &flat;
}

static void kernel_segment(uint64_t file_offset, uint64_t file_size, uint64_t address, uint64_t memory_size)
{
    build_elf(&image, false, (uint32_t)address);
    add_segment(&image, file_offset, file_size, address, memory_size, address);
    add_multiboot_header(&image, IMAGE_MULTIBOOT, 3);
}

static void program_segment(uint64_t file_offset, uint64_t file_size, uint64_t address, uint64_t memory_size)
{
    build_elf(&image, true, address);
    add_segment(&image, file_offset, file_size, address, memory_size, address);
}

static void patched(unsigned at, uint64_t value, unsigned size)
{
    build_program(&image);
    put_bytes(&image, at, value, size);
}

static void with_modules(unsigned count, uint64_t size)
{
    static uint8_t bytes[32 << 20];
    for (unsigned i = 0; i < count; i++)
        modules[i] = (struct load_file){"initrd.img", NULL, bytes, size};
    request.modules = modules;
    request.module_count = count;
}

static void empty(void) { memset(&image, 0, sizeof image); }
static void text_file(void) { empty(), memcpy(image.bytes, "#!/bin/sh\n", 10), image.size = 10; }
static void multiboot_without_elf(void)
{
    empty();
    image.size = 64;
    add_multiboot_header(&image, 0, 3);
}
static void linux_kernel(void)
{
    empty();
    image.size = 0x400;
    put_bytes(&image, 0x1fe, 0xaa55, 2);
    memcpy(image.bytes + 0x202, "HdrS", 4);
    put_bytes(&image, 0x206, 0x020f, 2);
}
static void multiboot2(void)
{
    empty();
    image.size = 0x100;
    put_bytes(&image, 8, 0xe85250d6, 4);
    put_bytes(&image, 16, 24, 4);
    put_bytes(&image, 20, 0 - (0xe85250d6u + 24u), 4);
}
static void elf32_alone(void)
{
    build_kernel(&image);
    put_bytes(&image, IMAGE_MULTIBOOT, 0, 4);
}
static void header_beyond_8192(void)
{
    build_kernel(&image);
    put_bytes(&image, IMAGE_MULTIBOOT, 0, 4);
    image.size = 16384;
    add_multiboot_header(&image, 8184, 3); // its last word lies at 8192
}
static void misaligned_header(void)
{
    build_kernel(&image);
    memset(image.bytes + IMAGE_MULTIBOOT, 0, 12);
    add_multiboot_header(&image, 0x202, 3);
}
static void bad_checksum(void)
{
    build_kernel(&image);
    put_bytes(&image, IMAGE_MULTIBOOT + 8, 1, 4);
}
static void truncated_addresses(void)
{
    build_raw_kernel(&image, 0x100040, 0x100000, 0, 0, 0x100000);
    image.size = 0x50;
}
static void unknown_flag(void)
{
    build_kernel(&image);
    add_multiboot_header(&image, IMAGE_MULTIBOOT, 0x13);
}
static void load_above_header(void) { build_raw_kernel(&image, 0x100040, 0x100044, 0, 0, 0x100000); }
static void header_too_far_in(void) { build_raw_kernel(&image, 0x100044, 0x100000, 0, 0, 0x100000); }
static void load_end_below_header(void) { build_raw_kernel(&image, 0x100040, 0x100000, 0x100020, 0, 0x100000); }
static void bss_end_below_load_end(void) { build_raw_kernel(&image, 0x100040, 0x100000, 0x100200, 0x100100, 0x100000); }
static void load_end_beyond_file(void) { build_raw_kernel(&image, 0x100040, 0x100000, 0x101000, 0, 0x100000); }
static void elf_cut_in_identity(void) { build_program(&image), image.size = 10; }
static void elf_cut_in_header(void) { build_program(&image), image.size = 63; }
static void bad_class(void) { patched(4, 3, 1); }
static void big_endian(void) { patched(5, 2, 1); }
static void bad_identity_version(void) { patched(6, 0, 1); }
static void bad_version(void) { patched(20, 7, 4); }
static void arm_machine(void) { patched(18, 183, 2); }
static void shared_object(void) { patched(16, 3, 2); }
static void bad_program_header_size(void) { patched(54, 32, 2); }
static void bad_section_header_size(void) { build_program(&image), add_sections(&image), put_bytes(&image, 58, 40, 2); }
static void program_headers_outside(void) { patched(32, 0x1ff0, 8); }
static void program_headers_overflow(void) { patched(32, UINT64_MAX - 8, 8); }
static void sections_outside(void) { build_kernel(&image), add_sections(&image), put_bytes(&image, 32, 0x1fff, 4); }
static void symbols_outside(void)
{
    build_kernel(&image), add_sections(&image), put_bytes(&image, 0x1c00 + 40 + 16, 0x1ff0, 4);
}
static void no_program_headers(void) { build_elf(&image, true, 0x100000); }
static void no_load_segments(void) { build_program(&image), put_bytes(&image, 64, 4, 4); }
static void empty_segments_only(void) { program_segment(IMAGE_DATA, 0, 0x100000, 0); }
static void many_segments(void)
{
    build_elf(&image, true, 0x100000);
    for (unsigned i = 0; i <= LOADER_MAX_SEGMENTS; i++)
        add_segment(&image, IMAGE_DATA, 1, 0x100000 + i * 16, 1, 0x100000 + i * 16);
}
static void segment_bytes_outside(void) { program_segment(0x1fff, 2, 0x100000, 2); }
static void segment_bytes_overflow(void) { program_segment(UINT64_MAX - 1, 16, 0x100000, 16); }
static void file_size_above_memory_size(void) { program_segment(IMAGE_DATA, 0x100, 0x100000, 0xff); }
static void segment_wraps(void) { program_segment(IMAGE_DATA, 16, UINT64_MAX - 4, 16); }
static void segment_beyond_memory(void) { program_segment(IMAGE_DATA, 16, MEMORY_SIZE - 8, 16); }
static void absurd_memory_size(void) { program_segment(IMAGE_DATA, 16, 0x100000, UINT64_MAX / 2); }
static void segment_above_4g(void) { program_segment(IMAGE_DATA, 16, (uint64_t)1 << 32, 16); }
static void segment_in_hole(void) { program_segment(IMAGE_DATA, 16, 0xfee00000, 16); }
static void segment_at_zero(void) { kernel_segment(IMAGE_DATA, 16, 0, 16); }
static void segment_in_video(void) { kernel_segment(IMAGE_DATA, 16, 0x9fff8, 16); }
static void overlapping(void)
{
    build_program(&image);
    add_segment(&image, IMAGE_DATA, 16, 0x101fff, 16, 0x101fff);
}
static void entry_elsewhere(void) { patched(24, 0x300000, 8); }
static void entry_behind_segment(void) { patched(24, 0x102000, 8); }
static void real_mode_entry_too_high(void) { use_flat(0x200000, 0x200000, LOAD_REAL16); }
static void no_room_for_boot(void)
{
    program_segment(IMAGE_DATA, 16, 0x1000, 0x9f000 - 0x1000);
    add_segment(&image, IMAGE_DATA, 16, 0x100000, MEMORY_SIZE - 0x100000, 0x100000);
}
static void no_room_for_info(void)
{
    kernel_segment(IMAGE_DATA, 16, 0x2000, 0x9f000 - 0x2000); // one page is left: the descriptors take it
    add_segment(&image, IMAGE_DATA, 16, 0x100000, MEMORY_SIZE - 0x100000, 0x100000);
}
static void too_many_modules(void) { build_kernel(&image), with_modules(LOADER_MAX_MODULES + 1, 16); }
static void modules_for_elf64(void) { build_program(&image), with_modules(1, 16); }
static void modules_for_flat(void) { use_flat(0x7c00, 0x7c00, LOAD_REAL16), with_modules(1, 16); }
static void module_too_large(void) { build_kernel(&image), with_modules(1, MEMORY_SIZE - 0x101000); }
static char long_text[LOADER_MAX_STRING];
static void long_command_line(void)
{
    build_kernel(&image);
    memset(long_text, 'a', sizeof long_text - 1);
    request.image.arguments = long_text;
}
static void long_module_command_line(void)
{
    build_kernel(&image);
    with_modules(1, 16);
    memset(long_text, 'a', sizeof long_text - 1);
    modules[0].arguments = long_text;
}
static void long_program_command_line(void) { long_command_line(), build_program(&image); }
static void flat_no_number(void) { flat_text = "x100"; }
static void flat_empty(void) { flat_text = ""; }
static void flat_sign(void) { flat_text = "-1"; }
static void flat_only_prefix(void) { flat_text = "0x"; }
static void flat_overflow(void) { flat_text = "0x10000000000000000"; }
static void flat_trailing(void) { flat_text = "0x7c00,"; }
static void flat_bad_entry(void) { flat_text = "0x7c00:"; }
static void flat_bad_mode(void) { flat_text = "0x7c00:0x7c00:virt"; }
static void flat_no_mode(void) { flat_text = "0x7c00:0x7c00:"; }

static const struct refusal {
    enum load_status status;
    void (*prepare)(void);
} refusals[] = {
    {LOAD_EMPTY, empty},
    {LOAD_UNKNOWN_FORMAT, text_file},
    {LOAD_MULTIBOOT_NO_ADDRESSES, multiboot_without_elf},
    {LOAD_UNSUPPORTED_LINUX, linux_kernel},
    {LOAD_UNSUPPORTED_MULTIBOOT2, multiboot2},
    {LOAD_ELF32_WITHOUT_MULTIBOOT, elf32_alone},
    {LOAD_ELF32_WITHOUT_MULTIBOOT, header_beyond_8192},
    {LOAD_ELF32_WITHOUT_MULTIBOOT, misaligned_header},
    {LOAD_MULTIBOOT_BAD_CHECKSUM, bad_checksum},
    {LOAD_MULTIBOOT_TRUNCATED, truncated_addresses},
    {LOAD_MULTIBOOT_UNKNOWN_FLAGS, unknown_flag},
    {LOAD_MULTIBOOT_BAD_ADDRESSES, load_above_header},
    {LOAD_MULTIBOOT_BAD_ADDRESSES, header_too_far_in},
    {LOAD_MULTIBOOT_BAD_ADDRESSES, load_end_below_header},
    {LOAD_MULTIBOOT_BAD_ADDRESSES, bss_end_below_load_end},
    {LOAD_MULTIBOOT_DATA_TRUNCATED, load_end_beyond_file},
    {LOAD_ELF_TRUNCATED, elf_cut_in_identity},
    {LOAD_ELF_TRUNCATED, elf_cut_in_header},
    {LOAD_ELF_BAD_CLASS, bad_class},
    {LOAD_ELF_BAD_ENDIANNESS, big_endian},
    {LOAD_ELF_BAD_VERSION, bad_identity_version},
    {LOAD_ELF_BAD_VERSION, bad_version},
    {LOAD_ELF_BAD_MACHINE, arm_machine},
    {LOAD_ELF_BAD_TYPE, shared_object},
    {LOAD_ELF_BAD_HEADER_SIZE, bad_program_header_size},
    {LOAD_ELF_BAD_HEADER_SIZE, bad_section_header_size},
    {LOAD_ELF_PROGRAM_HEADERS_TRUNCATED, program_headers_outside},
    {LOAD_ELF_PROGRAM_HEADERS_TRUNCATED, program_headers_overflow},
    {LOAD_ELF_SECTION_HEADERS_TRUNCATED, sections_outside},
    {LOAD_ELF_SECTION_TRUNCATED, symbols_outside},
    {LOAD_ELF_NO_SEGMENTS, no_program_headers},
    {LOAD_ELF_NO_SEGMENTS, no_load_segments},
    {LOAD_ELF_NO_SEGMENTS, empty_segments_only},
    {LOAD_ELF_TOO_MANY_SEGMENTS, many_segments},
    {LOAD_SEGMENT_TRUNCATED, segment_bytes_outside},
    {LOAD_SEGMENT_TRUNCATED, segment_bytes_overflow},
    {LOAD_SEGMENT_FILE_EXCEEDS_MEMORY, file_size_above_memory_size},
    {LOAD_SEGMENT_OVERFLOW, segment_wraps},
    {LOAD_SEGMENT_OUTSIDE_MEMORY, segment_beyond_memory},
    {LOAD_SEGMENT_OUTSIDE_MEMORY, segment_above_4g},
    {LOAD_SEGMENT_IN_HOLE, absurd_memory_size},
    {LOAD_SEGMENT_IN_HOLE, segment_in_hole},
    {LOAD_SEGMENT_IN_LOW_PAGE, segment_at_zero},
    {LOAD_SEGMENT_IN_VIDEO, segment_in_video},
    {LOAD_SEGMENTS_OVERLAP, overlapping},
    {LOAD_ENTRY_OUTSIDE_IMAGE, entry_elsewhere},
    {LOAD_ENTRY_OUTSIDE_IMAGE, entry_behind_segment},
    {LOAD_ENTRY_UNREACHABLE, real_mode_entry_too_high},
    {LOAD_NO_ROOM, no_room_for_boot},
    {LOAD_NO_ROOM, no_room_for_info},
    {LOAD_TOO_MANY_MODULES, too_many_modules},
    {LOAD_MODULES_UNSUPPORTED, modules_for_elf64},
    {LOAD_MODULES_UNSUPPORTED, modules_for_flat},
    {LOAD_NO_ROOM_FOR_MODULE, module_too_large},
    {LOAD_STRING_TOO_LONG, long_command_line},
    {LOAD_STRING_TOO_LONG, long_module_command_line},
    {LOAD_STRING_TOO_LONG, long_program_command_line},
    {LOAD_FLAT_BAD_NUMBER, flat_no_number},
    {LOAD_FLAT_BAD_NUMBER, flat_empty},
    {LOAD_FLAT_BAD_NUMBER, flat_sign},
    {LOAD_FLAT_BAD_NUMBER, flat_only_prefix},
    {LOAD_FLAT_BAD_NUMBER, flat_overflow},
    {LOAD_FLAT_BAD_NUMBER, flat_trailing},
    {LOAD_FLAT_BAD_NUMBER, flat_bad_entry},
    {LOAD_FLAT_BAD_MODE, flat_bad_mode},
    {LOAD_FLAT_BAD_MODE, flat_no_mode},
};
enum { REFUSALS = sizeof refusals / sizeof refusals[0] };

static void setup(void) { ck_assert_int_eq(memory_create(&memory, MEMORY_SIZE), MEMORY_OK); }
static void teardown(void) { memory_destroy(&memory); }

static enum load_status run_case(const struct refusal *refusal, struct load_error *error)
{
    struct load_result result;
    base();
    refusal->prepare();
    if (flat_text)
        return loader_parse_flat(flat_text, &flat, error);
    request.image.bytes = image.bytes;
    request.image.size = image.size;
    return loader_load(&request, &memory, &result, error);
}

START_TEST(bad_input_is_refused_with_one_line)
{
    const struct refusal *refusal = &refusals[_i];
    struct load_error error;
    enum load_status status = run_case(refusal, &error);
    ck_assert_msg(status == refusal->status, "case %d: %s, expected %s: %s", _i, loader_status_name(status),
                  loader_status_name(refusal->status), error.text);
    ck_assert_int_eq(error.status, status);
    ck_assert_ptr_nonnull(strstr(error.text, loader_status_message(status)));
    ck_assert_ptr_null(strchr(error.text, '\n'));
    ck_assert_uint_lt(strlen(error.text), LOADER_TEXT_SIZE - 1); // complete, not cut
    if (getenv("SHOW"))
        printf("%s\n", error.text);
}
END_TEST

START_TEST(refused_image_leaves_memory_unchanged)
{
    struct load_error error;
    ck_assert_int_ne(run_case(&refusals[_i], &error), LOAD_OK);
    for (uint64_t page = 0; page < MEMORY_SIZE / PAGE_SIZE; page++)
        ck_assert_uint_eq(memory.page_flags[page], 0);
}
END_TEST

START_TEST(every_status_has_a_case)
{
    for (unsigned status = LOAD_OK + 1; status < LOAD_STATUS_COUNT; status++) {
        bool found = false;
        for (unsigned i = 0; i < REFUSALS; i++)
            found |= refusals[i].status == status;
        ck_assert_msg(found, "%s has no case", loader_status_name(status));
    }
}
END_TEST

START_TEST(overlap_names_both_segments)
{
    struct load_error error;
    base();
    overlapping();
    request.image.bytes = image.bytes;
    request.image.size = image.size;
    struct load_result result;
    loader_load(&request, &memory, &result, &error);
    ck_assert_str_eq(error.text, "kernel.elf: two segments overlap: one starts at 0x100000, the other at 0x101fff "
                                 "(file offset 0x78)");
}
END_TEST

START_TEST(long_name_keeps_its_end)
{
    struct load_error error;
    base();
    text_file();
    request.image =
        (struct load_file){"/a/very/long/path/to/the/build/directory/of/the/kernel.bin", NULL, image.bytes, image.size};
    struct load_result result;
    loader_load(&request, &memory, &result, &error);
    ck_assert_ptr_nonnull(strstr(error.text, "/kernel.bin: not a Multiboot"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader refusals");
    TCase *tests = tcase_create("refusals");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, bad_input_is_refused_with_one_line, 0, REFUSALS);
    tcase_add_loop_test(tests, refused_image_leaves_memory_unchanged, 0, REFUSALS);
    tcase_add_test(tests, every_status_has_a_case);
    tcase_add_test(tests, overlap_names_both_segments);
    tcase_add_test(tests, long_name_keeps_its_end);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
