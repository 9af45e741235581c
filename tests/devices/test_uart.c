// The 16550A UART through its ports.
#include "device_fixture.h"

#include "devices/uart.h"

static struct uart uart;
enum {
    BASE = UART_COM1_PORT,
    IER = BASE + 1,
    FCR = BASE + 2,
    LCR = BASE + 3,
    MCR = BASE + 4,
    LSR = BASE + 5,
    MSR = BASE + 6
};

static void on_write(void *user, const uint8_t *bytes, size_t n)
{
    struct fixture *f = user;
    for (size_t i = 0; i < n && f->sent_count < sizeof f->sent; i++)
        f->sent[f->sent_count++] = bytes[i];
}

static void setup(void)
{
    fixture_setup();
    struct uart_env env = {&fx, on_write, fixture_line};
    uart_init(&uart, &env);
    uart_attach(&uart, &fx.bus, BASE);
}

static void receive(const char *text)
{
    ck_assert_uint_eq(uart_receive(&uart, (const uint8_t *)text, strlen(text)), strlen(text));
}

START_TEST(written_bytes_leave_at_once_in_order)
{
    out8(BASE, 'h');
    out8(BASE, 'i');
    ck_assert_uint_eq(fx.sent_count, 2);
    ck_assert_mem_eq(fx.sent, "hi", 2);
    ck_assert_uint_eq(in8(LSR), 0x60);
}
END_TEST

START_TEST(divisor_latch_hides_data_and_ier)
{
    out8(LCR, 0x83);
    out8(BASE, 0x0c);
    out8(IER, 0x01);
    ck_assert_uint_eq(fx.sent_count, 0);
    ck_assert_uint_eq(in8(BASE), 0x0c);
    ck_assert_uint_eq(in8(IER), 0x01);
    out8(LCR, 0x03);
    ck_assert_uint_eq(in8(IER), 0x00);
}
END_TEST

START_TEST(interrupt_needs_out2)
{
    out8(IER, 0x02);
    ck_assert(!fx.line);
    out8(MCR, 0x08);
    ck_assert(fx.line);
}
END_TEST

START_TEST(reading_iir_clears_only_the_transmitter_interrupt)
{
    out8(MCR, 0x08);
    out8(IER, 0x03);
    receive("x");
    ck_assert_uint_eq(in8(FCR), 0x04); // data is more urgent
    ck_assert_uint_eq(in8(FCR), 0x04);
    ck_assert_uint_eq(in8(BASE), 'x');
    ck_assert_uint_eq(in8(FCR), 0x02);
    ck_assert_uint_eq(in8(FCR), 0x01);
    ck_assert(!fx.line);
}
END_TEST

START_TEST(each_written_byte_raises_the_transmitter_interrupt_again)
{
    out8(MCR, 0x08);
    out8(IER, 0x02);
    in8(FCR);
    out8(BASE, 'a');
    ck_assert(fx.line);
    ck_assert_uint_eq(in8(FCR), 0x02);
}
END_TEST

START_TEST(fifo_tells_trigger_level_from_timeout)
{
    out8(FCR, 0x81); // trigger at 8
    out8(IER, 0x01);
    receive("1234567");
    ck_assert_uint_eq(in8(FCR), 0xcc);
    receive("8");
    ck_assert_uint_eq(in8(FCR), 0xc4);
}
END_TEST

START_TEST(bytes_wait_in_the_queue_and_none_is_lost)
{
    receive("abc"); // without FIFO one byte is visible
    for (unsigned expected = 'a'; expected <= 'c'; expected++) {
        ck_assert_uint_eq(in8(LSR) & 1, 1);
        ck_assert_uint_eq(in8(BASE), expected);
    }
    ck_assert_uint_eq(in8(LSR), 0x60);
}
END_TEST

START_TEST(full_queue_takes_no_more)
{
    static uint8_t many[UART_QUEUE_SIZE + 100];
    size_t taken = uart_receive(&uart, many, sizeof many);
    ck_assert_uint_eq(taken, UART_QUEUE_SIZE);
    ck_assert_uint_eq(uart_receive_space(&uart), 1); // one byte moved on into the receive register
    ck_assert_uint_eq(uart_receive(&uart, many, 5), 1);
}
END_TEST

START_TEST(loopback_returns_data_and_modem_outputs)
{
    out8(FCR, 0x01);
    out8(MCR, 0x1b); // loop, OUT2, RTS, DTR
    out8(BASE, 0x5a);
    ck_assert_uint_eq(fx.sent_count, 0);
    ck_assert_uint_eq(in8(BASE), 0x5a);
    ck_assert_uint_eq(in8(MSR) & 0xf0, 0xb0);
}
END_TEST

START_TEST(overrun_is_reported_once)
{
    out8(MCR, 0x10);
    out8(BASE, 1);
    out8(BASE, 2);
    ck_assert_uint_eq(in8(LSR) & 0x02, 0x02);
    ck_assert_uint_eq(in8(LSR) & 0x02, 0);
    ck_assert_uint_eq(in8(BASE), 2); // without FIFO the newer byte wins
}
END_TEST

START_TEST(modem_change_bits_clear_on_read)
{
    out8(MCR, 0x10); // CTS, DSR and DCD drop
    ck_assert_uint_eq(in8(MSR), 0x0b);
    ck_assert_uint_eq(in8(MSR), 0x00);
}
END_TEST

START_TEST(scratch_keeps_its_value_and_reset_clears_it)
{
    out8(BASE + 7, 0xa5);
    ck_assert_uint_eq(in8(BASE + 7), 0xa5);
    uart_reset(&uart);
    ck_assert_uint_eq(in8(BASE + 7), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("uart");
    TCase *tests = tcase_create("uart");
    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_add_test(tests, written_bytes_leave_at_once_in_order);
    tcase_add_test(tests, divisor_latch_hides_data_and_ier);
    tcase_add_test(tests, interrupt_needs_out2);
    tcase_add_test(tests, reading_iir_clears_only_the_transmitter_interrupt);
    tcase_add_test(tests, each_written_byte_raises_the_transmitter_interrupt_again);
    tcase_add_test(tests, fifo_tells_trigger_level_from_timeout);
    tcase_add_test(tests, bytes_wait_in_the_queue_and_none_is_lost);
    tcase_add_test(tests, full_queue_takes_no_more);
    tcase_add_test(tests, loopback_returns_data_and_modem_outputs);
    tcase_add_test(tests, overrun_is_reported_once);
    tcase_add_test(tests, modem_change_bits_clear_on_read);
    tcase_add_test(tests, scratch_keeps_its_value_and_reset_clears_it);
    suite_add_tcase(suite, tests);
    return fixture_run(suite);
}
