/* Attention over a quantised cache (kernels/kv/kv_quant.h): dot products of integers, which are exact, so that they may
 * be added in any order.
 *
 * Queries become 16-bit integers with one scale a row, and so do the weights of a span times the values' scales, with
 * one scale a group of 32 dimensions; both are some hundred times finer than what is in the cache. A 64-byte load has
 * 64 or 128 numbers, and an instruction multiplies 32 of them: twice what a float16 cache lets through. */
#include "kernels/attention/attention_span_lanes.h"

enum { WEIGHT_QUANT_MAX = 32512 };

/* A group of dimensions: the integers that stand for the weights of a span, times `unit` the weights times the values'
 * scales. */
typedef struct {
    int16_t quants[ATTENTION_SPAN];
    int32_t sum;  /* of quants */
    float   unit; /* NaN where a weight or a scale is */
    float   mins; /* sum of weights times mins */
} attention_group_weights;

/* The numbers of 64 bytes in pairs of 16 bits: even and odd bytes, in 4 bits first those of the low halves. */
LANES i16x32 quant_part(kern_dtype dtype, i16x32 words, uint32_t part)
{
    return dtype == KERN_Q8_0 ? (part ? i16x32_shift_right(words, 8) : i16x32_and(words, 0xff))
           : part == 3        ? i16x32_shift_right(words, 12)
           : part             ? i16x32_and(i16x32_shift_right(words, (int)(4 * part)), 15)
                              : i16x32_and(words, 15);
}

/* The offset of codes is taken from their sums: sum of q * (code - 128). */
LANES i32x16 less_offset(kern_dtype dtype, i32x16 sum, int32_t factors)
{
    return dtype == KERN_Q8_0 ? i32x16_sub(sum, i32x16_set(128 * factors)) : sum;
}

/* ---- queries and keys -------------------------------------------------------------------------------------------- */

/* The query as keys are: rotated. One that has a number that is not finite gets a scale of NaN. */
static void quantize_query(const float *q, uint32_t head_dim, attention_query *out)
{
    const uint32_t filled = kv_n_groups(head_dim) * KV_GROUP, width = kv_rotation_width(head_dim);
    float          x[KV_GROUP * KV_GROUPS_MAX];
    memcpy(x, q, head_dim * sizeof *x);
    memset(x + head_dim, 0, (filled - head_dim) * sizeof *x);
    kv_rotate(x, filled, width, kv_query_factor(width));
    i32x16 bits = i32x16_set(0);
    for (uint32_t d = 0; d < filled; d += 16) {
        bits = i32x16_max(bits, i32x16_magnitude_bits(f32x16_load(x + d)));
    }
    float largest  = kern_float_of_bits((uint32_t)i32x16_largest(bits));
    bool  usable   = largest > 1e-30f && largest < INFINITY;
    out->scale     = usable ? largest / 32767 : largest < INFINITY ? 0 : NAN;
    f32x16 inverse = f32x16_set(usable ? 32767 / largest : 0);
    for (uint32_t g = 0; g * KV_GROUP < filled; g++) {
        i32x16 quants[2];
        for (uint32_t i = 0; i < 2; i++) {
            f32x16 part = usable ? f32x16_load(x + g * KV_GROUP + 16 * i) : f32x16_set(0);
            quants[i]   = i32x16_of_f32x16(f32x16_mul(part, inverse));
        }
        store_quants(out->quants + g * KV_GROUP, quants[0], quants[1]);
        out->sums[g] = i32x16_sum(i32x16_add(quants[0], quants[1]));
    }
}

/* dot[r] = query row r times 16 keys. */
LANES void quant_dots(kern_dtype dtype, const attention_job *job, const unsigned char *keys, const attention_rows *rows,
                      uint32_t n, f32x16 *dot)
{
    enum { CHAINS = LANES_MANY_REGISTERS ? 2 : 1 };
    const uint32_t n_parts = dtype == KERN_Q8_0 ? 2 : 4, n_words = KV_GROUP / (2 * n_parts);
    UNROLL
    for (uint32_t r = 0; r < n; r++) {
        dot[r] = f32x16_set(0);
    }
    for (uint32_t g = 0; g < job->n_groups; g++) {
        i32x16 sum[CHAINS][ATTENTION_ROWS];
        UNROLL
        for (uint32_t r = 0; r < n; r++) {
            sum[0][r]          = i32x16_set(0);
            sum[CHAINS - 1][r] = i32x16_set(0);
        }
        UNROLL
        for (uint32_t w = 0; w < n_words; w++, keys += HOST_KV_WORDS_BYTES) {
            i16x32 words = i16x32_load(keys);
            UNROLL
            for (uint32_t part = 0; part < n_parts; part++) {
                i16x32 codes = quant_part(dtype, words, part);
                UNROLL
                for (uint32_t r = 0; r < n; r++) {
                    const int16_t *pair   = rows->query[r]->quants + g * KV_GROUP + 2 * (w * n_parts + part);
                    sum[part % CHAINS][r] = i16x32_dot(sum[part % CHAINS][r], codes, i16x32_set_pair(pair));
                }
            }
        }
        const uint16_t *scales = host_kv_scales(job->cache, keys - (g + 1) * n_words * HOST_KV_WORDS_BYTES, g);
        f32x16          scale = f32x16_load_f16(scales), min = f32x16_set(0);
        if (dtype == KERN_Q4_1) {
            min = f32x16_load_f16(scales + job->n_groups * KERN_KV_BLOCK_TOKENS);
        }
        UNROLL
        for (uint32_t r = 0; r < n; r++) {
            int32_t of_query = rows->query[r]->sums[g];
            i32x16  whole    = CHAINS == 2 ? i32x16_add(sum[0][r], sum[CHAINS - 1][r]) : sum[0][r];
            dot[r]           = f32x16_fma(f32x16_of_i32x16(less_offset(dtype, whole, of_query)), scale, dot[r]);
            if (dtype == KERN_Q4_1) {
                dot[r] = f32x16_fma(f32x16_set((float)of_query), min, dot[r]);
            }
        }
    }
    UNROLL
    for (uint32_t r = 0; r < n; r++) {
        dot[r] = f32x16_mul(dot[r], f32x16_set(rows->query[r]->scale));
    }
}

/* ---- weights and values ------------------------------------------------------------------------------------------ */

/* Places that a row does not see count nothing, whatever an earlier sequence left in their scales. */
LANES void quantize_weights(kern_dtype dtype, const attention_job *job, const attention_span *span, uint32_t group,
                            const float *weights, uint32_t first, uint32_t end, attention_group_weights *out)
{
    f32x16 scaled[ATTENTION_BLOCKS], mins = f32x16_set(0), none = f32x16_set(0);
    i32x16 bits = i32x16_set(0), sum = bits, quants[ATTENTION_BLOCKS];
    for (uint32_t b = 0; b < ATTENTION_BLOCKS; b++) {
        scaled[b] = none;
        if (b >= span->n_blocks) {
            continue;
        }
        const uint16_t *scales  = host_kv_scales(job->cache, span->values[b], group);
        f32x16          weight  = f32x16_load(weights + b * KERN_KV_BLOCK_TOKENS);
        mask16          visible = mask16_range(place_in(first, b), place_in(end, b));
        scaled[b]               = f32x16_select(visible, f32x16_mul(weight, f32x16_load_f16(scales)), none);
        bits                    = i32x16_max(bits, i32x16_magnitude_bits(scaled[b]));
        if (dtype == KERN_Q4_1) {
            f32x16 min = f32x16_load_f16(scales + job->n_groups * KERN_KV_BLOCK_TOKENS);
            mins       = f32x16_add(mins, f32x16_select(visible, f32x16_mul(weight, min), none));
        }
    }
    float  largest = kern_float_of_bits((uint32_t)i32x16_largest(bits));
    bool   usable  = largest > 1e-30f && largest < INFINITY;
    f32x16 inverse = f32x16_set(usable ? WEIGHT_QUANT_MAX / largest : 0);
    for (uint32_t b = 0; b < ATTENTION_BLOCKS; b++) {
        quants[b] = i32x16_of_f32x16(f32x16_mul(usable ? scaled[b] : none, inverse));
        sum       = i32x16_add(sum, quants[b]);
    }
    for (uint32_t b = 0; b < ATTENTION_BLOCKS; b += 2) {
        store_quants(out->quants + b * KERN_KV_BLOCK_TOKENS, quants[b], quants[b + 1]);
    }
    out->sum  = i32x16_sum(sum);
    out->unit = usable ? largest / WEIGHT_QUANT_MAX : largest < INFINITY ? 0 : NAN;
    out->mins = dtype == KERN_Q4_1 ? f32x16_sum(mins) : 0;
}

/* sum[c][r] = codes of values times the weights' integers, for 16 n_chunks dimensions from 16 * chunk of the group on.
 * Only quads of positions that a row of the span sees are read. */
LANES void quant_sums(kern_dtype dtype, const attention_job *job, const attention_span *span, uint32_t group,
                      uint32_t chunk, uint32_t n_chunks, uint32_t n, uint32_t first_quad, uint32_t end_quad,
                      const attention_group_weights *weights, i32x16 (*sum)[ATTENTION_ROWS])
{
    enum { QUADS = KERN_KV_BLOCK_TOKENS / 4 };
    const uint32_t loads    = dtype == KERN_Q8_0 ? 2 : 1; /* of a group's dimensions for four positions */
    const size_t   per_quad = (size_t)job->n_groups * loads * HOST_KV_WORDS_BYTES;
    UNROLL
    for (uint32_t c = 0; c < n_chunks; c++) {
        UNROLL
        for (uint32_t r = 0; r < n; r++) {
            sum[c][r] = i32x16_set(0);
        }
    }
    for (uint32_t quad = first_quad; quad < end_quad; quad++) {
        const unsigned char *from =
            span->values[quad / QUADS] + quad % QUADS * per_quad + group * loads * HOST_KV_WORDS_BYTES;
        UNROLL
        for (uint32_t c = 0; c < n_chunks; c++) {
            uint32_t of_group = chunk + c;
            i16x32   words    = i16x32_load(from + (dtype == KERN_Q8_0 ? of_group * HOST_KV_WORDS_BYTES : 0));
            UNROLL
            for (uint32_t odd = 0; odd < 2; odd++) {
                i16x32 codes = quant_part(dtype, words, dtype == KERN_Q8_0 ? odd : 2 * odd + of_group);
                UNROLL
                for (uint32_t r = 0; r < n; r++) {
                    sum[c][r] = i16x32_dot(sum[c][r], codes, i16x32_set_pair(weights[r].quants + quad * 4 + 2 * odd));
                }
            }
        }
    }
}

/* sums = sums * factor + sum over visible positions of weight * value. */
LANES void quant_values(kern_dtype dtype, const attention_job *job, const attention_span *span,
                        const attention_rows *rows, uint32_t n, float (*weights)[ATTENTION_SPAN], const float *factors)
{
    enum { CHUNKS = LANES_MANY_REGISTERS ? 2 : 1 };
    attention_group_weights of_group[ATTENTION_ROWS];
    uint32_t                first = ATTENTION_SPAN, end = 0;
    for (uint32_t r = 0; r < n; r++) {
        first = rows->first[r] < first ? rows->first[r] : first;
        end   = rows->end[r] > end ? rows->end[r] : end;
    }
    for (uint32_t g = 0; g < job->n_groups; g++) {
        for (uint32_t r = 0; r < n; r++) {
            quantize_weights(dtype, job, span, g, weights[r], rows->first[r], rows->end[r], &of_group[r]);
        }
        UNROLL
        for (uint32_t chunk = 0; chunk < 2; chunk += CHUNKS) {
            i32x16 sum[CHUNKS][ATTENTION_ROWS];
            quant_sums(dtype, job, span, g, chunk, CHUNKS, n, first / 4, (end + 3) / 4, of_group, sum);
            UNROLL
            for (uint32_t c = 0; c < CHUNKS; c++) {
                UNROLL
                for (uint32_t r = 0; r < n; r++) {
                    float *sums  = rows->sums[r] + g * KV_GROUP + 16 * (chunk + c);
                    f32x16 older = f32x16_mul(f32x16_load(sums), f32x16_set(factors[r]));
                    f32x16 newer = f32x16_of_i32x16(less_offset(dtype, sum[c][r], of_group[r].sum));
                    newer        = f32x16_fma(newer, f32x16_set(of_group[r].unit), older);
                    f32x16_store(sums, dtype == KERN_Q4_1 ? f32x16_add(newer, f32x16_set(of_group[r].mins)) : newer);
                }
            }
        }
    }
}
