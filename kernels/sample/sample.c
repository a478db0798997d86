/* Sampling by the book: sorts, doubles, every token's draw. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "kernels/math.h"
#include "kernels/philox.h"
#include "kernels/ref_device.h"

typedef struct {
    double   key, p; /* sorted by falling key, lower id first */
    uint32_t token;
} entry;

static int by_key(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->key != y->key) {
        return x->key > y->key ? -1 : 1;
    }
    return x->token < y->token ? -1 : x->token > y->token;
}

static float clean(float logit)
{
    return isnan(logit) ? -INFINITY : logit > FLT_MAX ? FLT_MAX : logit;
}

static void edit_logits(const kern_sample_row *row, const kern_logit_edit *edits, float *logits, uint32_t n)
{
    for (uint32_t i = 0; i < row->n_edits; i++) {
        const kern_logit_edit *edit = &edits[row->edits_start + i];
        if (edit->token >= n) {
            continue;
        }
        float *logit = &logits[edit->token];
        if (edit->seen) {
            *logit = *logit > 0 ? *logit / row->repetition_penalty : *logit * row->repetition_penalty;
        }
        *logit -= row->frequency_penalty * (float)edit->n_output;
        if (edit->n_output > 0) {
            *logit -= row->presence_penalty;
        }
        *logit = edit->banned ? -INFINITY : clean(*logit + edit->bias);
    }
}

static void normalize(entry *entries, uint32_t n)
{
    double total = 0;
    for (uint32_t i = 0; i < n; i++) {
        total += entries[i].p;
    }
    for (uint32_t i = 0; i < n; i++) {
        entries[i].p /= total;
    }
}

/* The shortest run of entries whose probability reaches `mass`. */
static uint32_t cut(entry *entries, uint32_t n, double mass)
{
    double   sum  = 0;
    uint32_t kept = 0;
    normalize(entries, n);
    qsort(entries, n, sizeof *entries, by_key);
    while (kept < n && (kept == 0 || sum < mass)) {
        sum += entries[kept++].p;
    }
    return kept;
}

static uint32_t cut_typical(entry *entries, uint32_t n, double mass)
{
    double entropy = 0;
    normalize(entries, n);
    for (uint32_t i = 0; i < n; i++) {
        entropy -= entries[i].p > 0 ? entries[i].p * log(entries[i].p) : 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        entries[i].key = -fabs(-log(entries[i].p) - entropy);
    }
    n = cut(entries, n, mass);
    for (uint32_t i = 0; i < n; i++) {
        entries[i].key = entries[i].p;
    }
    qsort(entries, n, sizeof *entries, by_key);
    return n;
}

static uint32_t filter(const kern_sample_row *row, entry *entries, uint32_t n)
{
    qsort(entries, n, sizeof *entries, by_key);
    if (row->top_k > 0 && row->top_k < n) {
        n = row->top_k;
    }
    if (row->typical_p < 1) {
        n = cut_typical(entries, n, (double)row->typical_p);
    }
    if (row->top_p < 1) {
        n = cut(entries, n, (double)row->top_p);
    }
    uint32_t kept = 1;
    while (kept < n && entries[kept].p >= (double)row->min_p * entries[0].p) {
        kept++;
    }
    return kept;
}

static uint32_t choose(const kern_sample_row *row, const float *logits, uint32_t n_vocab, entry *entries, bool *none)
{
    uint32_t n = 0, best = 0, token = 0;
    for (uint32_t i = 1; i < n_vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    *none = logits[best] == -INFINITY;
    if (*none || row->temperature == 0) {
        return best;
    }
    for (uint32_t i = 0; i < n_vocab; i++) {
        float z = (logits[i] - logits[best]) / row->temperature;
        if (z > -INFINITY) {
            entries[n++] = (entry){(double)z, exp((double)z), i};
        }
    }
    n              = filter(row, entries, n);
    double largest = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        float    z    = (logits[entries[i].token] - logits[best]) / row->temperature;
        uint32_t word = philox_token_word(row->seed, row->position, entries[i].token);
        double   g = -log(-log((word + 0.5) * 0x1p-32)), value = (double)z + g;
        if (value > largest || (value == largest && entries[i].token < token)) {
            largest = value, token = entries[i].token;
        }
    }
    return token;
}

static uint32_t rank_of(const entry *sorted, uint32_t token)
{
    uint32_t rank = 0;
    while (sorted[rank].token != token) {
        rank++;
    }
    return rank;
}

static void sample_row(const kern_sample_args *args, uint32_t index, entry *entries)
{
    const kern_sample_row *row    = &args->rows[index];
    float                 *logits = args->logits + (size_t)index * args->n_vocab;
    kern_sample_result    *result = &args->results[index];
    double                 total = 0, largest = -INFINITY;
    *result = (kern_sample_result){
        .target_rank = UINT32_MAX, .target_logprob = -INFINITY, .no_finite = true, .logprob = -INFINITY};
    for (uint32_t i = 0; i < args->n_vocab; i++) {
        logits[i] = clean(logits[i]);
    }
    if (row->reports_edited) {
        edit_logits(row, args->edits, logits, args->n_vocab);
    }
    for (uint32_t i = 0; i < args->n_vocab; i++) {
        largest    = fmax(largest, (double)logits[i]);
        entries[i] = (entry){(double)logits[i], 0, i};
    }
    if (largest == -INFINITY) {
        return;
    }
    for (uint32_t i = 0; i < args->n_vocab; i++) {
        total += exp((double)logits[i] - largest);
    }
    total = largest + log(total);
    qsort(entries, args->n_vocab, sizeof *entries, by_key);
    for (uint32_t i = 0; i < row->n_top && i < args->n_vocab && entries[i].key > -INFINITY; i++) {
        result->top_tokens[i]   = entries[i].token;
        result->top_logprobs[i] = (float)(entries[i].key - total);
        result->n_top           = i + 1;
    }
    if (row->target < args->n_vocab) {
        result->target_rank    = rank_of(entries, row->target);
        result->target_logprob = (float)((double)logits[row->target] - total);
    }

    entry *sorted = entries + args->n_vocab;
    memcpy(sorted, entries, args->n_vocab * sizeof *entries);
    if (!row->reports_edited) {
        edit_logits(row, args->edits, logits, args->n_vocab);
    }
    result->token   = choose(row, logits, args->n_vocab, entries, &result->no_finite);
    result->rank    = rank_of(sorted, result->token);
    result->logprob = (float)(sorted[result->rank].key - total);
}

void ref_sample(kern_device *device, const kern_sample_args *args)
{
    entry *entries = ref_scratch(device, (size_t)2 * args->n_vocab * sizeof *entries);
    for (uint32_t i = 0; i < args->n_rows; i++) {
        sample_row(args, i, entries);
    }
}
