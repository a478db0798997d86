/* The GGUF reader: one pass over the header makes two sorted tables, keys and tensors, that point into the mapping.
 *
 * Sorting, not hashing, so that names chosen by whoever made the file cannot slow it down; a duplicate is then a
 * neighbour. */
#include "model/gguf.h"

#include "model/mapped_file.h"
#include "model/name_table.h"

#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GGUF_VERSION      = 3,
    KEY_BYTES_MIN     = 8 + 1 + 4 + 1,         /* length, one letter, type, a one-byte value */
    TENSOR_BYTES_MIN  = 8 + 1 + 4 + 8 + 4 + 8, /* length, one letter, n_dims, one dim, type, offset */
    NAME_BYTES_MAX    = 1024,
    DEFAULT_ALIGNMENT = 32,
    ALIGNMENT_MAX     = 1 << 20,
};

/* Keys and tensors begin with their name, as a name_table wants it. */
typedef struct {
    span           name;
    gguf_type      type;
    gguf_type      element; /* arrays: the type of their elements */
    uint64_t       n;       /* arrays: how many */
    const uint8_t *data;    /* scalars: the value; strings: its bytes; arrays: the first element */
    uint64_t      *strings; /* arrays of strings: where in the file each one's length stands */
} gguf_key;

struct gguf {
    char          *path;
    mapped_file    map; /* empty for gguf_open_memory */
    const uint8_t *base;
    uint64_t       size;
    gguf_key      *keys;
    gguf_tensor   *tensors;
    uint64_t       n_keys, n_tensors;
};

/* Every tensor type of ggml by its number. Bounds are checked for all, data is offered for those with a kern_dtype. */
static const struct {
    const char *name;
    kern_dtype  dtype;
    uint32_t    block, block_bytes;
} ggml_types[] = {
    [0]  = {"F32", KERN_F32, 1, 4},
    [1]  = {"F16", KERN_F16, 1, 2},
    [2]  = {"Q4_0", KERN_Q4_0, 32, 18},
    [3]  = {"Q4_1", KERN_Q4_1, 32, 20},
    [6]  = {"Q5_0", KERN_Q5_0, 32, 22},
    [7]  = {"Q5_1", KERN_Q5_1, 32, 24},
    [8]  = {"Q8_0", KERN_Q8_0, 32, 34},
    [9]  = {"Q8_1", KERN_N_DTYPES, 32, 40},
    [10] = {"Q2_K", KERN_Q2_K, 256, 84},
    [11] = {"Q3_K", KERN_Q3_K, 256, 110},
    [12] = {"Q4_K", KERN_Q4_K, 256, 144},
    [13] = {"Q5_K", KERN_Q5_K, 256, 176},
    [14] = {"Q6_K", KERN_Q6_K, 256, 210},
    [15] = {"Q8_K", KERN_N_DTYPES, 256, 292},
    [16] = {"IQ2_XXS", KERN_N_DTYPES, 256, 66},
    [17] = {"IQ2_XS", KERN_N_DTYPES, 256, 74},
    [18] = {"IQ3_XXS", KERN_N_DTYPES, 256, 98},
    [19] = {"IQ1_S", KERN_N_DTYPES, 256, 50},
    [20] = {"IQ4_NL", KERN_IQ4_NL, 32, 18},
    [21] = {"IQ3_S", KERN_N_DTYPES, 256, 110},
    [22] = {"IQ2_S", KERN_N_DTYPES, 256, 82},
    [23] = {"IQ4_XS", KERN_IQ4_XS, 256, 136},
    [24] = {"I8", KERN_N_DTYPES, 1, 1},
    [25] = {"I16", KERN_N_DTYPES, 1, 2},
    [26] = {"I32", KERN_N_DTYPES, 1, 4},
    [27] = {"I64", KERN_N_DTYPES, 1, 8},
    [28] = {"F64", KERN_N_DTYPES, 1, 8},
    [29] = {"IQ1_M", KERN_N_DTYPES, 256, 56},
    [30] = {"BF16", KERN_BF16, 1, 2},
    [34] = {"TQ1_0", KERN_N_DTYPES, 256, 54},
    [35] = {"TQ2_0", KERN_N_DTYPES, 256, 66},
    [39] = {"MXFP4", KERN_N_DTYPES, 32, 17},
    [40] = {"NVFP4", KERN_N_DTYPES, 64, 36},
    [41] = {"Q1_0", KERN_N_DTYPES, 128, 18},
};
#define SUPPORTED_TYPES "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS"

static const struct {
    const char *name;
    uint32_t    bytes; /* 0: not of fixed size */
} value_types[] = {
    [GGUF_U8] = {"u8", 1},         [GGUF_I8] = {"i8", 1},       [GGUF_U16] = {"u16", 2}, [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4},       [GGUF_I32] = {"i32", 4},     [GGUF_F32] = {"f32", 4}, [GGUF_BOOL] = {"bool", 1},
    [GGUF_STRING] = {"string", 0}, [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8}, [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

/* ---- reading the header ---------------------------------------------------------------------------------------- */

/* A place in the file, and what is being read there, for messages. at <= size always. */
typedef struct {
    const char    *path;
    const uint8_t *base;
    uint64_t       size, at;
    const char    *part;
    span           name;
    error         *err;
} cursor;

static bool fail(const cursor *c, const char *what)
{
    error_set(c->err, ERR_INVALID, "%s: %s%s%.*s: %s", c->path, c->part, c->name.size ? " " : "", SPAN_ARG(c->name),
              what);
    return false;
}

static bool take(cursor *c, uint64_t bytes, const uint8_t **data)
{
    if (bytes > c->size - c->at) {
        char what[128];
        snprintf(what, sizeof what,
                 "%" PRIu64 " bytes were expected at byte %" PRIu64 ", but the file ends at %" PRIu64, bytes, c->at,
                 c->size);
        return fail(c, what);
    }
    *data = c->base + c->at;
    c->at += bytes;
    return true;
}

static uint32_t load_u32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint64_t load_u64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static bool take_u32(cursor *c, uint32_t *value)
{
    const uint8_t *data;
    if (!take(c, 4, &data))
        return false;
    *value = load_u32(data);
    return true;
}

static bool take_u64(cursor *c, uint64_t *value)
{
    const uint8_t *data;
    if (!take(c, 8, &data))
        return false;
    *value = load_u64(data);
    return true;
}

static bool take_string(cursor *c, span *value)
{
    uint64_t       length;
    const uint8_t *data;
    if (!take_u64(c, &length) || !take(c, length, &data))
        return false;
    *value = (span){(const char *)data, length};
    return true;
}

/* A key's or tensor's name: printable ASCII, so that it can stand in a message and in a C string. */
static bool take_name(cursor *c, span *name)
{
    if (!take_string(c, name))
        return false;
    if (name->size == 0 || name->size > NAME_BYTES_MAX)
        return fail(c, "a name must have 1 to 1024 bytes");
    for (size_t i = 0; i < name->size; i++)
        if (name->data[i] <= ' ' || name->data[i] > '~')
            return fail(c, "a name must be printable ASCII without spaces");
    return true;
}

static bool take_value_type(cursor *c, gguf_type *type)
{
    uint32_t number;
    if (!take_u32(c, &number))
        return false;
    if (number >= COUNT(value_types)) {
        char what[64];
        snprintf(what, sizeof what, "value type %" PRIu32 " is unknown", number);
        return fail(c, what);
    }
    *type = (gguf_type)number;
    return true;
}

static bool take_string_array(cursor *c, gguf_key *key)
{
    /* A string takes 8 bytes at least: the index never outgrows the file. */
    if (key->n > (c->size - c->at) / 8)
        return fail(c, "the array has more strings than the file has room for");
    key->strings = malloc((key->n ? key->n : 1) * sizeof *key->strings);
    if (!key->strings)
        return error_set(c->err, ERR_NO_MEMORY, "%s: no memory for the index of %" PRIu64 " strings", c->path, key->n);
    for (uint64_t i = 0; i < key->n; i++) {
        span text;
        key->strings[i] = c->at;
        if (!take_string(c, &text))
            return false;
    }
    return true;
}

static bool take_array(cursor *c, gguf_key *key)
{
    if (!take_value_type(c, &key->element) || !take_u64(c, &key->n))
        return false;
    key->data = c->base + c->at;
    if (key->element == GGUF_ARRAY)
        return fail(c, "arrays of arrays are not supported");
    if (key->element == GGUF_STRING)
        return take_string_array(c, key);
    uint64_t bytes;
    if (__builtin_mul_overflow(key->n, (uint64_t)value_types[key->element].bytes, &bytes))
        return fail(c, "the array is longer than any file");
    return take(c, bytes, &key->data);
}

static bool take_key(cursor *c, gguf_key *key)
{
    c->part = "the name of a key";
    c->name = SPAN("");
    if (!take_name(c, &key->name))
        return false;
    c->part = "key";
    c->name = key->name;
    if (!take_value_type(c, &key->type))
        return false;
    if (key->type == GGUF_ARRAY)
        return take_array(c, key);
    if (key->type == GGUF_STRING) {
        span text;
        if (!take_string(c, &text))
            return false;
        key->data = (const uint8_t *)text.data;
        key->n    = text.size;
        return true;
    }
    if (!take(c, value_types[key->type].bytes, &key->data))
        return false;
    if (key->type == GGUF_BOOL && *key->data > 1)
        return fail(c, "a bool must be 0 or 1");
    return true;
}

/* Fills everything but `data`, which needs the start of the data section: *offset is relative to it. */
static bool take_tensor(cursor *c, gguf_tensor *tensor, uint64_t *offset)
{
    c->part = "the name of a tensor";
    c->name = SPAN("");
    if (!take_name(c, &tensor->name))
        return false;
    c->part = "tensor";
    c->name = tensor->name;
    if (!take_u32(c, &tensor->n_dims))
        return false;
    if (tensor->n_dims < 1 || tensor->n_dims > GGUF_DIMS_MAX)
        return fail(c, "a tensor must have 1 to 4 dimensions");
    uint64_t n_elements = 1;
    for (uint32_t d = 0; d < GGUF_DIMS_MAX; d++) {
        tensor->dims[d] = 1;
        if (d < tensor->n_dims && !take_u64(c, &tensor->dims[d]))
            return false;
        if (tensor->dims[d] == 0)
            return fail(c, "a dimension is zero");
        if (__builtin_mul_overflow(n_elements, tensor->dims[d], &n_elements))
            return fail(c, "its number of elements overflows 64 bits");
    }
    if (!take_u32(c, &tensor->ggml_type) || !take_u64(c, offset))
        return false;
    tensor->dtype = KERN_N_DTYPES;
    if (tensor->ggml_type >= COUNT(ggml_types) || !ggml_types[tensor->ggml_type].name)
        return true;
    uint32_t block = ggml_types[tensor->ggml_type].block;
    if (tensor->dims[0] % block != 0) {
        char what[128];
        snprintf(what, sizeof what, "its first dimension %" PRIu64 " is not a multiple of %" PRIu32 ", the block of %s",
                 tensor->dims[0], block, ggml_types[tensor->ggml_type].name);
        return fail(c, what);
    }
    if (__builtin_mul_overflow(n_elements / block, (uint64_t)ggml_types[tensor->ggml_type].block_bytes,
                               &tensor->n_bytes))
        return fail(c, "its size overflows 64 bits");
    tensor->dtype = ggml_types[tensor->ggml_type].dtype;
    return true;
}

static bool place_tensor(cursor *c, gguf_tensor *tensor, uint64_t data_start, uint64_t alignment, uint64_t offset)
{
    c->part = "tensor";
    c->name = tensor->name;
    char what[160];
    if (offset % alignment != 0) {
        snprintf(what, sizeof what, "its offset %" PRIu64 " is not a multiple of the alignment %" PRIu64, offset,
                 alignment);
        return fail(c, what);
    }
    uint64_t end;
    if (__builtin_add_overflow(data_start, offset, &offset) || __builtin_add_overflow(offset, tensor->n_bytes, &end) ||
        end > c->size) {
        snprintf(what, sizeof what,
                 "its %" PRIu64 " bytes at byte %" PRIu64 " end past the end of the file (%" PRIu64 " bytes)",
                 (uint64_t)tensor->n_bytes, offset, c->size);
        return fail(c, what);
    }
    tensor->data = c->base + offset;
    return true;
}

static bool sort_by_name(cursor *c, const char *part, void *items, uint64_t n, size_t item_bytes)
{
    const span *twice = name_table_sort(items, n, item_bytes);
    if (!twice)
        return true;
    c->part = part;
    c->name = *twice;
    return fail(c, "it stands in the file twice");
}

static bool read_start(cursor *c, gguf *file)
{
    const uint8_t *magic;
    uint32_t       version;
    c->part = "the header";
    if (!take(c, 4, &magic))
        return false;
    if (memcmp(magic, "GGUF", 4) != 0)
        return fail(c, "this is not a GGUF file (it does not begin with the letters GGUF)");
    if (!take_u32(c, &version))
        return false;
    if (version != GGUF_VERSION) {
        char what[96];
        snprintf(what, sizeof what, "GGUF version %" PRIu32 "%s; version 3, little-endian, is supported", version,
                 version == __builtin_bswap32(GGUF_VERSION) ? " (a big-endian file)" : "");
        return error_set(c->err, ERR_UNSUPPORTED, "%s: %s", c->path, what);
    }
    if (!take_u64(c, &file->n_tensors) || !take_u64(c, &file->n_keys))
        return false;
    /* Before memory is taken for them: the file must have room for what it claims. */
    uint64_t left = c->size - c->at;
    if (file->n_keys > GGUF_KEYS_MAX || file->n_keys > left / KEY_BYTES_MIN)
        return fail(c, "it claims more keys than the file has room for, or over 65536");
    if (file->n_tensors > GGUF_TENSORS_MAX || file->n_tensors > left / TENSOR_BYTES_MIN)
        return fail(c, "it claims more tensors than the file has room for, or over 1048576");
    return true;
}

/* 0 when it is refused. */
static uint64_t read_alignment(const cursor *c, const gguf *file)
{
    uint32_t value = DEFAULT_ALIGNMENT;
    if (!gguf_get_u32(file, "general.alignment", &value, c->err) && gguf_has(file, "general.alignment"))
        return 0;
    if (value != 0 && value % 8 == 0 && value <= ALIGNMENT_MAX)
        return value;
    error_set(c->err, ERR_INVALID, "%s: general.alignment is %" PRIu32 "; a multiple of 8 up to %d was expected",
              c->path, value, ALIGNMENT_MAX);
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const char *left = ((const gguf_tensor *)a)->data, *right = ((const gguf_tensor *)b)->data;
    return (left > right) - (left < right);
}

/* What the sum of sizes promises must be in the file: two tensors never share bytes. */
static bool check_no_overlap(cursor *c, gguf_tensor *tensors, uint64_t n)
{
    if (n > 0)
        qsort(tensors, n, sizeof *tensors, by_place);
    for (uint64_t i = 1; i < n; i++)
        if ((const char *)tensors[i].data < (const char *)tensors[i - 1].data + tensors[i - 1].n_bytes) {
            c->part = "tensor";
            c->name = tensors[i].name;
            return fail(c, "its data overlaps another tensor's");
        }
    return true;
}

static bool read_tensors(cursor *c, gguf *file, uint64_t *offsets)
{
    uint64_t alignment = read_alignment(c, file);
    if (!alignment)
        return false;
    for (uint64_t i = 0; i < file->n_tensors; i++)
        if (!take_tensor(c, &file->tensors[i], &offsets[i]))
            return false;
    uint64_t data_start = (c->at + alignment - 1) / alignment * alignment;
    for (uint64_t i = 0; i < file->n_tensors; i++)
        if (!place_tensor(c, &file->tensors[i], data_start, alignment, offsets[i]))
            return false;
    return check_no_overlap(c, file->tensors, file->n_tensors) &&
           sort_by_name(c, "tensor", file->tensors, file->n_tensors, sizeof *file->tensors);
}

static bool read_all(gguf *file, error *err)
{
    cursor c = {.path = file->path, .base = file->base, .size = file->size, .name = SPAN(""), .err = err};
    if (!read_start(&c, file))
        return false;
    uint64_t *offsets = calloc(file->n_tensors + 1, sizeof *offsets);
    file->keys        = calloc(file->n_keys + 1, sizeof *file->keys);
    file->tensors     = calloc(file->n_tensors + 1, sizeof *file->tensors);
    bool ok           = offsets && file->keys && file->tensors;
    if (!ok)
        error_set(err, ERR_NO_MEMORY, "%s: no memory for the tables of %" PRIu64 " keys and %" PRIu64 " tensors",
                  c.path, file->n_keys, file->n_tensors);
    for (uint64_t i = 0; ok && i < file->n_keys; i++)
        ok = take_key(&c, &file->keys[i]);
    ok = ok && sort_by_name(&c, "key", file->keys, file->n_keys, sizeof *file->keys) && read_tensors(&c, file, offsets);
    free(offsets);
    return ok;
}

static gguf *open_image(mapped_file map, const void *data, size_t n_bytes, const char *name, error *err)
{
    gguf *file = calloc(1, sizeof *file);
    if (!file || !(file->path = strdup(name))) {
        error_set(err, ERR_NO_MEMORY, "%s: no memory to open it", name);
        free(file);
        mapped_file_close(&map);
        return NULL;
    }
    file->map  = map;
    file->base = data;
    file->size = n_bytes;
    if (!read_all(file, err))
        gguf_close(&file);
    return file;
}

gguf *gguf_open(const char *path, error *err)
{
    mapped_file map;
    return mapped_file_open(&map, path, err) ? open_image(map, map.data, map.size, path, err) : NULL;
}

gguf *gguf_open_memory(const void *data, size_t n_bytes, const char *name, error *err)
{
    return open_image((mapped_file){0}, data, n_bytes, name, err);
}

void gguf_close(gguf **file)
{
    gguf *f = *file;
    if (!f)
        return;
    for (uint64_t i = 0; f->keys && i < f->n_keys; i++)
        free(f->keys[i].strings);
    free(f->keys);
    free(f->tensors);
    mapped_file_close(&f->map);
    free(f->path);
    free(f);
    *file = NULL;
}

file_identity gguf_identity(const gguf *f)
{
    return (file_identity){f->map.size, f->map.modified_ns};
}

const char *gguf_path(const gguf *file)
{
    return file->path;
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static const gguf_key *find_key(const gguf *file, const char *key)
{
    return name_table_find(file->keys, file->n_keys, sizeof *file->keys, key);
}

bool gguf_has(const gguf *file, const char *key)
{
    return find_key(file, key) != NULL;
}

uint64_t gguf_n_keys(const gguf *file)
{
    return file->n_keys;
}

span gguf_key_at(const gguf *file, uint64_t i)
{
    assert(i < file->n_keys);
    return file->keys[i].name;
}

static bool wrong_type(const gguf *file, const gguf_key *key, const char *expected, error *err)
{
    return error_set(err, ERR_INVALID, "%s: key %.*s is of type %s; %s was expected", file->path, SPAN_ARG(key->name),
                     value_types[key->type].name, expected);
}

/* The value of an integer key, sign-extended. `negative` tells -1 from UINT64_MAX. False when the key is no integer. */
static bool read_integer(const gguf_key *key, uint64_t *value, bool *negative)
{
    uint32_t bytes   = value_types[key->type].bytes;
    bool     is_int  = key->type == GGUF_I8 || key->type == GGUF_I16 || key->type == GGUF_I32 || key->type == GGUF_I64;
    bool     is_uint = key->type == GGUF_U8 || key->type == GGUF_U16 || key->type == GGUF_U32 || key->type == GGUF_U64;
    if (!is_int && !is_uint)
        return false;
    *value = 0;
    memcpy(value, key->data, bytes);
    *negative = is_int && (*value >> (8 * bytes - 1)) != 0;
    return true;
}

bool gguf_get_u32(const gguf *file, const char *key, uint32_t *value, error *err)
{
    const gguf_key *found = find_key(file, key);
    uint64_t        wide;
    bool            negative;
    if (!found)
        return false;
    if (!read_integer(found, &wide, &negative))
        return wrong_type(file, found, "an integer", err);
    if (negative || wide > UINT32_MAX)
        return error_set(err, ERR_INVALID, "%s: key %s must be between 0 and %" PRIu32, file->path, key, UINT32_MAX);
    *value = (uint32_t)wide;
    return true;
}

bool gguf_get_f32(const gguf *file, const char *key, float *value, error *err)
{
    const gguf_key *found = find_key(file, key);
    if (!found)
        return false;
    if (found->type == GGUF_F32) {
        memcpy(value, found->data, sizeof *value);
        return true;
    }
    if (found->type != GGUF_F64)
        return wrong_type(file, found, "f32 or f64", err);
    double wide;
    memcpy(&wide, found->data, sizeof wide);
    if (!(wide >= -FLT_MAX && wide <= FLT_MAX))
        return error_set(err, ERR_INVALID, "%s: key %s does not fit a float", file->path, key);
    *value = (float)wide;
    return true;
}

bool gguf_get_bool(const gguf *file, const char *key, bool *value, error *err)
{
    const gguf_key *found = find_key(file, key);
    if (!found)
        return false;
    if (found->type != GGUF_BOOL)
        return wrong_type(file, found, "bool", err);
    *value = *found->data != 0;
    return true;
}

bool gguf_get_string(const gguf *file, const char *key, span *value, error *err)
{
    const gguf_key *found = find_key(file, key);
    if (!found)
        return false;
    if (found->type != GGUF_STRING)
        return wrong_type(file, found, "string", err);
    *value = (span){(const char *)found->data, found->n};
    return true;
}

bool gguf_get_array(const gguf *file, const char *key, gguf_type *type, uint64_t *n, error *err)
{
    const gguf_key *found = find_key(file, key);
    if (!found)
        return false;
    if (found->type != GGUF_ARRAY)
        return wrong_type(file, found, "array", err);
    *type = found->element;
    *n    = found->n;
    return true;
}

span gguf_array_string(const gguf *file, const char *key, uint64_t i)
{
    const gguf_key *found = find_key(file, key);
    assert(found && found->type == GGUF_ARRAY && found->element == GGUF_STRING && i < found->n);
    const uint8_t *at = file->base + found->strings[i];
    return (span){(const char *)at + 8, load_u64(at)};
}

const void *gguf_array_data(const gguf *file, const char *key)
{
    const gguf_key *found = find_key(file, key);
    assert(found && found->type == GGUF_ARRAY && found->element != GGUF_STRING);
    return found->data;
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

uint64_t gguf_n_tensors(const gguf *file)
{
    return file->n_tensors;
}

const gguf_tensor *gguf_tensor_at(const gguf *file, uint64_t i)
{
    assert(i < file->n_tensors);
    return &file->tensors[i];
}

const gguf_tensor *gguf_find_tensor(const gguf *file, const char *name)
{
    return name_table_find(file->tensors, file->n_tensors, sizeof *file->tensors, name);
}

const gguf_tensor *gguf_require_tensor(const gguf *file, const char *name, error *err)
{
    const gguf_tensor *tensor = gguf_find_tensor(file, name);
    if (!tensor) {
        error_set(err, ERR_INVALID, "%s: tensor %s is missing", file->path, name);
        return NULL;
    }
    if (tensor->dtype != KERN_N_DTYPES)
        return tensor;
    uint32_t    number = tensor->ggml_type;
    const char *known  = number < COUNT(ggml_types) ? ggml_types[number].name : NULL;
    char        unknown[32];
    snprintf(unknown, sizeof unknown, "number %" PRIu32, number);
    error_set(err, ERR_UNSUPPORTED,
              "%s: tensor %s is of type %s, which is not supported; supported are " SUPPORTED_TYPES, file->path, name,
              known ? known : unknown);
    return NULL;
}
