#include "modelled_variants.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c,avx512vl,avx512vnni")
#include <immintrin.h>
#define _mm256_dpwssd_avx_epi32 _mm256_dpwssd_epi32 /* another encoding of the same instruction */

#define LANES_VNNI
#include "kernels/lanes_avx2.h"

#include "kernels/attention/attention_lanes.h"
#include "kernels/gemm/gemm_lanes.h"

const kern_backend *avx2_vnni_over_avx512(void)
{
    static kern_backend backend;
    backend           = cpu_backend_avx2;
    backend.gemm      = cpu_gemm;
    backend.attention = cpu_attention;
    return &backend;
}
#endif
