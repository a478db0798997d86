/* The CUDA backend's device: memory, copies through pinned staging, and the table of operators.
 *
 * All work of a device goes to one stream, in order. An error of CUDA after start-up leaves nothing to continue with:
 * the process says what failed and aborts, and the executor's supervisor starts a new one. */
#include "kernels/cuda/device.cuh"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cuda_must(cudaError_t status, const char *call, const char *file, int line)
{
    if (status == cudaSuccess)
        return;
    fprintf(stderr, "cuda: %s failed at %s:%d: %s\n", call, file, line, cudaGetErrorString(status));
    abort();
}

bool cuda_refuse(char *why, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, KERN_WHY_BYTES, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

unsigned char *cuda_allocate(size_t bytes)
{
    void *memory = NULL;
    if (cudaMalloc(&memory, bytes > 0 ? bytes : 1) != cudaSuccess) {
        (void)cudaGetLastError(); /* running out of memory is the caller's to report, not the next launch's */
        return NULL;
    }
    return static_cast<unsigned char *>(memory);
}

static void *alloc_zeroed(kern_device *device, size_t bytes)
{
    unsigned char *memory = cuda_allocate(bytes);
    if (memory && bytes > 0)
        CUDA_MUST(cudaMemsetAsync(memory, 0, bytes, device->stream));
    return memory;
}

static void synchronize(kern_device *device)
{
    CUDA_MUST(cudaStreamSynchronize(device->stream));
}

static void free_memory(kern_device *device, void *memory)
{
    if (!memory)
        return;
    synchronize(device);
    CUDA_MUST(cudaFree(memory));
}

bool cuda_scratch_grow(kern_device *device, size_t bytes, char *why)
{
    if (bytes <= device->scratch_bytes)
        return true;
    free_memory(device, device->scratch);
    device->scratch_bytes = 0;
    device->scratch       = cuda_allocate(bytes);
    if (!device->scratch)
        return cuda_refuse(why, "no %zu bytes of GPU memory for scratch; lower the tokens a step or the model", bytes);
    device->scratch_bytes = bytes;
    return true;
}

unsigned char *cuda_scratch(kern_device *device, size_t bytes, const char *operation)
{
    if (bytes > device->scratch_bytes) {
        fprintf(stderr,
                "cuda: %s needs %zu bytes of scratch, kern_reserve made %zu: its limits were lower than what came\n",
                operation, bytes, device->scratch_bytes);
        abort();
    }
    return device->scratch;
}

static bool reserve(kern_device *device, const kern_limits *limits, char *why)
{
    size_t bytes = gemm_scratch_bytes(limits), attention = attention_scratch_bytes(limits),
           sample = sample_scratch_bytes(limits);
    bytes         = attention > bytes ? attention : bytes;
    bytes         = sample > bytes ? sample : bytes;
    return cuda_scratch_grow(device, bytes, why);
}

/* ---- copies ------------------------------------------------------------------------------------------------------ */

void cuda_upload(kern_device *device, void *to, const void *host_from, size_t bytes)
{
    const unsigned char *from = static_cast<const unsigned char *>(host_from);
    for (size_t done = 0; done < bytes;) {
        struct staging *s = &device->staging[device->staging_now];
        if (s->used == STAGING_BYTES) {
            CUDA_MUST(cudaEventRecord(s->drained, device->stream));
            device->staging_now = (device->staging_now + 1) % STAGING_BUFFERS;
            s                   = &device->staging[device->staging_now];
            CUDA_MUST(cudaEventSynchronize(s->drained));
            s->used = 0;
        }
        size_t room = STAGING_BYTES - s->used, part = bytes - done < room ? bytes - done : room;
        memcpy(s->memory + s->used, from + done, part);
        CUDA_MUST(cudaMemcpyAsync(static_cast<unsigned char *>(to) + done, s->memory + s->used, part,
                                  cudaMemcpyHostToDevice, device->stream));
        s->used += part;
        done += part;
    }
}

void cuda_download(kern_device *device, void *host_to, const void *from, size_t bytes)
{
    /* After this wait no upload is under way, so a whole staging buffer is free. */
    synchronize(device);
    struct staging *s = &device->staging[device->staging_now];
    for (size_t done = 0; done < bytes;) {
        size_t part = bytes - done < STAGING_BYTES ? bytes - done : STAGING_BYTES;
        CUDA_MUST(cudaMemcpyAsync(s->memory, static_cast<const unsigned char *>(from) + done, part,
                                  cudaMemcpyDeviceToHost, device->stream));
        synchronize(device);
        memcpy(static_cast<unsigned char *>(host_to) + done, s->memory, part);
        done += part;
    }
    s->used = 0;
}

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

static void device_close(kern_device *device)
{
    if (device->stream)
        synchronize(device);
    if (device->products)
        matmul_close(device->products);
    for (uint32_t i = 0; i < STAGING_BUFFERS; i++) {
        if (device->staging[i].drained)
            CUDA_MUST(cudaEventDestroy(device->staging[i].drained));
        if (device->staging[i].memory)
            CUDA_MUST(cudaFreeHost(device->staging[i].memory));
    }
    if (device->scratch)
        CUDA_MUST(cudaFree(device->scratch));
    if (device->stream)
        CUDA_MUST(cudaStreamDestroy(device->stream));
    free(device);
}

static bool open_parts(kern_device *device, char *why)
{
    cudaError_t status = cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking);
    for (uint32_t i = 0; i < STAGING_BUFFERS && status == cudaSuccess; i++) {
        void *memory = NULL;
        status       = cudaMallocHost(&memory, STAGING_BYTES);
        if (status == cudaSuccess) {
            device->staging[i].memory = static_cast<unsigned char *>(memory);
            status                    = cudaEventCreateWithFlags(&device->staging[i].drained, cudaEventDisableTiming);
        }
    }
    if (status != cudaSuccess)
        return cuda_refuse(why, "cuda: the device does not start: %s", cudaGetErrorString(status));
    device->products = matmul_open(device->stream, why);
    return device->products != NULL;
}

static kern_device *device_open(const kern_device_options *options, char *why)
{
    int                   n_devices = 0, index = (int)options->device_index;
    struct cudaDeviceProp properties;
    cudaError_t           status = cudaGetDeviceCount(&n_devices);
    if (status != cudaSuccess || n_devices == 0) {
        cuda_refuse(why, "cuda: no GPU here: %s",
                    cudaGetErrorString(status != cudaSuccess ? status : cudaErrorNoDevice));
        return NULL;
    }
    if (options->device_index >= (uint32_t)n_devices) {
        cuda_refuse(why, "cuda: there is no device %u; this machine has %d", options->device_index, n_devices);
        return NULL;
    }
    status = cudaGetDeviceProperties(&properties, index);
    if (status == cudaSuccess)
        status = cudaSetDevice(index);
    if (status != cudaSuccess) {
        cuda_refuse(why, "cuda: device %d does not open: %s", index, cudaGetErrorString(status));
        return NULL;
    }
    if (properties.major < 8) {
        cuda_refuse(why, "cuda: %s has compute capability %d.%d; 8.0 or newer is needed", properties.name,
                    properties.major, properties.minor);
        return NULL;
    }
    kern_device *device = static_cast<kern_device *>(calloc(1, sizeof *device));
    if (!device) {
        cuda_refuse(why, "no memory");
        return NULL;
    }
    snprintf(device->name, sizeof device->name, "cuda %s", properties.name);
    device->n_multiprocessors = (uint32_t)properties.multiProcessorCount;
    if (!open_parts(device, why)) {
        device_close(device);
        return NULL;
    }
    return device;
}

static const char *device_name(const kern_device *device)
{
    return device->name;
}

static const char *device_variant(const kern_device *device)
{
    return device->name + strlen("cuda ");
}

/* In the order of kern_backend's members: C++17 has no designated initialisers. */
static const kern_backend backend = {
    KERN_BACKEND_ABI,
    "cuda",
    device_open,
    device_close,
    device_name,
    device_variant,
    false,
    alloc_zeroed,
    free_memory,
    cuda_upload,
    cuda_download,
    synchronize,
    reserve,
    cuda_weight_new,
    cuda_weight_free,
    cuda_weight_bytes,
    cuda_kv_cache_new,
    cuda_kv_cache_free,
    cuda_embed,
    cuda_rmsnorm,
    cuda_layernorm,
    cuda_gemm,
    cuda_rope,
    cuda_kv_write,
    cuda_kv_copy,
    cuda_kv_block,
    cuda_attention,
    cuda_glu,
    cuda_gather,
    cuda_pool,
    cuda_softcap,
    cuda_sample,
    {NULL, 0}, /* its packed weights are not in the host's memory */
    NULL,
    NULL,
};

extern "C" __attribute__((visibility("default"))) const kern_backend *kern_backend_entry(void)
{
    return &backend;
}
