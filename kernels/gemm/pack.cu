/* Weights on their way to the GPU: the rows of a model file pass through pinned staging into scratch memory and are
 * packed there by a kernel, a part at a time, so loading runs at the speed of the bus and needs no second copy of the
 * model. */
#include "kernels/format.h"
#include "kernels/gemm/quantized.cuh"

#include <stdlib.h>

enum { BLOCK_THREADS = 256, PACK_PART_BYTES = 32 << 20 };

/* ---- quantised --------------------------------------------------------------------------------------------------- */

static __device__ uint32_t word_at(const unsigned char *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* One thread packs one block of one row. `raw` holds the rows from row_first on. */
template <kern_dtype TYPE>
static __global__ void pack_blocks(packed_weight w, const unsigned char *raw, uint32_t row_first, uint32_t n_rows,
                                   uint32_t block_bytes)
{
    typedef quantized_type<TYPE> type;
    uint32_t                     n_blocks = w.n_cols / KERN_BLOCK;
    uint64_t                     i        = (uint64_t)blockIdx.x * BLOCK_THREADS + threadIdx.x;
    if (i >= (uint64_t)n_rows * n_blocks)
        return;
    uint32_t             row = row_first + (uint32_t)(i / n_blocks), block = (uint32_t)(i % n_blocks);
    const unsigned char *from = raw + i * block_bytes;
    size_t               pair = (size_t)(row / TILE_ROWS) * w.n_pairs + block / 2;
    uint32_t             g = row % 8, place = block % 2 * 2 + row / 8 % 2; /* of the row among a lane's four */
    size_t               small  = (pair * 8 + g) * 4 + place;
    uint32_t            *quants = reinterpret_cast<uint32_t *>(const_cast<uint4 *>(w.quants));

    reinterpret_cast<uint16_t *>(const_cast<uint2 *>(w.scales))[small] = (uint16_t)(from[0] | from[1] << 8);
    from += 2;
    if (type::has_min) {
        reinterpret_cast<uint16_t *>(const_cast<uint2 *>(w.mins))[small] = (uint16_t)(from[0] | from[1] << 8);
        from += 2;
    }
    if (type::has_high) {
        reinterpret_cast<uint32_t *>(const_cast<uint4 *>(w.high))[small] = word_at(from);
        from += 4;
    }
    for (uint32_t t = 0; t < 4; t++) {
        uint32_t lane = g * 4 + t;
        if (type::is_wide) {
            size_t at      = ((pair * 2 + block % 2) * WARP_LANES + lane) * 4 + row / 8 % 2;
            quants[at]     = word_at(from + t * 4);
            quants[at + 2] = word_at(from + 16 + t * 4);
        } else {
            quants[(pair * WARP_LANES + lane) * 4 + place] = word_at(from + t * 4);
        }
    }
}

typedef void pack_kernel(packed_weight, const unsigned char *, uint32_t, uint32_t, uint32_t);

/* NULL: floats, and the formats that cuda_weight_new refuses. */
static pack_kernel *const pack_kernels[KERN_N_DTYPES] = {
    NULL,
    NULL,
    NULL,
    pack_blocks<KERN_Q4_0>,
    pack_blocks<KERN_Q4_1>,
    pack_blocks<KERN_Q5_0>,
    pack_blocks<KERN_Q5_1>,
    pack_blocks<KERN_Q8_0>,
};

/* Divides the weight's memory between the arrays; returns the bytes they take. With memory NULL it only counts. */
static size_t packed_layout(packed_weight *w, kern_dtype dtype, unsigned char *memory)
{
    size_t n_pairs = (size_t)w->n_row_tiles * w->n_pairs, used = 0;
    w->quants = reinterpret_cast<const uint4 *>(memory);
    used += n_pairs * WARP_LANES * sizeof(uint4) * (dtype == KERN_Q8_0 ? 2 : 1);
    if (dtype == KERN_Q5_0 || dtype == KERN_Q5_1) {
        w->high = reinterpret_cast<const uint4 *>(memory + used);
        used += n_pairs * 8 * sizeof(uint4);
    }
    w->scales = reinterpret_cast<const uint2 *>(memory + used);
    used += n_pairs * 8 * sizeof(uint2);
    if (dtype == KERN_Q4_1 || dtype == KERN_Q5_1) {
        w->mins = reinterpret_cast<const uint2 *>(memory + used);
        used += n_pairs * 8 * sizeof(uint2);
    }
    return used;
}

/* ---- float ------------------------------------------------------------------------------------------------------- */

static __global__ void pad_rows(unsigned char *to, const unsigned char *raw, uint32_t n_rows, uint32_t row_bytes,
                                uint32_t padded_bytes)
{
    uint64_t i =
        (uint64_t)blockIdx.x * BLOCK_THREADS + threadIdx.x; /* one thread two bytes: every float is of even size */
    if (i >= (uint64_t)n_rows * (row_bytes / 2))
        return;
    uint64_t row = i / (row_bytes / 2), place = i % (row_bytes / 2);
    reinterpret_cast<uint16_t *>(to + row * padded_bytes)[place] = reinterpret_cast<const uint16_t *>(raw)[i];
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

/* Uploads the matrix in parts of whole rows and runs the packing kernel on each. */
static void pack_all(kern_device *device, kern_weight *weight, const unsigned char *host_data, size_t row_bytes)
{
    uint32_t n_blocks = weight->n_cols / (dtype_is_quantized(weight->dtype) ? KERN_BLOCK : 1);
    uint32_t n_part = (uint32_t)(device->scratch_bytes / row_bytes < weight->n_rows ? device->scratch_bytes / row_bytes
                                                                                    : weight->n_rows);
    for (uint32_t row = 0; row < weight->n_rows; row += n_part) {
        uint32_t n_rows = weight->n_rows - row < n_part ? weight->n_rows - row : n_part;
        cuda_upload(device, device->scratch, host_data + row * row_bytes, n_rows * row_bytes);
        if (dtype_is_quantized(weight->dtype)) {
            uint32_t grid = (uint32_t)(((uint64_t)n_rows * n_blocks + BLOCK_THREADS - 1) / BLOCK_THREADS);
            LAUNCH(pack_kernels[weight->dtype], grid, BLOCK_THREADS, 0, device->stream, weight->packed, device->scratch,
                   row, n_rows, kern_formats[weight->dtype].block_bytes);
        } else {
            uint32_t grid   = (uint32_t)(((uint64_t)n_rows * (row_bytes / 2) + BLOCK_THREADS - 1) / BLOCK_THREADS);
            uint32_t padded = padded_columns(weight->n_cols) * kern_formats[weight->dtype].block_bytes;
            LAUNCH(pad_rows, grid, BLOCK_THREADS, 0, device->stream, weight->memory + (size_t)row * padded,
                   device->scratch, n_rows, (uint32_t)row_bytes, padded);
        }
    }
}

static bool plan_layout(kern_device *device, kern_weight *weight, char *why)
{
    if (dtype_is_quantized(weight->dtype)) {
        packed_weight *w = &weight->packed;
        w->n_rows        = weight->n_rows;
        w->n_cols        = weight->n_cols;
        w->n_row_tiles   = divide_up(weight->n_rows, TILE_ROWS);
        w->n_pairs       = divide_up(weight->n_cols / KERN_BLOCK, 2);
        weight->bytes    = packed_layout(w, weight->dtype, NULL);
        return true;
    }
    uint32_t n_cols = padded_columns(weight->n_cols),
             n_x    = weight->dtype == KERN_F32 ? F32_CHUNK_ROWS : FLOAT_CHUNK_ROWS;
    weight->bytes   = (size_t)weight->n_rows * n_cols * kern_formats[weight->dtype].block_bytes;
    weight->plan    = matmul_plan_new(device->products, weight->dtype, weight->n_rows, n_cols, n_x, why);
    return weight->plan != NULL;
}

kern_weight *cuda_weight_new(kern_device *device, const kern_matrix *source, char *why)
{
    if (source->dtype >= KERN_N_DTYPES || source->n_rows == 0 || source->n_cols == 0 ||
        (dtype_is_quantized(source->dtype) && source->n_cols % KERN_BLOCK != 0)) {
        cuda_refuse(why, "a weight of type %d with %u rows of %u columns cannot be packed", (int)source->dtype,
                    source->n_rows, source->n_cols);
        return NULL;
    }
    if (dtype_is_quantized(source->dtype) && !pack_kernels[source->dtype]) {
        cuda_refuse(why, "%s weights are not supported on cuda; the cpu backend has them",
                    kern_formats[source->dtype].name);
        return NULL;
    }
    kern_weight *weight = static_cast<kern_weight *>(calloc(1, sizeof *weight));
    if (!weight) {
        cuda_refuse(why, "no memory");
        return NULL;
    }
    weight->dtype                = source->dtype;
    weight->n_rows               = source->n_rows;
    weight->n_cols               = source->n_cols;
    const kern_format *format    = &kern_formats[source->dtype];
    size_t             row_bytes = (size_t)source->n_cols / format->block * format->block_bytes;
    size_t             scratch   = row_bytes > PACK_PART_BYTES ? row_bytes : (size_t)PACK_PART_BYTES;
    if (!plan_layout(device, weight, why) || !cuda_scratch_grow(device, scratch, why) ||
        !cuda_scratch_grow(device, gemm_weight_scratch_bytes(weight), why)) {
        cuda_weight_free(device, weight);
        return NULL;
    }
    weight->memory = cuda_allocate(weight->bytes);
    if (!weight->memory) {
        cuda_refuse(why, "no %zu bytes of GPU memory for a weight of %u x %u", weight->bytes, source->n_rows,
                    source->n_cols);
        cuda_weight_free(device, weight);
        return NULL;
    }
    if (dtype_is_quantized(weight->dtype))
        packed_layout(&weight->packed, weight->dtype, weight->memory);
    CUDA_MUST(cudaMemsetAsync(weight->memory, 0, weight->bytes, device->stream));
    pack_all(device, weight, static_cast<const unsigned char *>(source->host_data), row_bytes);
    return weight;
}

void cuda_weight_free(kern_device *device, kern_weight *weight)
{
    CUDA_MUST(cudaStreamSynchronize(device->stream));
    if (weight->memory)
        CUDA_MUST(cudaFree(weight->memory));
    if (weight->plan)
        matmul_plan_free(weight->plan);
    free(weight);
}

size_t cuda_weight_bytes(const kern_weight *weight)
{
    return weight->bytes;
}
