/* What a backend owes: one struct of functions behind kernels.h. The CPU and reference backends are linked in; the CUDA
 * backend is a shared library that exports `const kern_backend *kern_backend_entry(void)` and is opened at run time. */
#ifndef TROUPE_KERNELS_BACKEND_H
#define TROUPE_KERNELS_BACKEND_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KERN_BACKEND_ABI = 4 };

typedef struct kern_backend {
    uint32_t    abi; /* KERN_BACKEND_ABI of the header it was built with: another number is refused */
    const char *name;

    /* A backend's device struct begins with `const kern_backend *backend`, which kern_device_open sets. */
    kern_device *(*device_open)(const kern_device_options *options, char *why);
    void (*device_close)(kern_device *device);
    const char *(*device_name)(const kern_device *device);
    const char *(*device_variant)(const kern_device *device);

    bool is_host;
    void *(*alloc)(kern_device *device, size_t bytes);
    void (*free)(kern_device *device, void *memory);
    void (*upload)(kern_device *device, void *to, const void *host_from, size_t bytes);
    void (*download)(kern_device *device, void *host_to, const void *from, size_t bytes);
    void (*synchronize)(kern_device *device);
    bool (*reserve)(kern_device *device, const kern_limits *limits, char *why);

    kern_weight *(*weight_new)(kern_device *device, const kern_matrix *source, char *why);
    void (*weight_free)(kern_device *device, kern_weight *weight);
    size_t (*weight_bytes)(const kern_weight *weight); /* weights begin with `const kern_backend *backend` too */

    kern_kv_cache *(*kv_cache_new)(kern_device *device, const kern_kv_shape *shape, char *why);
    void (*kv_cache_free)(kern_device *device, kern_kv_cache *cache);

    void (*embed)(kern_device *device, const kern_embed_args *args);
    void (*rmsnorm)(kern_device *device, const kern_rmsnorm_args *args);
    void (*layernorm)(kern_device *device, const kern_layernorm_args *args);
    void (*gemm)(kern_device *device, const kern_gemm_args *args);
    void (*rope)(kern_device *device, const kern_rope_args *args);
    void (*kv_write)(kern_device *device, const kern_kv_write_args *args);
    void (*kv_copy)(kern_device *device, const kern_kv_copy_args *args);
    void (*kv_block)(kern_device *device, const kern_kv_block_args *args);
    void (*attention)(kern_device *device, const kern_attention_args *args);
    void (*glu)(kern_device *device, const kern_glu_args *args);
    void (*gather)(kern_device *device, const kern_gather_args *args);
    void (*pool)(kern_device *device, const kern_pool_args *args);
    void (*softcap)(kern_device *device, const kern_softcap_args *args);
    void (*sample)(kern_device *device, const kern_sample_args *args);

    /* The last two may be NULL where the layout has no name. */
    kern_weight_layout weight_layout;
    const void *(*weight_packed)(const kern_weight *weight);
    kern_weight *(*weight_borrow)(kern_device *device, const kern_matrix *packed, size_t bytes, char *why);
} kern_backend;

typedef const kern_backend *kern_backend_entry_function(void);

#ifdef __cplusplus
}
#endif

#endif
