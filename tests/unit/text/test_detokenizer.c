#include "support_reference.h"

#include "text/detokenizer.h"
#include <stdio.h>
#include <stdlib.h>

/* The whole text of some tokens, token by token, with every promise of the header checked on the way. */
typedef struct {
    char     text[8192];
    size_t   n;
    bool     stopped;
    uint32_t stop_index, n_pushed;
} result;

static void take(result *r, span text)
{
    assert_true(r->n + text.size < sizeof r->text);
    if (text.size)
        memcpy(r->text + r->n, text.data, text.size);
    r->n += text.size;
    r->text[r->n] = 0;
}

static void detokenize(const detokenizer_options *options, const uint32_t *tokens, size_t n, result *r)
{
    error        err    = {0};
    arena       *memory = arena_new(1 << 16, NULL);
    detokenizer *d      = detokenizer_new(memory, options, &err);
    if (!d)
        fail_msg("%s", err.text);
    size_t used = arena_used(memory);
    *r          = (result){.stop_index = UINT32_MAX};
    for (size_t i = 0; i < n; i++) {
        span text;
        bool stopped = detokenizer_push(d, tokens[i], &text, &r->stop_index);
        detokenizer_check(d);
        take(r, text);
        assert_int_equal(detokenizer_n_bytes(d), r->n);
        assert_true(!r->stopped || (stopped && text.size == 0));
        r->n_pushed += !r->stopped;
        r->stopped = stopped;
    }
    take(r, detokenizer_finish(d));
    detokenizer_check(d);
    take(r, detokenizer_finish(d));
    assert_int_equal(detokenizer_n_bytes(d), r->n);
    assert_int_equal(arena_used(memory), used);
    arena_free(&memory);
}

static void compare(const tokenizer *t, const char *name)
{
    json_t *cases = reference_json(name);
    assert_true(json_array_size(cases) >= 150);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *entry = json_array_get(cases, i), *ids = json_array_get(entry, 0);
        uint32_t      tokens[64];
        assert_true(json_array_size(ids) <= COUNT(tokens));
        for (size_t j = 0; j < json_array_size(ids); j++)
            tokens[j] = (uint32_t)json_integer_value(json_array_get(ids, j));
        for (int specials = 0; specials < 2; specials++) {
            result r;
            detokenize(&(detokenizer_options){.tokenizer = t, .specials = specials}, tokens, json_array_size(ids), &r);
            span want = reference_text(json_array_get(entry, 1 + (size_t)specials));
            if (!span_equal((span){r.text, r.n}, want))
                fail_msg("%s, case %zu: \"%s\", not \"%.*s\"", name, i, r.text, SPAN_ARG(want));
        }
    }
    json_decref(cases);
}

static void decodes_as_tokenizers_does_whatever_the_tokens_cut(void **state)
{
    (void)state;
    static const char *const names[] = {"llama2", "mistral",    "gemma",      "unigram", "unigram-bytes",
                                        "bert",   "bert-cased", "gguf-llama", "gguf-t5", "gguf-bert",
                                        "nfkc",   "gguf-nfkc",  "words",      "accents"};
    tokenizer               *t       = reference_smollm2();
    compare(t, "decode.json");
    tokenizer_free(&t);
    for (size_t i = 0; i < COUNT(names); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/decode.json", names[i]);
        t = reference_tokenizer(names[i]);
        compare(t, name);
        tokenizer_free(&t);
    }
}

/* The tokens of single bytes. */
static size_t byte_tokens(const tokenizer *t, span text, uint32_t *tokens)
{
    for (size_t i = 0; i < text.size; i++) {
        tokens[i] = tokenizer_find(t, (span){text.data + i, 1});
        assert_true(tokens[i] < tokenizer_n_vocab(t));
    }
    return text.size;
}

static void text_ends_before_the_first_stop_string(void **state)
{
    (void)state;
    static const struct {
        const char *text, *stops[3], *out;
        uint32_t    stop_index;
        bool        include_stop;
    } cases[] = {
        {"hello world", {"wor"}, "hello ", 0, false},
        {"hello world", {"wor"}, "hello wor", 0, true},
        {"hello world", {"world!"}, "hello world", UINT32_MAX, false},
        {"hello", {"x", "llo", "lo"}, "he", 1, false},
        {"aaab", {"aab"}, "a", 0, false},
        {"ababac", {"abac", "zz"}, "ab", 0, false},
        {"abcd", {"bcd", "bc"}, "a", 1, false}, /* "bc" is complete first */
        {"\xE6\x97\xA5\xE6\x9C\xAC", {"\xE6\x9C\xAC"}, "\xE6\x97\xA5", 0, false},
        {"a\n\nUser:", {"\n\nUser:"}, "a", 0, false},
        {"stop", {"stop"}, "", 0, false},
        {"\xE6\x97", {"x"}, "\xEF\xBF\xBD", UINT32_MAX, false},
        {"x\xFF", {"y", "\xEF\xBF\xBD"}, "x", 1, false},
    };
    tokenizer *t = reference_tokenizer("gpt2");
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint32_t tokens[64];
        span     stops[3];
        size_t   n_stops = 0, n = byte_tokens(t, span_of(cases[i].text), tokens);
        while (n_stops < 3 && cases[i].stops[n_stops]) {
            stops[n_stops] = span_of(cases[i].stops[n_stops]);
            n_stops++;
        }
        result              r;
        detokenizer_options options = {
            .tokenizer = t, .stops = stops, .n_stops = (uint32_t)n_stops, .include_stop = cases[i].include_stop};
        detokenize(&options, tokens, n, &r);
        assert_string_equal(r.text, cases[i].out);
        assert_int_equal(r.stop_index, cases[i].stop_index);
        assert_int_equal(r.stopped, cases[i].stop_index != UINT32_MAX);
    }
    tokenizer_free(&t);
}

/* Where the first stop string to be complete begins, and which it is. */
static size_t first_stop(span text, const span *stops, uint32_t n_stops, uint32_t *index)
{
    for (size_t end = 1; end <= text.size; end++) {
        *index = UINT32_MAX;
        for (uint32_t i = 0; i < n_stops; i++)
            if (stops[i].size <= end && memcmp(text.data + end - stops[i].size, stops[i].data, stops[i].size) == 0 &&
                (*index == UINT32_MAX || stops[i].size > stops[*index].size))
                *index = i;
        if (*index != UINT32_MAX)
            return end - stops[*index].size;
    }
    return text.size;
}

static void random_stop_strings_are_found_wherever_tokens_end(void **state)
{
    (void)state;
    tokenizer *t      = reference_tokenizer("gpt2");
    uint64_t   random = 5;
    uint32_t   tokens[256], n_stopped = 0;
    for (uint32_t round = 0; round < 3000; round++) {
        char     text[64], stop_text[4][8];
        span     stops[4];
        uint32_t want_index, n_stops = reference_random(&random, 5);
        size_t   size = reference_random(&random, sizeof text);
        for (size_t i = 0; i < size; i++)
            text[i] = "ae t"[reference_random(&random, 4)];
        for (uint32_t i = 0; i < n_stops; i++) {
            stops[i] = (span){stop_text[i], 1 + reference_random(&random, 7)};
            for (size_t j = 0; j < stops[i].size; j++)
                stop_text[i][j] = "ae t"[reference_random(&random, 4)];
        }
        size_t    want = first_stop((span){text, size}, stops, n_stops, &want_index);
        text_part part = {{text, size}, false};
        size_t    n    = round % 2 ? reference_encode(t, &part, 1, tokens) : byte_tokens(t, part.text, tokens);
        result    r;
        detokenize(&(detokenizer_options){.tokenizer = t, .stops = stops, .n_stops = n_stops}, tokens, n, &r);
        if (r.n != want || memcmp(r.text, text, want) != 0 || (r.stopped && r.stop_index != want_index))
            fail_msg("round %u: \"%.*s\" became \"%s\"", round, (int)size, text, r.text);
        assert_int_equal(r.stopped, want < size);
        n_stopped += r.stopped;
    }
    assert_true(n_stopped > 500 && n_stopped < 2900);
    tokenizer_free(&t);
}

static void text_that_can_not_become_a_stop_string_leaves_at_once(void **state)
{
    (void)state;
    tokenizer   *t      = reference_tokenizer("gpt2");
    arena       *memory = arena_new(1 << 16, NULL);
    span         stop   = SPAN("</s>");
    uint32_t     tokens[8], index;
    detokenizer *d =
        detokenizer_new(memory, &(detokenizer_options){.tokenizer = t, .stops = &stop, .n_stops = 1}, NULL);
    static const char *const handed_out[] = {"a", "", "", "</b", ""};
    byte_tokens(t, SPAN("a</b<"), tokens);
    for (size_t i = 0; i < COUNT(handed_out); i++) {
        span text;
        assert_false(detokenizer_push(d, tokens[i], &text, &index));
        assert_true(span_is(text, handed_out[i]));
    }
    assert_true(span_is(detokenizer_finish(d), "<"));
    arena_free(&memory);
    tokenizer_free(&t);
}

static void a_blank_at_the_beginning_goes_unless_the_text_continues(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *alone, *continued;
    } cases[] = {
        {"llama2", "the  end", "the  end", " the  end"},
        {"gemma", " the end", " the end", " the end"}, /* has no prefix to take away */
        {"unigram", "the end", "the end", " the end"},
        {"bert", "the end.", "the end.", " the end."},
        {"gpt2", " the end", " the end", " the end"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        tokenizer *t    = reference_tokenizer(cases[i].name);
        text_part  part = {span_of(cases[i].text), false};
        uint32_t   tokens[REFERENCE_TOKENS_MAX], n = reference_encode(t, &part, 1, tokens);
        result     r;
        detokenize(&(detokenizer_options){.tokenizer = t}, tokens, n, &r);
        assert_string_equal(r.text, cases[i].alone);
        detokenize(&(detokenizer_options){.tokenizer = t, .continues = true}, tokens, n, &r);
        assert_string_equal(r.text, cases[i].continued);
        tokenizer_free(&t);
    }
}

static void tokens_of_bytes_become_characters_or_one_replacement_each(void **state)
{
    (void)state;
    static const struct {
        const char *names[6], *text;
    } cases[] = {
        {{"<0xF0>", "<0x9F>", "<0x94>", "<0xA5>", "a"},
         "\xF0\x9F\x94\xA5"
         "a"},
        {{"<0xF0>", "<0x9F>", "a"},
         "\xEF\xBF\xBD\xEF\xBF\xBD"
         "a"},
        {{"a", "<0xF0>", "<0x9F>"}, "a\xEF\xBF\xBD\xEF\xBF\xBD"},
        {{"<0x0A>", "<0x41>"}, "\nA"},
    };
    tokenizer *t = reference_tokenizer("llama2");
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint32_t tokens[6], n = 0;
        result   r;
        for (; n < 6 && cases[i].names[n]; n++)
            for (tokens[n] = 0; !span_is(tokenizer_spelling(t, tokens[n]), cases[i].names[n]); tokens[n]++)
                assert_true(tokens[n] < tokenizer_n_vocab(t));
        detokenize(&(detokenizer_options){.tokenizer = t}, tokens, n, &r);
        assert_string_equal(r.text, cases[i].text);
    }
    tokenizer_free(&t);
}

static void bad_stop_strings_and_small_memory_are_errors(void **state)
{
    (void)state;
    static char    text[DETOKENIZER_STOP_BYTES_MAX + 1];
    static span    many[DETOKENIZER_STOPS_MAX + 1];
    tokenizer     *t     = reference_tokenizer("gpt2");
    span           empty = SPAN(""), invalid = SPAN("\xC3"), large = {text, sizeof text};
    const span    *stops[]   = {&empty, &invalid, &large, many};
    const uint32_t n_stops[] = {1, 1, 1, COUNT(many)};
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < COUNT(many); i++)
        many[i] = SPAN("x");
    for (size_t i = 0; i < COUNT(stops); i++) {
        error  err    = {0};
        arena *memory = arena_new(1 << 16, NULL);
        assert_null(detokenizer_new(
            memory, &(detokenizer_options){.tokenizer = t, .stops = stops[i], .n_stops = n_stops[i]}, &err));
        assert_int_equal(err.code, ERR_INVALID);
        arena_free(&memory);
    }
    for (size_t bytes = 0; bytes < 1024; bytes += 100) {
        error  err    = {0};
        arena *memory = arena_new(bytes, NULL);
        assert_null(
            detokenizer_new(memory, &(detokenizer_options){.tokenizer = t, .stops = many, .n_stops = 16}, &err));
        assert_int_equal(err.code, ERR_NO_MEMORY);
        arena_free(&memory);
    }
    tokenizer_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_as_tokenizers_does_whatever_the_tokens_cut),
        cmocka_unit_test(text_ends_before_the_first_stop_string),
        cmocka_unit_test(random_stop_strings_are_found_wherever_tokens_end),
        cmocka_unit_test(text_that_can_not_become_a_stop_string_leaves_at_once),
        cmocka_unit_test(a_blank_at_the_beginning_goes_unless_the_text_continues),
        cmocka_unit_test(tokens_of_bytes_become_characters_or_one_replacement_each),
        cmocka_unit_test(bad_stop_strings_and_small_memory_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
