/* Rows of a weight as floats, read from the layout that gemm wants: models that tie embedding and output keep one copy.
 * Bound by memory: one block of threads a token. */
#include "kernels/gemm/quantized.cuh"

enum { BLOCK_THREADS = 256 };

/* The same roundings as reading the file's own blocks: one for scale * q, one for + min. */
template <kern_dtype TYPE> static __device__ float packed_element(const packed_weight &w, uint32_t row, uint32_t column)
{
    typedef quantized_type<TYPE> type;
    uint32_t        block = column / KERN_BLOCK, place = column % KERN_BLOCK, lane = row % 8 * 4 + place % 16 / 4;
    uint32_t        half = row / 8 % 2, four = block % 2 * 2 + half, shift = 8 * (place % 4);
    size_t          pair = (size_t)(row / TILE_ROWS) * w.n_pairs + block / 2, small = (pair * 8 + row % 8) * 4 + four;
    const uint32_t *quants = reinterpret_cast<const uint32_t *>(w.quants);
    float           scale  = to_float(reinterpret_cast<const f16 *>(w.scales)[small]);
    int32_t         q;
    if (type::is_wide)
        q = (int8_t)(quants[((pair * 2 + block % 2) * WARP_LANES + lane) * 4 + half + place / 16 * 2] >> shift);
    else
        q = (int32_t)(quants[(pair * WARP_LANES + lane) * 4 + four] >> (shift + place / 16 * 4) & 15u);
    if (type::has_high)
        q |= (int32_t)(reinterpret_cast<const uint32_t *>(w.high)[small] >> place & 1u) << 4;
    float value = __fmul_rn(scale, (float)(q - type::offset));
    return type::has_min ? __fadd_rn(value, to_float(reinterpret_cast<const f16 *>(w.mins)[small])) : value;
}

static __device__ __forceinline__ void put_element(const kern_embed_args &a, size_t i, float element)
{
    float value = __fmul_rn(element, a.scale);
    a.out[i]    = a.accumulate ? __fadd_rn(a.out[i], value) : value;
}

template <kern_dtype TYPE> static __global__ void embed_packed(packed_weight w, kern_embed_args a)
{
    for (uint32_t c = threadIdx.x; c < w.n_cols; c += BLOCK_THREADS)
        put_element(a, (size_t)blockIdx.x * w.n_cols + c, packed_element<TYPE>(w, a.tokens[blockIdx.x], c));
}

template <typename T>
static __global__ void embed_float(const T *rows, uint32_t n_cols, uint32_t n_padded, kern_embed_args a)
{
    const T *row = rows + (size_t)a.tokens[blockIdx.x] * n_padded;
    for (uint32_t c = threadIdx.x; c < n_cols; c += BLOCK_THREADS)
        put_element(a, (size_t)blockIdx.x * n_cols + c, to_float(row[c]));
}

template <typename T> static void launch_float(kern_device *device, const kern_embed_args *args)
{
    const kern_weight *w = args->weight;
    LAUNCH(embed_float<T>, args->n_tokens, BLOCK_THREADS, 0, device->stream, reinterpret_cast<const T *>(w->memory),
           w->n_cols, padded_columns(w->n_cols), *args);
}

template <kern_dtype TYPE> static void launch_packed(kern_device *device, const kern_embed_args *args)
{
    LAUNCH(embed_packed<TYPE>, args->n_tokens, BLOCK_THREADS, 0, device->stream, args->weight->packed, *args);
}

void cuda_embed(kern_device *device, const kern_embed_args *args)
{
    typedef void         launch(kern_device *, const kern_embed_args *);
    static launch *const launches[KERN_N_DTYPES] = {
        launch_float<float>,      launch_float<f16>,        launch_float<bf16>,       launch_packed<KERN_Q4_0>,
        launch_packed<KERN_Q4_1>, launch_packed<KERN_Q5_0>, launch_packed<KERN_Q5_1>, launch_packed<KERN_Q8_0>,
    };
    if (args->n_tokens > 0)
        launches[args->weight->dtype](device, args);
}
