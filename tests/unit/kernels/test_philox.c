#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/philox.h"

/* kat_vectors of Random123 1.14: counter, key, words. */
static const struct {
    uint32_t counter[4], key[2], words[4];
} vectors[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void gives_the_known_answers_of_random123(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        uint32_t words[4];
        memcpy(words, vectors[i].counter, sizeof words);
        philox_4x32(words, vectors[i].key[0], vectors[i].key[1]);
        assert_memory_equal(words, vectors[i].words, sizeof words);
    }
}

static void four_tokens_share_a_counter(void **state)
{
    (void)state;
    uint32_t words[4] = {25, 7, 0, 0};
    philox_4x32(words, 0x89abcdef, 0x01234567);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(words[i], philox_token_word(0x0123456789abcdef, 7, 100 + i));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_known_answers_of_random123),
        cmocka_unit_test(four_tokens_share_a_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
