#include "kernels/dtype.h"

#include <assert.h>

#include "kernels/format.h"

const uint8_t kern_iq4_values[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

const char *kern_dtype_name(kern_dtype dtype)
{
    return dtype < KERN_N_DTYPES ? kern_formats[dtype].name : "unknown";
}

uint32_t kern_dtype_block(kern_dtype dtype)
{
    return kern_formats[dtype].block;
}

uint32_t kern_dtype_block_bytes(kern_dtype dtype)
{
    return kern_formats[dtype].block_bytes;
}

size_t kern_dtype_bytes(kern_dtype dtype, uint64_t n)
{
    return n % kern_formats[dtype].block ? 0 : n / kern_formats[dtype].block * kern_formats[dtype].block_bytes;
}

static uint16_t read_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

/* Two quants a byte: see dtype.h. */
static void read_nibbles(const uint8_t *nibbles, uint8_t *quants)
{
    for (uint32_t j = 0; j < 16; j++) {
        quants[j]      = nibbles[j] & 15;
        quants[j + 16] = nibbles[j] >> 4;
    }
}

static void read_fifth(const uint8_t *fifth, uint8_t *quants)
{
    for (uint32_t j = 0; j < KERN_BLOCK; j++) {
        quants[j] |= (uint8_t)((fifth[j / 8] >> j % 8 & 1) << 4);
    }
}

/* `bits` bits of each of 32 bytes, from bit `from` on, into the quants from bit `to` on. */
static void add_field(const uint8_t *bytes, uint32_t bits, uint32_t from, uint32_t to, uint8_t *quants)
{
    for (uint32_t j = 0; j < KERN_BLOCK; j++) {
        quants[j] |= (uint8_t)((bytes[j] >> from & ((1u << bits) - 1)) << to);
    }
}

static void read_scales(const uint8_t *scale, const uint8_t *min, kern_block_quants *out)
{
    out->scale_bits = read_u16(scale);
    out->min_bits   = min ? read_u16(min) : 0;
}

static void set_parts(int32_t scale, int32_t min, kern_block_quants *out)
{
    out->part_scales[0] = out->part_scales[1] = (int8_t)scale;
    out->part_mins[0] = out->part_mins[1] = (int8_t)min;
}

static void read_up_to_5_bits(const kern_format *format, const uint8_t *bytes, kern_block_quants *out)
{
    const uint8_t *fifth = bytes + (format->has_min ? 4 : 2), *nibbles = fifth + (format->high_bits ? 4 : 0);
    read_scales(bytes, format->has_min ? bytes + 2 : NULL, out);
    read_nibbles(nibbles, out->quants);
    if (format->high_bits) {
        read_fifth(fifth, out->quants);
    }
}

static void read_q8_0(const kern_block_q8_0 *block, kern_block_quants *out)
{
    read_scales(block->scale, NULL, out);
    for (uint32_t j = 0; j < KERN_BLOCK; j++) {
        out->quants[j] = (uint8_t)block->quants[j] ^ 0x80;
    }
}

static void read_q2_k(const kern_block_q2_k *block, uint32_t i, kern_block_quants *out)
{
    read_scales(block->scale, block->min, out);
    add_field(block->pairs + i / 4 * 32, 2, i % 4 * 2, 0, out->quants);
    for (uint32_t part = 0; part < 2; part++) {
        out->part_scales[part] = block->parts[2 * i + part] & 15;
        out->part_mins[part]   = (int8_t)(block->parts[2 * i + part] >> 4);
    }
}

static void read_q3_k(const kern_block_q3_k *block, uint32_t i, kern_block_quants *out)
{
    read_scales(block->scale, NULL, out);
    add_field(block->pairs + i / 4 * 32, 2, i % 4 * 2, 0, out->quants);
    add_field(block->ones, 1, i, 2, out->quants);
    for (uint32_t part = 0; part < 2; part++) { /* 8 bytes of low nibbles, 4 of high pairs */
        uint32_t at = 2 * i + part, low = block->parts[at % 8] >> at / 8 * 4 & 15,
                 high          = block->parts[8 + at % 4] >> at / 4 * 2 & 3;
        out->part_scales[part] = (int8_t)((int32_t)(low | high << 4) - 32);
    }
}

/* Of the first four blocks the low 6 bits of bytes 0 .. 3 (scales) and 4 .. 7 (mins); of the last four the nibbles of
 * bytes 8 .. 11, with the top 2 bits of what the first four have. */
static void read_parts_6_bits(const uint8_t *parts, uint32_t i, kern_block_quants *out)
{
    if (i < 4) {
        set_parts(parts[i] & 63, parts[i + 4] & 63, out);
    } else {
        set_parts((parts[i + 4] & 15) | parts[i - 4] >> 6 << 4, parts[i + 4] >> 4 | parts[i] >> 6 << 4, out);
    }
}

static void read_q4_k(const kern_block_q4_k *block, uint32_t i, kern_block_quants *out)
{
    read_scales(block->scale, block->min, out);
    read_parts_6_bits(block->parts, i, out);
    add_field(block->nibbles + i / 2 * 32, 4, i % 2 * 4, 0, out->quants);
}

static void read_q5_k(const kern_block_q5_k *block, uint32_t i, kern_block_quants *out)
{
    read_scales(block->scale, block->min, out);
    read_parts_6_bits(block->parts, i, out);
    add_field(block->nibbles + i / 2 * 32, 4, i % 2 * 4, 0, out->quants);
    add_field(block->ones, 1, i, 4, out->quants);
}

static void read_q6_k(const kern_block_q6_k *block, uint32_t i, kern_block_quants *out)
{
    read_scales(block->scale, NULL, out);
    add_field(block->nibbles + i / 4 * 64 + i % 2 * 32, 4, i % 4 / 2 * 4, 0, out->quants);
    add_field(block->pairs + i / 4 * 32, 2, i % 4 * 2, 4, out->quants);
    memcpy(out->part_scales, block->parts + 2 * i, 2);
}

static void read_iq4_xs(const kern_block_iq4_xs *block, uint32_t i, kern_block_quants *out)
{
    int32_t low = block->parts_low[i / 2] >> i % 2 * 4 & 15, high = read_u16(block->parts_high) >> 2 * i & 3;
    read_scales(block->scale, NULL, out);
    set_parts((low | high << 4) - 32, 1, out);
    read_nibbles(block->nibbles + i * 16, out->quants);
}

void kern_block_read(kern_dtype dtype, const void *block, uint32_t i, kern_block_quants *out)
{
    const kern_format *format = &kern_formats[dtype];
    *out                      = (kern_block_quants){.part_scales = {1, 1}, .part_mins = {1, 1}};
    switch (dtype) {
    case KERN_Q4_0:
    case KERN_Q4_1:
    case KERN_Q5_0:
    case KERN_Q5_1:
    case KERN_IQ4_NL:
        read_up_to_5_bits(format, block, out);
        break;
    case KERN_Q8_0:
        read_q8_0(block, out);
        break;
    case KERN_Q2_K:
        read_q2_k(block, i, out);
        break;
    case KERN_Q3_K:
        read_q3_k(block, i, out);
        break;
    case KERN_Q4_K:
        read_q4_k(block, i, out);
        break;
    case KERN_Q5_K:
        read_q5_k(block, i, out);
        break;
    case KERN_Q6_K:
        read_q6_k(block, i, out);
        break;
    case KERN_IQ4_XS:
        read_iq4_xs(block, i, out);
        break;
    default:
        assert(!"a quantised format");
    }
    if (format->has_min && format->block > KERN_BLOCK) {
        out->min_bits ^= 0x8000;
    }
}

void kern_block_values(kern_dtype dtype, const kern_block_quants *block, float *out)
{
    const kern_format *format = &kern_formats[dtype];
    for (uint32_t part = 0; part < 2; part++) {
        float scale = kern_float_of_f16(block->scale_bits) * (float)block->part_scales[part];
        float min   = kern_float_of_f16(block->min_bits) * (float)block->part_mins[part];
        for (uint32_t j = part * 16; j < part * 16 + 16; j++) {
            int32_t quant   = format->has_values ? kern_iq4_values[block->quants[j]] : block->quants[j];
            float   product = scale * (float)(quant - format->offset);
            out[j]          = format->has_min ? product + min : product;
        }
    }
}

void kern_dequantize(kern_dtype dtype, const void *source, float *out, uint64_t n)
{
    assert(n % kern_formats[dtype].block == 0);
    const uint8_t *bytes = source;
    if (dtype == KERN_F32) {
        memcpy(out, source, n * 4);
    } else if (dtype == KERN_F16) {
        for (uint64_t i = 0; i < n; i++) {
            out[i] = kern_float_of_f16(read_u16(bytes + 2 * i));
        }
    } else if (dtype == KERN_BF16) {
        for (uint64_t i = 0; i < n; i++) {
            out[i] = kern_float_of_bf16(read_u16(bytes + 2 * i));
        }
    } else {
        uint32_t block = kern_formats[dtype].block;
        for (uint64_t i = 0; i < n; i += KERN_BLOCK) {
            kern_block_quants quants;
            const uint8_t    *from = bytes + i / block * kern_formats[dtype].block_bytes;
            kern_block_read(dtype, from, i % block / KERN_BLOCK, &quants);
            kern_block_values(dtype, &quants, out + i);
        }
    }
}
