/* The operators of one CPU variant: included by cpu_<variant>.c after the lanes that the variant computes with. */
#include "kernels/attention/attention_lanes.h"
#include "kernels/cpu_device.h"
#include "kernels/gemm/gemm_lanes.h"
#include "kernels/gemm/weight.h"
#include "kernels/glu/glu_lanes.h"
#include "kernels/kv/kv_write_lanes.h"
#include "kernels/layernorm/layernorm_lanes.h"
#include "kernels/pool/pool_lanes.h"
#include "kernels/ref_device.h"
#include "kernels/rmsnorm/rmsnorm_lanes.h"
#include "kernels/rope/rope_lanes.h"
#include "kernels/sample/sample_lanes.h"
#include "kernels/softcap/softcap_lanes.h"

#define CPU_BACKEND(gemm_of_variant)                                                                                   \
    {                                                                                                                  \
        .abi = KERN_BACKEND_ABI, .name = "cpu", .device_open = cpu_device_open, .device_close = cpu_device_close,      \
        .device_name = cpu_device_name, .device_variant = cpu_device_variant, .is_host = true, .alloc = host_alloc,    \
        .free = host_free, .upload = host_upload, .download = host_download, .synchronize = host_synchronize,          \
        .reserve = cpu_reserve, .weight_new = cpu_weight_new, .weight_free = cpu_weight_free,                          \
        .weight_bytes = cpu_weight_bytes, .kv_cache_new = host_kv_cache_new, .kv_cache_free = host_kv_cache_free,      \
        .embed = host_embed, .rmsnorm = cpu_rmsnorm, .layernorm = cpu_layernorm, .gemm = gemm_of_variant,              \
        .rope = cpu_rope, .kv_write = cpu_kv_write, .kv_copy = host_kv_copy, .kv_block = host_kv_block,                \
        .attention = cpu_attention, .glu = cpu_glu, .gather = host_gather, .pool = cpu_pool, .softcap = cpu_softcap,   \
        .sample = cpu_sample, .weight_layout = {WEIGHT_LAYOUT, WEIGHT_LAYOUT_VERSION},                                 \
        .weight_packed = cpu_weight_packed, .weight_borrow = cpu_weight_borrow                                         \
    }
