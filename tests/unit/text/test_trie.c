#include "support_reference.h"

#include "text/trie.h"

static uint32_t find(const trie *t, const char *text)
{
    uint32_t node = TRIE_ROOT;
    for (; *text && node != TRIE_NOWHERE; text++)
        node = trie_step(t, node, (uint8_t)*text);
    return node == TRIE_NOWHERE ? UINT32_MAX : trie_value(t, node);
}

static trie *make(const char *const *texts, uint32_t n)
{
    vocabulary *v = vocabulary_new(n, NULL);
    for (uint32_t i = 0; i < n; i++)
        assert_true(vocabulary_append(v, span_of(texts[i]), TOKEN_NORMAL, NULL));
    trie *t = trie_new(v, TOKEN_NORMAL, NULL);
    assert_non_null(t);
    vocabulary_free(&v);
    return t;
}

static void strings_are_found_by_their_bytes(void **state)
{
    (void)state;
    static const char *const texts[] = {"abc", "\xFF", "ab", "a", "b\xFF", "ab", ""}; /* the lowest id counts */
    trie                    *t       = make(texts, COUNT(texts));
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(find(t, texts[i]), i);
    assert_int_equal(find(t, "b"), VOCABULARY_NONE);
    assert_int_equal(find(t, "abcd"), VOCABULARY_NONE);
    assert_int_equal(find(t, ""), VOCABULARY_NONE);
    trie_free(&t);
    assert_null(t);
}

/* Thousands of random strings of few and of many different bytes, which fill many blocks. */
static void every_string_and_no_other_is_found(void **state)
{
    (void)state;
    enum { TEXTS = 20000, BYTES = 12 };
    uint64_t random = 3;
    for (uint32_t different = 2; different <= 255; different += 253) {
        vocabulary *v = vocabulary_new(TEXTS, NULL);
        for (uint32_t i = 0; i < TEXTS; i++) {
            char   text[BYTES];
            size_t size = 1 + reference_random(&random, BYTES);
            for (size_t j = 0; j < size; j++)
                text[j] = (char)(1 + reference_random(&random, different));
            assert_true(vocabulary_append(v, (span){text, size}, i % 8 ? TOKEN_NORMAL : TOKEN_SPECIAL, NULL));
        }
        trie *t = trie_new(v, TOKEN_NORMAL, NULL);
        for (uint32_t i = 0; i < TEXTS; i++) {
            char text[BYTES + 1] = "";
            span bytes           = vocabulary_bytes(v, i);
            memcpy(text, bytes.data, bytes.size);
            assert_int_equal(find(t, text), vocabulary_find(v, bytes, TOKEN_NORMAL));
            text[bytes.size / 2] ^= 1;
            if (text[bytes.size / 2])
                assert_int_equal(find(t, text), vocabulary_find(v, (span){text, bytes.size}, TOKEN_NORMAL));
        }
        trie_free(&t);
        vocabulary_free(&v);
    }
}

static void limits_are_errors(void **state)
{
    (void)state;
    static char large[TRIE_TEXT_BYTES_MAX + 1];
    error       err;
    vocabulary *v = vocabulary_new(1, NULL);
    memset(large, 'a', sizeof large);
    assert_true(vocabulary_append(v, (span){large, sizeof large}, TOKEN_NORMAL, NULL));
    assert_null(trie_new(v, TOKEN_NORMAL, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "token 0 has 513 bytes"));
    vocabulary_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_found_by_their_bytes),
        cmocka_unit_test(every_string_and_no_other_is_found),
        cmocka_unit_test(limits_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
