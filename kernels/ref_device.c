#include "kernels/ref_device.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/cpu_device.h"
#include "kernels/gemm/weight.h"
#include "kernels/kv/kv_cache.h"

typedef struct {
    const kern_backend *backend;
    void               *scratch;
    size_t              scratch_bytes;
} ref_device;

void *ref_scratch(kern_device *device, size_t bytes)
{
    ref_device *ref = (ref_device *)device;
    if (bytes > ref->scratch_bytes) {
        free(ref->scratch);
        ref->scratch       = malloc(bytes);
        ref->scratch_bytes = bytes;
        if (!ref->scratch) {
            fprintf(stderr, "reference backend: not enough memory for %zu bytes of scratch\n", bytes);
            abort();
        }
    }
    return ref->scratch;
}

static kern_device *ref_open(const kern_device_options *options, char *why)
{
    if (options->variant) {
        snprintf(why, KERN_WHY_BYTES, "the reference backend has no variants, so no '%s'", options->variant);
        return NULL;
    }
    ref_device *device = calloc(1, sizeof *device);
    if (!device) {
        snprintf(why, KERN_WHY_BYTES, "not enough memory for a device");
    }
    return (kern_device *)device;
}

static void ref_close(kern_device *device)
{
    free(((ref_device *)device)->scratch);
    free(device);
}

static const char *ref_name(const kern_device *device)
{
    (void)device;
    return "ref, 1 thread";
}

static const char *ref_variant(const kern_device *device)
{
    (void)device;
    return "ref";
}

static bool ref_reserve(kern_device *device, const kern_limits *limits, char *why)
{
    (void)device, (void)limits, (void)why;
    return true;
}

const kern_backend ref_backend = {
    .abi            = KERN_BACKEND_ABI,
    .name           = "ref",
    .device_open    = ref_open,
    .device_close   = ref_close,
    .device_name    = ref_name,
    .device_variant = ref_variant,
    .is_host        = true,
    .alloc          = host_alloc,
    .free           = host_free,
    .upload         = host_upload,
    .download       = host_download,
    .synchronize    = host_synchronize,
    .reserve        = ref_reserve,
    .weight_new     = ref_weight_new,
    .weight_free    = cpu_weight_free,
    .weight_bytes   = cpu_weight_bytes,
    .kv_cache_new   = host_kv_cache_new,
    .kv_cache_free  = host_kv_cache_free,
    .embed          = host_embed,
    .rmsnorm        = ref_rmsnorm,
    .layernorm      = ref_layernorm,
    .gemm           = ref_gemm,
    .rope           = ref_rope,
    .kv_write       = ref_kv_write,
    .kv_copy        = host_kv_copy,
    .kv_block       = host_kv_block,
    .attention      = ref_attention,
    .glu            = ref_glu,
    .gather         = host_gather,
    .pool           = ref_pool,
    .softcap        = ref_softcap,
    .sample         = ref_sample,
    .weight_layout  = {WEIGHT_LAYOUT, WEIGHT_LAYOUT_VERSION},
    .weight_packed  = cpu_weight_packed,
    .weight_borrow  = cpu_weight_borrow,
};
