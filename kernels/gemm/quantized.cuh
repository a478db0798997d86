/* Quantised weights as tensor cores take them: the packed layout, and the product of a 16-row by 32-column block.
 *
 * A block of 32 columns is exactly the depth of one int8 tensor-core product, mma.m16n8k32. Activations are 16-bit
 * integers with one scale a block, split into two int8 planes (x = 256 * high + low), so a block's dot product is two
 * such products and an exact integer; only the scaled block results are rounded. Lane l of a warp stands for row l / 4
 * (and row l / 4 + 8) and for columns 4 * (l % 4) .. + 3 (and the same + 16): the words that GGUF's nibble order gives
 * it for free.
 *
 * Packed arrays, for tiles of 16 rows and pairs of blocks; n_pairs rounds the row's blocks up to even, padding has
 * scale 0: quants  4- and 5-bit: uint4 [tile][pair][lane], words (block 0 row g, block 0 row g + 8, block 1 row g,
 * block 1 row g + 8) 8-bit:        uint4 [tile][pair][block][lane], words (row g, row g + 8, row g columns + 16, row g
 * + 8 columns + 16) high    uint4 [tile][pair][g], fifth bits of 32 columns, rows in the same order;  scales, mins:
 * uint2 likewise, four f16 Activations: uint4 [token tile of 8][block][lane], words (high plane, high + 16, low plane,
 * low + 16), row = token. */
#ifndef TROUPE_KERNELS_GEMM_QUANTIZED_CUH
#define TROUPE_KERNELS_GEMM_QUANTIZED_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/number.cuh"

enum { TILE_ROWS = 16, TILE_TOKENS = 8, SEGMENT_PAIRS = 4 };

/* Quantised activations in scratch memory. */
struct quantized_rows {
    uint4   *planes; /* [n_token_tiles][n_blocks][WARP_LANES] */
    float   *scales; /* [n_token_tiles][n_blocks][TILE_TOKENS] */
    int32_t *sums;   /* likewise: sum of the 32 integers */
    uint32_t n_tokens, n_blocks;
};

template <kern_dtype TYPE> struct quantized_type {
    static constexpr bool    has_min  = TYPE == KERN_Q4_1 || TYPE == KERN_Q5_1;
    static constexpr bool    has_high = TYPE == KERN_Q5_0 || TYPE == KERN_Q5_1;
    static constexpr bool    is_wide  = TYPE == KERN_Q8_0;
    static constexpr int32_t offset   = TYPE == KERN_Q4_0 ? 8 : TYPE == KERN_Q5_0 ? 16 : 0;
};

/* c[16][8] = a[16][32] * b[32][8], int8 to int32. Fragments as in PTX's mma.m16n8k32 with row-major a, column-major b.
 */
static __device__ __forceinline__ void mma_int8(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b_0, uint32_t b_1)
{
#ifdef KERN_CUDA_ON_HOST
    const uint32_t  give[6] = {a[0], a[1], a[2], a[3], b_0, b_1};
    const uint32_t *all =
        static_cast<const uint32_t *>(host_warp_meet(__FILE__, __LINE__, 0xffffffffu, give, sizeof give));
    uint32_t lane = threadIdx.x % WARP_LANES;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t row = lane / 4, column = lane % 4 * 2 + i % 2;
        c[i] = 0;
        for (uint32_t k = 0; k < 32; k++) {
            uint32_t a_word = all[(row * 4 + k % 16 / 4) * 6 + (i / 2) + 2 * (k / 16)];
            uint32_t b_word = all[(column * 4 + k % 16 / 4) * 6 + 4 + k / 16];
            c[i] += (int8_t)(a_word >> 8 * (k % 4)) * (int8_t)(b_word >> 8 * (k % 4));
        }
    }
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, "
        "%10};"
        : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_0), "r"(b_1), "r"(0));
#endif
}

/* Bits 0..3 of a word to bit 4 of its four bytes. */
static __device__ __forceinline__ uint32_t fifth_bits(uint32_t bits)
{
    return ((bits & 15u) * 0x00204081u & 0x01010101u) << 4;
}

/* What one lane holds of a tile's pair of blocks. */
template <kern_dtype TYPE> struct pair_fragment {
    uint4 quants[quantized_type<TYPE>::is_wide ? 2 : 1], high;
    uint2 scales, mins;
};

template <kern_dtype TYPE>
static __device__ __forceinline__ void pair_load(pair_fragment<TYPE> &f, const packed_weight &w, uint32_t tile,
                                                 uint32_t pair)
{
    uint32_t lane = threadIdx.x % WARP_LANES;
    size_t   at   = (size_t)tile * w.n_pairs + pair;
    if (quantized_type<TYPE>::is_wide) {
        f.quants[0]                                     = w.quants[at * 2 * WARP_LANES + lane];
        f.quants[quantized_type<TYPE>::is_wide ? 1 : 0] = w.quants[(at * 2 + 1) * WARP_LANES + lane];
    } else {
        f.quants[0] = w.quants[at * WARP_LANES + lane];
    }
    if (quantized_type<TYPE>::has_high)
        f.high = w.high[at * 8 + lane / 4];
    f.scales = w.scales[at * 8 + lane / 4];
    if (quantized_type<TYPE>::has_min)
        f.mins = w.mins[at * 8 + lane / 4];
}

/* The operand a of mma_int8 for block 0 or 1 of a pair. */
template <kern_dtype TYPE>
static __device__ __forceinline__ void block_expand(uint32_t (&a)[4], const pair_fragment<TYPE> &f, int block)
{
    if (quantized_type<TYPE>::is_wide) {
        uint4 q = f.quants[quantized_type<TYPE>::is_wide ? block : 0];
        a[0] = q.x, a[1] = q.y, a[2] = q.z, a[3] = q.w;
        return;
    }
    uint32_t upper = block ? f.quants[0].z : f.quants[0].x, lower = block ? f.quants[0].w : f.quants[0].y;
    a[0] = upper & 0x0f0f0f0fu, a[1] = lower & 0x0f0f0f0fu;
    a[2] = upper >> 4 & 0x0f0f0f0fu, a[3] = lower >> 4 & 0x0f0f0f0fu;
    if (quantized_type<TYPE>::has_high) {
        uint32_t shift      = threadIdx.x % 4 * 4;
        uint32_t upper_bits = block ? f.high.z : f.high.x, lower_bits = block ? f.high.w : f.high.y;
        a[0] |= fifth_bits(upper_bits >> shift), a[1] |= fifth_bits(lower_bits >> shift);
        a[2] |= fifth_bits(upper_bits >> (16 + shift)), a[3] |= fifth_bits(lower_bits >> (16 + shift));
    }
}

/* The two f16 of a block in a lane's scales or mins: rows g and g + 8. */
static __device__ __forceinline__ void two_halves(float (&out)[2], uint2 four, int block)
{
    uint32_t word = block ? four.y : four.x;
    out[0]        = to_float(f16{(uint16_t)word});
    out[1]        = to_float(f16{(uint16_t)(word >> 16)});
}

/* sum[m][n] = the products of row tiles tile_first + m and token tiles token_first + n over one segment of
 * SEGMENT_PAIRS pairs of blocks, block results added in column order. Every kernel sums in segments with this function:
 * that is what makes their results the same bits. Tokens from n_tokens on, and row tiles from n_row_tiles on, count as
 * zero. */
template <kern_dtype TYPE, int M, int N>
static __device__ __forceinline__ void segment_sum(float (&sum)[M][N][4], const packed_weight &w,
                                                   const quantized_rows &x, uint32_t tile_first, uint32_t token_first,
                                                   uint32_t segment)
{
    typedef quantized_type<TYPE> type;
    uint32_t                     lane = threadIdx.x % WARP_LANES;
    uint32_t pair_end = (segment + 1) * SEGMENT_PAIRS < w.n_pairs ? (segment + 1) * SEGMENT_PAIRS : w.n_pairs;
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int n = 0; n < N; n++) UNROLL for (int i = 0; i < 4; i++)
        sum[m][n][i] = 0;
    UNROLL_BY_2 for (uint32_t pair = segment * SEGMENT_PAIRS; pair < pair_end; pair++)
    {
        pair_fragment<TYPE> fragment[M];
        UNROLL for (int m = 0; m < M; m++)
        {
            uint32_t tile = tile_first + m < w.n_row_tiles ? tile_first + m : w.n_row_tiles - 1;
            pair_load<TYPE>(fragment[m], w, tile, pair);
        }
        UNROLL for (int block = 0; block < 2; block++)
        {
            uint32_t a[M][4];
            float    scale[M][2], min[M][2];
            UNROLL for (int m = 0; m < M; m++)
            {
                block_expand<TYPE>(a[m], fragment[m], block);
                two_halves(scale[m], fragment[m].scales, block);
                if (type::has_min)
                    two_halves(min[m], fragment[m].mins, block);
            }
            UNROLL for (int n = 0; n < N; n++)
            {
                uint32_t token      = (token_first + n) * TILE_TOKENS;
                size_t   at         = (size_t)(token_first + n) * x.n_blocks + pair * 2 + block;
                uint4    planes     = make_uint4(0, 0, 0, 0);
                float    x_scale[2] = {0, 0};
                int32_t  x_sum[2]   = {0, 0};
                if (token + lane / 4 < x.n_tokens)
                    planes = x.planes[at * WARP_LANES + lane];
                UNROLL for (int i = 0; i < 2; i++) if (token + lane % 4 * 2 + i < x.n_tokens)
                {
                    x_scale[i] = x.scales[at * TILE_TOKENS + lane % 4 * 2 + i];
                    if (type::has_min || type::offset)
                        x_sum[i] = x.sums[at * TILE_TOKENS + lane % 4 * 2 + i];
                }
                UNROLL for (int m = 0; m < M; m++)
                {
                    int32_t high[4], low[4];
                    mma_int8(high, a[m], planes.x, planes.y);
                    mma_int8(low, a[m], planes.z, planes.w);
                    UNROLL for (int i = 0; i < 4; i++)
                    {
                        int32_t dot = high[i] * 256 + low[i] - type::offset * x_sum[i % 2];
                        float  &s   = sum[m][n][i];
                        s           = __fmaf_rn(__fmul_rn(scale[m][i / 2], x_scale[i % 2]), (float)dot, s);
                        if (type::has_min)
                            s = __fmaf_rn(min[m][i / 2], __fmul_rn(x_scale[i % 2], (float)x_sum[i % 2]), s);
                    }
                }
            }
        }
    }
}

#endif
