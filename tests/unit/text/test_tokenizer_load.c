/* Making tokenizers of files: what is read, and how what is not supported is refused. */
#include "support_reference.h"

#include "text/tokenizer_parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- GGUF ---- */

/* A GGUF image without tensors, written key by key. */
typedef struct {
    char     bytes[4096];
    size_t   size;
    uint64_t n_keys;
} image;

static void put(image *g, const void *bytes, size_t size)
{
    assert_true(g->size + size <= sizeof g->bytes);
    memcpy(g->bytes + g->size, bytes, size);
    g->size += size;
}

static void put_string(image *g, const char *text)
{
    put(g, &(uint64_t){strlen(text)}, 8);
    put(g, text, strlen(text));
}

static void put_key(image *g, const char *key, gguf_type type)
{
    put_string(g, key);
    put(g, &(uint32_t){type == GGUF_U32 ? 4 : type == GGUF_BOOL ? 7 : type == GGUF_STRING ? 8 : 9}, 4);
    g->n_keys++;
}

static void put_strings(image *g, const char *key, const char *const *texts, uint64_t n)
{
    put_key(g, key, GGUF_ARRAY);
    put(g, &(uint32_t){8}, 4);
    put(g, &n, 8);
    for (uint64_t i = 0; i < n; i++)
        put_string(g, texts[i]);
}

/* a b ab, an added token "a b", a control token, and an unused one. */
typedef struct {
    const char *model, *pre, *merge;
    uint32_t    n_types, bos, n_scores;
    float       score;    /* of every token */
    const char *charsmap; /* NULL: there is none */
} gguf_case;

static void put_scores(image *g, const gguf_case *c)
{
    put_key(g, "tokenizer.ggml.scores", GGUF_ARRAY);
    put(g, &(uint32_t){6}, 4);
    put(g, &(uint64_t){c->n_scores}, 8);
    for (uint32_t i = 0; i < c->n_scores; i++)
        put(g, &c->score, sizeof c->score);
}

static tokenizer *load_gguf(const gguf_case *c, error *err)
{
    static const char *const tokens[] = {"a", "b", "ab", "\xC4\xA0", "a b", "<|im_end|>", "[unused]"};
    static const int32_t     types[]  = {1, 1, 1, 1, 4, 3, 5};
    image                    g        = {.n_keys = 0};
    put(&g, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
    if (c->model) {
        put_key(&g, "tokenizer.ggml.model", GGUF_STRING);
        put_string(&g, c->model);
    }
    if (c->pre) {
        put_key(&g, "tokenizer.ggml.pre", GGUF_STRING);
        put_string(&g, c->pre);
    }
    put_strings(&g, "tokenizer.ggml.tokens", tokens, COUNT(tokens));
    put_key(&g, "tokenizer.ggml.token_type", GGUF_ARRAY);
    put(&g, &(uint32_t){5}, 4);
    put(&g, &(uint64_t){c->n_types}, 8);
    put(&g, types, c->n_types * sizeof *types);
    if (c->merge)
        put_strings(&g, "tokenizer.ggml.merges", &c->merge, 1);
    if (c->n_scores)
        put_scores(&g, c);
    if (c->charsmap)
        put_strings(&g, "tokenizer.ggml.precompiled_charsmap", &c->charsmap, 1);
    put_key(&g, "tokenizer.ggml.bos_token_id", GGUF_U32);
    put(&g, &c->bos, 4);
    put_key(&g, "tokenizer.chat_template", GGUF_STRING);
    put_string(&g, "{{ messages }}");
    memcpy(g.bytes + 16, &g.n_keys, 8);
    gguf *file = gguf_open_memory(g.bytes, g.size, "small.gguf", err);
    if (!file)
        return NULL;
    tokenizer *t = tokenizer_from_gguf(file, err);
    gguf_close(&file);
    return t;
}

static void a_gguf_file_makes_a_tokenizer(void **state)
{
    (void)state;
    error      err = {0};
    tokenizer *t =
        load_gguf(&(gguf_case){.model = "gpt2", .pre = "llama-bpe", .merge = "a b", .n_types = 7, .bos = 0}, &err);
    uint32_t  tokens[REFERENCE_TOKENS_MAX], stops[4];
    text_part part = {SPAN("ab a b<|im_end|>[unused]"), true};
    if (!t)
        fail_msg("%s", err.text);
    assert_int_equal(tokenizer_n_vocab(t), 7);
    assert_int_equal(tokenizer_bos(t), 0);
    assert_true(tokenizer_adds_bos(t)); /* llama-bpe's way, where no key says otherwise */
    assert_int_equal(tokenizer_eos(t), UINT32_MAX);
    assert_int_equal(tokenizer_stop_tokens(t, stops, 4), 1);
    assert_int_equal(stops[0], 5);
    assert_true(span_is(tokenizer_chat_template(t), "{{ messages }}"));
    assert_true(span_is(tokenizer_token_bytes(t, 3), " "));
    assert_true(span_is(tokenizer_token_bytes(t, 4), "a b"));
    assert_int_equal(tokenizer_token_bytes(t, 7).size, 0);
    assert_int_equal(tokenizer_token_bytes(t, UINT32_MAX).size, 0);
    assert_int_equal(tokenizer_longest_token(t), 10);
    assert_false(tokenizer_is_special(t, 4) || tokenizer_is_special(t, 6) || tokenizer_is_special(t, UINT32_MAX));
    assert_int_equal(tokenizer_find(t, SPAN("[unused]")), UINT32_MAX);
    uint32_t n = reference_encode(t, &part, 1, tokens); /* u, n, ... have no token; [unused] is never one */
    assert_int_equal(n, 4);
    assert_memory_equal(tokens, ((uint32_t[]){2, 3, 4, 5}), n * sizeof *tokens);
    tokenizer_free(&t);
}

static void a_gguf_file_that_is_not_understood_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        gguf_case   given;
        error_code  code;
        const char *named[2];
    } cases[] = {
        {{.model = "rwkv", .pre = "default", .merge = "a b", .n_types = 7, .bos = 0},
         ERR_UNSUPPORTED,
         {"tokenizer.ggml.model is \"rwkv\"", "\"gpt2\""}},
        {{.model = "llama", .pre = "default", .merge = NULL, .n_types = 7, .bos = 0},
         ERR_INVALID,
         {"tokenizer.ggml.scores", "missing"}},
        {{.model = "t5", .pre = "default", .merge = NULL, .n_types = 7, .bos = 0},
         ERR_INVALID,
         {"tokenizer.ggml.scores", "missing"}},
        {{.model = "llama", .n_types = 7, .n_scores = 6}, ERR_INVALID, {"6 tokenizer.ggml.scores", "7 tokens"}},
        {{.model = "llama", .n_types = 7, .n_scores = 7, .score = NAN}, ERR_INVALID, {"score", "token 0"}},
        {{.model = "t5", .n_types = 7, .n_scores = 7, .score = INFINITY}, ERR_INVALID, {"score", "token 0"}},
        {{.model = "t5", .n_types = 7, .n_scores = 7, .charsmap = "x"},
         ERR_INVALID,
         {"precompiled_charsmap", "no array of"}},
        {{.model = NULL, .pre = "smollm", .merge = "a b", .n_types = 7, .bos = 0},
         ERR_UNSUPPORTED,
         {"tokenizer.ggml.model", "\"gpt2\""}},
        {{.model = "gpt2", .pre = "poro-chat", .merge = "a b", .n_types = 7, .bos = 0},
         ERR_UNSUPPORTED,
         {"\"poro-chat\"", "gpt-2, "}},
        {{.model = "gpt2", .pre = NULL, .merge = "a b", .n_types = 7, .bos = 0},
         ERR_UNSUPPORTED,
         {"tokenizer.ggml.pre is \"\"", "smollm"}},
        {{.model = "gpt2", .pre = "smollm", .merge = "a b", .n_types = 5, .bos = 0},
         ERR_INVALID,
         {"7 tokenizer.ggml.tokens", "5"}},
        {{.model = "gpt2", .pre = "smollm", .merge = NULL, .n_types = 7, .bos = 0},
         ERR_INVALID,
         {"tokenizer.ggml.merges", "missing"}},
        {{.model = "gpt2", .pre = "smollm", .merge = "ab", .n_types = 7, .bos = 0},
         ERR_INVALID,
         {"tokenizer.ggml.merges[0]", ""}},
        {{.model = "gpt2", .pre = "smollm", .merge = "b a", .n_types = 7, .bos = 0},
         ERR_INVALID,
         {"\"b\" and \"a\"", ""}},
        {{.model = "gpt2", .pre = "smollm", .merge = "a \xE6\x97\xA5", .n_types = 7, .bos = 0},
         ERR_INVALID,
         {"tokenizer.ggml.merges[0]", ""}},
        {{.model = "gpt2", .pre = "smollm", .merge = "a b", .n_types = 7, .bos = 7},
         ERR_INVALID,
         {"tokenizer.ggml.bos_token_id is 7", "7 tokens"}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        error err = {0};
        assert_null(load_gguf(&cases[i].given, &err));
        if (err.code != cases[i].code || !strstr(err.text, cases[i].named[0]) || !strstr(err.text, cases[i].named[1]) ||
            !strstr(err.text, "small.gguf"))
            fail_msg("case %zu: %s %s", i, error_name(err.code), err.text);
    }
}

static void what_stands_around_a_text_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *name, *bos, *eos;
        bool        adds_bos, adds_eos;
    } cases[] = {
        {"bert", "[CLS]", "[SEP]", true, true}, {"unigram", "", "</s>", false, true},
        {"llama2", "", "", false, false},       {"gguf-llama", "<s>", "</s>", true, false},
        {"gguf-t5", "", "</s>", false, true},   {"gguf-bert", "[CLS]", "[SEP]", true, true},
        {"words", "<s>", "</s>", true, true},   {"accents", "<s>", "</s>", true, true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        tokenizer *t = reference_tokenizer(cases[i].name);
        assert_true(span_is(tokenizer_spelling(t, tokenizer_bos(t)), cases[i].bos));
        assert_true(span_is(tokenizer_spelling(t, tokenizer_eos(t)), cases[i].eos));
        assert_int_equal(tokenizer_adds_bos(t), cases[i].adds_bos);
        assert_int_equal(tokenizer_adds_eos(t), cases[i].adds_eos);
        tokenizer_free(&t);
    }
}

static void the_demo_model_tells_what_its_keys_say(void **state)
{
    (void)state;
    tokenizer *t = reference_smollm2();
    uint32_t   stops[8];
    assert_int_equal(tokenizer_n_vocab(t), 49152);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_false(tokenizer_adds_bos(t));
    assert_int_equal(tokenizer_stop_tokens(t, stops, 8), 2);
    assert_int_equal(stops[0], 2); /* <|im_end|> */
    assert_int_equal(stops[1], 0); /* <|endoftext|> */
    assert_int_equal(tokenizer_stop_tokens(t, stops, 0), 2);
    assert_true(span_is(tokenizer_token_bytes(t, 2), "<|im_end|>"));
    assert_non_null(strstr(tokenizer_chat_template(t).data, "<|im_start|>assistant"));
    tokenizer_free(&t);
}

/* ---- tokenizer.json ---- */

#define VOCAB "{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"<s>\":4}"
#define BPE(options) "{\"type\":\"BPE\"" options ",\"vocab\":" VOCAB ",\"merges\":[\"a b\"]}"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define METASPACE "{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":\"always\"}"
#define DECODERS(list) "{\"type\":\"Sequence\",\"decoders\":[" list "]}"
#define REPLACE "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}"
#define BLANKS_IN .pre_tokenizer = METASPACE
#define BLANKS BLANKS_IN, .decoder = METASPACE
#define NONE ""

/* A tokenizer.json of the parts; NULL is what is usual. */
typedef struct {
    const char *model, *pre_tokenizer, *normalizer, *post_processor, *decoder, *added;
} json_case;

static tokenizer *load_json(const json_case *c, error *err)
{
    char text[8192];
    int  n = snprintf(text, sizeof text,
                      "{\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":%s,\"decoder\":%s,"
                       "\"model\":%s}",
                     c->added ? c->added : "[]", c->normalizer ? c->normalizer : "null",
                     c->pre_tokenizer ? c->pre_tokenizer : BYTE_LEVEL, c->post_processor ? c->post_processor : "null",
                     c->decoder ? c->decoder : "{\"type\":\"ByteLevel\"}", c->model ? c->model : BPE(NONE));
    return tokenizer_from_json_text((span){text, (size_t)n}, "small.json", err);
}

static void variants_of_a_tokenizer_json_are_read(void **state)
{
    (void)state;
    static const struct {
        json_case   given;
        const char *text;
        uint32_t    tokens[8], n;
    } cases[] = {
        {{NULL}, "ab ab", {2, 3, 2}, 3},
        {{.model = "{\"vocab\":" VOCAB ",\"merges\":[[\"a\",\"b\"]]}"}, "ab", {2}, 1},
        {{.model = BPE(",\"dropout\":null,\"unk_token\":\"<s>\",\"byte_fallback\":false,\"end_of_word_suffix\":\"\"")},
         "axxb",
         {0, 4, 4, 1},
         4},
        {{.pre_tokenizer = "{\"type\":\"ByteLevel\"}"}, "ab", {3, 2}, 2},
        {{.pre_tokenizer =
              "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},"
              "\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL "]}"},
         "ab",
         {0, 1},
         2},
        {{.pre_tokenizer =
              "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"String\":\".\"},"
              "\"behavior\":\"Removed\",\"invert\":false}," BYTE_LEVEL "]}"},
         "a.ab.",
         {0, 2},
         2},
        {{.post_processor = "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},{\"type\":"
                            "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
                            "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]}]}"},
         "ab",
         {2},
         1},
        {{.added = "[{\"id\":4,\"content\":\"<s>\",\"special\":true},{\"id\":9,\"content\":\"b\xC3\xA9\"}]"},
         "a<s>b\xC3\xA9",
         {0, 4, 9},
         3},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        error      err  = {0};
        text_part  part = {span_of(cases[i].text), true};
        uint32_t   tokens[REFERENCE_TOKENS_MAX];
        tokenizer *t = load_json(&cases[i].given, &err);
        if (!t)
            fail_msg("case %zu: %s", i, err.text);
        assert_int_equal(tokenizer_adds_bos(t), cases[i].given.post_processor != NULL);
        assert_int_equal(tokenizer_bos(t), cases[i].given.post_processor ? 4 : UINT32_MAX);
        assert_int_equal(reference_encode(t, &part, 1, tokens), cases[i].n);
        assert_memory_equal(tokens, cases[i].tokens, cases[i].n * sizeof *tokens);
        tokenizer_free(&t);
    }
}

static void what_a_tokenizer_json_asks_for_and_is_not_supported_is_named(void **state)
{
    (void)state;
    static const struct {
        json_case   given;
        error_code  code;
        const char *named;
    } cases[] = {
        {{.model = "{\"type\":\"WordLevel\",\"vocab\":{}}"}, ERR_UNSUPPORTED, "\"WordLevel\""},
        {{.model = "{\"type\":\"Unigram\",\"vocab\":[]}"}, ERR_UNSUPPORTED, "Unigram model behind a ByteLevel"},
        {{.model = "{\"type\":\"WordPiece\",\"vocab\":{}}"}, ERR_UNSUPPORTED, "WordPiece model behind a ByteLevel"},
        {{BLANKS, .model = "{\"type\":\"Unigram\",\"vocab\":{}}"}, ERR_INVALID, "vocab"},
        {{BLANKS, .model = "{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"b\"]]}"}, ERR_INVALID, "vocab[1]"},
        {{BLANKS, .model = "{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":1}"}, ERR_INVALID, "unk_id is 1"},
        {{BLANKS, .model = "{\"type\":\"WordPiece\",\"vocab\":[]}"}, ERR_INVALID, "vocab"},
        {{BLANKS, .model = "{\"type\":\"WordPiece\",\"vocab\":{},\"unk_token\":\"?\"}"}, ERR_INVALID, "\"?\""},
        {{BLANKS, .model = BPE(",\"dropout\":0.1")}, ERR_UNSUPPORTED, "dropout"},
        {{BLANKS, .model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}"}, ERR_INVALID, "\"b\""},
        {{.model = "7"}, ERR_UNSUPPORTED, "BPE"},
        {{.model = BPE(",\"dropout\":0.1")}, ERR_UNSUPPORTED, "dropout"},
        {{.model = BPE(",\"byte_fallback\":true")}, ERR_UNSUPPORTED, "byte_fallback"},
        {{.model = BPE(",\"end_of_word_suffix\":\"</w>\"")}, ERR_UNSUPPORTED, "end_of_word_suffix"},
        {{.model = BPE(",\"continuing_subword_prefix\":\"##\"")}, ERR_UNSUPPORTED, "continuing_subword_prefix"},
        {{.model = BPE(",\"unk_token\":\"<unk>\"")}, ERR_INVALID, "<unk>"},
        {{.model = "{\"type\":\"BPE\",\"merges\":[]}"}, ERR_INVALID, "vocab"},
        {{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0}}"}, ERR_INVALID, "merges"},
        {{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}"}, ERR_INVALID, "\"a\""},
        {{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":4000000000},\"merges\":[]}"}, ERR_INVALID, "\"a\""},
        {{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}"}, ERR_INVALID, "same id"},
        {{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}"}, ERR_INVALID, "merges[0]"},
        {{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}"}, ERR_INVALID, "merges[0]"},
        {{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}"}, ERR_INVALID, "\"a\" and \"a\""},
        {{.pre_tokenizer = "null"}, ERR_UNSUPPORTED, "ByteLevel"},
        {{.pre_tokenizer = "{\"type\":\"UnicodeScripts\"}"}, ERR_UNSUPPORTED, "\"UnicodeScripts\""},
        {{.pre_tokenizer = "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}"},
         ERR_UNSUPPORTED,
         "Punctuation of behavior \"Contiguous\""},
        {{.pre_tokenizer = "{\"type\":\"CharDelimiterSplit\"}"}, ERR_UNSUPPORTED, "0 bytes"},
        {{.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\"}"}, ERR_UNSUPPORTED, "Metaspace"},
        {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[" METASPACE "," BYTE_LEVEL "]}"},
         ERR_UNSUPPORTED,
         "ByteLevel after Metaspace"},
        {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[" METASPACE "," METASPACE "]}"},
         ERR_UNSUPPORTED,
         "more than one"},
        {{.pre_tokenizer = "{\"type\":\"Digits\"}"}, ERR_UNSUPPORTED, "ByteLevel"},
        {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL ",{\"type\":\"Digits\"}]}"},
         ERR_UNSUPPORTED,
         "\"Digits\" after ByteLevel"},
        {{.pre_tokenizer = "{\"type\":\"Sequence\"}"}, ERR_INVALID, "pretokenizers"},
        {{.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Contiguous\"}"},
         ERR_UNSUPPORTED,
         "\"Contiguous\""},
        {{.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{},\"behavior\":\"Isolated\"}"}, ERR_INVALID, "pattern"},
        {{.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\w\"},\"behavior\":\"Isolated\"}"},
         ERR_UNSUPPORTED,
         "\\w"},
        {{.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"MergedWithPrevious\","
                           "\"invert\":true}"},
         ERR_UNSUPPORTED,
         "\"MergedWithPrevious\", inverted"},
        {{.normalizer = "{\"type\":\"Nmt\"}"}, ERR_UNSUPPORTED, "\"Nmt\""},
        {{.normalizer = "{\"type\":\"Precompiled\"}"}, ERR_INVALID, "charsmap of 0 bytes"},
        {{.normalizer = "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAA\"}"}, ERR_INVALID, "base64"},
        {{.normalizer = "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"CAAAAAA=\"}"}, ERR_INVALID, "8 of its 5"},
        {{.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\w\"}}"}, ERR_UNSUPPORTED, "\\w"},
        {{.normalizer = "{\"type\":\"Replace\",\"pattern\":{}}"}, ERR_INVALID, "Replace"},
        {{.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"}}"}, ERR_INVALID, "empty"},
        {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[" REPLACE "," REPLACE "," REPLACE "]}"},
         ERR_UNSUPPORTED,
         "over 4096 bytes"},
        {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"ByteLevel\"}]}"},
         ERR_UNSUPPORTED,
         "\"ByteLevel\""},
        {{.decoder = METASPACE}, ERR_UNSUPPORTED, "\"Metaspace\""},
        {{BLANKS_IN, .decoder = "{\"type\":\"CTC\"}"}, ERR_UNSUPPORTED, "\"CTC\""},
        {{BLANKS_IN, .decoder = DECODERS("{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}")},
         ERR_UNSUPPORTED,
         "\"ByteFallback\""},
        {{BLANKS_IN, .decoder = DECODERS("{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}")},
         ERR_UNSUPPORTED,
         "\"Strip\""},
        {{BLANKS_IN,
          .decoder = DECODERS("{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":2,\"stop\":0}")},
         ERR_UNSUPPORTED,
         "\"Strip\""},
        {{BLANKS_IN, .decoder = DECODERS("{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\" \"}")},
         ERR_UNSUPPORTED,
         "\"Replace\""},
        {{BLANKS_IN, .decoder = DECODERS("{\"type\":\"WordPiece\",\"prefix\":\"##\"},{\"type\":\"Fuse\"}")},
         ERR_UNSUPPORTED,
         "\"Fuse\""},
        {{.decoder = "null"}, ERR_UNSUPPORTED, "decoder"},
        {{.post_processor = "{\"type\":\"CTC\"}"}, ERR_UNSUPPORTED, "\"CTC\""},
        {{.post_processor = "{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"x\",7]}"},
         ERR_INVALID,
         "sep is \"x\""},
        {{.post_processor = "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},"
                            "{\"SpecialToken\":{\"id\":\"a\"}},{\"SpecialToken\":{\"id\":\"<s>\"}}]}"},
         ERR_UNSUPPORTED,
         "<s>"},
        {{.post_processor = "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<x>\"}}]}"},
         ERR_INVALID,
         "<x>"},
        {{.added = "[{\"id\":0,\"content\":\"<s>\"}]"}, ERR_INVALID, "same id"},
        {{.added = "[{\"id\":\"0\",\"content\":\"<s>\"}]"}, ERR_INVALID, "<s>"},
        {{.added = "[{\"id\":7}]"}, ERR_INVALID, "added_tokens[0]"},
        {{.added = "[,"}, ERR_INVALID, "line 1"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        error err = {0};
        assert_null(load_json(&cases[i].given, &err));
        if (err.code != cases[i].code || !strstr(err.text, cases[i].named) || !strstr(err.text, "small.json"))
            fail_msg("case %zu: %s %s", i, error_name(err.code), err.text);
    }
}

/* ---- folders ---- */

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    fclose(file);
}

static void remove_folder(const char *folder)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                                        "chat_template.jinja"};
    char                     path[256];
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

#define WHOLE                                                                                                          \
    "{\"pre_tokenizer\":" BYTE_LEVEL ",\"decoder\":{\"type\":\"ByteLevel\"},\"model\":" BPE(                           \
        NONE) ",\"added_tokens\":"                                                                                     \
              "[{\"id\":4,\"content\":\"<s>\",\"special\":true},{\"id\":5,\"content\":\"<|eot_id|>\",\"special\":"     \
              "true}]}"

static void the_files_beside_a_tokenizer_json_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *config, *generation, *jinja, *template;
        uint32_t    bos, eos, stops[4], n_stops;
        bool        adds_bos;
        const char *refused; /* what the error names; NULL where there is none */
    } cases[] = {
        {NULL, NULL, NULL, "", UINT32_MAX, UINT32_MAX, {5}, 1, false, NULL},
        {"{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"ab\"},\"add_bos_token\":true,\"chat_template\":\"T\"}",
         "{\"eos_token_id\":[2,1,77]}",
         NULL,
         "T",
         4,
         2,
         {5, 2, 1},
         3,
         true,
         NULL},
        {"{\"bos_token\":null,\"add_bos_token\":true,\"chat_template\":[{\"name\":\"tools\",\"template\":\"U\"},"
         "{\"name\":\"default\",\"template\":\"D\"}]}",
         "{\"eos_token_id\":0}",
         NULL,
         "D",
         UINT32_MAX,
         UINT32_MAX,
         {5, 0},
         2,
         false,
         NULL},
        {"{\"chat_template\":\"T\"}", NULL, "J\n", "J\n", UINT32_MAX, UINT32_MAX, {5}, 1, false, NULL},
        {"{\"bos_token\":\"<s>\",\"model_max_length\":1000000000000000019884624838656}",
         NULL,
         NULL,
         "",
         4,
         UINT32_MAX,
         {5},
         1,
         false,
         NULL},
        {"{", NULL, NULL, "", 0, 0, {0}, 0, false, "tokenizer_config.json"},
        {NULL, "]", NULL, "", 0, 0, {0}, 0, false, "generation_config.json"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char     folder[] = "/tmp/tokenizer-XXXXXX";
        error    err      = {0};
        uint32_t stops[4];
        assert_non_null(mkdtemp(folder));
        write_file(folder, "tokenizer.json", WHOLE);
        if (cases[i].config)
            write_file(folder, "tokenizer_config.json", cases[i].config);
        if (cases[i].generation)
            write_file(folder, "generation_config.json", cases[i].generation);
        if (cases[i].jinja)
            write_file(folder, "chat_template.jinja", cases[i].jinja);
        tokenizer *t = tokenizer_open(folder, &err);
        remove_folder(folder);
        if (cases[i].refused) {
            assert_null(t);
            assert_int_equal(err.code, ERR_INVALID);
            assert_non_null(strstr(err.text, cases[i].refused));
            continue;
        }
        if (!t)
            fail_msg("case %zu: %s", i, err.text);
        assert_true(span_is(tokenizer_chat_template(t), cases[i].template));
        assert_int_equal(tokenizer_bos(t), cases[i].bos);
        assert_int_equal(tokenizer_eos(t), cases[i].eos);
        assert_int_equal(tokenizer_adds_bos(t), cases[i].adds_bos);
        assert_int_equal(tokenizer_stop_tokens(t, stops, 4), cases[i].n_stops);
        assert_memory_equal(stops, cases[i].stops, cases[i].n_stops * sizeof *stops);
        tokenizer_free(&t);
        assert_null(t);
        tokenizer_free(&t);
    }
}

static void a_path_without_a_tokenizer_is_an_error(void **state)
{
    (void)state;
    error err = {0};
    assert_null(tokenizer_open("/nonexistent/model", &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_null(tokenizer_open(TESTS_DIR, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "tokenizer.json"));
    assert_null(tokenizer_open(TESTS_DIR "/CMakeLists.txt", &err));
    assert_int_equal(err.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gguf_file_makes_a_tokenizer),
        cmocka_unit_test(a_gguf_file_that_is_not_understood_is_refused_by_name),
        cmocka_unit_test(what_stands_around_a_text_is_told),
        cmocka_unit_test(the_demo_model_tells_what_its_keys_say),
        cmocka_unit_test(variants_of_a_tokenizer_json_are_read),
        cmocka_unit_test(what_a_tokenizer_json_asks_for_and_is_not_supported_is_named),
        cmocka_unit_test(the_files_beside_a_tokenizer_json_are_read),
        cmocka_unit_test(a_path_without_a_tokenizer_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
