// What loaded images find in memory and in registers.
#include "image_builder.h"

#include <check.h>
#include <stdlib.h>

enum { MEMORY_SIZE = 16 << 20, MODULE_SIZE = 5000 };

static struct memory memory;
static struct image image;
static struct load_file modules[3];
static struct load_flat flat;
static struct load_request request;
static struct load_result result;
static struct load_error error;
static uint8_t module_bytes[3][MODULE_SIZE];

static void setup(void)
{
    ck_assert_int_eq(memory_create(&memory, MEMORY_SIZE), MEMORY_OK);
    memset(&request, 0, sizeof request);
    request.image.name = "kernel.elf";
}

static void teardown(void) { memory_destroy(&memory); }

static void load(void)
{
    request.image.bytes = image.bytes;
    request.image.size = image.size;
    ck_assert_msg(loader_load(&request, &memory, &result, &error) == LOAD_OK, "%s", error.text);
    ck_assert_int_eq(error.status, LOAD_OK);
}

static uint64_t peek(gpa_t address, unsigned size)
{
    uint64_t value = 0;
    ck_assert(memory_read(&memory, address, &value, size));
    return value;
}

static const char *string_at(gpa_t address) { return (const char *)memory_host(&memory, address); }

static void use_modules(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memset(module_bytes[i], (int)(0xa0 + i), MODULE_SIZE);
        modules[i] = (struct load_file){"initrd.img", i == 1 ? "second one" : NULL, module_bytes[i], MODULE_SIZE};
    }
    request.modules = modules;
    request.module_count = count;
}

START_TEST(kernel_bytes_are_copied_and_the_rest_is_cleared)
{
    uint8_t dirt[0x4000];
    memset(dirt, 0xff, sizeof dirt);
    ck_assert(memory_write(&memory, 0xfe000 + 0x1000, dirt, sizeof dirt));
    build_kernel(&image);
    load();
    ck_assert_mem_eq(memory_host(&memory, 0x100000), image.bytes + IMAGE_DATA, 0x800);
    for (unsigned i = 0x800; i < 0x2000; i++)
        ck_assert_uint_eq(peek(0x100000 + i, 1), 0);
    ck_assert_uint_eq(peek(0x102000, 1), 0xff); // what follows is left alone
    ck_assert_uint_eq(result.image_end, 0x102000);
}
END_TEST

START_TEST(multiboot_entry_state_is_the_specifications)
{
    build_kernel(&image);
    load();
    ck_assert_int_eq(result.kind, LOAD_KIND_MULTIBOOT1);
    ck_assert_int_eq(result.mode, LOAD_PROT32);
    ck_assert_uint_eq(result.rip, 0x100010);
    ck_assert_uint_eq(result.gpr[LOAD_RAX], 0x2badb002);
    ck_assert_uint_eq(result.gpr[LOAD_RBX], result.info_address);
    ck_assert_uint_eq(result.cr0, 0x11);
    ck_assert_uint_eq(result.efer, 0);
    ck_assert_uint_eq(result.cs.access_rights, 0xc09b);
    ck_assert_uint_eq(result.cs.limit, 0xffffffff);
    ck_assert_uint_eq(result.data.access_rights, 0xc093);
    ck_assert_uint_eq(peek(result.gdt_base + result.cs.selector, 8), 0x00cf9b000000ffff);
    ck_assert_uint_eq(peek(result.gdt_base + result.data.selector, 8), 0x00cf93000000ffff);
}
END_TEST

START_TEST(multiboot_info_has_memory_and_strings)
{
    build_kernel(&image);
    request.image.arguments = "console=ttyS0 quiet";
    load();
    gpa_t info = result.info_address;
    ck_assert_uint_eq(peek(info, 4), 0x245);
    ck_assert_uint_eq(peek(info + 4, 4), 639);
    ck_assert_uint_eq(peek(info + 8, 4), MEMORY_SIZE / 1024 - 1024);
    ck_assert_str_eq(string_at(peek(info + 16, 4)), "kernel.elf console=ttyS0 quiet");
    ck_assert_str_eq(string_at(peek(info + 64, 4)), "vmxon");
}
END_TEST

START_TEST(memory_map_covers_memory_in_order)
{
    build_kernel(&image);
    load();
    gpa_t map = peek(result.info_address + 48, 4);
    static const uint64_t expected[][3] = {{0, 0x9fc00, 1},
                                           {0x9fc00, 0x100000 - 0x9fc00, 2},
                                           {0x100000, MEMORY_SIZE - 0x100000, 1},
                                           {0xfec00000, 0x300000, 2}};
    ck_assert_uint_eq(peek(result.info_address + 44, 4), 4 * 24);
    for (unsigned i = 0; i < 4; i++, map += 24) {
        ck_assert_uint_eq(peek(map, 4), 20);
        ck_assert_uint_eq(peek(map + 4, 8), expected[i][0]);
        ck_assert_uint_eq(peek(map + 12, 8), expected[i][1]);
        ck_assert_uint_eq(peek(map + 20, 4), expected[i][2]);
    }
}
END_TEST

START_TEST(memory_map_names_ram_above_4g)
{
    memory_destroy(&memory);
    ck_assert_int_eq(memory_create(&memory, (uint64_t)5 << 30), MEMORY_OK);
    build_kernel(&image);
    load();
    gpa_t last = peek(result.info_address + 48, 4) + 4 * 24;
    ck_assert_uint_eq(peek(last + 4, 8), (uint64_t)1 << 32);
    ck_assert_uint_eq(peek(last + 12, 8), memory.high_size);
}
END_TEST

START_TEST(modules_are_page_aligned_in_order_and_intact)
{
    build_kernel(&image);
    use_modules(3);
    load();
    gpa_t info = result.info_address, list = peek(info + 24, 4);
    ck_assert_uint_eq(peek(info, 4) & 8, 8);
    ck_assert_uint_eq(peek(info + 20, 4), 3);
    uint64_t previous_end = result.image_end;
    for (unsigned i = 0; i < 3; i++) {
        gpa_t start = peek(list + 16 * i, 4), end = peek(list + 16 * i + 4, 4);
        ck_assert_uint_eq(start % PAGE_SIZE, 0);
        ck_assert_uint_ge(start, previous_end);
        ck_assert_uint_eq(end - start, MODULE_SIZE);
        ck_assert_mem_eq(memory_host(&memory, start), module_bytes[i], MODULE_SIZE);
        ck_assert_str_eq(string_at(peek(list + 16 * i + 8, 4)), i == 1 ? "initrd.img second one" : "initrd.img");
        previous_end = end;
    }
}
END_TEST

START_TEST(module_avoids_a_segment_far_up)
{
    build_elf(&image, false, 0x100000);
    add_segment(&image, IMAGE_DATA, 16, 0x100000, 16, 0x100000);
    add_segment(&image, IMAGE_DATA, 16, 0x800000, 16, 0x800000);
    add_multiboot_header(&image, IMAGE_MULTIBOOT, 3);
    use_modules(1);
    load();
    ck_assert_uint_eq(peek(peek(result.info_address + 24, 4), 4), 0x801000);
}
END_TEST

START_TEST(boot_structures_avoid_low_segments)
{
    build_elf(&image, false, 0x1000);
    add_segment(&image, IMAGE_DATA, 0x1000, 0x1000, 0x9e000, 0x1000); // all low memory
    add_multiboot_header(&image, IMAGE_MULTIBOOT, 3);
    load();
    ck_assert_uint_ge(result.gdt_base, 0x100000);
    ck_assert_uint_ge(result.info_address, 0x100000);
    ck_assert_uint_ne(result.gdt_base, result.info_address);
    ck_assert_mem_eq(memory_host(&memory, 0x1000), image.bytes + IMAGE_DATA, 0x1000);
}
END_TEST

START_TEST(boot_structures_avoid_segments_in_any_order)
{
    build_elf(&image, false, 0x1000);
    add_segment(&image, IMAGE_DATA, 16, 0x2000, 0x1000, 0x2000);
    add_segment(&image, IMAGE_DATA, 16, 0x1000, 0x1000, 0x1000);
    add_multiboot_header(&image, IMAGE_MULTIBOOT, 3);
    load();
    ck_assert_uint_eq(result.gdt_base, 0x3000);
}
END_TEST

START_TEST(higher_half_entry_is_translated)
{
    build_elf(&image, false, 0xc0100010);
    add_segment(&image, IMAGE_DATA, 0x800, 0x100000, 0x800, 0xc0100000);
    add_multiboot_header(&image, IMAGE_MULTIBOOT, 0);
    load();
    ck_assert_uint_eq(result.rip, 0x100010);
}
END_TEST

START_TEST(multiboot_takes_elf64_and_enters_in_32_bit_mode)
{
    build_program(&image);
    add_multiboot_header(&image, IMAGE_MULTIBOOT, 7); // the video mode bit is accepted
    load();
    ck_assert_int_eq(result.kind, LOAD_KIND_MULTIBOOT1);
    ck_assert_int_eq(result.mode, LOAD_PROT32);
    ck_assert_uint_eq(result.rip, 0x100010);
}
END_TEST

START_TEST(raw_kernel_loads_at_its_headers_addresses)
{
    build_raw_kernel(&image, 0x200040, 0x200020, 0x200200, 0x201000, 0x200060);
    load();
    ck_assert_uint_eq(result.rip, 0x200060);
    ck_assert_mem_eq(memory_host(&memory, 0x200020), image.bytes + 0x20, 0x1e0);
    ck_assert_uint_eq(peek(0x200200, 8), 0);
    ck_assert_uint_eq(result.image_end, 0x201000);
}
END_TEST

START_TEST(raw_kernel_without_load_end_takes_the_whole_file)
{
    build_raw_kernel(&image, 0x200040, 0x200000, 0, 0, 0x200000);
    load();
    ck_assert_mem_eq(memory_host(&memory, 0x200000), image.bytes, image.size);
}
END_TEST

static void check_sections(bool wide)
{
    unsigned size = wide ? 64 : 40, address = wide ? 16 : 12, width = wide ? 8 : 4;
    gpa_t info = result.info_address, headers = peek(info + 36, 4);
    ck_assert_uint_eq(peek(info, 4) & 0x20, 0x20);
    ck_assert_uint_eq(peek(info + 28, 4), 3);
    ck_assert_uint_eq(peek(info + 32, 4), size);
    ck_assert_uint_eq(peek(info + 40, 4), 2);
    gpa_t symbols = peek(headers + size + address, width), strings = peek(headers + 2 * size + address, width);
    ck_assert_mem_eq(memory_host(&memory, symbols), image.bytes + 0x1a00, 0x30);
    ck_assert_mem_eq(memory_host(&memory, strings), image.bytes + 0x1a30, 0x11);
    ck_assert_uint_ge(symbols, headers + 3 * size);
    ck_assert_uint_ge(strings, symbols + 0x30);
}

START_TEST(section_headers_and_symbols_are_handed_over)
{
    build_kernel(&image);
    add_sections(&image);
    use_modules(1);
    load();
    check_sections(false);
    build_program(&image);
    add_multiboot_header(&image, IMAGE_MULTIBOOT, 3);
    add_sections(&image);
    load();
    check_sections(true);
}
END_TEST

START_TEST(program_is_entered_in_64_bit_mode)
{
    build_program(&image);
    request.image.arguments = "one two";
    load();
    ck_assert_int_eq(result.kind, LOAD_KIND_ELF64);
    ck_assert_int_eq(result.mode, LOAD_LONG64);
    ck_assert_uint_eq(result.rip, 0x100010);
    ck_assert_uint_eq(result.cr0, 0x80000011);
    ck_assert_uint_eq(result.cr4, 0x20);
    ck_assert_uint_eq(result.efer, 0x500);
    ck_assert_uint_eq(result.cs.access_rights, 0xa09b);
    ck_assert_uint_eq(result.gdt_base, 0x1000);
    ck_assert_uint_eq(result.cr3, 0x2000);
    ck_assert_uint_eq(result.gpr[LOAD_RSP], 0xc000);
    ck_assert_uint_eq(peek(result.gdt_base + result.cs.selector, 8), 0x00af9b000000ffff);
    ck_assert_str_eq(string_at(result.gpr[LOAD_RDI]), "kernel.elf one two");
}
END_TEST

START_TEST(identity_map_covers_the_first_4_gib)
{
    build_program(&image);
    load();
    gpa_t pdpt = peek(result.cr3, 8) & PAGE_FRAME_MASK;
    ck_assert_uint_eq(peek(result.cr3, 8) & 3, 3);
    ck_assert_uint_eq(peek(result.cr3 + 8, 8), 0);
    for (unsigned g = 0; g < 4; g++) {
        gpa_t directory = peek(pdpt + 8 * g, 8) & PAGE_FRAME_MASK;
        for (unsigned i = 0; i < 512; i++)
            ck_assert_uint_eq(peek(directory + 8 * i, 8), ((uint64_t)g << 30 | (uint64_t)i << 21) | 0x83);
    }
    ck_assert_uint_eq(peek(pdpt + 32, 8), 0);
}
END_TEST

static void use_flat(gpa_t address, uint64_t entry, enum load_mode mode)
{
    memset(&image, 0, sizeof image);
    image.size = 512;
    memset(image.bytes, 0x90, image.size);
    flat = (struct load_flat){address, entry, mode};
    request.flat = &flat;
    load();
    ck_assert_int_eq(result.kind, LOAD_KIND_FLAT);
    ck_assert_mem_eq(memory_host(&memory, address), image.bytes, image.size);
}

START_TEST(flat_real_mode_is_entered_in_segment_0_if_it_can)
{
    use_flat(0x7c00, 0x7c10, LOAD_REAL16);
    ck_assert_uint_eq(result.cs.selector, 0);
    ck_assert_uint_eq(result.rip, 0x7c10);
    ck_assert_uint_eq(result.cr0, 0x10);
    use_flat(0x23450, 0x23456, LOAD_REAL16);
    ck_assert_uint_eq(result.cs.selector, 0x2000);
    ck_assert_uint_eq(result.cs.base, 0x20000);
    ck_assert_uint_eq(result.rip, 0x3456);
}
END_TEST

START_TEST(flat_may_lie_in_the_first_page)
{
    use_flat(0x500, 0x500, LOAD_REAL16);
    ck_assert_uint_eq(result.rip, 0x500);
}
END_TEST

START_TEST(flat_protected_and_long_mode_have_descriptors_and_tables)
{
    use_flat(0x1000, 0x1000, LOAD_PROT32);
    ck_assert_uint_eq(result.gdt_base, 0x2000);
    use_flat(0x200000, 0x200004, LOAD_LONG64);
    ck_assert_uint_eq(result.rip, 0x200004);
    ck_assert_uint_eq(peek(result.cr3, 1), 3);
}
END_TEST

START_TEST(flat_option_has_defaults)
{
    ck_assert_int_eq(loader_parse_flat("0x7c00", &flat, &error), LOAD_OK);
    ck_assert(flat.address == 0x7c00 && flat.entry == 0x7c00 && flat.mode == LOAD_REAL16);
    ck_assert_int_eq(loader_parse_flat("1048576:0X100010", &flat, &error), LOAD_OK);
    ck_assert(flat.address == 0x100000 && flat.entry == 0x100010);
    ck_assert_int_eq(loader_parse_flat("4096:4096:prot", &flat, &error), LOAD_OK);
    ck_assert_int_eq(flat.mode, LOAD_PROT32);
    ck_assert_int_eq(loader_parse_flat("4096:4096:long", &flat, &error), LOAD_OK);
    ck_assert_int_eq(flat.mode, LOAD_LONG64);
    ck_assert_int_eq(loader_parse_flat("0xffffffffffffffff", &flat, &error), LOAD_OK);
    ck_assert_uint_eq(flat.address, UINT64_MAX);
}
END_TEST

START_TEST(loading_twice_gives_the_same_memory)
{
    build_kernel(&image);
    use_modules(2);
    add_sections(&image);
    load();
    uint8_t *first = malloc(MEMORY_SIZE);
    memcpy(first, memory.ram, MEMORY_SIZE);
    load();
    ck_assert(memcmp(first, memory.ram, MEMORY_SIZE) == 0);
    free(first);
}
END_TEST

START_TEST(kinds_are_detected)
{
    build_kernel(&image);
    ck_assert_int_eq(loader_detect(image.bytes, image.size), LOAD_KIND_MULTIBOOT1);
    build_program(&image);
    ck_assert_int_eq(loader_detect(image.bytes, image.size), LOAD_KIND_ELF64);
    build_elf(&image, false, 0);
    ck_assert_int_eq(loader_detect(image.bytes, image.size), LOAD_KIND_ELF32);
    ck_assert_int_eq(loader_detect((const uint8_t *)"hello", 5), LOAD_KIND_UNKNOWN);
    ck_assert_int_eq(loader_detect((const uint8_t *)"\x7f"
                                                    "ELF",
                                   4),
                     LOAD_KIND_ELF64);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader");
    TCase *tests = tcase_create("loader");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, kernel_bytes_are_copied_and_the_rest_is_cleared);
    tcase_add_test(tests, multiboot_entry_state_is_the_specifications);
    tcase_add_test(tests, multiboot_info_has_memory_and_strings);
    tcase_add_test(tests, memory_map_covers_memory_in_order);
    tcase_add_test(tests, memory_map_names_ram_above_4g);
    tcase_add_test(tests, modules_are_page_aligned_in_order_and_intact);
    tcase_add_test(tests, module_avoids_a_segment_far_up);
    tcase_add_test(tests, boot_structures_avoid_low_segments);
    tcase_add_test(tests, boot_structures_avoid_segments_in_any_order);
    tcase_add_test(tests, higher_half_entry_is_translated);
    tcase_add_test(tests, multiboot_takes_elf64_and_enters_in_32_bit_mode);
    tcase_add_test(tests, raw_kernel_loads_at_its_headers_addresses);
    tcase_add_test(tests, raw_kernel_without_load_end_takes_the_whole_file);
    tcase_add_test(tests, section_headers_and_symbols_are_handed_over);
    tcase_add_test(tests, program_is_entered_in_64_bit_mode);
    tcase_add_test(tests, identity_map_covers_the_first_4_gib);
    tcase_add_test(tests, flat_real_mode_is_entered_in_segment_0_if_it_can);
    tcase_add_test(tests, flat_may_lie_in_the_first_page);
    tcase_add_test(tests, flat_protected_and_long_mode_have_descriptors_and_tables);
    tcase_add_test(tests, flat_option_has_defaults);
    tcase_add_test(tests, loading_twice_gives_the_same_memory);
    tcase_add_test(tests, kinds_are_detected);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
