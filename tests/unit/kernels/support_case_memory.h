/* What every case needs around its operator: memory of the device for the length of one run, and bounds. */
#ifndef TROUPE_TESTS_KERNELS_SUPPORT_CASE_MEMORY_H
#define TROUPE_TESTS_KERNELS_SUPPORT_CASE_MEMORY_H

#include "support_cases.h"

typedef struct {
    kern_device *device;
    void        *owned[16];
    uint32_t     n;
} arena;

/* `bytes` of the device's memory, filled from `host` unless that is NULL; arena_done frees it. */
void *on_device(arena *a, const void *host, size_t bytes);
void  fetch(arena *a, float *host, const void *from, size_t bytes);
void  arena_done(arena *a);

void output_alloc(case_output *output, size_t n);
void relative_bounds(case_output *output, float relative, float absolute);

/* Operators on rows whose cases are run by support_row_cases.c. */
kernel_case_run run_layernorm, run_pool;

#endif
