/* The demo model against transformers, on committed passages of prose, code and Chinese; and against itself in every
 * batch.
 *
 * Reference data and the script that made it: tests/data/parity. Of every row it has the likeliest tokens' logits and
 * the log probability of the next token, in which all of the row's logits have a part; of a passage's last row every
 * logit. `ref` must give these numbers themselves, within 1e-3: on one whole passage of each kind and on the beginnings
 * of the others, since it takes half a minute for a whole one. `cpu`, which rounds activations, must give the same most
 * likely tokens and the same perplexity on all of them. A cache in fewer bits is tried on as little as `ref`; on all
 * with TROUPE_PARITY_WHOLE, which gives the numbers in the executor's README. */
// links: llm_model
#include "model/model.h"

#include "support_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MODEL MODELS_DIR "/SmolLM2-135M-Instruct-Q4_1.gguf"
#define REFERENCE TESTS_DIR "/data/parity/reference/"

static const char *const passages[] = {"prose_1", "prose_2",   "prose_3",   "code_1",   "code_2",
                                       "code_3",  "chinese_1", "chinese_2", "chinese_3"};

/* What make_reference.py wrote; pointers into `data`. */
typedef struct {
    uint32_t       *data;
    uint32_t        n_tokens, n_vocab, n_top;
    const uint32_t *tokens;     /* [n_tokens] */
    const uint32_t *top_tokens; /* [n_tokens][n_top] */
    const float    *top_logits; /* [n_tokens][n_top] */
    const float    *logprobs;   /* [n_tokens] of the next token */
    const float    *logits;     /* [n_vocab] after the last token */
} reference;

static reference read_reference(const char *passage)
{
    char        path[512];
    struct stat about;
    snprintf(path, sizeof path, REFERENCE "%s.ref", passage);
    if (stat(path, &about) != 0)
        fail_msg("%s: missing; tests/data/parity/make_reference.py makes it", path);
    reference r  = {.data = read_numbers(path, (size_t)about.st_size / 4)};
    r.n_tokens   = r.data[0];
    r.n_vocab    = r.data[1];
    r.n_top      = r.data[2];
    r.tokens     = r.data + 3;
    r.top_tokens = r.tokens + r.n_tokens;
    r.top_logits = (const float *)(r.top_tokens + (size_t)r.n_tokens * r.n_top);
    r.logprobs   = r.top_logits + (size_t)r.n_tokens * r.n_top;
    r.logits     = r.logprobs + r.n_tokens;
    assert_int_equal(about.st_size, 4 * (3 + (size_t)r.n_tokens * (2 + 2 * r.n_top) + r.n_vocab));
    assert_true(r.n_tokens <= RUN_TOKENS_MAX);
    return r;
}

/* How far one run is from the reference. */
typedef struct {
    uint32_t n_rows, n_same_top;
    double   largest;           /* difference of logits, and of the next tokens' log probabilities */
    double   scale;             /* largest reference logit */
    double   logprob, expected; /* sums over the tokens that have a next one */
} distance;

static double logprob_of(const float *logits, uint32_t n_vocab, uint32_t token)
{
    double largest = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n_vocab; i++)
        largest = fmax(largest, (double)logits[i]);
    for (uint32_t i = 0; i < n_vocab; i++)
        sum += exp(logits[i] - largest);
    return logits[token] - largest - log(sum);
}

static uint32_t most_likely(const float *logits, uint32_t n_vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n_vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* NaN counts as infinitely far. */
static void widen(distance *d, double found, double expected)
{
    double difference = fabs(found - expected);
    d->largest        = difference <= d->largest ? d->largest : isnan(difference) ? INFINITY : difference;
}

static void compare_logit(distance *d, float found, float expected)
{
    widen(d, (double)found, (double)expected);
    d->scale = fmax(d->scale, fabs((double)expected));
}

/* The first `n` rows of a passage. */
static void compare(distance *d, const reference *r, const float *logits, uint32_t n)
{
    for (uint32_t t = 0; t < n; t++) {
        const float    *row = logits + (size_t)t * r->n_vocab;
        const uint32_t *top = r->top_tokens + (size_t)t * r->n_top;
        for (uint32_t i = 0; i < r->n_top; i++)
            compare_logit(d, row[top[i]], r->top_logits[(size_t)t * r->n_top + i]);
        d->n_same_top += most_likely(row, r->n_vocab) == top[0];
        if (t + 1 < r->n_tokens) {
            double logprob = logprob_of(row, r->n_vocab, r->tokens[t + 1]);
            widen(d, logprob, r->logprobs[t]);
            d->logprob += logprob;
            d->expected += r->logprobs[t];
        }
    }
    const float *last = logits + (size_t)(r->n_tokens - 1) * r->n_vocab;
    for (uint32_t i = 0; n == r->n_tokens && i < r->n_vocab; i++)
        compare_logit(d, last[i], r->logits[i]);
    d->n_rows += n;
}

static void print_distance(const char *name, const distance *d, uint32_t n_next)
{
    print_message(
        "%-12s %6u tokens  largest difference %.1e of %.1f  top-1 %7.3f %%  perplexity %8.4f, reference %8.4f\n", name,
        d->n_rows, d->largest, d->scale, 100.0 * d->n_same_top / d->n_rows, exp(-d->logprob / n_next),
        exp(-d->expected / n_next));
}

/* Every third passage, one of each kind, whole; `n_of_others` tokens of the others. */
static distance run_passages(const char *backend, kern_dtype kv_dtype, uint32_t n_of_others, uint32_t *n_next)
{
    static float *logits;
    runner        r     = runner_open(backend, NULL, MODEL, kv_dtype);
    distance      total = {0};
    logits              = malloc((size_t)RUN_TOKENS_MAX * model_get_config(r.m)->n_vocab * sizeof *logits);
    *n_next             = 0;
    print_message("%s, %s key-value cache\n", kern_device_name(r.device), kern_dtype_name(kv_dtype));
    for (size_t p = 0; p < COUNT(passages); p++) {
        reference expected = read_reference(passages[p]);
        distance  d        = {0};
        assert_int_equal(model_get_config(r.m)->n_vocab, expected.n_vocab);
        uint32_t n           = p % 3 == 0 || n_of_others > expected.n_tokens ? expected.n_tokens : n_of_others;
        uint32_t n_with_next = n < expected.n_tokens ? n : n - 1;
        runner_sequence(&r, expected.tokens, n, RUN_TOKENS_MAX, logits);
        compare(&d, &expected, logits, n);
        print_distance(passages[p], &d, n_with_next);
        *n_next += n_with_next;
        total = (distance){total.n_rows + d.n_rows,    total.n_same_top + d.n_same_top, fmax(total.largest, d.largest),
                           fmax(total.scale, d.scale), total.logprob + d.logprob,       total.expected + d.expected};
        free(expected.data);
    }
    print_distance("all", &total, *n_next);
    free(logits);
    runner_close(&r);
    return total;
}

static void ref_gives_the_logits_of_transformers(void **state)
{
    (void)state;
    uint32_t n_next;
    distance d = run_passages("ref", KERN_F32, 20, &n_next);
    assert_true(d.scale > 10); /* an absolute tolerance means something */
    assert_true(d.largest < 1e-3);
}

static void check_fidelity(kern_dtype kv_dtype, uint32_t n_of_others, double same_top, double perplexity)
{
    uint32_t n_next;
    distance d = run_passages("cpu", kv_dtype, n_of_others, &n_next);
    assert_true(d.n_same_top >= same_top * d.n_rows);
    assert_true(fabs(exp((d.expected - d.logprob) / n_next) - 1) < perplexity);
}

static void cpu_keeps_the_most_likely_token_and_the_perplexity(void **state)
{
    (void)state;
    check_fidelity(KERN_F32, RUN_TOKENS_MAX, 0.99, 0.002);
    check_fidelity(KERN_F16, RUN_TOKENS_MAX, 0.99, 0.002);
}

/* What --kv-cache-dtype costs, as the executor's README says it. */
static void a_cache_in_fewer_bits_keeps_most_of_both(void **state)
{
    (void)state;
    uint32_t n_of_others = getenv("TROUPE_PARITY_WHOLE") ? RUN_TOKENS_MAX : 20;
    check_fidelity(KERN_BF16, n_of_others, 0.99, 0.005);
    check_fidelity(KERN_Q8_0, n_of_others, 0.97, 0.01);
    check_fidelity(KERN_Q4_1, n_of_others, 0.8, 0.08);
}

/* ---- batch invariance ------------------------------------------------------------------------------------------ */

enum { N_SUBJECT = 70, N_OTHERS = 31 };

/* The subject as one of 32 sequences of other lengths; its rows go to `logits`. */
static void run_in_batch(runner *r, const reference *text, float *all, float *logits)
{
    run_piece pieces[N_OTHERS + 1];
    uint32_t  n_before = 0, n = 0;
    for (uint32_t i = 0; i <= N_OTHERS; i++) {
        bool is_subject = i == 11;
        if (is_subject)
            n_before = n;
        pieces[i] = is_subject ? (run_piece){text->tokens, 0, N_SUBJECT, 100, 1}
                               : (run_piece){text->tokens + i, 0, 1 + (i * 7) % 9, 2 * i, 1};
        n += pieces[i].n_tokens;
    }
    assert_true(n <= RUN_TOKENS_MAX);
    runner_step(r, pieces, COUNT(pieces), all);
    memcpy(logits, all + (size_t)n_before * text->n_vocab, (size_t)N_SUBJECT * text->n_vocab * sizeof *logits);
}

static void a_sequence_says_the_same_in_every_batch_and_chunk_on_every_cpu_variant(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {1, 7, 16, 64};
    const char           *names[16];
    uint32_t              n_names = kern_cpu_variants(names, COUNT(names));
    reference             text    = read_reference("prose_1");
    size_t                bytes   = (size_t)N_SUBJECT * text.n_vocab * sizeof(float);
    float                *first = malloc(bytes), *alone = malloc(bytes), *other = malloc(bytes);
    float                *all = malloc((size_t)RUN_TOKENS_MAX * text.n_vocab * sizeof(float));
    assert_true(n_names > 0 && n_names <= COUNT(names));
    for (uint32_t v = 0; v < n_names; v++) {
        runner r = runner_open("cpu", names[v], MODEL, KERN_F16);
        runner_sequence(&r, text.tokens, N_SUBJECT, N_SUBJECT, alone);
        if (v == 0)
            memcpy(first, alone, bytes);
        else if (memcmp(first, alone, bytes) != 0)
            fail_msg("%s gives other logits than %s", names[v], names[0]);
        run_in_batch(&r, &text, all, other);
        if (memcmp(alone, other, bytes) != 0)
            fail_msg("%s: other logits in a batch of 32 than alone", names[v]);
        for (size_t c = 0; c < COUNT(chunks); c++) {
            runner_sequence(&r, text.tokens, N_SUBJECT, chunks[c], other);
            if (memcmp(alone, other, bytes) != 0)
                fail_msg("%s: other logits in chunks of %u than at once", names[v], chunks[c]);
        }
        print_message("%-12s alone = in a batch of 32 = in chunks of 1, 7, 16, 64\n", names[v]);
        runner_close(&r);
    }
    free(first);
    free(alone);
    free(other);
    free(all);
    free(text.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_keeps_the_most_likely_token_and_the_perplexity),
        cmocka_unit_test(a_cache_in_fewer_bits_keeps_most_of_both),
        cmocka_unit_test(a_sequence_says_the_same_in_every_batch_and_chunk_on_every_cpu_variant),
        cmocka_unit_test(ref_gives_the_logits_of_transformers),
    };
    return cmocka_run_group_tests_name("model parity", tests, NULL, NULL);
}
