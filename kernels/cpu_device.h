/* The CPU backend's own structs, shared by its operators. */
#ifndef TROUPE_KERNELS_CPU_DEVICE_H
#define TROUPE_KERNELS_CPU_DEVICE_H

#include "kernels/backend.h"
#include "kernels/thread_pool.h"

/* Scratch holds a multiple of so many tokens: tiles take that many (kernels/gemm/gemm_tiles.h), wanted or not. */
enum { CPU_TOKENS_PADDED = 8 };

typedef struct {
    const kern_backend *backend;
    const char         *variant;
    char                name[64];
    thread_pool        *pool;
    kern_limits         limits; /* as reserved; zero before */

    /* Scratch, sized by kern_reserve. */
    struct cpu_activations {
        float   *padded;    /* [n_tokens][columns rounded up to 16], for float weights of other widths */
        int16_t *quants;    /* [n_tokens][n_cols], for quantised weights */
        float   *scales;    /* [n_tokens][n_cols / 32]: x = quants * scale */
        float   *sums;      /* [n_tokens][n_cols / 32]: scale * (sum of the block's quants) */
        int32_t *isums;     /* [n_tokens][n_cols / 32]: sum of the block's quants */
        float   *half_sums; /* [n_tokens][n_cols / 16]: the same of 16 columns, for weights with parts of so many */
        int32_t *half_isums;
    } x;
    char  *worker_scratch; /* [n_threads][worker_bytes] */
    size_t worker_bytes;
    float *attention_parts; /* states of segments that are computed apart */
} cpu_device;

/* Scratch of one worker, 64-byte aligned. */
static inline void *cpu_worker_scratch(const cpu_device *device, uint32_t worker)
{
    return device->worker_scratch + device->worker_bytes * worker;
}

/* Runs `slice` over n_slices; by the caller alone when `work` (roughly: float operations) is not worth waking threads.
 */
void cpu_run(cpu_device *device, thread_pool_slice *slice, void *job, uint32_t n_slices, uint64_t work);

/* Memory of the host, zeroed, aligned to 64 bytes or to a huge page when large. */
void *host_alloc(kern_device *device, size_t bytes);
void  host_free(kern_device *device, void *memory);
void  host_upload(kern_device *device, void *to, const void *host_from, size_t bytes);
void  host_download(kern_device *device, void *host_to, const void *from, size_t bytes);
void  host_synchronize(kern_device *device);

/* What does not depend on the instruction set; the variants' files add the operators. */
kern_device *cpu_device_open(const kern_device_options *options, char *why);
void         cpu_device_close(kern_device *device);
const char  *cpu_device_name(const kern_device *device);
const char  *cpu_device_variant(const kern_device *device);
bool         cpu_reserve(kern_device *device, const kern_limits *limits, char *why);

extern const kern_backend cpu_backend_portable;
#if defined(__x86_64__)
extern const kern_backend cpu_backend_avx2, cpu_backend_avx2_vnni, cpu_backend_avx512, cpu_backend_avx512_vnni,
    cpu_backend_avx512_amx;
#endif
extern const kern_backend ref_backend;

/* NULL when this machine can't run the variant. *variant becomes a name that lives as long as the program. */
const kern_backend *cpu_variant_backend(const char **variant);

#endif
