/* How the CPU backend cuts a gemm into slices: the part that does not depend on the instruction set. */
#ifndef TROUPE_KERNELS_GEMM_GEMM_CPU_H
#define TROUPE_KERNELS_GEMM_GEMM_CPU_H

#include "kernels/cpu_device.h"

typedef struct {
    const kern_gemm_args  *args;
    struct cpu_activations x;
    const float           *float_x;      /* x for float weights: args->x or x.padded */
    uint32_t               float_stride; /* columns between its rows, a multiple of 16 */
    uint32_t               n_cols;
    bool                   quantizes, pads, halves; /* what x must be made into: halves for parts of 16 columns */
    uint32_t               output_groups[KERN_GEMM_OUTPUTS_MAX]; /* groups of 16 rows of each output */
    uint32_t               n_groups;                             /* of all outputs */
    uint32_t               groups_a_slice, n_row_slices, tokens_a_slice, n_slices;
} gemm_job;

gemm_job gemm_job_of(const cpu_device *device, const kern_gemm_args *args);

#endif
