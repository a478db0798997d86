/* all-MiniLM-L6-v2 from text to embedding against transformers.
 *
 * Reference data and the script that made it: tests/data/parity/reference/minilm.json, tests/data/models/make_bert.py.
 * The model is fetched by ./dev; where it can't be had, this test is skipped. */
// links: llm_model llm_text
#include "model/model.h"
#include "text/tokenizer.h"

#include "support_run.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL MODELS_DIR "/all-MiniLM-L6-v2"
#define REFERENCE TESTS_DIR "/data/parity/reference/minilm.json"

enum { N_EMBD = 384, TEXTS_MAX = 16, SCRATCH_BYTES = 1 << 22 };

typedef struct {
    uint32_t tokens[RUN_TOKENS_MAX], n_tokens;
    double   embedding[N_EMBD];
} sentence;

static sentence sentences[TEXTS_MAX];
static uint32_t n_sentences;

/* [CLS] text [SEP] */
static void encode(const tokenizer *t, arena *scratch, const char *text, sentence *s)
{
    text_part part = {span_of(text), false};
    uint32_t  n;
    error     err = {0};
    assert_true(tokenizer_adds_bos(t) && tokenizer_adds_eos(t));
    s->tokens[0] = tokenizer_bos(t);
    if (!tokenizer_encode(t, &part, 1, scratch, s->tokens + 1, RUN_TOKENS_MAX - 2, &n, &err))
        fail_msg("%s", err.text);
    s->tokens[n + 1] = tokenizer_eos(t);
    s->n_tokens      = n + 2;
}

static int read_reference(void **state)
{
    (void)state;
    error      err     = {0};
    json_t    *list    = json_load_file(REFERENCE, 0, NULL);
    arena     *scratch = arena_new(SCRATCH_BYTES, &err);
    tokenizer *t       = access(MODEL, F_OK) == 0 ? tokenizer_open(MODEL, &err) : NULL;
    if (access(MODEL, F_OK) != 0)
        print_message(MODEL " is missing: ./dev setup fetches it\n");
    else if (!t || !list || !scratch)
        fail_msg("%s", t ? REFERENCE " can't be read" : err.text);
    for (size_t i = 0; t && i < json_array_size(list) && i < TEXTS_MAX; i++) {
        const json_t *line = json_array_get(list, i);
        sentence     *s    = &sentences[n_sentences++];
        encode(t, scratch, json_string_value(json_object_get(line, "text")), s);
        assert_int_equal(json_integer_value(json_object_get(line, "n_tokens")), s->n_tokens);
        for (uint32_t k = 0; k < N_EMBD; k++)
            s->embedding[k] = json_real_value(json_array_get(json_object_get(line, "embedding"), k));
    }
    tokenizer_free(&t);
    arena_free(&scratch);
    json_decref(list);
    return 0;
}

static double cosine(const float *a, const double *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (uint32_t i = 0; i < N_EMBD; i++) {
        ab += a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

/* As many sentences a step as fit; all of them, or only the first `n`. */
static void check(const char *backend, const char *variant, kern_dtype kv_dtype, uint32_t n)
{
    static float pooled[TEXTS_MAX * N_EMBD];
    runner       r = runner_open_pooling(backend, variant, MODEL, kv_dtype, MODEL_POOLING_MEAN);
    assert_int_equal(N_EMBD, model_n_pooled(r.m));
    assert_int_equal(MODEL_POOLING_MEAN, model_get_config(r.m)->pooling);
    for (uint32_t first = 0, last; first < n; first = last) {
        run_piece pieces[TEXTS_MAX];
        uint32_t  n_tokens = 0;
        for (last = first; last < n && n_tokens + sentences[last].n_tokens <= RUN_TOKENS_MAX; last++) {
            pieces[last - first] = (run_piece){sentences[last].tokens, 0, sentences[last].n_tokens, 20 * last, 1};
            n_tokens += sentences[last].n_tokens;
        }
        runner_pool(&r, pieces, last - first, false, pooled);
        for (uint32_t i = first; i < last; i++) {
            double found = cosine(pooled + (i - first) * N_EMBD, sentences[i].embedding);
            print_message("%-16s %-4s %3u tokens: cosine %.9f\n", kern_device_variant(r.device),
                          kern_dtype_name(kv_dtype), sentences[i].n_tokens, found);
            assert_true(found > 0.99999);
        }
    }
    runner_close(&r);
}

static void cpu_gives_the_embeddings_of_transformers(void **state)
{
    (void)state;
    if (n_sentences == 0)
        skip();
    check("cpu", NULL, KERN_F32, n_sentences);
    check("cpu", NULL, KERN_F16, n_sentences);
}

static void ref_gives_the_embeddings_of_transformers(void **state)
{
    (void)state;
    if (n_sentences == 0)
        skip();
    check("ref", NULL, KERN_F32, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_gives_the_embeddings_of_transformers),
        cmocka_unit_test(ref_gives_the_embeddings_of_transformers),
    };
    return cmocka_run_group_tests_name("encoder parity", tests, read_reference, NULL);
}
