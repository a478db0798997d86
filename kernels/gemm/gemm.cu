/* y (+)= x W^T + bias. Two families, each with one order of sums for every n_tokens:
 *
 * Quantised W: int8 tensor cores on two planes of x (kernels/gemm/quantized.cuh). Block results are added in column
 * order within a segment of 256 columns, segments in ascending order. Up to SPLIT_TOKENS_MAX tokens the warps of a
 * block take different segments of the same rows and their sums are added in order: bound by the bytes of W. Beyond, a
 * warp takes 32 rows by 32 tokens and walks over all segments: bound by the scaling of block results, about a third of
 * the bf16 tensor peak.
 *
 * Float W: cuBLASLt in chunks of a fixed number of x rows (kernels/cuda/matmul.h). A 16-bit W needs a 16-bit x: x is
 * split into two values of W's type, each a row of the chunk, whose products are added. So x keeps 16 bits with BF16
 * and 22 with F16. */
#include "kernels/gemm/quantized.cuh"

#include <stdio.h>
#include <stdlib.h>

enum { BLOCK_THREADS = 256, SPLIT_WARPS = 8, SPLIT_TOKENS_MAX = 32, WIDE_WARPS = 4, WIDE_ROWS = 64, WIDE_TOKENS = 64 };

/* Where a result goes. */
struct gemm_target {
    const float *bias; /* or NULL */
    float       *y;
    uint32_t     n_tokens, n_rows;
    bool         accumulate;
};

static __device__ __forceinline__ void put(const gemm_target &to, uint32_t token, uint32_t row, float sum)
{
    if (token >= to.n_tokens || row >= to.n_rows)
        return;
    float *y = to.y + (size_t)token * to.n_rows + row;
    if (to.bias)
        sum = __fadd_rn(sum, to.bias[row]);
    *y = to.accumulate ? __fadd_rn(*y, sum) : sum;
}

/* ---- activations to integers ------------------------------------------------------------------------------------- */

/* The largest integer whose planes both fit int8: 127 * 256 + 127. */
#define INTEGER_MAX 32639.0f

/* One warp quantises one block of one token: a lane a column. */
static __global__ void quantize_rows(quantized_rows to, const float *x, uint32_t n_cols)
{
    uint32_t lane = threadIdx.x % WARP_LANES, token = blockIdx.x,
             block = blockIdx.y * SPLIT_WARPS + threadIdx.x / WARP_LANES;
    if (block >= to.n_blocks)
        return;
    uint32_t column = block * KERN_BLOCK + lane;
    float    value = column < n_cols ? x[(size_t)token * n_cols + column] : 0.0f, largest = warp_max(fabsf(value)),
          scale = 0.0f;
    int32_t q   = 0;
    if (__ballot_sync(0xffffffffu, !(fabsf(value) <= 3.0e38f))) {
        scale = __uint_as_float(0x7fc00000u); /* infinity or NaN spoils the row, as it does in float arithmetic */
        q     = 1;
    } else if (largest > 1.0e-30f) {
        scale = largest / INTEGER_MAX;
        q     = __float2int_rn(value * (INTEGER_MAX / largest));
    }
    int32_t sum = q;
    UNROLL for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);

    int32_t high = (q + 128) >> 8, low = q - high * 256;
    size_t  at    = (size_t)(token / TILE_TOKENS) * to.n_blocks + block;
    int8_t *words = reinterpret_cast<int8_t *>(to.planes + at * WARP_LANES + token % TILE_TOKENS * 4 + lane % 16 / 4);
    words[lane / 16 * 4 + lane % 4]     = (int8_t)high;
    words[lane / 16 * 4 + lane % 4 + 8] = (int8_t)low;
    if (lane == 0) {
        to.scales[at * TILE_TOKENS + token % TILE_TOKENS] = scale;
        to.sums[at * TILE_TOKENS + token % TILE_TOKENS]   = sum;
    }
}

static size_t quantized_bytes(uint32_t n_tokens, uint32_t n_cols)
{
    size_t n_blocks = (size_t)divide_up(n_cols, 2 * KERN_BLOCK) * 2 * divide_up(n_tokens, TILE_TOKENS);
    return n_blocks * (WARP_LANES * sizeof(uint4) + TILE_TOKENS * (sizeof(float) + sizeof(int32_t)));
}

static quantized_rows quantize(kern_device *device, const float *x, uint32_t n_tokens, uint32_t n_cols)
{
    quantized_rows q;
    q.n_tokens = n_tokens;
    q.n_blocks = divide_up(n_cols, 2 * KERN_BLOCK) * 2;
    size_t n   = (size_t)divide_up(n_tokens, TILE_TOKENS) * q.n_blocks;
    q.planes   = reinterpret_cast<uint4 *>(cuda_scratch(device, quantized_bytes(n_tokens, n_cols), "gemm"));
    q.scales   = reinterpret_cast<float *>(q.planes + n * WARP_LANES);
    q.sums     = reinterpret_cast<int32_t *>(q.scales + n * TILE_TOKENS);
    LAUNCH(quantize_rows, dim3(n_tokens, divide_up(q.n_blocks, SPLIT_WARPS)), BLOCK_THREADS, 0, device->stream, q, x,
           n_cols);
    return q;
}

/* ---- quantised weights ------------------------------------------------------------------------------------------- */

/* Few tokens: one row tile and N token tiles a block of threads, its warps on consecutive segments, a round of
 * SPLIT_WARPS segments at a time. Partial sums have two places in turn, so one barrier a round is enough. */
template <kern_dtype TYPE, int N>
static __global__ void __launch_bounds__(BLOCK_THREADS) gemm_split(packed_weight w, quantized_rows x, gemm_target to)
{
    enum {
        TOKENS        = N * TILE_TOKENS,
        SUMS          = TILE_ROWS * TOKENS,
        SUMS_A_THREAD = (SUMS + BLOCK_THREADS - 1) / BLOCK_THREADS
    };
    SHARED(float, partial, 2 * SPLIT_WARPS * SUMS);
    uint32_t lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    uint32_t n_segments           = (w.n_pairs + SEGMENT_PAIRS - 1) / SEGMENT_PAIRS;
    float    total[SUMS_A_THREAD] = {};
    for (uint32_t first = 0, turn = 0; first < n_segments; first += SPLIT_WARPS, turn ^= 1) {
        float *round = partial + turn * SPLIT_WARPS * SUMS;
        if (first + warp < n_segments) {
            float sum[1][N][4];
            segment_sum<TYPE, 1, N>(sum, w, x, blockIdx.x, blockIdx.y * N, first + warp);
            UNROLL for (int n = 0; n < N; n++) UNROLL for (int i = 0; i < 4; i++)
                round[warp * SUMS + (n * TILE_TOKENS + lane % 4 * 2 + i % 2) * TILE_ROWS + lane / 4 + i / 2 * 8] =
                    sum[0][n][i];
        }
        __syncthreads();
        UNROLL for (int j = 0; j < SUMS_A_THREAD; j++)
        {
            uint32_t place = threadIdx.x + j * BLOCK_THREADS;
            for (uint32_t s = 0; s < SPLIT_WARPS && first + s < n_segments && place < SUMS; s++)
                total[j] = __fadd_rn(total[j], round[s * SUMS + place]);
        }
    }
    UNROLL for (int j = 0; j < SUMS_A_THREAD; j++)
    {
        uint32_t place = threadIdx.x + j * BLOCK_THREADS;
        if (place < SUMS)
            put(to, blockIdx.y * TOKENS + place / TILE_ROWS, blockIdx.x * TILE_ROWS + place % TILE_ROWS, total[j]);
    }
}

/* Many tokens: a warp computes 2 row tiles by 4 token tiles, four warps 64 by 64. */
template <kern_dtype TYPE>
static __global__ void __launch_bounds__(WIDE_WARPS *WARP_LANES)
    gemm_wide(packed_weight w, quantized_rows x, gemm_target to)
{
    enum { M = 2, N = 4 };
    uint32_t lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    uint32_t tile           = blockIdx.x * (WIDE_ROWS / TILE_ROWS) + warp % 2 * M;
    uint32_t token_tile     = blockIdx.y * (WIDE_TOKENS / TILE_TOKENS) + warp / 2 * N;
    uint32_t n_segments     = (w.n_pairs + SEGMENT_PAIRS - 1) / SEGMENT_PAIRS;
    float    total[M][N][4] = {}, sum[M][N][4];
    for (uint32_t segment = 0; segment < n_segments; segment++) {
        segment_sum<TYPE, M, N>(sum, w, x, tile, token_tile, segment);
        UNROLL for (int m = 0; m < M; m++) UNROLL for (int n = 0; n < N; n++) UNROLL for (int i = 0; i < 4; i++)
            total[m][n][i] = __fadd_rn(total[m][n][i], sum[m][n][i]);
    }
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int n = 0; n < N; n++) UNROLL for (int i = 0; i < 4; i++)
        put(to, (token_tile + n) * TILE_TOKENS + lane % 4 * 2 + i % 2, (tile + m) * TILE_ROWS + lane / 4 + i / 2 * 8,
            total[m][n][i]);
}

typedef void gemm_kernel(packed_weight, quantized_rows, gemm_target);

struct gemm_kernels {
    gemm_kernel *split_8, *split_32, *wide;
};

template <kern_dtype TYPE> static gemm_kernels kernels_of()
{
    return {gemm_split<TYPE, 1>, gemm_split<TYPE, SPLIT_TOKENS_MAX / TILE_TOKENS>, gemm_wide<TYPE>};
}

static gemm_kernels kernels_for(kern_dtype dtype)
{
    switch (dtype) {
    case KERN_Q4_0:
        return kernels_of<KERN_Q4_0>();
    case KERN_Q4_1:
        return kernels_of<KERN_Q4_1>();
    case KERN_Q5_0:
        return kernels_of<KERN_Q5_0>();
    case KERN_Q5_1:
        return kernels_of<KERN_Q5_1>();
    default:
        return kernels_of<KERN_Q8_0>();
    }
}

static void multiply_quantized(kern_device *device, const kern_weight *weight, const quantized_rows &x,
                               const gemm_target &to)
{
    gemm_kernels kernels = kernels_for(weight->dtype);
    if (to.n_tokens <= SPLIT_TOKENS_MAX) {
        gemm_kernel *kernel = to.n_tokens <= TILE_TOKENS ? kernels.split_8 : kernels.split_32;
        LAUNCH(kernel, weight->packed.n_row_tiles, BLOCK_THREADS, 0, device->stream, weight->packed, x, to);
        return;
    }
    dim3 grid(divide_up(to.n_rows, WIDE_ROWS), divide_up(to.n_tokens, WIDE_TOKENS));
    LAUNCH(kernels.wide, grid, WIDE_WARPS * WARP_LANES, 0, device->stream, weight->packed, x, to);
}

/* ---- float weights ----------------------------------------------------------------------------------------------- */

/* 16-bit weights: row 2t of the chunk is x[t] rounded to T, row 2t + 1 what the rounding lost, both times a power of
 * two that keeps them inside T's range. F32: row t is x[t]. Rows past the batch are zero. */
template <typename T, int PLANES>
static __global__ void split_rows(T *planes, float *unscale, const float *x, uint32_t n_tokens, uint32_t n_cols,
                                  uint32_t n_padded)
{
    SHARED(float, scratch, WARP_LANES);
    uint32_t     token = blockIdx.x, lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    const float *row     = x + (size_t)token * n_cols;
    float        largest = 0.0f, scale = 1.0f;
    for (uint32_t c = threadIdx.x; token < n_tokens && c < n_cols; c += BLOCK_THREADS)
        largest = fmaxf(largest, fabsf(row[c]));
    largest = warp_max(largest);
    if (lane == 0)
        scratch[warp] = largest;
    __syncthreads();
    largest = warp_max(lane < BLOCK_THREADS / WARP_LANES ? scratch[lane] : 0.0f);
    if (PLANES == 2 && largest > 0 &&
        largest <= 3.0e38f) /* to [1, 2), far above T's smallest number; 2^126 is enough */
        scale = ldexpf(1.0f, ilogbf(largest) < -126 ? 126 : -ilogbf(largest));
    for (uint32_t c = threadIdx.x; c < n_padded; c += BLOCK_THREADS) {
        float value = token < n_tokens && c < n_cols ? row[c] * scale : 0.0f;
        T    *to    = planes + (size_t)token * PLANES * n_padded + c;
        from_float(value, to);
        if (PLANES == 2)
            from_float(value - to_float(*to), to + n_padded);
    }
    if (threadIdx.x == 0)
        unscale[token] = 1.0f / scale;
}

static __global__ void add_planes(const float *products, const float *unscale, uint32_t n_planes, gemm_target to)
{
    uint32_t row = blockIdx.x * BLOCK_THREADS + threadIdx.x, token = blockIdx.y;
    if (row >= to.n_rows)
        return;
    const float *product = products + (size_t)token * n_planes * to.n_rows + row;
    float        sum     = product[0];
    if (n_planes == 2)
        sum = __fmul_rn(__fadd_rn(sum, product[to.n_rows]), unscale[token]);
    put(to, token, row, sum);
}

/* Scratch of one chunk: planes of x, their scales, products. */
struct float_chunk {
    unsigned char *planes;
    float         *unscale, *products;
};

static size_t float_chunk_layout(const kern_weight *weight, unsigned char *memory, float_chunk *chunk)
{
    uint32_t n_x     = weight->dtype == KERN_F32 ? F32_CHUNK_ROWS : FLOAT_CHUNK_ROWS;
    size_t   x_bytes = (size_t)n_x * padded_columns(weight->n_cols) * (weight->dtype == KERN_F32 ? 4 : 2);
    x_bytes          = (x_bytes + 255) / 256 * 256;
    chunk->planes    = memory;
    chunk->unscale   = reinterpret_cast<float *>(memory + x_bytes);
    chunk->products  = chunk->unscale + FLOAT_CHUNK_ROWS;
    return x_bytes + (FLOAT_CHUNK_ROWS + (size_t)n_x * weight->n_rows) * sizeof(float);
}

static void multiply_float(kern_device *device, const kern_weight *weight, const float *x, const gemm_target &to)
{
    bool        is_f32   = weight->dtype == KERN_F32;
    uint32_t    n_planes = is_f32 ? 1 : 2, n_chunk = is_f32 ? F32_CHUNK_ROWS : FLOAT_CHUNK_ROWS / 2;
    uint32_t    n_cols = weight->n_cols, n_padded = padded_columns(n_cols);
    float_chunk chunk;
    float_chunk_layout(weight, cuda_scratch(device, gemm_weight_scratch_bytes(weight), "gemm"), &chunk);
    for (uint32_t first = 0; first < to.n_tokens; first += n_chunk) {
        gemm_target  part = to;
        const float *rows = x + (size_t)first * n_cols;
        part.y            = to.y + (size_t)first * to.n_rows;
        part.n_tokens     = to.n_tokens - first < n_chunk ? to.n_tokens - first : n_chunk;
        if (is_f32)
            LAUNCH((split_rows<float, 1>), n_chunk, BLOCK_THREADS, 0, device->stream,
                   reinterpret_cast<float *>(chunk.planes), chunk.unscale, rows, part.n_tokens, n_cols, n_padded);
        else if (weight->dtype == KERN_F16)
            LAUNCH((split_rows<f16, 2>), n_chunk, BLOCK_THREADS, 0, device->stream,
                   reinterpret_cast<f16 *>(chunk.planes), chunk.unscale, rows, part.n_tokens, n_cols, n_padded);
        else
            LAUNCH((split_rows<bf16, 2>), n_chunk, BLOCK_THREADS, 0, device->stream,
                   reinterpret_cast<bf16 *>(chunk.planes), chunk.unscale, rows, part.n_tokens, n_cols, n_padded);
        matmul_run(device->products, weight->plan, weight->memory, chunk.planes, chunk.products);
        LAUNCH(add_planes, dim3(divide_up(to.n_rows, BLOCK_THREADS), part.n_tokens), BLOCK_THREADS, 0, device->stream,
               chunk.products, chunk.unscale, n_planes, part);
    }
}

/* ---- the operator ------------------------------------------------------------------------------------------------ */

size_t gemm_weight_scratch_bytes(const kern_weight *weight)
{
    float_chunk chunk;
    return dtype_is_quantized(weight->dtype) ? 0 : float_chunk_layout(weight, NULL, &chunk);
}

size_t gemm_scratch_bytes(const kern_limits *limits)
{
    return quantized_bytes(limits->n_tokens, limits->n_cols);
}

void cuda_gemm(kern_device *device, const kern_gemm_args *args)
{
    if (args->n_tokens == 0)
        return;
    bool           quantized_yet = false; /* x as integers lies in scratch: float weights overwrite it */
    quantized_rows x             = {};
    for (uint32_t o = 0; o < args->n_outputs; o++) {
        const kern_weight *weight = args->outputs[o].weight;
        gemm_target to = {args->outputs[o].bias, args->outputs[o].y, args->n_tokens, weight->n_rows, args->accumulate};
        if (!dtype_is_quantized(weight->dtype)) {
            multiply_float(device, weight, args->x, to);
            quantized_yet = false;
            continue;
        }
        if (!quantized_yet)
            x = quantize(device, args->x, args->n_tokens, weight->n_cols);
        quantized_yet = true;
        multiply_quantized(device, weight, x, to);
    }
}
