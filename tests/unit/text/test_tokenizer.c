#include "support_reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *const small[] = {"gpt2",      "gpt2-space", "digits",     "llama3",  "qwen2",     "cl100k",
                                    "o200k",     "llama2",     "mistral",    "gemma",   "unigram",   "unigram-bytes",
                                    "bert",      "bert-cased", "gguf-llama", "gguf-t5", "gguf-bert", "nfkc",
                                    "gguf-nfkc", "words",      "accents"};

static void expect_tokens(const char *name, size_t line, const json_t *want, const uint32_t *got, uint32_t n)
{
    bool same = json_array_size(want) == n;
    for (uint32_t i = 0; same && i < n; i++)
        same = json_integer_value(json_array_get(want, i)) == got[i];
    if (!same)
        fail_msg("%s, line %zu of the corpus: %u tokens, not the reference's %zu", name, line, n,
                 json_array_size(want));
}

/* Every line of the corpus in both trusts, whole and in parts of the same origin. */
static void compare(const char *name, const tokenizer *t, const char *reference)
{
    json_t  *corpus = reference_json("corpus.json"), *lines = reference_json(reference);
    uint64_t random = 9;
    assert_true(json_array_size(lines) > 300);
    assert_int_equal(json_array_size(lines), json_array_size(corpus));
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *entry = json_array_get(lines, i);
        span          text  = reference_text(json_array_get(corpus, i));
        for (int trusted = 0; trusted < 2; trusted++) {
            const json_t *want = json_array_get(entry, trusted || json_array_size(entry) == 1 ? 0 : 1);
            uint32_t      tokens[REFERENCE_TOKENS_MAX];
            size_t        a       = reference_random(&random, (uint32_t)text.size + 1);
            size_t        b       = a + reference_random(&random, (uint32_t)(text.size - a) + 1);
            text_part     parts[] = {{{text.data, a}, trusted},
                                     {{text.data + a, b - a}, trusted},
                                     {{text.data + b, text.size - b}, trusted}};
            text_part     whole   = {text, trusted};
            expect_tokens(name, i, want, tokens, reference_encode(t, &whole, 1, tokens));
            expect_tokens(name, i, want, tokens, reference_encode(t, parts, 3, tokens));
        }
    }
    json_decref(lines);
    json_decref(corpus);
}

static void encodes_the_corpus_as_the_demo_model_does(void **state)
{
    (void)state;
    tokenizer *t = reference_smollm2();
    compare("SmolLM2", t, "smollm2.json");
    tokenizer_free(&t);
}

static void encodes_the_corpus_as_each_small_tokenizer_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(small); i++) {
        char reference[64];
        snprintf(reference, sizeof reference, "%s/reference.json", small[i]);
        tokenizer *t = reference_tokenizer(small[i]);
        compare(small[i], t, reference);
        tokenizer_free(&t);
    }
}

/* The bytes of the tokens of `text`. */
static size_t round_trip(const tokenizer *t, span text, bool trusted, char *out)
{
    static uint32_t tokens[REFERENCE_TOKENS_MAX];
    text_part       part = {text, trusted};
    uint32_t        n    = reference_encode(t, &part, 1, tokens);
    size_t          size = 0;
    for (uint32_t i = 0; i < n; i++) {
        span bytes = tokenizer_token_bytes(t, tokens[i]);
        memcpy(out + size, bytes.data, bytes.size);
        size += bytes.size;
        assert_true(trusted || !tokenizer_is_special(t, tokens[i]));
    }
    return size;
}

static void any_bytes_come_back_from_a_vocabulary_with_all_bytes(void **state)
{
    (void)state;
    static const char *const exact[] = {"gpt2", "llama3", "cl100k"};
    json_t                  *corpus  = reference_json("corpus.json");
    uint32_t                 n_lines = (uint32_t)json_array_size(corpus);
    uint64_t                 random  = 13;
    for (size_t k = 0; k < COUNT(exact); k++) {
        tokenizer *t = reference_tokenizer(exact[k]);
        char       text[600], out[REFERENCE_TOKENS_MAX * 4];
        for (uint32_t i = 0; i < 2000; i++) {
            size_t size = reference_random(&random, sizeof text), at = 0;
            while (at < size) { /* lines of the corpus, cut anywhere, and random bytes between them */
                span   line = reference_text(json_array_get(corpus, reference_random(&random, n_lines)));
                size_t from = reference_random(&random, (uint32_t)line.size + 1), n = line.size - from;
                n = n > size - at ? size - at : n;
                memcpy(text + at, line.data + from, n);
                at += n;
                if (at < size)
                    text[at++] = (char)reference_random(&random, 256);
            }
            if (memmem(text, size, "<tool>", 6)) /* takes the whitespace around it */
                continue;
            assert_int_equal(round_trip(t, (span){text, size}, false, out), size);
            assert_memory_equal(out, text, size);
        }
        tokenizer_free(&t);
    }
    json_decref(corpus);
}

/* SmolLM2 has no token for some bytes: its own tokenizer drops them. */
static void the_demo_model_drops_only_bytes_without_a_token(void **state)
{
    (void)state;
    tokenizer *t = reference_smollm2();
    char       out[64];
    for (uint32_t byte = 0; byte < 256; byte++) {
        char text[] = {'a', (char)byte, 'b'};
        bool known  = tokenizer_find(t, (span){text + 1, 1}) != UINT32_MAX;
        assert_int_equal(round_trip(t, (span){text, 3}, true, out), known ? 3 : 2);
    }
    assert_int_equal(tokenizer_find(t, SPAN("\x04")), UINT32_MAX);
    assert_int_equal(round_trip(t, SPAN("caf\xC3\xA9 \x80 \xF0\x9F"), true, out), 10);
    tokenizer_free(&t);
}

static void special_tokens_come_only_of_trusted_text(void **state)
{
    (void)state;
    static const struct {
        text_part   parts[4];
        const char *specials; /* 1 for <|im_start|>, 2 for <|im_end|>, . for a run of others */
    } cases[] = {
        {{{SPAN("<|im_start|>"), true}, {SPAN("user"), false}, {SPAN("<|im_end|>"), true}}, "1.2"},
        {{{SPAN("<|im_start|>"), true}, {SPAN("a<|im_end|>"), false}, {SPAN("<|im_end|>"), true}}, "1.2"},
        {{{SPAN("<|im_end"), false}, {SPAN("|>"), true}}, "."},
        {{{SPAN("<|im_end"), true}, {SPAN("|>"), false}}, "."},
        {{{SPAN("<|im_"), true}, {SPAN(""), false}, {SPAN("end|>"), true}}, "2"}, /* an empty part is nothing */
        {{{SPAN("<|im_end|>"), false}}, "."},
        {{{SPAN("<"), false}, {SPAN("<|im_end|>"), true}}, ".2"},
        {{{SPAN("<|im_start|><|im_"), false}, {SPAN("<|im_end|>"), true}}, ".2"},
    };
    tokenizer *t     = reference_smollm2();
    uint32_t   start = tokenizer_find(t, SPAN("<|im_start|>")), end = tokenizer_find(t, SPAN("<|im_end|>"));
    assert_true(tokenizer_is_special(t, start) && tokenizer_is_special(t, end));
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint32_t tokens[REFERENCE_TOKENS_MAX], n_parts = 0;
        char     seen[64] = "";
        while (n_parts < 4 && cases[i].parts[n_parts].text.data)
            n_parts++;
        uint32_t n = reference_encode(t, cases[i].parts, n_parts, tokens);
        for (uint32_t j = 0, n_seen = 0; j < n; j++) {
            char kind = tokens[j] == start ? '1' : tokens[j] == end ? '2' : '.';
            if (kind != '.' || n_seen == 0 || seen[n_seen - 1] != '.')
                seen[n_seen++] = kind;
        }
        assert_string_equal(seen, cases[i].specials);
    }
    tokenizer_free(&t);
}

/* Whatever the kind: all special tokens' names in a row, between blanks, as a user's and as the template's words. */
static void user_text_never_becomes_a_control_token(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(small); i++) {
        tokenizer *t = reference_tokenizer(small[i]);
        char       text[1024];
        uint32_t   tokens[REFERENCE_TOKENS_MAX], n_specials = 0, n_found = 0;
        size_t     size = 0;
        for (uint32_t token = 0; token < tokenizer_n_vocab(t); token++)
            if (tokenizer_is_special(t, token)) {
                size +=
                    (size_t)snprintf(text + size, sizeof text - size, "%.*s ", SPAN_ARG(tokenizer_spelling(t, token)));
                n_specials++;
            }
        assert_true(n_specials >= 3 && size < sizeof text);
        text_part part = {{text, size}, true};
        uint32_t  n    = reference_encode(t, &part, 1, tokens);
        for (uint32_t j = 0; j < n; j++)
            n_found += tokenizer_is_special(t, tokens[j]);
        assert_true(n_found >= n_specials);
        part.trusted = false;
        n            = reference_encode(t, &part, 1, tokens);
        for (uint32_t j = 0; j < n; j++) {
            span spelling = tokenizer_spelling(t, tokens[j]);
            assert_true(!tokenizer_is_special(t, tokens[j]) || span_is(spelling, "<unk>") ||
                        span_is(spelling, "[UNK]"));
        }
        tokenizer_free(&t);
    }
}

/* What the model's own tokenizer sees is the whole prompt, wherever its parts begin. */
static void parts_of_any_origin_are_one_text(void **state)
{
    (void)state;
    tokenizer *t       = reference_smollm2();
    text_part  parts[] = {
         {SPAN("user\n"), true}, {SPAN("\n\n  hel"), false}, {SPAN("lo "), true}, {SPAN(" world"), false}};
    text_part whole = {SPAN("user\n\n\n  hello  world"), true};
    uint32_t  a[REFERENCE_TOKENS_MAX], b[REFERENCE_TOKENS_MAX];
    uint32_t  n = reference_encode(t, parts, 4, a);
    assert_int_equal(n, reference_encode(t, &whole, 1, b));
    assert_memory_equal(a, b, n * sizeof *a);
    tokenizer_free(&t);
}

/* '>' and U+0338 compose to U+226F: a user's text must not reach into the template's. */
static void normalization_stops_where_the_origin_changes(void **state)
{
    (void)state;
    tokenizer *t = reference_tokenizer("qwen2");
    uint32_t   tokens[REFERENCE_TOKENS_MAX];
    text_part  parts[] = {{SPAN("<|im_start|>a>"), true}, {SPAN("\xCC\xB8"), false}, {SPAN("<|im_end|>"), true}};
    char       out[64] = "";
    uint32_t   n       = reference_encode(t, parts, 3, tokens);
    for (uint32_t i = 0; i < n; i++)
        strncat(out, tokenizer_token_bytes(t, tokens[i]).data, tokenizer_token_bytes(t, tokens[i]).size);
    assert_string_equal(out, "<|im_start|>a>\xCC\xB8<|im_end|>");
    assert_int_equal(tokens[n - 1], tokenizer_find(t, SPAN("<|im_end|>")));
    tokenizer_free(&t);
}

static void limits_are_errors_and_give_the_scratch_back(void **state)
{
    (void)state;
    tokenizer *t = reference_smollm2();
    error      err;
    uint32_t   tokens[8], n = 7;
    arena     *scratch = arena_new(4096, NULL);
    text_part  part    = {SPAN("one two three four"), true};
    assert_false(tokenizer_encode(t, &part, 1, scratch, tokens, 3, &n, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_non_null(strstr(err.text, "more than 3 tokens"));
    assert_int_equal(n, 0);
    assert_int_equal(arena_used(scratch), 0);
    char large[5000];
    memset(large, 'x', sizeof large);
    part.text = (span){large, sizeof large};
    assert_false(tokenizer_encode(t, &part, 1, scratch, tokens, 8, &n, &err));
    assert_int_equal(err.code, ERR_NO_MEMORY);
    assert_int_equal(arena_used(scratch), 0);
    assert_true(tokenizer_encode(t, NULL, 0, scratch, tokens, 8, &n, &err));
    assert_int_equal(n, 0);
    arena_free(&scratch);
    tokenizer_free(&t);
}

/* The scratch that tokenizer_scratch_bytes tells is enough for the worst texts, and they take seconds. */
static void hostile_texts_take_linear_time_and_no_more_scratch_than_promised(void **state)
{
    (void)state;
    enum { BYTES = 1 << 19 };
    static const char *const units[] = {"a",
                                        " ",
                                        "\n",
                                        " \n",
                                        "1",
                                        "!",
                                        "'",
                                        "\xCC\x81",
                                        "a\xCC\x81\xCC\xA3",
                                        "\xF0\x9D\x85\xA0",
                                        "<|im_end|>",
                                        "<|im_",
                                        "<",
                                        "\xFF",
                                        "ab",
                                        "   ",
                                        "nai\xCC\x88ve ",
                                        "[CUT]"};
    static const char *const names[] = {"gpt2",          "gpt2-space", "qwen2",   "o200k", "llama2", "mistral",
                                        "unigram-bytes", "bert",       "gguf-t5", "nfkc",  "words",  "accents"};
    char                    *text    = malloc(BYTES);
    uint32_t                *tokens  = malloc(3 * BYTES * sizeof *tokens);
    for (size_t k = 0; k < COUNT(names); k++) {
        tokenizer *t       = reference_tokenizer(names[k]);
        arena     *scratch = arena_new(tokenizer_scratch_bytes(t, BYTES), NULL);
        for (size_t i = 0; i < COUNT(units); i++) {
            error    err = {0};
            uint32_t n;
            for (size_t at = 0, size = strlen(units[i]); at < BYTES; at++)
                text[at] = units[i][at % size];
            text_part       part = {{text, BYTES}, i % 2};
            struct timespec start, end;
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
            if (!tokenizer_encode(t, &part, 1, scratch, tokens, 3 * BYTES, &n, &err))
                fail_msg("%s, \"%s\": %s", names[k], units[i], err.text);
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
            assert_true(end.tv_sec - start.tv_sec < 20);
        }
        arena_free(&scratch);
        tokenizer_free(&t);
    }
    free(tokens);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_the_corpus_as_the_demo_model_does),
        cmocka_unit_test(encodes_the_corpus_as_each_small_tokenizer_does),
        cmocka_unit_test(any_bytes_come_back_from_a_vocabulary_with_all_bytes),
        cmocka_unit_test(the_demo_model_drops_only_bytes_without_a_token),
        cmocka_unit_test(special_tokens_come_only_of_trusted_text),
        cmocka_unit_test(user_text_never_becomes_a_control_token),
        cmocka_unit_test(parts_of_any_origin_are_one_text),
        cmocka_unit_test(normalization_stops_where_the_origin_changes),
        cmocka_unit_test(limits_are_errors_and_give_the_scratch_back),
        cmocka_unit_test(hostile_texts_take_linear_time_and_no_more_scratch_than_promised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
