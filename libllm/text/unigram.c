/* A lattice over the bytes of a piece: a node for each place between two of them.
 *
 * Where no token reaches across a place, every path goes through it: the best way there is final and its nodes are
 * used again. Most words end in such a place, so the lattice of a whole text stays in the cache. */
#include "text/unigram.h"

#include "base/utf8.h"
#include "text/trie.h"
#include <stdlib.h>

enum { FEW_NODES = 1024 }; /* that need no scratch memory */

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
    uint32_t start; /* of the token that ends here; on the finished path, the end of the one that begins here */
    uint32_t token; /* VOCABULARY_NONE for an unknown character */
} node;

_Static_assert(sizeof(node) == UNIGRAM_SCRATCH_BYTES_PER_BYTE, "a node a byte");

/* One piece on its way. */
typedef struct {
    const unigram *unigram;
    span           piece;
    node          *nodes;    /* of the places from `first` on */
    size_t         first;    /* every path goes through it */
    uint32_t       furthest; /* the last place that a token reaches, counted from `first` */
    uint32_t       n_nodes;
    size_t         unknown_from; /* where the run of unknown characters before `first` begins; `first` without one */
    arena         *scratch;
    uint32_t      *tokens;
    size_t         n, n_max;
} encoding;

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
    uint32_t n = vocabulary_n_tokens(options->vocabulary);
    u->scores  = malloc(((size_t)n + 1) * sizeof *u->scores);
    u->pieces  = u->scores ? trie_new(options->vocabulary, TOKEN_NORMAL, err) : NULL;
    if (u->scores)
        memcpy(u->scores, options->scores, n * sizeof *u->scores);
    else
        error_set(err, ERR_NO_MEMORY, "no memory for the scores of %u tokens", n);
    if (!u->pieces)
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

static void reach(encoding *e, uint32_t end, double score, uint32_t start, uint32_t token)
{
    while (e->furthest < end)
        e->nodes[++e->furthest].start = NOWHERE;
    node *n = &e->nodes[end];
    if (n->start == NOWHERE || score > n->score)
        *n = (node){score, start, token};
}

/* Every token that begins at `at`, shortest first; an unknown character where none is just one character. */
static void extend(encoding *e, uint32_t at, uint32_t n_character)
{
    const unigram *u    = e->unigram;
    const char    *text = e->piece.data + e->first;
    uint32_t       size = (uint32_t)(e->piece.size - e->first), place = TRIE_ROOT;
    bool           has_character = false;
    double         score         = e->nodes[at].score;
    for (uint32_t end = at; end < size;) {
        place = trie_step(u->pieces, place, (uint8_t)text[end++]);
        if (place == TRIE_NOWHERE)
            break;
        uint32_t token = trie_value(u->pieces, place);
        if (token == VOCABULARY_NONE)
            continue;
        reach(e, end, u->scores[token] + score, at, token);
        has_character |= end == at + n_character;
    }
    if (!has_character)
        reach(e, at + n_character, u->unknown_score + score, at, VOCABULARY_NONE);
}

static bool put(encoding *e, uint32_t token)
{
    if (e->n == e->n_max)
        return false;
    e->tokens[e->n++] = token;
    return true;
}

/* The run of unknown characters that ends at byte `end` of the piece. */
static bool put_unknown(encoding *e, size_t end)
{
    const unigram *u    = e->unigram;
    const uint8_t *text = (const uint8_t *)e->piece.data;
    for (size_t i = e->unknown_from; i < end; i++)
        if (u->byte_token[text[i]] == VOCABULARY_NONE)
            return u->unknown == VOCABULARY_NONE || put(e, u->unknown);
    for (size_t i = e->unknown_from; i < end; i++)
        if (!put(e, u->byte_token[text[i]]))
            return false;
    return true;
}

/* The tokens of the best path from `first` to the place `last`, which becomes `first`. */
static bool put_path(encoding *e, uint32_t last)
{
    node    *nodes = e->nodes;
    uint32_t next  = NOWHERE;
    for (uint32_t at = last, start; at > 0; next = at, at = start) {
        start           = nodes[at].start;
        nodes[at].start = next;
    }
    nodes[0].start = next;
    for (uint32_t at = 0, end; at < last; at = end) {
        end            = nodes[at].start;
        uint32_t token = nodes[end].token;
        if (token == VOCABULARY_NONE)
            continue;
        if (e->unknown_from < e->first + at && !put_unknown(e, e->first + at))
            return false;
        if (!put(e, token))
            return false;
        e->unknown_from = e->first + end;
    }
    e->first += last;
    e->furthest = 0;
    nodes[0]    = (node){nodes[last].score, 0, VOCABULARY_NONE};
    return true;
}

/* Room for the longest token that may begin at `at`. */
static bool reserve(encoding *e, uint32_t at, error *err)
{
    size_t needed = e->piece.size - e->first + 1;
    if (at + TRIE_TEXT_BYTES_MAX < e->n_nodes || needed <= e->n_nodes)
        return true;
    node *nodes = arena_take_array(e->scratch, needed, sizeof *nodes);
    if (!nodes)
        return error_set(err, ERR_NO_MEMORY, "no scratch memory to encode a word of %zu bytes", e->piece.size);
    memcpy(nodes, e->nodes, (e->furthest + 1) * sizeof *nodes);
    e->nodes   = nodes;
    e->n_nodes = (uint32_t)needed;
    return true;
}

static uint32_t character_bytes(span text, size_t at)
{
    uint32_t c;
    if ((uint8_t)text.data[at] < 0x80)
        return 1;
    size_t n = utf8_decode((span){text.data + at, text.size - at}, &c);
    return n ? (uint32_t)n : 1;
}

static bool encode(encoding *e, error *err)
{
    for (uint32_t at = 0; e->first < e->piece.size;) {
        if (at > 0 && at == e->furthest) {
            if (!put_path(e, at))
                return error_set(err, ERR_TOO_LARGE, "the text is more than %zu tokens long", e->n_max);
            at = 0;
            continue;
        }
        if (!reserve(e, at, err))
            return false;
        uint32_t n_character = character_bytes(e->piece, e->first + at);
        extend(e, at, n_character);
        at += n_character;
    }
    return (e->unknown_from == e->piece.size || put_unknown(e, e->piece.size)) ||
           error_set(err, ERR_TOO_LARGE, "the text is more than %zu tokens long", e->n_max);
}

bool unigram_encode(const unigram *u, span piece, arena *scratch, uint32_t *tokens, size_t n_max, size_t *n_tokens,
                    error *err)
{
    if (piece.size >= NOWHERE)
        return error_set(err, ERR_TOO_LARGE, "a word of %zu bytes", piece.size);
    node     few[FEW_NODES];
    size_t   mark = arena_mark(scratch);
    encoding e    = {.unigram = u,
                     .piece   = piece,
                     .nodes   = few,
                     .n_nodes = FEW_NODES,
                     .scratch = scratch,
                     .tokens  = tokens,
                     .n_max   = n_max};
    few[0]        = (node){0, 0, VOCABULARY_NONE};
    bool done     = encode(&e, err);
    *n_tokens     = e.n;
    arena_rewind(scratch, mark);
    return done;
}
