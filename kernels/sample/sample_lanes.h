/* Sampling: passes over a row's logits, which stay in cache. The Gumbel draws, ten rounds of multiplications for 4
 * tokens, are made only for 64 tokens of which one could still win, and the logarithms only for tokens that almost do.
 */
#include <assert.h>
#include <float.h>

#include "kernels/cpu_device.h"
#include "kernels/lanes_partial.h"
#include "kernels/math.h"
#include "kernels/philox.h"
#include "kernels/sample/sample_cpu.h"

/* The largest Gumbel draw: -log(-log(1 - 2^-33)) < 22.88. */
#define GUMBEL_LARGEST 22.9

/* NaN becomes -infinity, +infinity the largest float, in place; returns the largest. */
static float clean_logits(float *logits, uint32_t n)
{
    const uint32_t whole  = n / 16 * 16;
    const f32x16   lowest = f32x16_set(-INFINITY), highest = f32x16_set(FLT_MAX);
    f32x16         largest = lowest;
    for (uint32_t i = 0; i < whole; i += 16) {
        f32x16 a = f32x16_max(f32x16_load(logits + i), lowest);
        a        = f32x16_min(a, highest);
        largest  = f32x16_max(largest, a);
        f32x16_store(logits + i, a);
    }
    float result = f32x16_largest(largest);
    for (uint32_t i = whole; i < n; i++) {
        logits[i] = logits[i] > -INFINITY ? logits[i] : -INFINITY;
        logits[i] = logits[i] < FLT_MAX ? logits[i] : FLT_MAX;
        result    = logits[i] > result ? logits[i] : result;
    }
    return result;
}

/* Sum of e^(logit - largest): 16 partial sums over 512 tokens at a time, those in double. */
static double sum_of_exps(const float *logits, uint32_t n, float largest)
{
    double total = 0;
    for (uint32_t start = 0; start < n; start += 512) {
        uint32_t end = start + 512 < n ? start + 512 : n, i = start;
        f32x16   sums = f32x16_set(0);
        for (; i + 16 <= end; i += 16) {
            sums = f32x16_add(sums, f32x16_exp(f32x16_sub(f32x16_load(logits + i), f32x16_set(largest))));
        }
        float rest[16];
        for (uint32_t j = 0; j < 16; j++) {
            rest[j] = i + j < end ? logits[i + j] : -INFINITY;
        }
        sums = f32x16_add(sums, f32x16_exp(f32x16_sub(f32x16_load(rest), f32x16_set(largest))));
        total += (double)f32x16_sum(sums);
    }
    return total;
}

/* z = (logit - largest) / temperature and its exponential. */
static void scale_logits(sample_scratch *scratch, float largest, float temperature)
{
    for (uint32_t i = 0; i < scratch->n_lanes; i += 16) {
        f32x16 z = f32x16_div(f32x16_sub(f32x16_load(scratch->z + i), f32x16_set(largest)), f32x16_set(temperature));
        f32x16_store(scratch->z + i, z);
        f32x16_store(scratch->weights + i, f32x16_exp(z));
    }
}

/* The likeliest n tokens by insertion: after the first few hundred tokens hardly any passes the comparison. */
static void find_top(const float *logits, uint32_t n_vocab, uint32_t n, double log_total, kern_sample_result *result)
{
    float *top = result->top_logprobs; /* logits until the end */
    for (uint32_t i = 0; i < n_vocab && n > 0; i += 16) {
        float    last       = result->n_top < n ? -INFINITY : top[n - 1];
        uint32_t left       = n_vocab - i;
        f32x16   a          = left >= 16 ? f32x16_load(logits + i) : f32x16_load_first(logits + i, left);
        uint32_t candidates = mask16_bits(f32x16_less(f32x16_set(last), a)) & (left >= 16 ? 0xffffu : (1u << left) - 1);
        for (; candidates; candidates &= candidates - 1) {
            uint32_t token = i + (uint32_t)__builtin_ctz(candidates), place = result->n_top;
            if (place == n && logits[token] <= top[n - 1]) {
                continue;
            }
            place -= place == n;
            for (; place > 0 && top[place - 1] < logits[token]; place--) {
                top[place]                = top[place - 1];
                result->top_tokens[place] = result->top_tokens[place - 1];
            }
            top[place] = logits[token], result->top_tokens[place] = token;
            result->n_top += result->n_top < n;
        }
    }
    for (uint32_t i = 0; i < result->n_top; i++) {
        top[i] = (float)((double)top[i] - log_total);
    }
}

/* The first place that holds `value`, which is there. */
LANES uint32_t first_equal(const float *z, uint32_t n, float value)
{
    for (uint32_t i = 0;; i += 16) {
        f32x16   a     = n - i >= 16 ? f32x16_load(z + i) : f32x16_load_first(z + i, n - i);
        uint32_t equal = mask16_bits(f32x16_equal(a, f32x16_set(value)));
        if (equal) {
            return i + (uint32_t)__builtin_ctz(equal);
        }
    }
}

/* The first of the largest. */
static uint32_t most_likely(const sample_scratch *scratch)
{
    f32x16 largest = f32x16_load(scratch->z);
    for (uint32_t i = 16; i < scratch->n_lanes; i += 16) {
        largest = f32x16_max(largest, f32x16_load(scratch->z + i));
    }
    return first_equal(scratch->z, scratch->n_lanes, f32x16_largest(largest));
}

/* words[4 c + j] = word j of counter first + c. */
static void draw_words(const kern_sample_row *row, uint32_t first, uint32_t words[64])
{
    uint32_t w[4][16], key_0 = (uint32_t)row->seed, key_1 = (uint32_t)(row->seed >> 32);
    for (uint32_t c = 0; c < 16; c++) {
        w[0][c] = first + c, w[1][c] = row->position, w[2][c] = 0, w[3][c] = 0;
    }
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        for (uint32_t c = 0; c < 16; c++) {
            uint64_t product_0 = (uint64_t)PHILOX_MULTIPLIER_0 * w[0][c];
            uint64_t product_1 = (uint64_t)PHILOX_MULTIPLIER_1 * w[2][c];
            w[0][c]            = (uint32_t)(product_1 >> 32) ^ w[1][c] ^ key_0;
            w[1][c]            = (uint32_t)product_1;
            w[2][c]            = (uint32_t)(product_0 >> 32) ^ w[3][c] ^ key_1;
            w[3][c]            = (uint32_t)product_0;
        }
        key_0 += PHILOX_KEY_STEP_0, key_1 += PHILOX_KEY_STEP_1;
    }
    for (uint32_t i = 0; i < 64; i++) {
        words[i] = w[i % 4][i / 4];
    }
}

/* Lanes that may beat `best`: z + g > best needs u > exp(-e) with e = exp(z - best), and 1 - u < 1 - exp(-e) <= e. */
LANES uint32_t may_win(const float *z, const uint32_t *words, float best)
{
    int32_t distance[16]; /* (1 - u) 2^31, rounded down */
    for (int i = 0; i < 16; i++) {
        distance[i] = (int32_t)(~words[i] >> 1);
    }
    f32x16 e = f32x16_exp(f32x16_sub(f32x16_load(z), f32x16_set(best)));
    f32x16 d = f32x16_mul(f32x16_of_i32x16(i32x16_load(distance)), f32x16_set(0x1p-31f * 0.999f));
    return 0xffffu & ~mask16_bits(f32x16_less(e, d));
}

static uint32_t gumbel_max(const kern_sample_row *row, const sample_scratch *scratch)
{
    const float *z     = scratch->z;
    uint32_t     token = most_likely(scratch);
    double       best  = (double)z[token] + kern_gumbel(philox_token_word(row->seed, row->position, token));
    for (uint32_t start = 0; start < scratch->n_lanes; start += 64) {
        f32x16 largest = f32x16_max(f32x16_max(f32x16_load(z + start), f32x16_load(z + start + 16)),
                                    f32x16_max(f32x16_load(z + start + 32), f32x16_load(z + start + 48)));
        if ((double)f32x16_largest(largest) + GUMBEL_LARGEST < best) {
            continue;
        }
        uint32_t words[64];
        draw_words(row, start / 4, words);
        for (uint32_t i = 0; i < 64; i += 16) {
            for (uint32_t left = may_win(z + start + i, words + i, (float)best); left; left &= left - 1) {
                uint32_t at = i + (uint32_t)__builtin_ctz(left), other = start + at;
                double   value = (double)z[other] + kern_gumbel(words[at]);
                if (value > best || (value == best && other < token)) {
                    best = value, token = other;
                }
            }
        }
    }
    return token;
}

/* The token: processes a copy of the logits, which stay as they were for the reports. */
static uint32_t choose(const kern_sample_args *args, const kern_sample_row *row, const float *logits, float largest,
                       sample_scratch *scratch, bool *no_finite)
{
    if (row->temperature <= 0 && (row->reports_edited || row->n_edits == 0)) {
        *no_finite = false;
        return first_equal(logits, scratch->n, largest);
    }
    memcpy(scratch->z, logits, scratch->n * sizeof(float));
    for (uint32_t i = scratch->n; i < scratch->n_lanes; i++) {
        scratch->z[i] = -INFINITY;
    }
    if (!row->reports_edited) {
        sample_edit(row, args->edits, scratch->z, scratch->n);
    }
    uint32_t likeliest = most_likely(scratch);
    *no_finite         = !(scratch->z[likeliest] > -INFINITY);
    if (*no_finite || row->temperature <= 0) {
        return likeliest;
    }
    scale_logits(scratch, scratch->z[likeliest], row->temperature);
    sample_filter(row, scratch);
    return gumbel_max(row, scratch);
}

static void sample_slice(void *argument, uint32_t index, uint32_t worker)
{
    const struct sample_job {
        const kern_sample_args *args;
        cpu_device             *device;
    } *job                          = argument;
    const kern_sample_args *args    = job->args;
    const kern_sample_row  *row     = &args->rows[index];
    float                  *logits  = args->logits + (size_t)index * args->n_vocab;
    sample_scratch          scratch = sample_scratch_at(cpu_worker_scratch(job->device, worker), args->n_vocab);
    kern_sample_result     *result  = &args->results[index];

    float largest = clean_logits(logits, args->n_vocab);
    *result       = (kern_sample_result){
              .target_rank = UINT32_MAX, .target_logprob = -INFINITY, .no_finite = true, .logprob = -INFINITY};
    if (row->reports_edited) {
        sample_edit(row, args->edits, logits, args->n_vocab);
        largest = clean_logits(logits, args->n_vocab);
    }
    if (!(largest > -INFINITY)) {
        return;
    }
    double log_total = (double)largest + kern_log(sum_of_exps(logits, args->n_vocab, largest));
    assert(row->n_top <= KERN_TOP_MAX);
    find_top(logits, args->n_vocab, row->n_top, log_total, result);
    if (row->target < args->n_vocab) {
        result->target_logprob = (float)((double)logits[row->target] - log_total);
        result->target_rank    = sample_rank(logits, args->n_vocab, row->target);
    }
    result->token   = choose(args, row, logits, largest, &scratch, &result->no_finite);
    result->logprob = (float)((double)logits[result->token] - log_total);
    result->rank    = sample_rank(logits, args->n_vocab, result->token);
}

static void cpu_sample(kern_device *device, const kern_sample_args *args)
{
    struct sample_job {
        const kern_sample_args *args;
        cpu_device             *device;
    } job = {args, (cpu_device *)device};
    assert(args->n_vocab <= job.device->limits.n_vocab);
    cpu_run(job.device, sample_slice, &job, args->n_rows, (uint64_t)args->n_rows * args->n_vocab);
}
