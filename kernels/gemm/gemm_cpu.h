/* How the CPU backend cuts a gemm into slices: the part that does not depend on the instruction set. */
#ifndef TROUPE_KERNELS_GEMM_GEMM_CPU_H
#define TROUPE_KERNELS_GEMM_GEMM_CPU_H

#include "kernels/cpu_device.h"

/* The most tokens of a slice: rounded, they stay in the second-level cache between groups of rows. */
enum { GEMM_SLICE_TOKENS = 64 };

typedef struct {
    const kern_gemm_args  *args;
    struct cpu_activations x;
    const float           *float_x;      /* x for float weights: args->x or x.padded */
    uint32_t               float_stride; /* columns between its rows, a multiple of 16 */
    uint32_t               n_cols;
    bool                   quantizes, pads, halves; /* what x must be made into: halves for parts of 16 columns */
    bool                   tiled;                   /* over the tiles of gemm_tiles.h */
    uint32_t               output_groups[KERN_GEMM_OUTPUTS_MAX]; /* groups of 16 rows of each output */
    uint32_t               n_groups;                             /* of all outputs */
    uint32_t               groups_a_slice, n_row_slices, tokens_a_slice, n_slices;
} gemm_job;

/* The part of a job that a slice is: these groups, counted over all outputs, by these tokens. */
typedef struct {
    uint32_t group, end_group, token, end_token;
} gemm_part;

gemm_job  gemm_job_of(const cpu_device *device, const kern_gemm_args *args);
gemm_part gemm_part_of(const gemm_job *job, uint32_t slice);

/* The output that a group of the job belongs to; *group becomes its number there. */
uint32_t gemm_output_of(const gemm_job *job, uint32_t *group);

/* Runs `prepare` over the tokens, where weights need it, then `slice` over the job's slices. */
void gemm_run(cpu_device *device, gemm_job *job, thread_pool_slice *prepare, thread_pool_slice *slice);

#if defined(__x86_64__)
/* Of variants that differ from another in their products alone. */
void cpu_gemm_avx2_vnni(kern_device *device, const kern_gemm_args *args);
void cpu_gemm_avx512_vnni(kern_device *device, const kern_gemm_args *args);
void cpu_gemm_avx512_amx(kern_device *device, const kern_gemm_args *args);
#endif

#endif
