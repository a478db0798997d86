/* CPU variants for instructions that this machine may lack: the gemm that the variant has, compiled over something that
 * computes the same, and attention where the variant has its own. All else is another variant's. */
#ifndef TROUPE_TESTS_KERNELS_MODELLED_VARIANTS_H
#define TROUPE_TESTS_KERNELS_MODELLED_VARIANTS_H

#include "kernels/backend.h"

typedef struct {
    const char *name, *needs; /* the variant that the machine must run for it */
    const kern_backend *(*backend)(void);
} modelled_variant;

const kern_backend *tiles_over_portable(void); /* AMX as tiles_model.h, in plain C */
#if defined(__x86_64__)
const kern_backend *tiles_over_avx512(void);     /* the same, with the vectors that the variant has */
const kern_backend *avx2_vnni_over_avx512(void); /* AVX-VNNI by the instructions of AVX-512 of that width */
#endif

#endif
