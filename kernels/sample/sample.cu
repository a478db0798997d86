/* Sampling, one block of threads a row: reports on the raw logits, edits, filters, Gumbel-max (the contract is at
 * kern_sample_args).
 *
 * Every choice is exact and independent of the order in which threads run. "The most likely tokens" are ordered by a
 * 64-bit key, logit first, lower id first on a tie; top_k, typical_p and top_p are a radix selection on that key (11
 * bits a round) of the smallest set whose count, or probability in 40-bit fixed point, reaches the target: integer sums
 * have no order. A filter writes -inf over what it drops, in a copy of the row. Bound by reading the row, some 4 to 20
 * times, from L2. */
#include "kernels/cuda/device.cuh"
#include "kernels/math.h"
#include "kernels/philox.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 1024, WARPS = THREADS / WARP_LANES, DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS, TOKEN_BITS = 23 };

typedef unsigned long long word64;

/* Shared memory of a block. */
struct sampler {
    word64   histogram[DIGITS];
    word64   sums[WARPS];
    double   parts[WARPS];
    word64   top[KERN_TOP_MAX];
    word64   cut, above; /* of the digit found last */
    uint32_t digit, n_in_digit, n_top;
    uint32_t counts[DIGITS];
};

/* ---- sums over the block ----------------------------------------------------------------------------------------- */

template <typename T, typename Combine> static __device__ T block_combine(T value, T *parts, Combine combine)
{
    uint32_t lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    UNROLL for (int bits = 16; bits > 0; bits /= 2) value = combine(value, __shfl_xor_sync(0xffffffffu, value, bits));
    __syncthreads(); /* parts may still be read by the combination before */
    if (lane == 0)
        parts[warp] = value;
    __syncthreads();
    value                                                 = parts[lane]; /* WARPS is WARP_LANES */
    UNROLL for (int bits = 16; bits > 0; bits /= 2) value = combine(value, __shfl_xor_sync(0xffffffffu, value, bits));
    return value;
}

static __device__ word64 block_count(sampler *s, word64 value)
{
    return block_combine(value, s->sums, [](word64 a, word64 b) { return a + b; });
}

static __device__ word64 block_largest(sampler *s, word64 value)
{
    return block_combine(value, s->sums, [](word64 a, word64 b) { return a > b ? a : b; });
}

static __device__ double block_total(sampler *s, double value)
{
    return block_combine(value, s->parts, [](double a, double b) { return a + b; });
}

/* ---- the order of tokens ----------------------------------------------------------------------------------------- */

/* A key has 32 + TOKEN_BITS bits: five digits. Larger floats, larger words. */
static __device__ __forceinline__ uint32_t ordered(float value)
{
    uint32_t bits = kern_bits_of_float(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static __device__ __forceinline__ float from_ordered(uint32_t bits)
{
    return kern_float_of_bits(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

static __device__ __forceinline__ word64 key_of(uint32_t order, uint32_t token)
{
    return (word64)order << TOKEN_BITS | ((1u << TOKEN_BITS) - 1 - token);
}

static __device__ __forceinline__ uint32_t token_of(word64 key)
{
    return (1u << TOKEN_BITS) - 1 - (uint32_t)(key & ((1u << TOKEN_BITS) - 1));
}

static __device__ __forceinline__ float value_of(word64 key)
{
    return from_ordered((uint32_t)(key >> TOKEN_BITS));
}

/* The key of the largest logit. */
static __device__ word64 largest_key(sampler *s, const float *logits, uint32_t n)
{
    word64 largest = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        word64 key = key_of(ordered(logits[i]), i);
        largest    = key > largest ? key : largest;
    }
    return block_largest(s, largest);
}

/* How many tokens come before this one. */
static __device__ uint32_t rank_of(sampler *s, const float *logits, uint32_t n, uint32_t token)
{
    word64 mine = key_of(ordered(logits[token]), token), before = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        before += key_of(ordered(logits[i]), i) > mine;
    return (uint32_t)block_count(s, before);
}

/* ---- radix selection --------------------------------------------------------------------------------------------- */

/* Finds, by one warp, the highest digit at which the weights of it and all higher ones reach `target`. */
static __device__ void find_digit(sampler *s, word64 target)
{
    enum { A_LANE = DIGITS / WARP_LANES };
    uint32_t lane = threadIdx.x % WARP_LANES, highest = DIGITS - 1 - lane * A_LANE;
    word64   mine = 0;
    for (uint32_t i = 0; i < A_LANE; i++)
        mine += s->histogram[highest - i];
    word64 upto = mine;
    UNROLL for (uint32_t step = 1; step < WARP_LANES; step *= 2)
    {
        word64 left = __shfl_sync(0xffffffffu, upto, (lane - step) % WARP_LANES);
        upto += lane >= step ? left : 0;
    }
    if (upto >= target && upto - mine < target) {
        word64   above = upto - mine;
        uint32_t digit = highest;
        while (above + s->histogram[digit] < target)
            above += s->histogram[digit--];
        s->digit      = digit;
        s->above      = above;
        s->n_in_digit = s->counts[digit];
    }
}

/* The largest cut such that the tokens with key(i) >= cut weigh `target` or more together. Key 0 is no candidate. The
 * target is positive and at most the weight of all candidates. */
template <typename Key, typename Weight>
static __device__ word64 select_cut(sampler *s, uint32_t n, word64 target, Key key, Weight weight)
{
    word64 prefix = 0;
    for (int shift = 32 + TOKEN_BITS - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        for (uint32_t i = threadIdx.x; i < DIGITS; i += THREADS)
            s->histogram[i] = s->counts[i] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
            word64 k = key(i);
            if (k == 0 || k >> shift >> DIGIT_BITS != prefix)
                continue;
            uint32_t digit = (uint32_t)(k >> shift) % DIGITS;
            atomicAdd(&s->histogram[digit], (word64)weight(i));
            atomicAdd(&s->counts[digit], 1u);
        }
        __syncthreads();
        if (threadIdx.x < WARP_LANES)
            find_digit(s, target);
        __syncthreads();
        prefix = prefix << DIGIT_BITS | s->digit;
        target -= s->above;
        bool single = s->n_in_digit == 1;
        __syncthreads(); /* all have read what the next round overwrites */
        if (single)
            return prefix << shift;
    }
    return prefix;
}

/* ---- filters ----------------------------------------------------------------------------------------------------- */

/* Probability relative to the likeliest in fixed point: 2^18 tokens of the largest weight fit in 58 bits. */
static __device__ __forceinline__ word64 mass_of(float logit, float largest)
{
    return (word64)(expf(logit - largest) * 0x1p40f);
}

static __device__ word64 logit_key(const float *logits, uint32_t i)
{
    return logits[i] == -INFINITY ? 0 : key_of(ordered(logits[i]), i);
}

template <typename Key> static __device__ void drop_below(float *logits, uint32_t n, word64 cut, Key key)
{
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        if (key(i) < cut)
            logits[i] = -INFINITY;
    __syncthreads();
}

static __device__ void keep_top_k(sampler *s, float *logits, uint32_t n, uint32_t top_k)
{
    word64 n_kept = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        n_kept += logits[i] != -INFINITY;
    if (block_count(s, n_kept) <= top_k)
        return;
    auto   key = [=](uint32_t i) { return logit_key(logits, i); };
    word64 cut = select_cut(s, n, top_k, key, [](uint32_t) { return 1u; });
    drop_below(logits, n, cut, key);
}

/* Keeps the tokens of the highest keys whose share of the mass reaches p. */
template <typename Key> static __device__ void keep_mass(sampler *s, float *logits, uint32_t n, float p, Key key)
{
    word64 total   = 0;
    float  largest = value_of(largest_key(s, logits, n));
    auto   mass    = [=](uint32_t i) { return mass_of(logits[i], largest); };
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        total += mass(i);
    total         = block_count(s, total);
    word64 target = (word64)((double)total * p);
    target        = target < 1 ? 1 : target > total ? total : target;
    word64 cut    = select_cut(s, n, target, key, mass);
    drop_below(logits, n, cut, key);
}

/* The closer a token's surprise, -log p, to the distribution's entropy, the more typical. */
static __device__ void keep_typical(sampler *s, float *logits, uint32_t n, float p)
{
    float  largest = value_of(largest_key(s, logits, n));
    double sum = 0, weighted = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        if (logits[i] != -INFINITY) {
            double e = exp((double)logits[i] - largest);
            sum += e;
            weighted += e * ((double)logits[i] - largest);
        }
    sum      = block_total(s, sum);
    weighted = block_total(s, weighted);
    /* -log p = log(sum) - (l - largest); the entropy is log(sum) - weighted / sum: log(sum) cancels in the difference.
     */
    double mean = weighted / sum;
    keep_mass(s, logits, n, p, [=](uint32_t i) {
        return logits[i] == -INFINITY ? 0 : key_of(~ordered((float)fabs(mean - ((double)logits[i] - largest))), i);
    });
}

static __device__ void keep_min_p(sampler *s, float *logits, uint32_t n, float min_p)
{
    float largest = value_of(largest_key(s, logits, n));
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        if (logits[i] != largest && exp((double)logits[i] - largest) < (double)min_p)
            logits[i] = -INFINITY;
    __syncthreads();
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* NaN counts as -inf, +inf as the largest float, and -0 as 0, with which it ties: keys are made of bits. */
static __device__ __forceinline__ float clean(float logit)
{
    return logit != logit ? -INFINITY : logit > FLT_MAX ? FLT_MAX : logit + 0.0f;
}

static __device__ double log_sum_exp(sampler *s, const float *logits, uint32_t n)
{
    float  largest = value_of(largest_key(s, logits, n));
    double sum     = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        sum += (double)expf(logits[i] - largest);
    return (double)largest + log(block_total(s, sum));
}

/* Returns how many are reported: those of -inf are not. */
static __device__ uint32_t report_top(sampler *s, const float *logits, uint32_t n, uint32_t n_top, double log_sum,
                                      kern_sample_result *result)
{
    auto   key      = [=](uint32_t i) { return logit_key(logits, i); };
    word64 n_finite = 0;
    n_top           = n_top < KERN_TOP_MAX ? n_top : (uint32_t)KERN_TOP_MAX;
    if (n_top == 0)
        return 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        n_finite += key(i) != 0;
    n_finite   = block_count(s, n_finite);
    n_top      = n_finite < n_top ? (uint32_t)n_finite : n_top;
    word64 cut = select_cut(s, n, n_top, key, [](uint32_t) { return 1u; });
    if (threadIdx.x == 0)
        s->n_top = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        if (key(i) >= cut)
            s->top[atomicAdd(&s->n_top, 1u)] = key(i);
    __syncthreads();
    if (threadIdx.x >= n_top)
        return n_top;
    word64   mine  = s->top[threadIdx.x];
    uint32_t place = 0;
    for (uint32_t i = 0; i < n_top; i++)
        place += s->top[i] > mine;
    result->top_tokens[place]   = token_of(mine);
    result->top_logprobs[place] = (float)((double)value_of(mine) - log_sum);
    return n_top;
}

static __device__ void edit_logits(float *logits, const kern_sample_row &row, const kern_logit_edit *edits, uint32_t n)
{
    for (uint32_t e = threadIdx.x; e < row.n_edits; e += THREADS) {
        kern_logit_edit edit = edits[row.edits_start + e];
        if (edit.token >= n)
            continue;
        float logit = logits[edit.token];
        if (edit.seen)
            logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
        logit -= row.frequency_penalty * (float)edit.n_output;
        if (edit.n_output > 0)
            logit -= row.presence_penalty;
        logits[edit.token] = edit.banned ? -INFINITY : clean(logit + edit.bias);
    }
    __syncthreads();
}

static __device__ void filter_logits(sampler *s, float *logits, uint32_t n, const kern_sample_row &row, float largest)
{
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        logits[i] = (logits[i] - largest) / row.temperature;
    __syncthreads();
    if (row.top_k > 0 && row.top_k < n)
        keep_top_k(s, logits, n, row.top_k);
    if (row.typical_p < 1)
        keep_typical(s, logits, n, row.typical_p);
    if (row.top_p < 1)
        keep_mass(s, logits, n, row.top_p, [=](uint32_t i) { return logit_key(logits, i); });
    if (row.min_p > 0)
        keep_min_p(s, logits, n, row.min_p);
}

/* logit + Gumbel noise, unless it is certainly below `best`: the logarithms in double are an order dearer than those in
 * float, whose error is far below the margin except where the word is close to 2^32. */
static __device__ __forceinline__ double noisy(float logit, uint32_t word, double best)
{
    float u = ((float)word + 0.5f) * 0x1p-32f;
    if (u < 0.999f && (double)(logit - logf(-logf(u))) < best - 0.01)
        return -INFINITY;
    return (double)logit + kern_gumbel(word);
}

/* The token with the largest noisy logit: four neighbours share the words of one counter. */
static __device__ uint32_t draw(sampler *s, const float *logits, uint32_t n, const kern_sample_row &row)
{
    double   best  = -INFINITY;
    uint32_t token = UINT32_MAX;
    for (uint32_t first = threadIdx.x * 4; first < n; first += THREADS * 4) {
        bool any = false;
        for (uint32_t i = first; i < n && i < first + 4; i++)
            any |= logits[i] != -INFINITY;
        if (!any)
            continue;
        uint32_t words[4] = {first / 4, row.position, 0, 0};
        philox_4x32(words, (uint32_t)row.seed, (uint32_t)(row.seed >> 32));
        UNROLL for (uint32_t i = 0; i < 4; i++)
        {
            if (first + i >= n || logits[first + i] == -INFINITY)
                continue;
            double value = noisy(logits[first + i], words[i], best);
            if (value > best) {
                best  = value;
                token = first + i;
            }
        }
    }
    double highest = block_combine(best, s->parts, [](double a, double b) { return a > b ? a : b; });
    /* the lowest id among equals */
    word64 winner = block_largest(s, best == highest && token != UINT32_MAX ? (word64)1 << 32 | (uint32_t)~token : 0);
    return ~(uint32_t)winner;
}

static __device__ void put_nothing(kern_sample_result *result, bool no_finite)
{
    result->token          = 0;
    result->logprob        = -INFINITY;
    result->rank           = 0;
    result->target_logprob = -INFINITY;
    result->target_rank    = UINT32_MAX;
    result->n_top          = 0;
    result->no_finite      = no_finite;
}

static __global__ void __launch_bounds__(THREADS) sample_rows(kern_sample_args a, float *copies)
{
    SHARED(sampler, s, 1);
    uint32_t            n      = a.n_vocab;
    kern_sample_row     row    = a.rows[blockIdx.x];
    kern_sample_result *result = a.results + blockIdx.x;
    float              *raw = a.logits + (size_t)blockIdx.x * n, *logits = copies + (size_t)blockIdx.x * n;
    for (uint32_t i = threadIdx.x; i < KERN_TOP_MAX; i += THREADS) {
        result->top_tokens[i]   = 0;
        result->top_logprobs[i] = 0;
    }
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        raw[i] = clean(raw[i]);
    __syncthreads();
    if (row.reports_edited)
        edit_logits(raw, row, a.edits, n);
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        logits[i] = raw[i];
    __syncthreads();
    if (value_of(largest_key(s, raw, n)) == -INFINITY) {
        if (threadIdx.x == 0)
            put_nothing(result, true);
        return;
    }
    double   log_sum = log_sum_exp(s, raw, n);
    uint32_t n_top = report_top(s, raw, n, row.n_top, log_sum, result), target_rank = 0;
    if (row.target < n)
        target_rank = rank_of(s, raw, n, row.target);

    if (!row.reports_edited)
        edit_logits(logits, row, a.edits, n);
    word64   likeliest = largest_key(s, logits, n);
    uint32_t token     = token_of(likeliest);
    bool     none      = value_of(likeliest) == -INFINITY;
    if (!none && row.temperature > 0) {
        filter_logits(s, logits, n, row, value_of(likeliest));
        token = draw(s, logits, n, row);
    }
    uint32_t rank = rank_of(s, raw, n, token);
    if (threadIdx.x > 0)
        return;
    put_nothing(result, none);
    result->token   = token;
    result->logprob = (float)((double)raw[token] - log_sum);
    result->rank    = rank;
    result->n_top   = n_top;
    if (row.target < n) {
        result->target_logprob = (float)((double)raw[row.target] - log_sum);
        result->target_rank    = target_rank;
    }
}

size_t sample_scratch_bytes(const kern_limits *limits)
{
    return (size_t)limits->n_sample_rows * limits->n_vocab * sizeof(float);
}

void cuda_sample(kern_device *device, const kern_sample_args *args)
{
    if (args->n_rows == 0)
        return;
    if (args->n_vocab == 0 || args->n_vocab > 1u << TOKEN_BITS) {
        fprintf(stderr, "cuda: sampling takes 1 to %u tokens, not %u\n", 1u << TOKEN_BITS, args->n_vocab);
        abort();
    }
    float *copies =
        reinterpret_cast<float *>(cuda_scratch(device, (size_t)args->n_rows * args->n_vocab * sizeof(float), "sample"));
    LAUNCH(sample_rows, args->n_rows, THREADS, 0, device->stream, *args, copies);
}
