#include "support_reference.h"

#include <stdio.h>

json_t *reference_json(const char *name)
{
    char         path[512];
    json_error_t at;
    snprintf(path, sizeof path, "%s/data/tokenizer/%s", TESTS_DIR, name);
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &at);
    if (!root)
        fail_msg("%s: %s", path, at.text);
    return root;
}

span reference_text(const json_t *string)
{
    assert_true(json_is_string(string));
    return (span){json_string_value(string), json_string_length(string)};
}

tokenizer *reference_tokenizer(const char *name)
{
    char  path[512];
    error err     = {0};
    bool  is_gguf = strncmp(name, "gguf-", 5) == 0;
    snprintf(path, sizeof path, "%s/data/tokenizer/%s%s%s%s", TESTS_DIR, name, is_gguf ? "/" : "", is_gguf ? name : "",
             is_gguf ? ".gguf" : "");
    tokenizer *t = tokenizer_open(path, &err);
    if (!t)
        fail_msg("%s", err.text);
    return t;
}

tokenizer *reference_smollm2(void)
{
    error      err = {0};
    tokenizer *t   = tokenizer_open(MODELS_DIR "/SmolLM2-135M-Instruct-Q4_1.gguf", &err);
    if (!t)
        fail_msg("%s (./dev test fetches the demo model)", err.text);
    return t;
}

uint32_t reference_encode(const tokenizer *t, const text_part *parts, uint32_t n_parts, uint32_t *tokens)
{
    error    err  = {0};
    size_t   size = 0;
    uint32_t n    = 0;
    for (uint32_t i = 0; i < n_parts; i++)
        size += parts[i].text.size;
    arena *scratch = arena_new(tokenizer_scratch_bytes(t, size), &err);
    assert_non_null(scratch);
    if (!tokenizer_encode(t, parts, n_parts, scratch, tokens, REFERENCE_TOKENS_MAX, &n, &err))
        fail_msg("%s", err.text);
    assert_int_equal(arena_used(scratch), 0);
    arena_free(&scratch);
    return n;
}

uint32_t reference_random(uint64_t *state, uint32_t bound)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 33) % bound);
}
