// The 8259A pair through its ports and inputs.
#include "device_fixture.h"

#include "devices/pic.h"

static struct pic pic;
enum { EOI = 0x20, MASTER = PIC_MASTER_PORT, SLAVE = PIC_SLAVE_PORT };

static void on_intr(void *user, bool level)
{
    struct fixture *f = user;
    f->rises += level;
    f->line = level;
}

static void program(unsigned icw4_master)
{
    out8(MASTER, 0x11);
    out8(MASTER + 1, 0x20);
    out8(MASTER + 1, 0x04);
    out8(MASTER + 1, icw4_master);
    out8(SLAVE, 0x11);
    out8(SLAVE + 1, 0x28);
    out8(SLAVE + 1, 0x02);
    out8(SLAVE + 1, 0x01);
}

static void setup(void)
{
    fixture_setup();
    struct pic_env env = {&fx, on_intr};
    pic_init(&pic, &env);
    pic_attach(&pic, &fx.bus);
    program(0x01);
}

static void pulse(unsigned irq)
{
    pic_set_irq(&pic, irq, false);
    pic_set_irq(&pic, irq, true);
}

START_TEST(vector_is_base_plus_level)
{
    pulse(3);
    ck_assert(fx.line);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x23);
    ck_assert(!fx.line);
    pulse(12); // comes through IR2, which is above IR3
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x2c);
}
END_TEST

START_TEST(higher_priority_interrupts_the_lower)
{
    pulse(5);
    pic_acknowledge(&pic);
    pulse(6);
    ck_assert(!fx.line);
    pulse(1);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x21);
    out8(MASTER, EOI);
    ck_assert(!fx.line);
    out8(MASTER, EOI);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x26);
}
END_TEST

START_TEST(masked_request_waits_and_is_readable)
{
    out8(MASTER + 1, 0x10);
    pulse(4);
    ck_assert(!fx.line);
    out8(MASTER, 0x0a);
    ck_assert_uint_eq(in8(MASTER), 0x10);
    out8(MASTER + 1, 0x00);
    ck_assert(fx.line);
    pic_acknowledge(&pic);
    out8(MASTER, 0x0b);
    ck_assert_uint_eq(in8(MASTER), 0x10);
}
END_TEST

START_TEST(edge_input_fires_once_until_it_drops)
{
    pic_set_irq(&pic, 4, true);
    pic_acknowledge(&pic);
    out8(MASTER, EOI);
    ck_assert(!fx.line);
    pulse(4);
    ck_assert(fx.line);
}
END_TEST

START_TEST(level_input_fires_until_it_drops)
{
    out8(PIC_ELCR_PORT, 0x20);
    pic_set_irq(&pic, 5, true);
    pic_acknowledge(&pic);
    out8(MASTER, EOI);
    ck_assert(fx.line);
    pic_acknowledge(&pic);
    pic_set_irq(&pic, 5, false);
    out8(MASTER, EOI);
    ck_assert(!fx.line);
}
END_TEST

START_TEST(elcr_keeps_the_fixed_edge_inputs)
{
    bus_port_write(&fx.bus, PIC_ELCR_PORT, 2, 0xffff);
    ck_assert_uint_eq(bus_port_read(&fx.bus, PIC_ELCR_PORT, 2), 0xdef8);
}
END_TEST

START_TEST(request_that_drops_early_is_spurious)
{
    pulse(4);
    pic_set_irq(&pic, 4, false);
    ck_assert(!fx.line);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x27);
    out8(MASTER, 0x0b);
    ck_assert_uint_eq(in8(MASTER), 0); // nothing is in service
}
END_TEST

START_TEST(spurious_slave_request_leaves_the_cascade_in_service)
{
    pulse(10);
    pic.chip[1].irr = 0; // the slave's request vanishes between its INT and the acknowledge
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x2f);
    out8(MASTER, 0x0b);
    out8(SLAVE, 0x0b);
    ck_assert_uint_eq(in8(MASTER), 0x04);
    ck_assert_uint_eq(in8(SLAVE), 0x00);
}
END_TEST

START_TEST(auto_eoi_leaves_nothing_in_service)
{
    program(0x03);
    pulse(3);
    pic_acknowledge(&pic);
    out8(MASTER, 0x0b);
    ck_assert_uint_eq(in8(MASTER), 0);
}
END_TEST

START_TEST(auto_eoi_rotation_moves_the_served_level_to_the_end)
{
    program(0x03);
    out8(MASTER, 0x80);
    pulse(0);
    pic_acknowledge(&pic);
    pulse(0);
    pulse(7);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x27);
}
END_TEST

START_TEST(rotating_eoi_makes_the_served_level_last)
{
    pulse(3);
    pic_acknowledge(&pic);
    out8(MASTER, 0xa0);
    pulse(3);
    pulse(4);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x24);
}
END_TEST

START_TEST(set_priority_chooses_the_last_level)
{
    out8(MASTER, 0xc0 | 5);
    pulse(0);
    pulse(6);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x26);
}
END_TEST

START_TEST(specific_eoi_ends_the_named_level_only)
{
    pulse(5);
    pic_acknowledge(&pic);
    pulse(1);
    pic_acknowledge(&pic);
    out8(MASTER, 0x60 | 5);
    out8(MASTER, 0x0b);
    ck_assert_uint_eq(in8(MASTER), 0x02);
}
END_TEST

START_TEST(special_mask_lets_lower_levels_through)
{
    pulse(1);
    pic_acknowledge(&pic);
    pulse(6);
    ck_assert(!fx.line);
    out8(MASTER + 1, 0x02);
    out8(MASTER, 0x68);
    ck_assert(fx.line);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x26);
    out8(MASTER, EOI); // ends 6: the masked level 1 is not seen
    out8(MASTER, 0x0b);
    ck_assert_uint_eq(in8(MASTER), 0x02);
}
END_TEST

START_TEST(special_fully_nested_lets_the_slave_interrupt_itself)
{
    pulse(12);
    pic_acknowledge(&pic);
    pulse(9);
    ck_assert(!fx.line);
    program(0x11);
    pulse(12);
    pic_acknowledge(&pic);
    pulse(9);
    ck_assert(fx.line);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x29);
}
END_TEST

START_TEST(poll_acknowledges_and_returns_the_level)
{
    pulse(6);
    out8(MASTER, 0x0c);
    ck_assert_uint_eq(in8(MASTER), 0x86);
    ck_assert(!fx.line);
    out8(MASTER, 0x0c);
    ck_assert_uint_eq(in8(MASTER), 0);
    out8(MASTER, 0x0b);
    ck_assert_uint_eq(in8(MASTER), 0x40);
}
END_TEST

START_TEST(icw1_forgets_edges_and_masks)
{
    out8(MASTER + 1, 0xff);
    pulse(4);
    program(0x01);
    ck_assert(!fx.line);
    ck_assert_uint_eq(in8(MASTER + 1), 0);
}
END_TEST

START_TEST(second_slave_request_follows_after_both_eois)
{
    pulse(8);
    pulse(9);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x28);
    out8(SLAVE, EOI);
    out8(MASTER, EOI);
    ck_assert(fx.line);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x29);
}
END_TEST

START_TEST(slave_request_left_after_an_acknowledge_makes_a_new_edge)
{
    out8(MASTER, 0x11);
    out8(MASTER + 1, 0x20);
    out8(MASTER + 1, 0x04);
    out8(MASTER + 1, 0x03);
    out8(SLAVE, 0x11);
    out8(SLAVE + 1, 0x28);
    out8(SLAVE + 1, 0x02);
    out8(SLAVE + 1, 0x03); // both end interrupts automatically, so the slave's output would stay high
    pulse(8);
    pulse(9);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x28);
    ck_assert(fx.line);
    ck_assert_uint_eq(pic_acknowledge(&pic), 0x29);
    ck_assert(!fx.line);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pic");
    TCase *tests = tcase_create("pic");
    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_add_test(tests, vector_is_base_plus_level);
    tcase_add_test(tests, higher_priority_interrupts_the_lower);
    tcase_add_test(tests, masked_request_waits_and_is_readable);
    tcase_add_test(tests, edge_input_fires_once_until_it_drops);
    tcase_add_test(tests, level_input_fires_until_it_drops);
    tcase_add_test(tests, elcr_keeps_the_fixed_edge_inputs);
    tcase_add_test(tests, request_that_drops_early_is_spurious);
    tcase_add_test(tests, spurious_slave_request_leaves_the_cascade_in_service);
    tcase_add_test(tests, auto_eoi_leaves_nothing_in_service);
    tcase_add_test(tests, auto_eoi_rotation_moves_the_served_level_to_the_end);
    tcase_add_test(tests, rotating_eoi_makes_the_served_level_last);
    tcase_add_test(tests, set_priority_chooses_the_last_level);
    tcase_add_test(tests, specific_eoi_ends_the_named_level_only);
    tcase_add_test(tests, special_mask_lets_lower_levels_through);
    tcase_add_test(tests, special_fully_nested_lets_the_slave_interrupt_itself);
    tcase_add_test(tests, poll_acknowledges_and_returns_the_level);
    tcase_add_test(tests, icw1_forgets_edges_and_masks);
    tcase_add_test(tests, second_slave_request_follows_after_both_eois);
    tcase_add_test(tests, slave_request_left_after_an_acknowledge_makes_a_new_edge);
    suite_add_tcase(suite, tests);
    return fixture_run(suite);
}
