#include "kernels/gemm/weight.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cpu_device.h"
#include "kernels/dtype.h"

static uint32_t round_up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

/* Puts 32 quants of one row into their places: see weight.h. */
static void pack_quants(kern_dtype dtype, const int8_t *quants, uint32_t lane_row, unsigned char *block)
{
    unsigned char *bytes = block + 4 * lane_row, *fifths = bytes + weight_quants_bytes(dtype);
    for (uint32_t c = 0; c < KERN_BLOCK; c++) {
        uint32_t quad = c / 4, place = c % 4;
        uint8_t  quant = (uint8_t)quants[c];
        if (dtype == KERN_Q8_0) {
            bytes[quad * WEIGHT_WORD_BYTES + place] = quant ^ 0x80;
            continue;
        }
        bytes[quad / 2 * WEIGHT_WORD_BYTES + place] |= (unsigned char)((quant & 15) << quad % 2 * 4);
        if (dtype == KERN_Q5_0 || dtype == KERN_Q5_1) {
            fifths[place] |= (unsigned char)((quant >> 4 & 1) << quad);
        }
    }
}

static void pack_quantized_row(const cpu_weight *weight, uint32_t row, const unsigned char *source)
{
    kern_dtype     dtype = weight->dtype;
    unsigned char *block = weight->data + row / WEIGHT_GROUP * weight->group_bytes;
    for (uint32_t c = 0; c < weight->n_cols; c += KERN_BLOCK) {
        kern_block_quants quants;
        kern_block_read(dtype, source, &quants);
        pack_quants(dtype, quants.quants, row % WEIGHT_GROUP, block);
        ((uint16_t *)(block + weight_scales_at(dtype)))[row % WEIGHT_GROUP] = quants.scale_bits;
        if (kern_dtype_has_min(dtype)) {
            ((uint16_t *)(block + weight_mins_at(dtype)))[row % WEIGHT_GROUP] = quants.min_bits;
        }
        source += kern_dtype_block_bytes(dtype);
        block += weight_block_bytes(dtype);
    }
}

typedef struct {
    const cpu_weight  *weight;
    const kern_matrix *source;
    size_t             row_bytes;
} pack_job;

/* One group of rows; groups lie apart. */
static void pack_slice(void *argument, uint32_t group, uint32_t worker)
{
    (void)worker;
    const pack_job   *job    = argument;
    const cpu_weight *weight = job->weight;
    uint32_t          end = (group + 1) * WEIGHT_GROUP < weight->n_rows ? (group + 1) * WEIGHT_GROUP : weight->n_rows;
    for (uint32_t row = group * WEIGHT_GROUP; row < end; row++) {
        const unsigned char *from = (const unsigned char *)job->source->host_data + job->row_bytes * row;
        if (kern_dtype_is_quantized(weight->dtype)) {
            pack_quantized_row(weight, row, from);
        } else {
            memcpy(weight->data + weight->group_bytes * row, from, job->row_bytes);
        }
    }
}

/* `cpu` lends its threads; NULL: on the caller's alone. */
static kern_weight *weight_new(kern_device *device, cpu_device *cpu, const kern_matrix *source, char *why)
{
    kern_dtype dtype     = source->dtype;
    bool       quantized = kern_dtype_is_quantized(dtype);
    size_t     row_bytes = kern_dtype_bytes(dtype, source->n_cols);
    if (source->n_rows == 0 || row_bytes == 0) {
        snprintf(why, KERN_WHY_BYTES, "a %s matrix of %u x %u: rows must be a positive multiple of %u columns",
                 kern_dtype_name(dtype), source->n_rows, source->n_cols, kern_dtype_block(dtype));
        return NULL;
    }
    cpu_weight *weight   = malloc(sizeof *weight);
    uint32_t    n_groups = round_up(source->n_rows, WEIGHT_GROUP) / WEIGHT_GROUP;
    if (weight) {
        *weight             = (cpu_weight){.dtype = dtype, .n_rows = source->n_rows, .n_cols = source->n_cols};
        weight->group_bytes = quantized ? (size_t)weight_block_bytes(dtype) * (source->n_cols / KERN_BLOCK)
                                        : kern_dtype_bytes(dtype, round_up(source->n_cols, WEIGHT_GROUP));
        weight->data_bytes  = weight->group_bytes * (quantized ? n_groups : source->n_rows);
        weight->data        = host_alloc(device, weight->data_bytes);
    }
    if (!weight || !weight->data) {
        free(weight);
        snprintf(why, KERN_WHY_BYTES, "not enough memory for a %s matrix of %u x %u", kern_dtype_name(dtype),
                 source->n_rows, source->n_cols);
        return NULL;
    }
    pack_job job = {.weight = weight, .source = source, .row_bytes = row_bytes};
    if (cpu) {
        cpu_run(cpu, pack_slice, &job, n_groups, (uint64_t)source->n_rows * source->n_cols);
    } else {
        for (uint32_t group = 0; group < n_groups; group++) {
            pack_slice(&job, group, 0);
        }
    }
    return (kern_weight *)weight;
}

kern_weight *cpu_weight_new(kern_device *device, const kern_matrix *source, char *why)
{
    return weight_new(device, (cpu_device *)device, source, why);
}

kern_weight *ref_weight_new(kern_device *device, const kern_matrix *source, char *why)
{
    return weight_new(device, NULL, source, why);
}

void cpu_weight_free(kern_device *device, kern_weight *weight)
{
    host_free(device, ((cpu_weight *)weight)->data);
    free(weight);
}

size_t cpu_weight_bytes(const kern_weight *weight)
{
    return ((const cpu_weight *)weight)->data_bytes;
}

static int32_t packed_quant(kern_dtype dtype, const unsigned char *block, uint32_t lane_row, uint32_t c)
{
    const unsigned char *bytes = block + 4 * lane_row + c % 4;
    uint32_t             quad  = c / 4;
    int32_t              quant;
    if (dtype == KERN_Q8_0) {
        quant = bytes[quad * WEIGHT_WORD_BYTES];
    } else {
        quant = bytes[quad / 2 * WEIGHT_WORD_BYTES] >> quad % 2 * 4 & 15;
    }
    if (dtype == KERN_Q5_0 || dtype == KERN_Q5_1) {
        quant |= (bytes[weight_quants_bytes(dtype)] >> quad & 1) << 4;
    }
    return quant - weight_offset(dtype);
}

void cpu_weight_row(const cpu_weight *weight, uint32_t row, float *out)
{
    kern_dtype dtype = weight->dtype;
    assert(row < weight->n_rows);
    if (!kern_dtype_is_quantized(dtype)) {
        kern_dequantize(dtype, weight->data + weight->group_bytes * row, out, weight->n_cols);
        return;
    }
    const unsigned char *block    = weight->data + row / WEIGHT_GROUP * weight->group_bytes;
    uint32_t             lane_row = row % WEIGHT_GROUP;
    for (uint32_t c = 0; c < weight->n_cols; c += KERN_BLOCK, block += weight_block_bytes(dtype)) {
        float scale = kern_float_of_f16(((const uint16_t *)(block + weight_scales_at(dtype)))[lane_row]);
        float min   = 0;
        if (kern_dtype_has_min(dtype)) {
            min = kern_float_of_f16(((const uint16_t *)(block + weight_mins_at(dtype)))[lane_row]);
        }
        for (uint32_t i = 0; i < KERN_BLOCK; i++) {
            float product = scale * (float)packed_quant(dtype, block, lane_row, i);
            out[c + i]    = kern_dtype_has_min(dtype) ? product + min : product;
        }
    }
}
