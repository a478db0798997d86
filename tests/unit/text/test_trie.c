#include "support_reference.h"

#include "text/trie.h"

static uint32_t find(const trie *t, const char *text)
{
    uint32_t node = TRIE_ROOT;
    for (; *text && node != TRIE_NOWHERE; text++)
        node = trie_step(t, node, (uint8_t)*text);
    return node == TRIE_NOWHERE ? UINT32_MAX : trie_value(t, node);
}

static void strings_are_found_by_their_bytes(void **state)
{
    (void)state;
    static const char *const texts[] = {"a", "ab", "abc", "b\xFF", "\xFF"};
    size_t                   n_bytes = 0;
    for (size_t i = 0; i < COUNT(texts); i++)
        n_bytes += strlen(texts[i]);
    trie *t = trie_new(n_bytes, NULL);
    for (uint32_t i = 0; i < COUNT(texts); i++)
        trie_add(t, span_of(texts[i]), i);
    trie_add(t, SPAN("ab"), 77); /* the first of two alike stays */
    trie_add(t, SPAN(""), 78);
    for (uint32_t i = 0; i < COUNT(texts); i++)
        assert_int_equal(find(t, texts[i]), i);
    assert_int_equal(find(t, "b"), UINT32_MAX);
    assert_int_equal(find(t, "abcd"), UINT32_MAX);
    assert_int_equal(find(t, ""), UINT32_MAX);
    trie_free(&t);
    assert_null(t);
}

static void too_many_bytes_are_an_error(void **state)
{
    (void)state;
    error err;
    assert_null(trie_new((size_t)1 << 32, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_found_by_their_bytes),
        cmocka_unit_test(too_many_bytes_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
