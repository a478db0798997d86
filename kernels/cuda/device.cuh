/* The inside of the CUDA backend: its device, weights and cache, and the operators that kernels/cuda/device.cu puts in
 * the table. */
#ifndef TROUPE_KERNELS_CUDA_DEVICE_CUH
#define TROUPE_KERNELS_CUDA_DEVICE_CUH

#include "kernels/backend.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul.h"

enum { STAGING_BUFFERS = 2 };
static constexpr size_t STAGING_BYTES = 8 << 20;

/* Pinned host memory that uploads pass through, so that they leave the caller's buffer without waiting for the GPU. */
struct staging {
    unsigned char *memory;
    size_t         used;
    cudaEvent_t    drained; /* recorded when the buffer was last left: its copies are done once this has passed */
};

struct kern_device {
    const kern_backend *backend;
    char                name[300];
    uint32_t            n_multiprocessors;
    cudaStream_t        stream;
    struct staging      staging[STAGING_BUFFERS];
    uint32_t            staging_now;
    matmul             *products; /* cuBLASLt */
    /* One piece of memory that every operator may overwrite: operators run one after another. */
    unsigned char *scratch;
    size_t         scratch_bytes;
};

/* Quantised weights in the order in which a warp multiplies them; see kernels/gemm/quantized.cuh. */
struct packed_weight {
    const uint4 *quants;
    const uint4 *high;   /* fifth bits: Q5_0, Q5_1 */
    const uint2 *scales; /* f16 */
    const uint2 *mins;   /* f16: Q4_1, Q5_1 */
    uint32_t     n_rows, n_cols, n_row_tiles, n_pairs;
};

struct kern_weight {
    const kern_backend  *backend;
    kern_dtype           dtype;
    uint32_t             n_rows, n_cols;
    size_t               bytes;
    unsigned char       *memory;
    struct packed_weight packed; /* quantised */
    matmul_plan         *plan;   /* float: [n_rows][n_cols padded to MATMUL_ALIGN] */
};

struct kern_kv_cache {
    kern_kv_shape  shape;
    unsigned char *memory; /* [n_blocks][n_layers][2: k, v][n_kv_heads][KERN_KV_BLOCK_TOKENS][head_dim] */
};

static inline bool dtype_is_quantized(kern_dtype dtype)
{
    return dtype != KERN_F32 && dtype != KERN_F16 && dtype != KERN_BF16;
}

/* Rows of x in one cuBLASLt product: two planes of 64 tokens for 16-bit weights, 32 tokens for F32. */
enum { FLOAT_CHUNK_ROWS = 128, F32_CHUNK_ROWS = 32 };

static inline uint32_t padded_columns(uint32_t n_cols)
{
    return divide_up(n_cols, MATMUL_ALIGN) * MATMUL_ALIGN;
}

/* Fills why[KERN_WHY_BYTES] and returns false. */
bool cuda_refuse(char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Makes scratch at least this big; waits for running operators when it has to grow. */
bool cuda_scratch_grow(kern_device *device, size_t bytes, char *why);

/* The scratch memory; aborts when kern_reserve was told less than what came. */
unsigned char *cuda_scratch(kern_device *device, size_t bytes, const char *operation);

/* Device memory, or NULL. */
unsigned char *cuda_allocate(size_t bytes);

/* Scratch bytes that an operator wants for these limits. */
size_t gemm_scratch_bytes(const kern_limits *limits);
size_t gemm_weight_scratch_bytes(const kern_weight *weight); /* float weights: grown when they are made */
size_t attention_scratch_bytes(const kern_limits *limits);
size_t sample_scratch_bytes(const kern_limits *limits);

kern_weight *cuda_weight_new(kern_device *device, const kern_matrix *source, char *why);
void         cuda_weight_free(kern_device *device, kern_weight *weight);
size_t       cuda_weight_bytes(const kern_weight *weight);

kern_kv_cache *cuda_kv_cache_new(kern_device *device, const kern_kv_shape *shape, char *why);
void           cuda_kv_cache_free(kern_device *device, kern_kv_cache *cache);

void cuda_upload(kern_device *device, void *to, const void *host_from, size_t bytes);
void cuda_download(kern_device *device, void *host_to, const void *from, size_t bytes);

void cuda_embed(kern_device *device, const kern_embed_args *args);
void cuda_rmsnorm(kern_device *device, const kern_rmsnorm_args *args);
void cuda_layernorm(kern_device *device, const kern_layernorm_args *args);
void cuda_gemm(kern_device *device, const kern_gemm_args *args);
void cuda_rope(kern_device *device, const kern_rope_args *args);
void cuda_kv_write(kern_device *device, const kern_kv_write_args *args);
void cuda_kv_copy(kern_device *device, const kern_kv_copy_args *args);
void cuda_kv_block(kern_device *device, const kern_kv_block_args *args);
void cuda_attention(kern_device *device, const kern_attention_args *args);
void cuda_glu(kern_device *device, const kern_glu_args *args);
void cuda_gather(kern_device *device, const kern_gather_args *args);
void cuda_pool(kern_device *device, const kern_pool_args *args);
void cuda_softcap(kern_device *device, const kern_softcap_args *args);
void cuda_sample(kern_device *device, const kern_sample_args *args);

#endif
