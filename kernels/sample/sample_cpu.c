#include "kernels/sample/sample_cpu.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/dtype.h"
#include "kernels/math.h"

/* ---- scratch
 * --------------------------------------------------------------------------------------------------------- */

static uint32_t lanes_of(uint32_t n_vocab)
{
    return (n_vocab + 63) / 64 * 64;
}

size_t sample_scratch_bytes(uint32_t n_vocab)
{
    return (size_t)3 * lanes_of(n_vocab) * 4 + SAMPLE_BUCKETS * (sizeof(double) + sizeof(uint32_t));
}

sample_scratch sample_scratch_at(void *memory, uint32_t n_vocab)
{
    sample_scratch scratch = {.n = n_vocab, .n_lanes = lanes_of(n_vocab), .masses = memory};
    scratch.counts         = (uint32_t *)(scratch.masses + SAMPLE_BUCKETS);
    scratch.keys           = scratch.counts + SAMPLE_BUCKETS;
    scratch.z              = (float *)(scratch.keys + scratch.n_lanes);
    scratch.weights        = scratch.z + scratch.n_lanes;
    return scratch;
}

/* ---- edits
 * ----------------------------------------------------------------------------------------------------------- */

void sample_edit(const kern_sample_row *row, const kern_logit_edit *edits, float *logits, uint32_t n)
{
    for (uint32_t i = row->edits_start; i < row->edits_start + row->n_edits; i++) {
        const kern_logit_edit *edit = &edits[i];
        if (edit->token >= n) {
            continue;
        }
        float logit = logits[edit->token];
        if (edit->seen) {
            logit = logit > 0 ? logit / row->repetition_penalty : logit * row->repetition_penalty;
        }
        logit -= row->frequency_penalty * (float)edit->n_output;
        logit -= edit->n_output > 0 ? row->presence_penalty : 0;
        logit += edit->bias;
        if (edit->banned || isnan(logit)) {
            logit = -INFINITY;
        }
        logits[edit->token] = logit > FLT_MAX ? FLT_MAX : logit;
    }
}

/* ---- selection
 * ------------------------------------------------------------------------------------------------------- */

/* Keys have 31 bits, resolved 11, 10 and 10 at a time: no sort, three passes of which the later two touch few tokens.
 */
typedef struct {
    uint32_t key;    /* the key at which the target is reached */
    double   before; /* weight of smaller keys */
} threshold;

static threshold find_threshold(const sample_scratch *scratch, const float *weights, double target)
{
    static const int shifts[] = {20, 10, 0};
    threshold        found    = {0, 0};
    for (int level = 0; level < 3; level++) {
        int      shift = shifts[level], above = level == 0 ? 31 : shifts[level - 1];
        uint32_t width = 1u << (above - shift);
        memset(scratch->masses, 0, width * sizeof(double));
        memset(scratch->counts, 0, width * sizeof(uint32_t));
        for (uint32_t i = 0; i < scratch->n; i++) {
            if (scratch->keys[i] >> above == found.key && scratch->z[i] > -INFINITY) {
                uint32_t bucket = scratch->keys[i] >> shift & (width - 1);
                scratch->masses[bucket] += weights ? (double)weights[i] : 1;
                scratch->counts[bucket]++;
            }
        }
        uint32_t bucket = 0, last = 0;
        double   before = found.before, before_last = before;
        for (; bucket < width; bucket++) {
            if (scratch->counts[bucket] > 0) {
                last = bucket, before_last = before;
                before += scratch->masses[bucket];
                if (before >= target) {
                    break;
                }
            }
        }
        /* When rounding leaves the whole short of the target, the last bucket in use is the one. */
        found = (threshold){found.key << (above - shift) | last, before_last};
    }
    return found;
}

static void drop(sample_scratch *scratch, uint32_t i)
{
    scratch->z[i]       = -INFINITY;
    scratch->weights[i] = 0;
}

void sample_keep(sample_scratch *scratch, const float *weights, double target)
{
    threshold found = find_threshold(scratch, weights, target);
    double    sum   = found.before;
    bool      any   = false;
    for (uint32_t i = 0; i < scratch->n; i++) {
        if (scratch->keys[i] < found.key) {
            any = true;
            continue;
        }
        if (scratch->keys[i] == found.key && scratch->z[i] > -INFINITY && (sum < target || !any)) {
            sum += weights ? (double)weights[i] : 1;
            any = true;
        } else {
            drop(scratch, i);
        }
    }
}

/* ---- filters
 * --------------------------------------------------------------------------------------------------------- */

static double total_weight(const sample_scratch *scratch)
{
    double total = 0;
    for (uint32_t i = 0; i < scratch->n; i++) {
        total += (double)scratch->weights[i];
    }
    return total;
}

static void use_likelihood_keys(sample_scratch *scratch)
{
    for (uint32_t i = 0; i < scratch->n; i++) {
        scratch->keys[i] = kern_bits_of_float(scratch->z[i]) & 0x7fffffffu;
    }
}

/* Tokens whose surprise is nearest to the expected surprise come first. */
static void keep_typical(sample_scratch *scratch, double mass)
{
    double total = total_weight(scratch), mean = 0;
    for (uint32_t i = 0; i < scratch->n; i++) {
        if (scratch->weights[i] > 0) {
            mean += (double)scratch->weights[i] * (double)scratch->z[i];
        }
    }
    mean /= total;
    for (uint32_t i = 0; i < scratch->n; i++) { /* |-log p - entropy| = |mean z - z| */
        scratch->keys[i] = kern_bits_of_float((float)fabs(mean - (double)scratch->z[i]));
    }
    sample_keep(scratch, scratch->weights, mass * total);
}

static void keep_min_p(sample_scratch *scratch, float min_p)
{
    float largest = 0;
    for (uint32_t i = 0; i < scratch->n; i++) {
        largest = scratch->weights[i] > largest ? scratch->weights[i] : largest;
    }
    for (uint32_t i = 0; i < scratch->n; i++) {
        if (scratch->weights[i] < min_p * largest) {
            drop(scratch, i);
        }
    }
}

void sample_filter(const kern_sample_row *row, sample_scratch *scratch)
{
    if (row->top_k > 0 && row->top_k < scratch->n) {
        use_likelihood_keys(scratch);
        sample_keep(scratch, NULL, row->top_k);
    }
    if (row->typical_p < 1) {
        keep_typical(scratch, (double)row->typical_p);
    }
    if (row->top_p < 1) {
        use_likelihood_keys(scratch);
        sample_keep(scratch, scratch->weights, (double)row->top_p * total_weight(scratch));
    }
    if (row->min_p > 0) {
        keep_min_p(scratch, row->min_p);
    }
}

uint32_t sample_rank(const float *logits, uint32_t n, uint32_t token)
{
    uint32_t rank = 0;
    float    own  = logits[token];
    for (uint32_t i = 0; i < token; i++) {
        rank += logits[i] >= own;
    }
    for (uint32_t i = token + 1; i < n; i++) {
        rank += logits[i] > own;
    }
    return rank;
}
