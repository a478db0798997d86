/* The safetensors reader: eight bytes of length, a JSON header of that length, then the data, without holes. */
#include "model/safetensors.h"

#include "model/bounded_json.h"
#include "model/mapped_file.h"
#include "model/name_table.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    char          *path;
    mapped_file    map; /* empty for safetensors_open_memory */
    const uint8_t *base;
    uint64_t       size;
    json_t        *header; /* owns the tensors' names */
} shard;

struct safetensors {
    char               *path; /* what was opened, for messages */
    shard              *shards;
    safetensors_tensor *tensors;
    uint32_t            n_shards;
    uint64_t            n_tensors;
};

static const struct {
    const char *name;
    kern_dtype  dtype;
    uint32_t    bytes;
} types[] = {
    {"F32", KERN_F32, 4},          {"F16", KERN_F16, 2},          {"BF16", KERN_BF16, 2},     {"F64", KERN_N_DTYPES, 8},
    {"F8_E4M3", KERN_N_DTYPES, 1}, {"F8_E5M2", KERN_N_DTYPES, 1}, {"I64", KERN_N_DTYPES, 8},  {"U64", KERN_N_DTYPES, 8},
    {"I32", KERN_N_DTYPES, 4},     {"U32", KERN_N_DTYPES, 4},     {"I16", KERN_N_DTYPES, 2},  {"U16", KERN_N_DTYPES, 2},
    {"I8", KERN_N_DTYPES, 1},      {"U8", KERN_N_DTYPES, 1},      {"BOOL", KERN_N_DTYPES, 1},
};
#define SUPPORTED_TYPES "F32, F16, BF16"

/* ---- one file -------------------------------------------------------------------------------------------------- */

static bool refuse(const shard *s, const char *tensor, const char *what, error *err)
{
    return error_set(err, ERR_INVALID, "%s: tensor %s: %s", s->path, tensor, what);
}

static bool read_shape(const shard *s, const json_t *entry, safetensors_tensor *tensor, uint64_t *n_elements,
                       error *err)
{
    const char   *name  = tensor->name.data;
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_DIMS_MAX)
        return refuse(s, name, "\"shape\" must be an array of up to 8 integers", err);
    tensor->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t d = 0; d < SAFETENSORS_DIMS_MAX; d++) {
        const json_t *dim = json_array_get(shape, d);
        tensor->dims[d]   = 1;
        if (!dim)
            continue;
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return refuse(s, name, "\"shape\" must hold integers that are not negative", err);
        tensor->dims[d] = (uint64_t)json_integer_value(dim);
        if (__builtin_mul_overflow(*n_elements, tensor->dims[d], n_elements))
            return refuse(s, name, "its number of elements overflows 64 bits", err);
    }
    return true;
}

/* data_offsets against the type, the shape and the file. `first` is where the data section begins. */
static bool read_place(const shard *s, const json_t *entry, uint64_t first, safetensors_tensor *tensor, error *err)
{
    const char   *name    = tensor->name.data;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (!json_is_integer(begin) || !json_is_integer(end) || json_array_size(offsets) != 2)
        return refuse(s, name, "\"data_offsets\" must be an array of two integers", err);
    json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || (uint64_t)to > s->size - first)
        return refuse(s, name, "its data_offsets lie outside the file's data", err);
    tensor->data    = s->base + first + from;
    tensor->n_bytes = (size_t)(to - from);
    return true;
}

static bool read_tensor(const shard *s, const char *name, const json_t *entry, uint64_t first,
                        safetensors_tensor *tensor, error *err)
{
    tensor->name        = span_of(name);
    const json_t *dtype = json_object_get(entry, "dtype");
    if (!json_is_string(dtype))
        return refuse(s, name, "\"dtype\" must be a string", err);
    tensor->type_name   = json_string_value(dtype);
    uint64_t n_elements = 1;
    if (!read_shape(s, entry, tensor, &n_elements, err) || !read_place(s, entry, first, tensor, err))
        return false;
    tensor->dtype = KERN_N_DTYPES;
    for (size_t i = 0; i < COUNT(types); i++) {
        if (strcmp(types[i].name, tensor->type_name) != 0)
            continue;
        uint64_t bytes;
        if (__builtin_mul_overflow(n_elements, (uint64_t)types[i].bytes, &bytes) || bytes != tensor->n_bytes)
            return refuse(s, name, "its shape and type need another number of bytes than its data_offsets give", err);
        tensor->dtype = types[i].dtype;
    }
    return true;
}

static int by_place(const void *a, const void *b)
{
    const safetensors_tensor *left = a, *right = b;
    if (left->data != right->data)
        return (const char *)left->data < (const char *)right->data ? -1 : 1;
    return (left->n_bytes > right->n_bytes) - (left->n_bytes < right->n_bytes);
}

/* The format's own rule: the tensors cover the data section, each byte once. */
static bool check_no_holes(const shard *s, safetensors_tensor *tensors, size_t n, uint64_t first, error *err)
{
    const uint8_t *next = s->base + first;
    qsort(tensors, n, sizeof *tensors, by_place);
    for (size_t i = 0; i < n; i++) {
        if ((const uint8_t *)tensors[i].data != next)
            return refuse(s, tensors[i].name.data, "its data overlaps another's or leaves a hole before it", err);
        next += tensors[i].n_bytes;
    }
    if (next != s->base + s->size)
        return error_set(err, ERR_INVALID, "%s: %zu bytes at its end belong to no tensor", s->path,
                         (size_t)(s->base + s->size - next));
    return true;
}

/* Reads the header of files->shards[i] and appends its tensors. */
static bool read_shard(safetensors *files, uint32_t i, error *err)
{
    shard   *s = &files->shards[i];
    uint64_t length;
    if (s->size < sizeof length)
        return error_set(err, ERR_INVALID,
                         "%s: it has %" PRIu64 " bytes; a safetensors file begins with 8 bytes of length", s->path,
                         s->size);
    memcpy(&length, s->base, sizeof length);
    if (length > s->size - sizeof length)
        return error_set(err, ERR_INVALID, "%s: its header claims %" PRIu64 " bytes, but the file has %" PRIu64,
                         s->path, length, s->size);
    s->header = bounded_json_parse((span){(const char *)s->base + sizeof length, length}, s->path, err);
    if (!s->header)
        return false;
    size_t n = json_object_size(s->header);
    if (n > SAFETENSORS_TENSORS_MAX - files->n_tensors)
        return error_set(err, ERR_TOO_LARGE, "%s: over %d tensors", s->path, SAFETENSORS_TENSORS_MAX);
    safetensors_tensor *grown = realloc(files->tensors, (files->n_tensors + n + 1) * sizeof *grown);
    if (!grown)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for the table of %zu tensors", s->path, n);
    files->tensors             = grown;
    safetensors_tensor *mine   = grown + files->n_tensors;
    size_t              n_mine = 0;
    uint64_t            first  = sizeof length + length;
    const char         *name;
    json_t             *entry;
    json_object_foreach(s->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        mine[n_mine] = (safetensors_tensor){.shard = i};
        if (!read_tensor(s, name, entry, first, &mine[n_mine++], err))
            return false;
    }
    if (!check_no_holes(s, mine, n_mine, first, err))
        return false;
    files->n_tensors += n_mine;
    return true;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static safetensors *new_files(const char *path, uint32_t n_shards, error *err)
{
    safetensors *files = calloc(1, sizeof *files);
    if (files) {
        files->path   = strdup(path);
        files->shards = calloc(n_shards, sizeof *files->shards);
    }
    if (!files || !files->path || !files->shards) {
        error_set(err, ERR_NO_MEMORY, "%s: no memory to open it", path);
        safetensors_close(&files);
    }
    return files;
}

void safetensors_close(safetensors **files)
{
    safetensors *f = *files;
    if (!f)
        return;
    for (uint32_t i = 0; i < f->n_shards; i++) {
        json_decref(f->shards[i].header);
        mapped_file_close(&f->shards[i].map);
        free(f->shards[i].path);
    }
    free(f->shards);
    free(f->tensors);
    free(f->path);
    free(f);
    *files = NULL;
}

static bool sort_tensors(safetensors *files, error *err)
{
    const safetensors_tensor *twice = name_table_sort(files->tensors, files->n_tensors, sizeof *files->tensors);
    return !twice ||
           error_set(err, ERR_INVALID, "%s: tensor %s stands in two of its files", files->path, twice->name.data);
}

static bool add_shard(safetensors *files, const char *path, mapped_file map, error *err)
{
    shard *s = &files->shards[files->n_shards++];
    *s       = (shard){.path = strdup(path), .map = map, .base = map.data, .size = map.size};
    return s->path ? read_shard(files, files->n_shards - 1, err)
                   : error_set(err, ERR_NO_MEMORY, "%s: no memory to open it", path);
}

safetensors *safetensors_open_memory(const void *data, size_t n_bytes, const char *name, error *err)
{
    safetensors *files = new_files(name, 1, err);
    if (!files)
        return NULL;
    shard *s = &files->shards[files->n_shards++];
    *s       = (shard){.path = strdup(name), .base = data, .size = n_bytes};
    if (!s->path)
        error_set(err, ERR_NO_MEMORY, "%s: no memory to open it", name);
    if (!s->path || !read_shard(files, 0, err) || !sort_tensors(files, err))
        safetensors_close(&files);
    return files;
}

static bool open_shard(safetensors *files, const char *folder, const char *name, error *err)
{
    char        path[PATH_MAX];
    mapped_file map;
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return error_set(err, ERR_INVALID, "%s/%s: the path is too long", folder, name);
    return mapped_file_open(&map, path, err) && add_shard(files, path, map, err);
}

/* A shard's name in the index must not lead out of the folder. */
static bool is_plain_name(const char *name)
{
    return name[0] && name[0] != '.' && !strchr(name, '/');
}

/* Which of the shards opened so far has this name, or n_shards. */
static uint32_t find_shard(const safetensors *files, const char *name)
{
    uint32_t i = 0;
    while (i < files->n_shards && strcmp(strrchr(files->shards[i].path, '/') + 1, name) != 0)
        i++;
    return i;
}

static bool open_listed_shards(safetensors *files, const char *folder, const json_t *weight_map, error *err)
{
    const char *tensor;
    json_t     *value;
    json_object_foreach((json_t *)weight_map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name || !is_plain_name(name))
            return error_set(err, ERR_INVALID, "%s: weight_map[\"%s\"] must be the name of a file in the same folder",
                             files->path, tensor);
        if (find_shard(files, name) < files->n_shards)
            continue;
        if (files->n_shards == SAFETENSORS_SHARDS_MAX)
            return error_set(err, ERR_TOO_LARGE, "%s: it lists over %d files", files->path, SAFETENSORS_SHARDS_MAX);
        if (!open_shard(files, folder, name, err))
            return false;
    }
    if (!sort_tensors(files, err))
        return false;
    json_object_foreach((json_t *)weight_map, tensor, value)
    {
        const safetensors_tensor *found = safetensors_find(files, tensor);
        if (!found || found->shard != find_shard(files, json_string_value(value)))
            return error_set(err, ERR_INVALID, "%s: tensor %s is not in %s, where the index says it is", files->path,
                             tensor, json_string_value(value));
    }
    return true;
}

static safetensors *open_index(const char *folder, const char *path, error *err)
{
    json_t *index = bounded_json_load(path, err);
    if (!index)
        return NULL;
    const json_t *weight_map = json_object_get(index, "weight_map");
    safetensors  *files      = NULL;
    if (!json_is_object(weight_map))
        error_set(err, ERR_INVALID, "%s: \"weight_map\" must be an object", path);
    else if ((files = new_files(path, SAFETENSORS_SHARDS_MAX, err)) &&
             !open_listed_shards(files, folder, weight_map, err))
        safetensors_close(&files);
    json_decref(index);
    return files;
}

safetensors *safetensors_open_folder(const char *folder, error *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder) >= (int)sizeof path) {
        error_set(err, ERR_INVALID, "%s: the path is too long", folder);
        return NULL;
    }
    if (access(path, F_OK) == 0)
        return open_index(folder, path, err);
    safetensors *files = new_files(folder, 1, err);
    if (files && (!open_shard(files, folder, "model.safetensors", err) || !sort_tensors(files, err)))
        safetensors_close(&files);
    return files;
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

file_identity safetensors_identity(const safetensors *files)
{
    file_identity all = {0};
    for (uint32_t i = 0; i < files->n_shards; i++) {
        const mapped_file *map = &files->shards[i].map;
        all.bytes += map->size;
        all.modified_ns = map->modified_ns > all.modified_ns ? map->modified_ns : all.modified_ns;
    }
    return all;
}

uint64_t safetensors_n_tensors(const safetensors *files)
{
    return files->n_tensors;
}

const safetensors_tensor *safetensors_tensor_at(const safetensors *files, uint64_t i)
{
    assert(i < files->n_tensors);
    return &files->tensors[i];
}

const safetensors_tensor *safetensors_find(const safetensors *files, const char *name)
{
    return name_table_find(files->tensors, files->n_tensors, sizeof *files->tensors, name);
}

const safetensors_tensor *safetensors_require(const safetensors *files, const char *name, error *err)
{
    const safetensors_tensor *tensor = safetensors_find(files, name);
    if (!tensor) {
        error_set(err, ERR_INVALID, "%s: tensor %s is missing", files->path, name);
        return NULL;
    }
    if (tensor->dtype != KERN_N_DTYPES)
        return tensor;
    error_set(err, ERR_UNSUPPORTED,
              "%s: tensor %s is of type %s, which is not supported; supported are " SUPPORTED_TYPES,
              files->shards[tensor->shard].path, name, tensor->type_name);
    return NULL;
}
