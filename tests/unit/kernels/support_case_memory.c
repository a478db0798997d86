#include "support_case_memory.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

void *on_device(arena *a, const void *host, size_t bytes)
{
    void *memory = kern_alloc(a->device, bytes + 4);
    assert_non_null(memory);
    a->owned[a->n++] = memory;
    if (host) {
        kern_upload(a->device, memory, host, bytes);
    }
    return memory;
}

void fetch(arena *a, float *host, const void *from, size_t bytes)
{
    kern_synchronize(a->device);
    kern_download(a->device, host, from, bytes);
}

void arena_done(arena *a)
{
    for (uint32_t i = 0; i < a->n; i++) {
        kern_free(a->device, a->owned[i]);
    }
}

void output_alloc(case_output *output, size_t n)
{
    *output = (case_output){calloc(n + 1, sizeof(float)), calloc(n + 1, sizeof(float)), n};
}

void relative_bounds(case_output *output, float relative, float absolute)
{
    for (size_t i = 0; i < output->n; i++) {
        output->bounds[i] = fabsf(output->values[i]) * relative + absolute;
    }
}
