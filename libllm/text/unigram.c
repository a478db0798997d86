/* A lattice over the bytes of a piece: a node for each place between two of them. */
#include "text/unigram.h"

#include "base/utf8.h"
#include "text/trie.h"
#include <stdlib.h>

#define UNKNOWN_PENALTY 10.0 /* as SentencePiece has it */
#define NOWHERE UINT32_MAX

struct unigram {
    trie    *pieces;
    double  *scores;
    double   unknown_score;
    uint32_t unknown;
    uint32_t byte_token[256];
};

/* The best way to reach a place in the piece. */
typedef struct {
    double   score;
    uint32_t start; /* of the token that ends here; NOWHERE until one does */
    uint32_t token; /* VOCABULARY_NONE for an unknown character */
    uint32_t next;  /* on the best path: the end of the token that starts here */
} node;

static bool add_pieces(unigram *u, const unigram_options *options, error *err)
{
    const vocabulary *v       = options->vocabulary;
    size_t            n_bytes = 0;
    uint32_t          n       = vocabulary_n_tokens(v);
    for (uint32_t token = 0; token < n; token++) {
        size_t size = vocabulary_kinds(v, token) & TOKEN_NORMAL ? vocabulary_bytes(v, token).size : 0;
        if (size > UNIGRAM_TOKEN_BYTES_MAX)
            return error_set(err, ERR_UNSUPPORTED, "token %u has %zu bytes; at most %d are supported", token, size,
                             UNIGRAM_TOKEN_BYTES_MAX);
        n_bytes += size;
    }
    u->scores = calloc((size_t)n + 1, sizeof *u->scores);
    if (!u->scores)
        return error_set(err, ERR_NO_MEMORY, "no memory for the scores of %u tokens", n);
    u->pieces = trie_new(n_bytes, err);
    if (!u->pieces)
        return false;
    memcpy(u->scores, options->scores, n * sizeof *u->scores);
    for (uint32_t token = 0; token < n; token++)
        if (vocabulary_kinds(v, token) & TOKEN_NORMAL)
            trie_add(u->pieces, vocabulary_bytes(v, token), token);
    return true;
}

unigram *unigram_new(const unigram_options *options, error *err)
{
    unigram *u = calloc(1, sizeof *u);
    if (!u) {
        error_set(err, ERR_NO_MEMORY, "no memory for a unigram model");
        return NULL;
    }
    u->unknown       = options->unknown;
    u->unknown_score = options->lowest_score - UNKNOWN_PENALTY;
    for (uint32_t i = 0; i < 256; i++)
        u->byte_token[i] =
            options->byte_fallback ? vocabulary_find_byte(options->vocabulary, (uint8_t)i) : VOCABULARY_NONE;
    if (!add_pieces(u, options, err))
        unigram_free(&u);
    return u;
}

void unigram_free(unigram **u)
{
    if (!*u)
        return;
    trie_free(&(*u)->pieces);
    free((*u)->scores);
    free(*u);
    *u = NULL;
}

static void reach(node *n, double score, uint32_t start, uint32_t token)
{
    if (n->start == NOWHERE || score > n->score)
        *n = (node){score, start, token, 0};
}

/* Every token that begins at `at`, shortest first; an unknown character where none is just one character. */
static void extend(const unigram *u, span piece, node *nodes, uint32_t at, uint32_t n_character)
{
    bool   has_character = false;
    double score         = nodes[at].score;
    for (size_t end = at, place = TRIE_ROOT; end < piece.size;) {
        place = trie_step(u->pieces, (uint32_t)place, (uint8_t)piece.data[end++]);
        if (place == TRIE_NOWHERE)
            break;
        uint32_t token = trie_value(u->pieces, (uint32_t)place);
        if (token == VOCABULARY_NONE)
            continue;
        reach(&nodes[end], u->scores[token] + score, at, token);
        has_character |= end == (size_t)at + n_character;
    }
    if (!has_character)
        reach(&nodes[at + n_character], u->unknown_score + score, at, VOCABULARY_NONE);
}

/* Fills .next along the best path. */
static void find_best_path(const unigram *u, span piece, node *nodes)
{
    for (size_t i = 1; i <= piece.size; i++)
        nodes[i].start = NOWHERE;
    for (uint32_t at = 0, n; at < piece.size; at += n) {
        uint32_t c;
        n = (uint32_t)utf8_decode((span){piece.data + at, piece.size - at}, &c);
        n = n ? n : 1;
        extend(u, piece, nodes, at, n);
    }
    for (uint32_t at = (uint32_t)piece.size; at > 0; at = nodes[at].start)
        nodes[nodes[at].start].next = at;
}

/* Where the tokens go. */
typedef struct {
    uint32_t *tokens;
    size_t    n, n_max;
} output;

static bool put(output *out, uint32_t token)
{
    if (out->n == out->n_max)
        return false;
    out->tokens[out->n++] = token;
    return true;
}

static bool put_unknown(const unigram *u, span text, output *out)
{
    for (size_t i = 0; i < text.size; i++)
        if (u->byte_token[(uint8_t)text.data[i]] == VOCABULARY_NONE)
            return u->unknown == VOCABULARY_NONE || put(out, u->unknown);
    for (size_t i = 0; i < text.size; i++)
        if (!put(out, u->byte_token[(uint8_t)text.data[i]]))
            return false;
    return true;
}

static bool put_path(const unigram *u, span piece, const node *nodes, output *out)
{
    for (uint32_t at = 0, end; at < piece.size; at = end) {
        end            = nodes[at].next;
        uint32_t token = nodes[end].token;
        if (token != VOCABULARY_NONE) {
            if (!put(out, token))
                return false;
            continue;
        }
        while (end < piece.size && nodes[nodes[end].next].token == VOCABULARY_NONE)
            end = nodes[end].next;
        if (!put_unknown(u, (span){piece.data + at, end - at}, out))
            return false;
    }
    return true;
}

bool unigram_encode(const unigram *u, span piece, arena *scratch, uint32_t *tokens, size_t n_max, size_t *n_tokens,
                    error *err)
{
    size_t mark  = arena_mark(scratch);
    node  *nodes = piece.size < NOWHERE ? arena_take_array(scratch, piece.size + 1, sizeof *nodes) : NULL;
    output out   = {tokens, 0, n_max};
    if (!nodes)
        return error_set(err, ERR_NO_MEMORY, "no scratch memory to encode a word of %zu bytes", piece.size);
    find_best_path(u, piece, nodes);
    bool done = put_path(u, piece, nodes, &out);
    *n_tokens = out.n;
    arena_rewind(scratch, mark);
    return done || error_set(err, ERR_TOO_LARGE, "the text is more than %zu tokens long", n_max);
}
