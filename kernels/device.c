#include <assert.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/backend.h"
#include "kernels/cpu_device.h"
#include "kernels/dtype.h"
#include "kernels/kv/kv_quant.h"

struct kern_device {
    const kern_backend *backend;
};
struct kern_weight {
    const kern_backend *backend;
};

/* ---- which backend
 * --------------------------------------------------------------------------------------------------- */

#define CUDA_LIBRARY "libtroupe_cuda.so"

/* Checks a library's entry and keeps the library open for the life of the process: its functions are called to the end.
 */
static const kern_backend *backend_of_library(void *library, const char *path, char *why)
{
    kern_backend_entry_function *entry   = (kern_backend_entry_function *)dlsym(library, "kern_backend_entry");
    const kern_backend          *backend = entry ? entry() : NULL;
    if (!backend) {
        snprintf(why, KERN_WHY_BYTES, "%s is not a kernel library: it has no kern_backend_entry", path);
    } else if (backend->abi != KERN_BACKEND_ABI) {
        snprintf(why, KERN_WHY_BYTES, "%s was built for kernel interface %u, this program has %d", path, backend->abi,
                 KERN_BACKEND_ABI);
    } else {
        return backend;
    }
    dlclose(library);
    return NULL;
}

static const kern_backend *open_library(const char *path, char *why)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(why, KERN_WHY_BYTES, "%s", dlerror());
        return NULL;
    }
    return backend_of_library(library, path, why);
}

/* The library beside the program, else where the loader looks. */
static const kern_backend *cuda_backend(const char *path, char *why)
{
    if (path) {
        return open_library(path, why);
    }
    char    beside[4096];
    ssize_t n = readlink("/proc/self/exe", beside, sizeof beside - sizeof CUDA_LIBRARY - 1);
    if (n > 0) {
        beside[n]   = 0;
        char *slash = strrchr(beside, '/');
        memcpy(slash ? slash + 1 : beside, CUDA_LIBRARY, sizeof CUDA_LIBRARY);
        if (access(beside, R_OK) == 0) {
            return open_library(beside, why);
        }
    }
    return open_library(CUDA_LIBRARY, why);
}

/* Asked before the CUDA library is opened on nobody's request: opening it takes seconds. */
static bool may_have_gpu(void)
{
    return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

static kern_device *open_on(const kern_backend *backend, const kern_device_options *options, char *why)
{
    kern_device *device = backend->device_open(options, why);
    if (device) {
        device->backend = backend;
    }
    return device;
}

static kern_device *open_cpu(const kern_device_options *options, char *why)
{
    const char         *best;
    kern_device_options chosen = *options;
    if (!chosen.variant) {
        kern_cpu_variants(&best, 1);
        chosen.variant = best;
    }
    const kern_backend *backend = cpu_variant_backend(&chosen.variant);
    if (!backend) {
        const char *names[8];
        uint32_t    n = kern_cpu_variants(names, 8);
        int used      = snprintf(why, KERN_WHY_BYTES, "this CPU has no variant '%s': expected one of", chosen.variant);
        for (uint32_t i = 0; i < n && used < KERN_WHY_BYTES; i++) {
            used += snprintf(why + used, (size_t)(KERN_WHY_BYTES - used), "%s %s", i ? "," : "", names[i]);
        }
        return NULL;
    }
    return open_on(backend, &chosen, why);
}

kern_device *kern_device_open(const kern_device_options *options, char *why)
{
    char local[KERN_WHY_BYTES];
    why = why ? why : local;
    if (!options->backend) {
        const kern_backend *cuda   = may_have_gpu() ? cuda_backend(options->library, why) : NULL;
        kern_device        *device = cuda ? open_on(cuda, options, why) : NULL;
        return device ? device : open_cpu(options, why);
    }
    if (strcmp(options->backend, "cpu") == 0) {
        return open_cpu(options, why);
    }
    if (strcmp(options->backend, "ref") == 0) {
        return open_on(&ref_backend, options, why);
    }
    if (strcmp(options->backend, "cuda") == 0) {
        const kern_backend *cuda = cuda_backend(options->library, why);
        return cuda ? open_on(cuda, options, why) : NULL;
    }
    snprintf(why, KERN_WHY_BYTES, "no backend '%s': expected cpu, ref or cuda", options->backend);
    return NULL;
}

void kern_device_close(kern_device **device)
{
    if (*device) {
        (*device)->backend->device_close(*device);
        *device = NULL;
    }
}

/* ---- dispatch
 * -------------------------------------------------------------------------------------------------------- */

const char *kern_device_name(const kern_device *device)
{
    return device->backend->device_name(device);
}

const char *kern_device_variant(const kern_device *device)
{
    return device->backend->device_variant(device);
}

const char *kern_device_arithmetic(const kern_device *device)
{
    return device->backend->is_host ? device->backend->name : device->backend->device_name(device);
}

void *kern_alloc(kern_device *device, size_t bytes)
{
    return device->backend->alloc(device, bytes);
}

void kern_free(kern_device *device, void *memory)
{
    device->backend->free(device, memory);
}

void kern_upload(kern_device *device, void *to, const void *host_from, size_t bytes)
{
    device->backend->upload(device, to, host_from, bytes);
}

void kern_download(kern_device *device, void *host_to, const void *from, size_t bytes)
{
    device->backend->download(device, host_to, from, bytes);
}

void kern_synchronize(kern_device *device)
{
    device->backend->synchronize(device);
}

bool kern_is_host(const kern_device *device)
{
    return device->backend->is_host;
}

bool kern_reserve(kern_device *device, const kern_limits *limits, char *why)
{
    return device->backend->reserve(device, limits, why);
}

kern_weight *kern_weight_new(kern_device *device, const kern_matrix *source, char *why)
{
    if ((unsigned)source->dtype >= KERN_N_DTYPES) {
        snprintf(why, KERN_WHY_BYTES, "number format %d: not one that kernels know", (int)source->dtype);
        return NULL;
    }
    kern_weight *weight = device->backend->weight_new(device, source, why);
    if (weight) {
        weight->backend = device->backend;
    }
    return weight;
}

void kern_weight_free(kern_device *device, kern_weight **weight)
{
    if (*weight) {
        device->backend->weight_free(device, *weight);
        *weight = NULL;
    }
}

size_t kern_weight_bytes(const kern_weight *weight)
{
    return weight->backend->weight_bytes(weight);
}

kern_weight_layout kern_device_weight_layout(const kern_device *device)
{
    return device->backend->weight_layout;
}

const void *kern_weight_packed(const kern_weight *weight)
{
    return weight->backend->weight_packed(weight);
}

kern_weight *kern_weight_borrow(kern_device *device, const kern_matrix *packed, size_t bytes, char *why)
{
    const kern_backend *backend = device->backend;
    if (!backend->weight_layout.name || (unsigned)packed->dtype >= KERN_N_DTYPES) {
        snprintf(why, KERN_WHY_BYTES, "packed weights of number format %d: not on %s", (int)packed->dtype,
                 backend->name);
        return NULL;
    }
    kern_weight *weight = backend->weight_borrow(device, packed, bytes, why);
    if (weight) {
        weight->backend = backend;
    }
    return weight;
}

size_t kern_kv_block_bytes(const kern_kv_shape *shape)
{
    return 2 * kv_matrix_bytes(shape->dtype, shape->head_dim) * shape->n_layers * shape->n_kv_heads;
}

kern_kv_cache *kern_kv_cache_new(kern_device *device, const kern_kv_shape *shape, char *why)
{
    return device->backend->kv_cache_new(device, shape, why);
}

void kern_kv_cache_free(kern_device *device, kern_kv_cache **cache)
{
    if (*cache) {
        device->backend->kv_cache_free(device, *cache);
        *cache = NULL;
    }
}

#define OPERATOR(name)                                                                                                 \
    void kern_##name(kern_device *device, const kern_##name##_args *args)                                              \
    {                                                                                                                  \
        device->backend->name(device, args);                                                                           \
    }

OPERATOR(embed)
OPERATOR(rmsnorm)
OPERATOR(layernorm)
OPERATOR(gemm)
OPERATOR(rope)
OPERATOR(kv_write)
OPERATOR(kv_copy)
OPERATOR(kv_block)
OPERATOR(attention)
OPERATOR(glu)
OPERATOR(gather)
OPERATOR(pool)
OPERATOR(softcap)
OPERATOR(sample)
