#include "kernels/gemm/weight.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cpu_device.h"

static uint32_t round_up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

/* One row's place in a packed superblock and in one block of it. */
typedef struct {
    uint16_t      *scale, *min;
    unsigned char *low, *high;
    int8_t        *part_scales[2], *part_mins[2];
} packed_place;

static packed_place place_of(const cpu_weight *weight, uint32_t row, uint32_t column)
{
    kern_dtype     dtype = weight->dtype;
    uint32_t       lane = row % WEIGHT_GROUP, columns = kern_formats[dtype].block;
    unsigned char *super = weight->data + row / WEIGHT_GROUP * weight->group_bytes +
                           (size_t)(column / columns) * weight_super_bytes(dtype);
    unsigned char *block = super + weight_blocks_at(dtype) + column % columns / KERN_BLOCK * weight_block_bytes(dtype);
    packed_place   place = {.scale = (uint16_t *)(super + weight_scales_at(dtype)) + lane,
                            .min   = (uint16_t *)(super + weight_mins_at(dtype)) + lane,
                            .low   = block + 4 * lane,
                            .high  = block + weight_high_at(dtype) + 4 * lane};
    for (uint32_t part = 0; part < 2; part++) {
        int8_t *bytes           = (int8_t *)block + weight_part_at(dtype, part % kern_formats[dtype].n_parts);
        place.part_scales[part] = bytes + lane;
        place.part_mins[part]   = bytes + WEIGHT_GROUP + lane;
    }
    return place;
}

/* One row's places in words of `bits` bits a quant: bits from `at` on of its 32 quants, a quad at a time. */
static void put_bits(unsigned char *words, uint32_t bits, uint32_t at, const uint8_t *quants)
{
    const uint32_t mask = ((1u << bits) - 1) * 0x01010101u;
    for (uint32_t word = 0; word < bits; word++) {
        uint32_t bytes = 0, quad;
        for (uint32_t to = 0; to < 8; to += bits, quants += sizeof quad) {
            memcpy(&quad, quants, sizeof quad);
            bytes |= (quad >> at & mask) << to;
        }
        memcpy(words + word * WEIGHT_WORD_BYTES, &bytes, sizeof bytes);
    }
}

/* Adds what put_bits put. */
static void take_bits(const unsigned char *words, uint32_t bits, uint32_t at, uint8_t *quants)
{
    const uint32_t mask = ((1u << bits) - 1) * 0x01010101u;
    for (uint32_t word = 0; word < bits; word++) {
        uint32_t bytes, quad;
        memcpy(&bytes, words + word * WEIGHT_WORD_BYTES, sizeof bytes);
        for (uint32_t from = 0; from < 8; from += bits, quants += sizeof quad) {
            memcpy(&quad, quants, sizeof quad);
            quad |= (bytes >> from & mask) << at;
            memcpy(quants, &quad, sizeof quad);
        }
    }
}

static void put_block(const kern_format *format, const kern_block_quants *block, const packed_place *place)
{
    *place->scale = block->scale_bits;
    if (format->has_min) {
        *place->min = block->min_bits;
    }
    put_bits(place->low, format->low_bits, 0, block->quants);
    put_bits(place->high, format->high_bits, format->low_bits, block->quants);
    for (uint32_t part = 0; part < format->n_parts && format->part_bytes; part++) {
        *place->part_scales[part] = block->part_scales[part];
        if (format->part_bytes == 2) {
            *place->part_mins[part] = block->part_mins[part];
        } else if (format->has_min) {
            *place->part_scales[part] = (int8_t)(block->part_scales[part] | block->part_mins[part] << 4);
        }
    }
}

/* What put_block put. */
static void take_block(const kern_format *format, const packed_place *place, kern_block_quants *block)
{
    *block            = (kern_block_quants){.part_scales = {1, 1}, .part_mins = {1, 1}};
    block->scale_bits = *place->scale;
    block->min_bits   = format->has_min ? *place->min : 0;
    take_bits(place->low, format->low_bits, 0, block->quants);
    take_bits(place->high, format->high_bits, format->low_bits, block->quants);
    for (uint32_t part = 0; part < 2 && format->part_bytes; part++) {
        block->part_scales[part] = *place->part_scales[part];
        if (format->part_bytes == 2) {
            block->part_mins[part] = *place->part_mins[part];
        } else if (format->has_min) {
            block->part_scales[part] = *place->part_scales[part] & 15;
            block->part_mins[part]   = *place->part_scales[part] >> 4 & 15;
        }
    }
}

static void pack_quantized_row(const cpu_weight *weight, uint32_t row, const unsigned char *source)
{
    const kern_format *format = &kern_formats[weight->dtype];
    for (uint32_t c = 0; c < weight->n_cols; c += KERN_BLOCK) {
        kern_block_quants quants;
        packed_place      place = place_of(weight, row, c);
        const void       *from  = source + (size_t)(c / format->block) * format->block_bytes;
        kern_block_read(weight->dtype, from, c % format->block / KERN_BLOCK, &quants);
        put_block(format, &quants, &place);
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

static bool is_shape(const kern_matrix *matrix, char *why)
{
    if (matrix->n_rows > 0 && kern_dtype_bytes(matrix->dtype, matrix->n_cols) > 0) {
        return true;
    }
    snprintf(why, KERN_WHY_BYTES, "a %s matrix of %u x %u: rows must be a positive multiple of %u columns",
             kern_dtype_name(matrix->dtype), matrix->n_rows, matrix->n_cols, kern_dtype_block(matrix->dtype));
    return false;
}

static cpu_weight without_data(const kern_matrix *matrix)
{
    kern_dtype dtype     = matrix->dtype;
    bool       quantized = kern_dtype_is_quantized(dtype);
    cpu_weight weight    = {.dtype = dtype, .n_rows = matrix->n_rows, .n_cols = matrix->n_cols};
    weight.group_bytes   = quantized ? (size_t)weight_super_bytes(dtype) * (matrix->n_cols / kern_dtype_block(dtype))
                                     : kern_dtype_bytes(dtype, round_up(matrix->n_cols, WEIGHT_GROUP));
    weight.data_bytes =
        weight.group_bytes * (quantized ? round_up(matrix->n_rows, WEIGHT_GROUP) / WEIGHT_GROUP : matrix->n_rows);
    return weight;
}

/* `cpu` lends its threads; NULL: on the caller's alone. */
static kern_weight *weight_new(kern_device *device, cpu_device *cpu, const kern_matrix *source, char *why)
{
    if (!is_shape(source, why)) {
        return NULL;
    }
    cpu_weight *weight   = malloc(sizeof *weight);
    uint32_t    n_groups = round_up(source->n_rows, WEIGHT_GROUP) / WEIGHT_GROUP;
    if (weight) {
        *weight      = without_data(source);
        weight->data = host_alloc(device, weight->data_bytes);
    }
    if (!weight || !weight->data) {
        free(weight);
        snprintf(why, KERN_WHY_BYTES, "not enough memory for a %s matrix of %u x %u", kern_dtype_name(source->dtype),
                 source->n_rows, source->n_cols);
        return NULL;
    }
    pack_job job = {.weight = weight, .source = source, .row_bytes = kern_dtype_bytes(source->dtype, source->n_cols)};
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
    if (!((cpu_weight *)weight)->is_borrowed) {
        host_free(device, ((cpu_weight *)weight)->data);
    }
    free(weight);
}

size_t cpu_weight_bytes(const kern_weight *weight)
{
    return ((const cpu_weight *)weight)->data_bytes;
}

const void *cpu_weight_packed(const kern_weight *weight)
{
    return ((const cpu_weight *)weight)->data;
}

kern_weight *cpu_weight_borrow(kern_device *device, const kern_matrix *packed, size_t bytes, char *why)
{
    (void)device;
    if (!is_shape(packed, why)) {
        return NULL;
    }
    cpu_weight shape = without_data(packed);
    if (bytes != shape.data_bytes || (uintptr_t)packed->host_data % KERN_WEIGHT_ALIGNMENT != 0) {
        snprintf(why, KERN_WHY_BYTES, "a packed %s matrix of %u x %u has %zu bytes, aligned to %d, not %zu",
                 kern_dtype_name(packed->dtype), packed->n_rows, packed->n_cols, shape.data_bytes,
                 KERN_WEIGHT_ALIGNMENT, bytes);
        return NULL;
    }
    cpu_weight *weight = malloc(sizeof *weight);
    if (!weight) {
        snprintf(why, KERN_WHY_BYTES, "not enough memory for a weight");
        return NULL;
    }
    *weight             = shape;
    weight->data        = (unsigned char *)packed->host_data;
    weight->is_borrowed = true;
    return (kern_weight *)weight;
}

void cpu_weight_row(const cpu_weight *weight, uint32_t row, float *out)
{
    kern_dtype dtype = weight->dtype;
    assert(row < weight->n_rows);
    if (!kern_dtype_is_quantized(dtype)) {
        kern_dequantize(dtype, weight->data + weight->group_bytes * row, out, weight->n_cols);
        return;
    }
    for (uint32_t c = 0; c < weight->n_cols; c += KERN_BLOCK) {
        kern_block_quants quants;
        packed_place      place = place_of(weight, row, c);
        take_block(&kern_formats[dtype], &place, &quants);
        kern_block_values(dtype, &quants, out + c);
    }
}
