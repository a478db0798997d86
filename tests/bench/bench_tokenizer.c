/* Megabytes of text to tokens a second of one core's time.
 *
 *     bench_tokenizer [text [model...]]
 *
 * Without arguments the text is this repository's English, and the models are the demo model and the small ones of
 * tests/data/tokenizer, whose 900 tokens are more work than a real vocabulary's: nearly every word takes merging. */
// links: llm_text
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TEXT_BYTES = 1 << 20, LEAST_S = 1, TOKENS_PER_BYTE_MAX = 4 };

static const char *const models[] = {
    MODELS_DIR "/SmolLM2-135M-Instruct-Q4_1.gguf",
    TESTS_DIR "/data/tokenizer/gpt2",
    TESTS_DIR "/data/tokenizer/llama2",
    TESTS_DIR "/data/tokenizer/gguf-llama/gguf-llama.gguf",
    TESTS_DIR "/data/tokenizer/mistral",
    TESTS_DIR "/data/tokenizer/unigram",
    TESTS_DIR "/data/tokenizer/unigram-bytes",
    TESTS_DIR "/data/tokenizer/nfkc",
    TESTS_DIR "/data/tokenizer/gguf-nfkc/gguf-nfkc.gguf",
    TESTS_DIR "/data/tokenizer/bert",
};

static void die(const char *why)
{
    fprintf(stderr, "bench_tokenizer: %s\n", why);
    exit(1);
}

/* Adds a file to the text. */
static size_t read_text(const char *path, char *text, size_t size, size_t size_max)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path);
    size += fread(text + size, 1, size_max - size, file);
    fclose(file);
    return size;
}

/* The repository's English, over and over. */
static size_t default_text(char *text)
{
    size_t once = read_text(TESTS_DIR "/../ARCHITECTURE.md", text, 0, TEXT_BYTES), size;
    once        = read_text(TESTS_DIR "/../README.md", text, once, TEXT_BYTES);
    for (size = once; size + once <= TEXT_BYTES; size += once)
        memcpy(text + size, text, once);
    return size;
}

static double core_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure(const char *model, span text)
{
    error      err;
    tokenizer *t       = tokenizer_open(model, &err);
    arena     *scratch = t ? arena_new(tokenizer_scratch_bytes(t, text.size), &err) : NULL;
    size_t     n_max   = TOKENS_PER_BYTE_MAX * text.size;
    uint32_t  *tokens = malloc(n_max * sizeof *tokens), n = 0, n_rounds = 0;
    text_part  part = {text, false};
    if (!scratch || !tokens)
        die(err.text);
    double start = 0, now = 0; /* the first round only warms up */
    for (; n_rounds < 2 || now - start < LEAST_S; n_rounds++) {
        if (!tokenizer_encode(t, &part, 1, scratch, tokens, (uint32_t)n_max, &n, &err))
            die(err.text);
        now   = core_s();
        start = n_rounds == 0 ? now : start;
    }
    double s = (now - start) / (n_rounds - 1);
    printf("%7.1f MB/s  %4.2f bytes a token  %s\n", 1e-6 * (double)text.size / s, (double)text.size / n, model);
    free(tokens);
    arena_free(&scratch);
    tokenizer_free(&t);
}

int main(int n_arguments, char **arguments)
{
    char *memory = malloc(TEXT_BYTES);
    if (!memory)
        die("no memory for a text");
    span text = {memory, n_arguments > 1 ? read_text(arguments[1], memory, 0, TEXT_BYTES) : default_text(memory)};
    if (text.size == 0)
        die("the text is empty");
    for (int i = 2; i < n_arguments; i++)
        measure(arguments[i], text);
    for (size_t i = 0; i < COUNT(models) && n_arguments <= 2; i++)
        measure(models[i], text);
    free(memory);
    return 0;
}
