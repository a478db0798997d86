#include "support_reference.h"

#include "text/bert_normalize.h"
#include <stdlib.h>

static void check(const bert_options *options, span text, span want, arena *scratch)
{
    char  *out = arena_take_array(scratch, text.size, BERT_GROWTH);
    size_t n;
    assert_true(bert_normalize(options, text, scratch, out, &n, NULL));
    if (!span_equal((span){out, n}, want))
        fail_msg("\"%.*s\" became \"%.*s\", not \"%.*s\"", SPAN_ARG(text), (int)n, out, SPAN_ARG(want));
    arena_reset(scratch);
}

/* bert.json has texts of every character that changes, and what an uncased and a cased model's normalizer make of
 * them. */
static void normalizes_as_tokenizers_does(void **state)
{
    (void)state;
    static const bert_options uncased = {true, true, true, true}, cased = {true, true, false, false};
    json_t                   *cases   = reference_json("bert.json");
    arena                    *scratch = arena_new(4 << 20, NULL);
    assert_true(json_array_size(cases) > 200);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *entry = json_array_get(cases, i);
        span          text  = reference_text(json_array_get(entry, 0));
        check(&uncased, text, reference_text(json_array_get(entry, 1)), scratch);
        check(&cased, text, reference_text(json_array_get(entry, 2)), scratch);
    }
    arena_free(&scratch);
    json_decref(cases);
}

static void bytes_that_are_not_utf8_are_cleaned_away(void **state)
{
    (void)state;
    static const bert_options clean = {.clean_text = true}, keep = {.lowercase = true, .strip_accents = true};
    arena                    *scratch = arena_new(1 << 16, NULL);
    check(&clean, SPAN("a\xFF\xC3\tb"), SPAN("a b"), scratch);
    check(&keep, SPAN("A\xFF\xC3\xC3\x89\tb"),
          SPAN("a\xFF\xC3"
               "e\tb"),
          scratch);
    arena_free(&scratch);
}

static void little_scratch_is_an_error(void **state)
{
    (void)state;
    static const bert_options uncased = {true, true, true, true};
    arena                    *little  = arena_new(32, NULL);
    char                      out[6 * 16];
    size_t                    n;
    error                     err;
    assert_false(bert_normalize(&uncased, SPAN("a\xC3\x89 \xC3\x89 \xC3\x89 \xC3\x89"), little, out, &n, &err));
    assert_int_equal(err.code, ERR_NO_MEMORY);
    arena_free(&little);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normalizes_as_tokenizers_does),
        cmocka_unit_test(bytes_that_are_not_utf8_are_cleaned_away),
        cmocka_unit_test(little_scratch_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
