/* Encoding, and what a tokenizer tells about itself. Making one is in tokenizer_gguf.c and tokenizer_json.c.
 *
 * A text goes through: added tokens cut out; normalization of the rest; added tokens of the normalized kind cut out;
 * pre-tokenizer; model (byte-pair encoding, unigram or WordPiece). */
#include "text/tokenizer.h"

#include "base/utf8.h"
#include "text/piece_cache.h"
#include "text/tokenizer_parts.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { SCRATCH_MARGIN = 64 << 10 };

tokenizer *tokenizer_empty(error *err)
{
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        error_set(err, ERR_NO_MEMORY, "no memory for a tokenizer");
        return NULL;
    }
    t->bos = t->eos = VOCABULARY_NONE;
    t->normalizer   = normalizer_new(err);
    t->pretokenizer = t->normalizer ? pretokenizer_new(err) : NULL;
    if (!t->pretokenizer)
        tokenizer_free(&t);
    return t;
}

tokenizer *tokenizer_open(const char *model_path, error *err)
{
    struct stat about;
    if (stat(model_path, &about) != 0) {
        error_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", model_path, strerror(errno));
        return NULL;
    }
    if (S_ISDIR(about.st_mode)) {
        char path[4096];
        if ((size_t)snprintf(path, sizeof path, "%s/tokenizer.json", model_path) < sizeof path)
            return tokenizer_from_json(path, err);
        error_set(err, ERR_INVALID, "%s: the path is too long", model_path);
        return NULL;
    }
    gguf *file = gguf_open(model_path, err);
    if (!file)
        return NULL;
    tokenizer *t = tokenizer_from_gguf(file, err);
    gguf_close(&file);
    return t;
}

void tokenizer_free(tokenizer **t)
{
    if (!*t)
        return;
    bpe_free(&(*t)->bpe);
    unigram_free(&(*t)->unigram);
    wordpiece_free(&(*t)->wordpiece);
    vocabulary_free(&(*t)->vocabulary);
    vocabulary_free(&(*t)->printed);
    vocabulary_free(&(*t)->first);
    normalizer_free(&(*t)->normalizer);
    pretokenizer_free(&(*t)->pretokenizer);
    added_tokens_free(&(*t)->added);
    added_tokens_free(&(*t)->added_normalized);
    free((*t)->chat_template);
    free(*t);
    *t = NULL;
}

/* ---- encoding ---- */

/* One call of tokenizer_encode. */
typedef struct {
    const tokenizer *tokenizer;
    arena           *scratch;
    uint32_t        *tokens;
    size_t           n_max, n;
    piece_cache      cache;
} encoding;

static bool too_many_tokens(const encoding *e, error *err)
{
    return error_set(err, ERR_TOO_LARGE, "the text is more than %zu tokens long", e->n_max);
}

static bool put_token(encoding *e, uint32_t token, error *err)
{
    if (e->n == e->n_max)
        return too_many_tokens(e, err);
    e->tokens[e->n++] = token;
    return true;
}

static bool run_model(encoding *e, span piece, size_t *n, error *err)
{
    const tokenizer *t      = e->tokenizer;
    uint32_t        *tokens = e->tokens + e->n;
    size_t           n_max  = e->n_max - e->n;
    if (t->unigram)
        return unigram_encode(t->unigram, piece, e->scratch, tokens, n_max, n, err);
    if (t->wordpiece)
        return wordpiece_encode(t->wordpiece, piece, tokens, n_max, n, err);
    return bpe_encode(t->bpe, piece, e->scratch, tokens, n_max, n, err);
}

static bool encode_piece(void *context, span piece, error *err)
{
    encoding   *e = context;
    size_t      n = 0;
    bool        known;
    piece_slot *slot = piece_cache_find(&e->cache, piece, &known);
    if (known && slot->n_tokens > e->n_max - e->n)
        return too_many_tokens(e, err);
    if (known) {
        memcpy(e->tokens + e->n, slot->tokens, slot->n_tokens * sizeof *e->tokens);
        e->n += slot->n_tokens;
        return true;
    }
    if (!run_model(e, piece, &n, err))
        return err && err->code == ERR_TOO_LARGE ? too_many_tokens(e, err) : false;
    piece_cache_keep(slot, piece, e->tokens + e->n, n);
    e->n += n;
    return true;
}

/* Encodes a part of the text that has no added token of the kinds looked for so far. */
typedef bool encode_rest(encoding *e, marked_text text, bool at_start, error *err);

static bool encode_plain(encoding *e, marked_text text, bool at_start, error *err)
{
    return pretokenizer_run(e->tokenizer->pretokenizer, (span){text.data, text.size}, at_start, e->scratch,
                            encode_piece, e, err);
}

static marked_text marked_slice(marked_text text, size_t start, size_t end)
{
    return (marked_text){text.data + start, text.trusted + start, end - start};
}

/* Cuts the tokens of `added` out of `text` and hands what lies between them to `rest`. */
static bool encode_around(encoding *e, const added_tokens *added, marked_text text, bool at_start, encode_rest *rest,
                          error *err)
{
    added_search search = {.added = added, .text = text};
    for (;;) {
        size_t   done  = search.done, start, end;
        bool     first = at_start && done == 0;
        uint32_t token;
        if (!added_tokens_next(&search, &start, &end, &token))
            return done == text.size || rest(e, marked_slice(text, done, text.size), first, err);
        if (start > done && !rest(e, marked_slice(text, done, start), first, err))
            return false;
        if (!put_token(e, token, err))
            return false;
    }
}

static bool encode_unnormalized(encoding *e, marked_text text, bool at_start, error *err)
{
    const tokenizer *t    = e->tokenizer;
    size_t           mark = arena_mark(e->scratch);
    bool             done = normalizer_run(t->normalizer, &text, e->scratch, err) &&
                encode_around(e, t->added_normalized, text, at_start, encode_plain, err);
    arena_rewind(e->scratch, mark);
    return done;
}

/* The parts as one text with its marks, in scratch. */
static bool join_parts(const text_part *parts, uint32_t n_parts, arena *scratch, marked_text *joined, error *err)
{
    size_t size = 0;
    for (uint32_t i = 0; i < n_parts; i++)
        if (__builtin_add_overflow(size, parts[i].text.size, &size))
            return error_set(err, ERR_TOO_LARGE, "the parts of a prompt add up to too much");
    char    *data    = arena_take(scratch, size);
    uint8_t *trusted = arena_take(scratch, size);
    if (!data || !trusted)
        return error_set(err, ERR_NO_MEMORY, "no scratch memory to encode a text of %zu bytes", size);
    *joined = (marked_text){data, trusted, size};
    for (uint32_t i = 0; i < n_parts; i++) {
        span text = parts[i].text;
        if (text.size == 0)
            continue;
        memcpy(data, text.data, text.size);
        memset(trusted, parts[i].trusted, text.size);
        data += text.size;
        trusted += text.size;
    }
    return true;
}

size_t tokenizer_scratch_bytes(const tokenizer *t, size_t text_bytes)
{
    size_t copied   = pretokenizer_growth(t->pretokenizer); /* and a prefix's copy: one byte a byte more */
    size_t per_byte = (BPE_SCRATCH_BYTES_PER_BYTE + 1) * copied, model, sum;
    _Static_assert((int)UNIGRAM_SCRATCH_BYTES_PER_BYTE <= (int)BPE_SCRATCH_BYTES_PER_BYTE, "bpe is the hungriest");
    if (__builtin_mul_overflow(per_byte, normalizer_bytes_max(t->normalizer, text_bytes), &model) ||
        __builtin_mul_overflow((size_t)2, text_bytes, &sum) || /* the parts joined, and their trust marks */
        __builtin_add_overflow(sum, normalizer_scratch_bytes(t->normalizer, text_bytes), &sum) ||
        __builtin_add_overflow(sum, piece_cache_bytes(text_bytes), &sum) || __builtin_add_overflow(sum, model, &sum) ||
        __builtin_add_overflow(sum, (size_t)SCRATCH_MARGIN, &sum))
        return SIZE_MAX;
    return sum;
}

bool tokenizer_encode(const tokenizer *t, const text_part *parts, uint32_t n_parts, arena *scratch, uint32_t *tokens,
                      uint32_t n_tokens_max, uint32_t *n_tokens, error *err)
{
    encoding    e    = {.tokenizer = t, .scratch = scratch, .tokens = tokens, .n_max = n_tokens_max};
    size_t      mark = arena_mark(scratch);
    marked_text text;
    bool        done = join_parts(parts, n_parts, scratch, &text, err);
    if (done && text.size > 0) {
        e.cache = piece_cache_new(text.size, scratch);
        done    = encode_around(&e, t->added, text, true, encode_unnormalized, err);
    }
    arena_rewind(scratch, mark);
    *n_tokens = (uint32_t)(done ? e.n : 0);
    return done;
}

/* ---- what a tokenizer tells about itself ---- */

uint32_t tokenizer_n_vocab(const tokenizer *t)
{
    return vocabulary_n_tokens(t->vocabulary);
}

uint32_t tokenizer_bos(const tokenizer *t)
{
    return t->bos;
}

uint32_t tokenizer_eos(const tokenizer *t)
{
    return t->eos;
}

bool tokenizer_adds_bos(const tokenizer *t)
{
    return t->adds_bos;
}

uint32_t tokenizer_stop_tokens(const tokenizer *t, uint32_t *tokens, uint32_t n_max)
{
    for (uint32_t i = 0; i < t->n_stops && i < n_max; i++)
        tokens[i] = t->stops[i];
    return t->n_stops;
}

span tokenizer_chat_template(const tokenizer *t)
{
    return (span){t->chat_template ? t->chat_template : "", t->chat_template_bytes};
}

bool tokenizer_adds_eos(const tokenizer *t)
{
    return t->adds_eos;
}

span tokenizer_spelling(const tokenizer *t, uint32_t token)
{
    return vocabulary_bytes(t->vocabulary, token);
}

static const vocabulary *printed(const tokenizer *t)
{
    return t->printed ? t->printed : t->vocabulary;
}

span tokenizer_token_bytes(const tokenizer *t, uint32_t token)
{
    return vocabulary_bytes(printed(t), token);
}

span tokenizer_first_bytes(const tokenizer *t, uint32_t token)
{
    return vocabulary_bytes(t->first ? t->first : printed(t), token);
}

size_t tokenizer_longest_token(const tokenizer *t)
{
    size_t longest = vocabulary_longest(printed(t)), first = t->first ? vocabulary_longest(t->first) : 0;
    return longest > first ? longest : first;
}

bool tokenizer_is_special(const tokenizer *t, uint32_t token)
{
    return (vocabulary_kinds(t->vocabulary, token) & TOKEN_SPECIAL) != 0;
}

uint32_t tokenizer_find(const tokenizer *t, span bytes)
{
    return vocabulary_find(t->vocabulary, bytes, TOKEN_NORMAL | TOKEN_ADDED | TOKEN_SPECIAL);
}

/* ---- building ---- */

bool tokenizer_set_printing(tokenizer *t, const vocabulary *spelled, const token_printing *how, error *err)
{
    t->printed = printed_tokens(spelled, how, false, err);
    if (t->printed && how->start != START_AS_ELSEWHERE)
        t->first = printed_tokens(spelled, how, true, err);
    return t->first || (t->printed && how->start == START_AS_ELSEWHERE);
}

bool tokenizer_cut_at_blanks(tokenizer *t, error *err)
{
    static const char blank[] = "\xE2\x96\x81";
    const vocabulary *v       = t->vocabulary;
    if (vocabulary_find(v, span_of(blank), TOKEN_NORMAL) == VOCABULARY_NONE)
        return true;
    for (uint32_t token = 0; token < vocabulary_n_tokens(v); token++) {
        span bytes = vocabulary_bytes(v, token);
        while (bytes.size >= 3 && memcmp(bytes.data, blank, 3) == 0)
            bytes = (span){bytes.data + 3, bytes.size - 3};
        if (vocabulary_kinds(v, token) & TOKEN_NORMAL && memmem(bytes.data, bytes.size, blank, 3))
            return true;
    }
    return pretokenizer_add(t->pretokenizer, PRETOKENIZE_BLANK_RUNS, err);
}

bool tokenizer_set_chat_template(tokenizer *t, span source, error *err)
{
    char *copy = malloc(source.size + 1);
    if (!copy)
        return error_set(err, ERR_NO_MEMORY, "no memory for a chat template of %zu bytes", source.size);
    if (source.size)
        memcpy(copy, source.data, source.size);
    copy[source.size] = 0;
    free(t->chat_template);
    t->chat_template       = copy;
    t->chat_template_bytes = source.size;
    return true;
}

void tokenizer_add_stop(tokenizer *t, uint32_t token)
{
    for (uint32_t i = 0; i < t->n_stops; i++)
        if (t->stops[i] == token)
            return;
    if (token != VOCABULARY_NONE && t->n_stops < TOKENIZER_STOPS_MAX)
        t->stops[t->n_stops++] = token;
}

void tokenizer_add_known_stops(tokenizer *t)
{
    static const char *const names[] = {
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<end_of_turn>",
        "<|end|>",
        "<|end_of_turn|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|return|>",
        "<|call|>",
        "<|endofprompt|>",
        "<｜end▁of▁sentence｜>", /* DeepSeek's */
    };
    /* Harmony (gpt-oss) ends a message with <|end|> and a generation with <|return|>. */
    bool harmony = vocabulary_find(t->vocabulary, SPAN("<|return|>"), TOKEN_SPECIAL) != VOCABULARY_NONE;
    for (size_t i = 0; i < COUNT(names); i++)
        if (!(harmony && strcmp(names[i], "<|end|>") == 0))
            tokenizer_add_stop(t, vocabulary_find(t->vocabulary, span_of(names[i]), TOKEN_SPECIAL));
}

/* GPT-2's alphabet (openai/gpt-2, encoder.py, bytes_to_unicode): printable Latin-1 stands for itself, the other 68
 * bytes are U+0100 onwards in their order. */
static int byte_of_character(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF))
        return (int)c;
    if (c >= 0x100 && c <= 0x120)
        return (int)c - 0x100;
    if (c >= 0x121 && c <= 0x142)
        return (int)c - 0x121 + 0x7F;
    return c == 0x143 ? 0xAD : -1;
}

size_t tokenizer_bytes_of_spelling(span text, char *out)
{
    size_t n = 0;
    for (size_t at = 0; at < text.size;) {
        uint32_t c;
        size_t   n_bytes = utf8_decode((span){text.data + at, text.size - at}, &c);
        int      byte    = n_bytes ? byte_of_character(c) : -1;
        if (byte < 0)
            return SIZE_MAX;
        out[n++] = (char)byte;
        at += n_bytes;
    }
    return n;
}
