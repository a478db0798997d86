#include "support_reference.h"

#include "model/gguf.h"
#include "text/charsmap.h"

enum { OUT_BYTES = 1 << 16 };

static charsmap *nmt_nfkc(void)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    error             err   = {0};
    gguf             *file  = gguf_open(TESTS_DIR "/data/tokenizer/gguf-nfkc/gguf-nfkc.gguf", &err);
    gguf_type         type;
    uint64_t          n;
    if (!file || !gguf_get_array(file, key, &type, &n, &err))
        fail_msg("%s", err.text);
    charsmap *map = charsmap_new((span){gguf_array_data(file, key), n}, &err);
    if (!map)
        fail_msg("%s", err.text);
    gguf_close(&file);
    return map;
}

static void check(const charsmap *map, charsmap_matching matching, span text, span want)
{
    static char out[OUT_BYTES];
    assert_true(text.size * charsmap_growth(map) <= sizeof out);
    span got = {out, charsmap_normalize(map, text, matching, out)};
    if (!span_equal(got, want))
        fail_msg("\"%.*s\" became \"%.*s\", not \"%.*s\"", SPAN_ARG(text), SPAN_ARG(got), SPAN_ARG(want));
}

/* Every character that nmt_nfkc changes, and random neighbours. */
static void replaces_as_tokenizers_and_as_sentencepiece_do(void **state)
{
    (void)state;
    charsmap *map   = nmt_nfkc();
    json_t   *cases = reference_json("charsmap.json");
    assert_int_equal(charsmap_growth(map), 11); /* U+FDFA: 3 bytes become 33 */
    assert_true(json_array_size(cases) > 600);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *entry = json_array_get(cases, i);
        span          text  = reference_text(json_array_get(entry, 0));
        check(map, CHARSMAP_GRAPHEMES, text, reference_text(json_array_get(entry, 1)));
        check(map, CHARSMAP_LONGEST, text, reference_text(json_array_get(entry, 2)));
    }
    json_decref(cases);
    charsmap_free(&map);
    assert_null(map);
}

static void bytes_that_are_not_utf8_stay(void **state)
{
    (void)state;
    charsmap *map = nmt_nfkc();
    for (int matching = CHARSMAP_LONGEST; matching <= CHARSMAP_GRAPHEMES; matching++) {
        check(map, (charsmap_matching)matching, SPAN("a\xFF\xC2\xA0\xCC"), SPAN("a\xFF \xCC"));
        check(map, (charsmap_matching)matching, SPAN(""), SPAN(""));
    }
    charsmap_free(&map);
}

/* A map of the one key "a" with the replacement "xyz", and one thing wrong in it. Units, as Darts-clone has them: the
 * root leads with offset 1 ^ 'a' to unit 1, which has a leaf at unit 1 ^ 2 = 3. */
typedef struct {
    uint32_t    size, root, child, leaf;
    const char *strings;
    error_code  code;
    const char *named;
} map_case;

static charsmap *make(const map_case *c, error *err)
{
    uint32_t units[1 + 4] = {c->size, c->root, c->child, 0x80000000, c->leaf};
    char     bytes[sizeof units + 16];
    size_t   n = strlen(c->strings) + 1;
    memcpy(bytes, units, sizeof units);
    memcpy(bytes + sizeof units, c->strings, n);
    return charsmap_new((span){bytes, sizeof units + n}, err);
}

#define ROOT ((1 ^ 'a') << 10)
#define CHILD (2 << 10 | 1 << 8 | 'a')

static void what_is_wrong_with_a_map_is_said(void **state)
{
    (void)state;
    static const map_case cases[] = {
        {16, ROOT, CHILD, 0x80000000, "xyz", ERR_NONE, ""},
        {16, ROOT, CHILD, 0x80000004, "xyz", ERR_NONE, ""}, /* an empty replacement, behind the last NUL */
        {16, ROOT, CHILD, 0x80000005, "xyz", ERR_INVALID, "behind its end"},
        {16, ROOT, 99 << 10 | 1 << 8 | 'a', 0x80000000, "xyz", ERR_INVALID, "behind its end"},
        {16, ROOT, CHILD, 0x80000000, "x\xFF", ERR_INVALID, "not UTF-8"},
        {0, ROOT, CHILD, 0x80000000, "xyz", ERR_INVALID, "0 of its 24 bytes"},
        {15, ROOT, CHILD, 0x80000000, "xyz", ERR_INVALID, "15 of its 24 bytes"},
        {24, ROOT, CHILD, 0x80000000, "xyz", ERR_INVALID, "24 of its 24 bytes"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        error     err = {0};
        charsmap *map = make(&cases[i], &err);
        if (map && i == 0)
            check(map, CHARSMAP_LONGEST, SPAN("bab"), SPAN("bxyzb"));
        if (err.code != cases[i].code || !strstr(err.text, cases[i].named) || (map != NULL) != (err.code == ERR_NONE))
            fail_msg("case %zu: %s %s", i, error_name(err.code), err.text);
        charsmap_free(&map);
    }
    error err;
    assert_null(charsmap_new(SPAN("abc"), &err));
    assert_int_equal(err.code, ERR_INVALID);
}

/* Unit 1 ^ 'a' leads back to unit 1: keys of any length, which take no longer than the longest that is looked for. */
static void a_ring_of_units_is_left(void **state)
{
    (void)state;
    enum { TEXT = 4096 };
    const uint32_t ring  = (uint32_t)(1 ^ 1 ^ 'a') << 10 | 'a';
    const map_case given = {16, ROOT, ring, 0, "x", ERR_NONE, ""};
    char           a[TEXT];
    charsmap      *map = make(&given, NULL);
    assert_non_null(map);
    memset(a, 'a', sizeof a);
    check(map, CHARSMAP_LONGEST, (span){a, sizeof a}, (span){a, sizeof a});
    charsmap_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replaces_as_tokenizers_and_as_sentencepiece_do),
        cmocka_unit_test(bytes_that_are_not_utf8_stay),
        cmocka_unit_test(what_is_wrong_with_a_map_is_said),
        cmocka_unit_test(a_ring_of_units_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
