// links: llm_text llm_model
/* A folder as Hugging Face lays it out, whose small files are hostile: opened as a model and as a tokenizer. Input:
 * records of a byte that picks the file, its length in two bytes, and its bytes. */
#include "model/model.h"
#include "model/safetensors.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {
    "model.safetensors.index.json", "a.safetensors",          "b.safetensors",       "config.json",
    "tokenizer_config.json",        "generation_config.json", "chat_template.jinja", "model.safetensors"};

/* A tokenizer that is well, for the files beside it. */
static const char tokenizer_json[] =
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]},"
    "\"added_tokens\": [{\"id\": 3, \"content\": \"<s>\", \"special\": true}],"
    "\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"decoder\": {\"type\": \"ByteLevel\"}}";

static char folder[64];

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const void *data, size_t size)
{
    FILE *file = fopen(path_of(name), "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();
}

static void empty_folder(void)
{
    for (size_t i = 0; i < COUNT(names); i++)
        unlink(path_of(names[i]));
}

static void remove_folder(void)
{
    empty_folder();
    unlink(path_of("tokenizer.json"));
    rmdir(folder);
}

static void make_folder(void)
{
    snprintf(folder, sizeof folder, "%s/fuzz-model-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder))
        abort();
    write_file("tokenizer.json", tokenizer_json, sizeof tokenizer_json - 1);
    atexit(remove_folder);
}

static void open_model(void)
{
    error             err = {0};
    model_config      config;
    volatile unsigned sum   = 0;
    safetensors      *files = safetensors_open_folder(folder, &err);
    if (!files && !err.text[0])
        __builtin_trap();
    for (uint64_t i = 0; files && i < safetensors_n_tensors(files); i++) {
        const safetensors_tensor *tensor = safetensors_tensor_at(files, i);
        for (size_t b = 0; b < tensor->n_bytes; b++)
            sum += ((const uint8_t *)tensor->data)[b];
    }
    safetensors_close(&files);
    err.text[0] = '\0';
    if (!model_read_config(folder, &config, &err) && !err.text[0])
        __builtin_trap();
    (void)sum;
}

static void open_tokenizer(void)
{
    error      err = {0};
    tokenizer *t   = tokenizer_open(folder, &err);
    uint32_t   stops[32];
    if (!t && !err.text[0])
        __builtin_trap();
    uint32_t n_stops = t ? tokenizer_stop_tokens(t, stops, COUNT(stops)) : 0;
    if (n_stops > COUNT(stops))
        __builtin_trap();
    for (uint32_t i = 0; i < n_stops; i++)
        if (stops[i] >= tokenizer_n_vocab(t))
            __builtin_trap();
    if (t && tokenizer_adds_bos(t) && tokenizer_bos(t) >= tokenizer_n_vocab(t))
        __builtin_trap();
    tokenizer_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!folder[0])
        make_folder();
    empty_folder();
    while (size >= 3) {
        size_t bytes = data[1] | (size_t)data[2] << 8;
        bytes        = bytes < size - 3 ? bytes : size - 3;
        write_file(names[data[0] % COUNT(names)], data + 3, bytes);
        data += 3 + bytes;
        size -= 3 + bytes;
    }
    open_model();
    open_tokenizer();
    return 0;
}
