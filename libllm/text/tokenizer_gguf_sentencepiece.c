/* The models "llama" and "t5" of a GGUF file: SentencePiece's two kinds. Both have a score for each token, tokens for
 * single bytes, and U+2581 for blanks. */
#include "text/tokenizer_gguf_models.h"

#include "text/spm_bpe.h"
#include <math.h>
#include <stdlib.h>

#define BLANK SPAN("\xE2\x96\x81") /* U+2581 */

static bool append_token(tokenizer *t, span spelling, uint32_t kinds, error *err)
{
    if (kinds == TOKEN_BYTE && vocabulary_byte_of_name(spelling) < 0)
        kinds = TOKEN_UNUSED;
    return vocabulary_append(t->vocabulary, spelling, kinds, err);
}

static bool has_bytes(const vocabulary *v)
{
    return vocabulary_find_byte(v, 0) != VOCABULARY_NONE;
}

/* A file without one, or with an empty one, replaces nothing. */
static bool load_charsmap(tokenizer *t, const gguf *file, error *err)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    gguf_type         type;
    uint64_t          n = 0;
    error_clear(err);
    if (!gguf_get_array(file, key, &type, &n, err))
        return err->code == ERR_NONE;
    if (type != GGUF_U8 && type != GGUF_I8)
        return error_set(err, ERR_INVALID, "the key %s is no array of bytes", key);
    return n == 0 ||
           normalizer_add_charsmap(t->normalizer, (span){gguf_array_data(file, key), n}, CHARSMAP_LONGEST, err);
}

static bool load_steps(tokenizer *t, const gguf *file, error *err)
{
    bool           prefix = true, trim = false;
    token_printing how = {.blanks = true, .bytes = true};
    if (!tokenizer_gguf_flag(file, "tokenizer.ggml.add_space_prefix", &prefix, err) ||
        !tokenizer_gguf_flag(file, "tokenizer.ggml.remove_extra_whitespaces", &trim, err) ||
        !load_charsmap(t, file, err))
        return false;
    if (prefix)
        how.start = START_WITHOUT_ONE_BLANK;
    t->byte_fallback = has_bytes(t->vocabulary);
    return (!trim || normalizer_add_trim(t->normalizer, err)) &&
           (!prefix || normalizer_add_prepend(t->normalizer, BLANK, err)) &&
           normalizer_add_replace(t->normalizer, SPAN(" "), BLANK, err) &&
           tokenizer_set_printing(t, t->vocabulary, &how, err);
}

/* A copy of tokenizer.ggml.scores, which the file may hold unaligned; the caller frees it. */
static float *read_scores(const tokenizer *t, const gguf *file, error *err)
{
    static const char key[] = "tokenizer.ggml.scores";
    uint64_t          n;
    if (!tokenizer_gguf_array(file, key, GGUF_F32, &n, err))
        return NULL;
    if (n != vocabulary_n_tokens(t->vocabulary)) {
        error_set(err, ERR_INVALID, "%llu %s, but %u tokens", (unsigned long long)n, key,
                  vocabulary_n_tokens(t->vocabulary));
        return NULL;
    }
    float *scores = calloc(n + 1, sizeof *scores);
    if (scores)
        memcpy(scores, gguf_array_data(file, key), n * sizeof *scores);
    else
        error_set(err, ERR_NO_MEMORY, "no memory for %llu scores", (unsigned long long)n);
    return scores;
}

bool tokenizer_gguf_llama(tokenizer *t, const gguf *file, error *err)
{
    bpe_options options = {.unknown = VOCABULARY_NONE, .fuse_unknown = true, .characters = true};
    t->adds_bos         = true;
    if (!tokenizer_gguf_vocabulary(t, file, append_token, err) || !load_steps(t, file, err) ||
        !tokenizer_gguf_token(file, t, "tokenizer.ggml.unknown_token_id", &options.unknown, err))
        return false;
    float *scores         = read_scores(t, file, err);
    options.vocabulary    = t->vocabulary;
    options.byte_fallback = has_bytes(t->vocabulary);
    if (scores)
        t->bpe = spm_bpe_new(&options, scores, err);
    free(scores);
    return t->bpe && tokenizer_cut_at_blanks(t, err);
}

static bool widen(const tokenizer *t, const float *scores, double *wide, double *lowest, error *err)
{
    for (uint32_t token = 0; token < vocabulary_n_tokens(t->vocabulary); token++) {
        if (!(vocabulary_kinds(t->vocabulary, token) & TOKEN_NORMAL))
            continue;
        if (!isfinite(scores[token]))
            return error_set(err, ERR_INVALID, "the score of token %u is no number", token);
        wide[token] = (double)scores[token];
        if (wide[token] < *lowest)
            *lowest = wide[token];
    }
    return true;
}

bool tokenizer_gguf_t5(tokenizer *t, const gguf *file, error *err)
{
    unigram_options options = {.unknown = VOCABULARY_NONE, .lowest_score = INFINITY};
    t->adds_eos             = true;
    if (!tokenizer_gguf_vocabulary(t, file, append_token, err) || !load_steps(t, file, err) ||
        !tokenizer_gguf_token(file, t, "tokenizer.ggml.unknown_token_id", &options.unknown, err))
        return false;
    float  *scores = read_scores(t, file, err);
    double *wide   = scores ? calloc((size_t)vocabulary_n_tokens(t->vocabulary) + 1, sizeof *wide) : NULL;
    if (scores && !wide)
        error_set(err, ERR_NO_MEMORY, "no memory for scores");
    options.vocabulary    = t->vocabulary;
    options.scores        = wide;
    options.byte_fallback = has_bytes(t->vocabulary);
    if (wide && widen(t, scores, wide, &options.lowest_score, err))
        t->unigram = unigram_new(&options, err);
    free(scores);
    free(wide);
    return t->unigram != NULL;
}
