#include "base/hex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void each_byte_is_two_digits(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x00, 0x09, 0x0a, 0x7f, 0x80, 0xff};
    char                 text[16];
    memset(text, '?', sizeof text);
    hex_print(bytes, sizeof bytes, text);
    assert_string_equal("00090a7f80ff", text);
    assert_int_equal('?', text[13]);
    hex_print(bytes, 0, text);
    assert_string_equal("", text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_byte_is_two_digits),
    };
    return cmocka_run_group_tests_name("hex", tests, NULL, NULL);
}
