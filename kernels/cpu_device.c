#include "kernels/cpu_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/attention/attention_cpu.h"
#include "kernels/dtype.h"
#include "kernels/sample/sample_cpu.h"

enum {
    HUGE_PAGE  = 2 << 20,
    WORK_ALONE = 20000, /* float operations that take about as long as handing them out */
};

/* Large memory is mapped: it is zero already, and a page that is never used is never there. A header in front says how
 * to give it back. */
typedef struct {
    void  *start;
    size_t mapped_bytes; /* 0: from malloc */
} host_header;

void *host_alloc(kern_device *device, size_t bytes)
{
    (void)device;
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : 64;
    size_t room      = bytes + sizeof(host_header) + alignment;
    if (room < bytes) {
        return NULL;
    }
    bool  maps  = alignment == HUGE_PAGE;
    void *start = maps ? mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                       : calloc(1, room);
    if (!start || start == MAP_FAILED) {
        return NULL;
    }
    uintptr_t    memory = ((uintptr_t)start + sizeof(host_header) + alignment - 1) / alignment * alignment;
    host_header *header = (host_header *)memory - 1;
    *header             = (host_header){.start = start, .mapped_bytes = maps ? room : 0};
    if (maps) {
        /* Fewer misses of the address cache while weights stream; where the kernel declines, small pages do. */
        (void)madvise((void *)memory, bytes, MADV_HUGEPAGE);
    }
    return (void *)memory;
}

void host_free(kern_device *device, void *memory)
{
    (void)device;
    if (!memory) {
        return;
    }
    host_header header = ((host_header *)memory)[-1];
    if (header.mapped_bytes > 0) {
        munmap(header.start, header.mapped_bytes);
    } else {
        free(header.start);
    }
}

void host_upload(kern_device *device, void *to, const void *host_from, size_t bytes)
{
    (void)device;
    memcpy(to, host_from, bytes);
}

void host_download(kern_device *device, void *host_to, const void *from, size_t bytes)
{
    (void)device;
    memcpy(host_to, from, bytes);
}

void host_synchronize(kern_device *device)
{
    (void)device;
}

void cpu_run(cpu_device *device, thread_pool_slice *slice, void *job, uint32_t n_slices, uint64_t work)
{
    if (work >= WORK_ALONE) {
        thread_pool_run(device->pool, slice, job, n_slices);
        return;
    }
    for (uint32_t i = 0; i < n_slices; i++) {
        slice(job, i, 0);
    }
}

kern_device *cpu_device_open(const kern_device_options *options, char *why)
{
    uint32_t    n_threads = options->n_threads ? options->n_threads : thread_pool_n_cores();
    cpu_device *device    = calloc(1, sizeof *device);
    if (n_threads > THREAD_POOL_MAX) {
        free(device);
        snprintf(why, KERN_WHY_BYTES, "%u threads: expected at most %u", n_threads, THREAD_POOL_MAX);
        return NULL;
    }
    if (device) {
        device->pool = thread_pool_new(n_threads);
    }
    if (!device || !device->pool) {
        free(device);
        snprintf(why, KERN_WHY_BYTES, "could not start %u threads: %m", n_threads);
        return NULL;
    }
    device->variant = options->variant;
    snprintf(device->name, sizeof device->name, "cpu %s, %u thread%s", options->variant, n_threads,
             n_threads == 1 ? "" : "s");
    return (kern_device *)device;
}

static void free_scratch(cpu_device *device)
{
    host_free(NULL, device->x.padded);
    host_free(NULL, device->x.quants);
    host_free(NULL, device->x.scales);
    host_free(NULL, device->x.sums);
    host_free(NULL, device->x.isums);
    host_free(NULL, device->x.half_sums);
    host_free(NULL, device->x.half_isums);
    host_free(NULL, device->worker_scratch);
    host_free(NULL, device->attention_parts);
    device->x               = (struct cpu_activations){0};
    device->worker_scratch  = NULL;
    device->attention_parts = NULL;
    device->limits          = (kern_limits){0};
}

void cpu_device_close(kern_device *device)
{
    cpu_device *cpu = (cpu_device *)device;
    free_scratch(cpu);
    thread_pool_free(&cpu->pool);
    free(cpu);
}

const char *cpu_device_name(const kern_device *device)
{
    return ((const cpu_device *)device)->name;
}

const char *cpu_device_variant(const kern_device *device)
{
    return ((const cpu_device *)device)->variant;
}

bool cpu_reserve(kern_device *device, const kern_limits *limits, char *why)
{
    cpu_device *cpu       = (cpu_device *)device;
    uint32_t    n_threads = thread_pool_n_threads(cpu->pool);
    size_t      columns = ((size_t)limits->n_cols + 31) / 32 * 32, all = columns * limits->n_tokens;
    size_t      n_blocks  = all / KERN_BLOCK;
    size_t      attention = attention_scratch_bytes(limits->n_heads, limits->head_dim);
    size_t      sample    = limits->n_sample_rows ? sample_scratch_bytes(limits->n_vocab) : 0;
    free_scratch(cpu);
    cpu->worker_bytes = ((attention > sample ? attention : sample) + 63) / 64 * 64;
    const struct {
        void **place;
        size_t bytes;
    } scratch[] = {
        {(void **)&cpu->x.padded, all * sizeof(float)},
        {(void **)&cpu->x.quants, all * sizeof(int16_t)},
        {(void **)&cpu->x.scales, n_blocks * sizeof(float)},
        {(void **)&cpu->x.sums, n_blocks * sizeof(float)},
        {(void **)&cpu->x.isums, n_blocks * sizeof(int32_t)},
        {(void **)&cpu->x.half_sums, n_blocks * 2 * sizeof(float)},
        {(void **)&cpu->x.half_isums, n_blocks * 2 * sizeof(int32_t)},
        {(void **)&cpu->worker_scratch, cpu->worker_bytes * n_threads},
        {(void **)&cpu->attention_parts, attention_parts_bytes(limits->n_heads, limits->head_dim, n_threads)},
    };
    for (size_t i = 0; i < sizeof scratch / sizeof scratch[0]; i++) {
        if (!(*scratch[i].place = host_alloc(device, scratch[i].bytes))) {
            free_scratch(cpu);
            snprintf(why, KERN_WHY_BYTES, "not enough memory for steps of %u tokens of %u columns and %u threads",
                     limits->n_tokens, limits->n_cols, n_threads);
            return false;
        }
    }
    cpu->limits = *limits;
    return true;
}
