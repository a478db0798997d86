#include "kernels/dtype.h"

#include <assert.h>

static const struct {
    const char *name;
    uint32_t    block, block_bytes;
    bool        has_min;
    int32_t     offset;
} dtypes[KERN_N_DTYPES] = {
    [KERN_F32]  = {"F32", 1, 4, false, 0},
    [KERN_F16]  = {"F16", 1, 2, false, 0},
    [KERN_BF16] = {"BF16", 1, 2, false, 0},
    [KERN_Q4_0] = {"Q4_0", KERN_BLOCK, sizeof(kern_block_q4_0), false, 8},
    [KERN_Q4_1] = {"Q4_1", KERN_BLOCK, sizeof(kern_block_q4_1), true, 0},
    [KERN_Q5_0] = {"Q5_0", KERN_BLOCK, sizeof(kern_block_q5_0), false, 16},
    [KERN_Q5_1] = {"Q5_1", KERN_BLOCK, sizeof(kern_block_q5_1), true, 0},
    [KERN_Q8_0] = {"Q8_0", KERN_BLOCK, sizeof(kern_block_q8_0), false, 0},
};

const char *kern_dtype_name(kern_dtype dtype)
{
    return dtype < KERN_N_DTYPES ? dtypes[dtype].name : "unknown";
}

uint32_t kern_dtype_block(kern_dtype dtype)
{
    return dtypes[dtype].block;
}

uint32_t kern_dtype_block_bytes(kern_dtype dtype)
{
    return dtypes[dtype].block_bytes;
}

bool kern_dtype_has_min(kern_dtype dtype)
{
    return dtypes[dtype].has_min;
}

int32_t kern_dtype_offset(kern_dtype dtype)
{
    return dtypes[dtype].offset;
}

size_t kern_dtype_bytes(kern_dtype dtype, uint64_t n)
{
    return n % dtypes[dtype].block ? 0 : n / dtypes[dtype].block * dtypes[dtype].block_bytes;
}

static uint16_t read_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static void read_nibbles(const uint8_t *nibbles, int8_t *quants)
{
    for (uint32_t j = 0; j < 16; j++) {
        quants[j]      = nibbles[j] & 15;
        quants[j + 16] = (int8_t)(nibbles[j] >> 4);
    }
}

static void read_fifth(const uint8_t *fifth, int8_t *quants)
{
    for (uint32_t j = 0; j < KERN_BLOCK; j++) {
        quants[j] = (int8_t)(quants[j] | (fifth[j / 8] >> j % 8 & 1) << 4);
    }
}

void kern_block_read(kern_dtype dtype, const void *block, kern_block_quants *out)
{
    const uint8_t *bytes = block;
    out->scale_bits      = read_u16(bytes);
    out->min_bits        = dtypes[dtype].has_min ? read_u16(bytes + 2) : 0;
    switch (dtype) {
    case KERN_Q4_0:
        read_nibbles(((const kern_block_q4_0 *)block)->nibbles, out->quants);
        break;
    case KERN_Q4_1:
        read_nibbles(((const kern_block_q4_1 *)block)->nibbles, out->quants);
        break;
    case KERN_Q5_0:
        read_nibbles(((const kern_block_q5_0 *)block)->nibbles, out->quants);
        read_fifth(((const kern_block_q5_0 *)block)->fifth, out->quants);
        break;
    case KERN_Q5_1:
        read_nibbles(((const kern_block_q5_1 *)block)->nibbles, out->quants);
        read_fifth(((const kern_block_q5_1 *)block)->fifth, out->quants);
        break;
    case KERN_Q8_0:
        memcpy(out->quants, ((const kern_block_q8_0 *)block)->quants, KERN_BLOCK);
        break;
    default:
        assert(!"a quantised format");
    }
}

static void dequantize_block(kern_dtype dtype, const void *block, float *out)
{
    kern_block_quants quants;
    kern_block_read(dtype, block, &quants);
    float scale = kern_float_of_f16(quants.scale_bits), min = kern_float_of_f16(quants.min_bits);
    for (uint32_t j = 0; j < KERN_BLOCK; j++) {
        float product = scale * (float)(quants.quants[j] - dtypes[dtype].offset);
        out[j]        = dtypes[dtype].has_min ? product + min : product;
    }
}

void kern_dequantize(kern_dtype dtype, const void *source, float *out, uint64_t n)
{
    assert(n % dtypes[dtype].block == 0);
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
        for (uint64_t i = 0; i < n; i += KERN_BLOCK, bytes += dtypes[dtype].block_bytes) {
            dequantize_block(dtype, bytes, out + i);
        }
    }
}
