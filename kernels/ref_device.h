/* The reference backend: one plain C function an operator, in float32 or double, one thread. Slow and short on purpose:
 * it is what the others are compared with. The host_ functions only move or decode bytes and serve the CPU backend too.
 */
#ifndef TROUPE_KERNELS_REF_DEVICE_H
#define TROUPE_KERNELS_REF_DEVICE_H

#include "kernels/backend.h"

void host_embed(kern_device *device, const kern_embed_args *args);
void host_gather(kern_device *device, const kern_gather_args *args);

void ref_rmsnorm(kern_device *device, const kern_rmsnorm_args *args);
void ref_layernorm(kern_device *device, const kern_layernorm_args *args);
void ref_gemm(kern_device *device, const kern_gemm_args *args);
void ref_rope(kern_device *device, const kern_rope_args *args);
void ref_kv_write(kern_device *device, const kern_kv_write_args *args);
void ref_attention(kern_device *device, const kern_attention_args *args);
void ref_glu(kern_device *device, const kern_glu_args *args);
void ref_pool(kern_device *device, const kern_pool_args *args);
void ref_softcap(kern_device *device, const kern_softcap_args *args);
void ref_sample(kern_device *device, const kern_sample_args *args);

/* Scratch of `bytes`, which the device keeps until it closes; NULL when there is not enough memory. */
void *ref_scratch(kern_device *device, size_t bytes);

#endif
