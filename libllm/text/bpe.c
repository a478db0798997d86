/* Two tables with open addressing do the work: short tokens by their bytes, merges by their pair of tokens. A third one
 * knows which bytes stand side by side in any token: where two others meet, no merge ever reaches across, and a piece
 * of any length falls apart into short runs. */
#include "text/bpe.h"

#include "base/random.h"
#include "base/utf8.h"
#include <assert.h>
#include <stdlib.h>

/* A scan for the best pair beats the heap up to about this many symbols. */
enum { SHORT_SYMBOLS = 48, WORD_BYTES = 15, BITS_PER_SLOT = 4 };

#define NO_MERGE UINT64_MAX
#define DEAD UINT32_MAX /* a symbol merged into its left neighbour */
#define END UINT32_MAX  /* no neighbour */

/* The first and the last byte of a token. */
typedef struct {
    uint8_t first, last;
} token_edges;

/* A token of at most WORD_BYTES bytes as two words: the bytes, zeros, and the length in the top byte. */
typedef struct {
    uint64_t low, high; /* high is 0 in an empty slot */
    uint32_t token;
} word_slot;

typedef struct {
    uint64_t pair;  /* left << 32 | right; NO_MERGE in an empty slot */
    uint64_t merge; /* rank << 32 | merged token */
} pair_slot;

struct bpe {
    bpe_options options;
    uint32_t    byte_token[256];
    uint32_t    ascii_token[128]; /* for characters */
    uint32_t    n_merges;
    word_slot  *words;
    pair_slot  *pairs;
    size_t      word_mask, pair_mask;
    uint64_t    seed;

    uint64_t    *pair_bits;     /* whether any pair has this hash: most have none, and this little is in the cache */
    token_edges *edges;         /* [n_tokens] */
    uint64_t     joins[256][4]; /* bits: whether this byte comes before that one in some token */
};

static size_t slots_for(size_t n)
{
    size_t slots = 16;
    while (slots < 2 * n)
        slots *= 2;
    return slots;
}

static uint64_t load(const char *bytes, size_t n)
{
    uint64_t word = 0;
    memcpy(&word, bytes, n);
    return word;
}

/* `piece` of at most WORD_BYTES bytes as a key; wide loads that overlap, never a loop over bytes. */
static word_slot word_of(span piece)
{
    const char *p = piece.data;
    size_t      n = piece.size;
    word_slot   w = {.high = (uint64_t)n << 56};
    if (n >= 8) {
        w.low = load(p, 8);
        if (n > 8)
            w.high |= load(p + n - 8, 8) >> (8 * (16 - n));
    } else if (n >= 4) {
        w.low = (uint64_t)(uint32_t)load(p, 4) | (uint64_t)(uint32_t)load(p + n - 4, 4) << (8 * (n - 4));
    } else {
        w.low =
            (uint8_t)p[0] | (uint64_t)(uint8_t)p[n / 2] << (8 * (n / 2)) | (uint64_t)(uint8_t)p[n - 1] << (8 * (n - 1));
    }
    return w;
}

static word_slot *slot_of_word(const bpe *b, word_slot key)
{
    size_t at = vocabulary_mix(key.low ^ b->seed, key.high) & b->word_mask;
    while (b->words[at].high && (b->words[at].low != key.low || b->words[at].high != key.high))
        at = (at + 1) & b->word_mask;
    return &b->words[at];
}

static void add_word(bpe *b, span bytes, uint32_t token)
{
    word_slot  key  = word_of(bytes);
    word_slot *slot = slot_of_word(b, key);
    if (slot->high == 0) {
        key.token = token;
        *slot     = key;
    }
}

/* Characters are words that no merge has to make; bytes are found by their names. */
static void find_characters(bpe *b)
{
    const vocabulary *v = b->options.vocabulary;
    for (uint32_t token = 0; token < vocabulary_n_tokens(v); token++) {
        span     bytes = vocabulary_bytes(v, token);
        uint32_t c;
        if (vocabulary_kinds(v, token) & TOKEN_NORMAL && (utf8_decode(bytes, &c) == bytes.size || bytes.size == 1))
            add_word(b, bytes, token);
    }
    for (uint32_t i = 0; i < COUNT(b->ascii_token); i++)
        b->ascii_token[i] = vocabulary_find(v, (span){&(char){(char)i}, 1}, TOKEN_NORMAL);
    for (uint32_t i = 0; i < 256; i++)
        b->byte_token[i] = b->options.byte_fallback ? vocabulary_find_byte(v, (uint8_t)i) : VOCABULARY_NONE;
}

static void note_neighbours(bpe *b)
{
    const vocabulary *v = b->options.vocabulary;
    for (uint32_t token = 0; token < vocabulary_n_tokens(v); token++) {
        span           text  = vocabulary_bytes(v, token);
        const uint8_t *bytes = (const uint8_t *)text.data;
        if (text.size > 0)
            b->edges[token] = (token_edges){bytes[0], bytes[text.size - 1]};
        for (size_t i = 1; i < text.size && vocabulary_kinds(v, token) & TOKEN_NORMAL; i++)
            b->joins[bytes[i - 1]][bytes[i] / 64] |= UINT64_C(1) << bytes[i] % 64;
    }
}

static bool take_tables(bpe *b)
{
    size_t n_tokens = vocabulary_n_tokens(b->options.vocabulary);
    size_t n_words = slots_for(n_tokens), n_pairs = slots_for(b->options.n_merges);
    b->word_mask = n_words - 1;
    b->pair_mask = n_pairs - 1;
    b->words     = calloc(n_words, sizeof *b->words);
    b->pairs     = malloc(n_pairs * sizeof *b->pairs);
    b->pair_bits = calloc(n_pairs * BITS_PER_SLOT / 64, sizeof *b->pair_bits);
    b->edges     = calloc(n_tokens + 1, sizeof *b->edges);
    for (size_t i = 0; b->pairs && i < n_pairs; i++)
        b->pairs[i] = (pair_slot){NO_MERGE, NO_MERGE};
    return b->words && b->pairs && b->pair_bits && b->edges && random_bytes(&b->seed, sizeof b->seed, NULL);
}

bpe *bpe_new(const bpe_options *options, error *err)
{
    bpe *b = calloc(1, sizeof *b);
    if (b)
        b->options = *options;
    if (!b || !take_tables(b)) {
        error_set(err, ERR_NO_MEMORY, "no memory for %u merges", options->n_merges);
        bpe_free(&b);
        return NULL;
    }
    note_neighbours(b);
    if (options->characters)
        find_characters(b);
    else
        for (uint32_t i = 0; i < 256; i++)
            b->byte_token[i] = vocabulary_find(options->vocabulary, (span){&(char){(char)i}, 1}, TOKEN_NORMAL);
    return b;
}

void bpe_free(bpe **b)
{
    if (!*b)
        return;
    free((*b)->words);
    free((*b)->pairs);
    free((*b)->pair_bits);
    free((*b)->edges);
    free(*b);
    *b = NULL;
}

static uint64_t hash_of_pair(const bpe *b, uint64_t pair)
{
    return vocabulary_mix(pair, b->seed);
}

/* The slot that holds `pair`, or the empty one where it belongs. */
static pair_slot *slot_of_pair(const bpe *b, uint64_t pair, uint64_t hash)
{
    size_t at = hash & b->pair_mask;
    while (b->pairs[at].pair != pair && b->pairs[at].pair != NO_MERGE)
        at = (at + 1) & b->pair_mask;
    return &b->pairs[at];
}

/* The bit of a pair with this hash: its word, and the bit in that. */
static uint64_t *word_of_bit(const bpe *b, uint64_t hash, uint64_t *bit)
{
    uint64_t at = hash >> 32 & (b->pair_mask * BITS_PER_SLOT + BITS_PER_SLOT - 1);
    *bit        = UINT64_C(1) << at % 64;
    return &b->pair_bits[at / 64];
}

/* rank << 32 | merged token of two neighbours; NO_MERGE when they have none. */
static uint64_t merge_of(const bpe *b, uint32_t left, uint32_t right)
{
    uint64_t pair = (uint64_t)left << 32 | right, hash = hash_of_pair(b, pair), bit;
    return *word_of_bit(b, hash, &bit) & bit ? slot_of_pair(b, pair, hash)->merge : NO_MERGE;
}

/* A merge's part: a normal token, else one of another kind of these bytes. */
static uint32_t find_part(const vocabulary *v, span bytes)
{
    uint32_t token = vocabulary_find(v, bytes, TOKEN_NORMAL);
    return token != VOCABULARY_NONE ? token : vocabulary_find(v, bytes, TOKEN_SPECIAL | TOKEN_BYTE);
}

static uint32_t find_joined(const vocabulary *v, bpe_merge merge)
{
    char bytes[2 * VOCABULARY_TOKEN_BYTES_MAX];
    memcpy(bytes, merge.left.data, merge.left.size);
    memcpy(bytes + merge.left.size, merge.right.data, merge.right.size);
    return find_part(v, (span){bytes, merge.left.size + merge.right.size});
}

bool bpe_add_merge(bpe *b, bpe_merge merge, error *err)
{
    assert(b->n_merges < b->options.n_merges);
    const vocabulary *v     = b->options.vocabulary;
    uint32_t          left  = find_part(v, merge.left);
    uint32_t          right = find_part(v, merge.right);
    bool              known = left != VOCABULARY_NONE && right != VOCABULARY_NONE;
    uint32_t          token = known ? find_joined(v, merge) : VOCABULARY_NONE;
    if (token == VOCABULARY_NONE)
        return error_set(err, ERR_INVALID, "merge %u joins \"%.*s\" and \"%.*s\": not all three are in the vocabulary",
                         b->n_merges, SPAN_ARG(merge.left), SPAN_ARG(merge.right));
    if (vocabulary_kinds(v, left) & vocabulary_kinds(v, right) & vocabulary_kinds(v, token) & TOKEN_NORMAL)
        bpe_add_ranked_merge(b, b->n_merges, left, right, token); /* the last of two alike counts */
    b->n_merges++;
    return true;
}

void bpe_add_ranked_merge(bpe *b, uint32_t rank, uint32_t left, uint32_t right, uint32_t token)
{
    uint64_t pair = (uint64_t)left << 32 | right, hash = hash_of_pair(b, pair), bit;
    *slot_of_pair(b, pair, hash) = (pair_slot){pair, (uint64_t)rank << 32 | token};
    *word_of_bit(b, hash, &bit) |= bit;
}

/* The token that `piece` is as a whole; VOCABULARY_NONE when merges must tell. */
static uint32_t whole_token(const bpe *b, span piece)
{
    if (piece.size <= WORD_BYTES) {
        const word_slot *slot = slot_of_word(b, word_of(piece));
        return slot->high ? slot->token : VOCABULARY_NONE;
    }
    return b->options.ignore_merges ? vocabulary_find(b->options.vocabulary, piece, TOKEN_NORMAL) : VOCABULARY_NONE;
}

/* The first symbols of a piece, one for each byte, to `symbols` (which may be tokens[]). */
static size_t symbols_of_bytes(const bpe *b, span piece, uint32_t *symbols)
{
    size_t n           = 0;
    bool   was_unknown = false;
    for (size_t i = 0; i < piece.size; i++) {
        uint32_t token   = b->byte_token[(uint8_t)piece.data[i]];
        bool     unknown = token == VOCABULARY_NONE;
        if (unknown && !(was_unknown && b->options.fuse_unknown))
            token = b->options.unknown;
        if (token != VOCABULARY_NONE)
            symbols[n++] = token;
        was_unknown = unknown;
    }
    return n;
}

/* The tokens of a character's bytes; 0 where one has none. */
static size_t put_fallback(const bpe *b, span character, uint32_t *symbols)
{
    for (size_t i = 0; i < character.size; i++) {
        symbols[i] = b->byte_token[(uint8_t)character.data[i]];
        if (symbols[i] == VOCABULARY_NONE)
            return 0;
    }
    return character.size;
}

/* The character at `at`: its token, or VOCABULARY_NONE, and its size; an invalid byte is a character. */
static uint32_t token_of_character(const bpe *b, span piece, size_t at, size_t *size)
{
    uint8_t  byte = (uint8_t)piece.data[at];
    uint32_t c;
    *size = 1;
    if (byte < 0x80)
        return b->ascii_token[byte];
    size_t n = utf8_decode((span){piece.data + at, piece.size - at}, &c);
    *size    = n ? n : 1;

    const word_slot *known = slot_of_word(b, word_of((span){piece.data + at, *size}));
    return known->high ? known->token : VOCABULARY_NONE;
}

/* One for each character that is a token. `tokenizers` keeps an unknown one pending until the next known character, or
 * the next unknown one that it does not fuse with, so bytes that stand for a character overtake it. */
static size_t symbols_of_characters(const bpe *b, span piece, uint32_t *symbols)
{
    size_t n       = 0;
    bool   pending = false;
    for (size_t at = 0, size; at < piece.size; at += size) {
        uint32_t token = token_of_character(b, piece, at, &size);
        bool     known = token != VOCABULARY_NONE;
        size_t   bytes = known ? 0 : put_fallback(b, (span){piece.data + at, size}, symbols + n);
        n += bytes;
        if (bytes || (!known && b->options.unknown == VOCABULARY_NONE))
            continue;
        if (pending && (known || !b->options.fuse_unknown))
            symbols[n++] = b->options.unknown;
        pending = !known;
        if (known)
            symbols[n++] = token;
    }
    if (pending)
        symbols[n++] = b->options.unknown;
    return n;
}

static size_t symbols_of(const bpe *b, span piece, uint32_t *symbols)
{
    return b->options.characters ? symbols_of_characters(b, piece, symbols) : symbols_of_bytes(b, piece, symbols);
}

/* Merges symbols[0..n) in place, n <= SHORT_SYMBOLS. Returns how many are left. */
static size_t merge_short(const bpe *b, uint32_t *symbols, size_t n)
{
    uint64_t merges[SHORT_SYMBOLS];
    for (size_t i = 0; i + 1 < n; i++)
        merges[i] = merge_of(b, symbols[i], symbols[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            best = merges[i] >> 32 < merges[best] >> 32 ? i : best;
        if (merges[best] == NO_MERGE)
            break;
        symbols[best] = (uint32_t)merges[best];
        n--;
        memmove(symbols + best + 1, symbols + best + 2, (n - best - 1) * sizeof *symbols);
        memmove(merges + best, merges + best + 1, (n - best - 1) * sizeof *merges);
        if (best + 1 < n)
            merges[best] = merge_of(b, symbols[best], symbols[best + 1]);
        if (best > 0)
            merges[best - 1] = merge_of(b, symbols[best - 1], symbols[best]);
    }
    return n;
}

/* A long run: symbols in a list, candidate merges in a binary heap of rank << 32 | position. A candidate that a
 * neighbouring merge has overtaken stays in the heap and is known, when it comes up, by its rank. Each merge takes one
 * candidate out and puts two in at most, so 2n of them have room. */
typedef struct {
    const bpe *bpe;
    uint32_t  *symbols; /* or DEAD */
    uint32_t  *previous, *next;
    uint64_t  *heap;
    uint32_t   n;
    size_t     n_heap;
} long_run;

static void heap_push(long_run *p, uint64_t entry)
{
    size_t at = p->n_heap++;
    for (; at > 0 && p->heap[(at - 1) / 2] > entry; at = (at - 1) / 2)
        p->heap[at] = p->heap[(at - 1) / 2];
    p->heap[at] = entry;
}

static uint64_t heap_pop(long_run *p)
{
    uint64_t top = p->heap[0], last = p->heap[--p->n_heap];
    size_t   at = 0;
    for (size_t child; (child = 2 * at + 1) < p->n_heap; at = child) {
        child += child + 1 < p->n_heap && p->heap[child + 1] < p->heap[child];
        if (p->heap[child] >= last)
            break;
        p->heap[at] = p->heap[child];
    }
    p->heap[at] = last;
    return top;
}

static uint64_t merge_at(const long_run *p, uint32_t at)
{
    if (p->symbols[at] == DEAD || p->next[at] == END)
        return NO_MERGE;
    return merge_of(p->bpe, p->symbols[at], p->symbols[p->next[at]]);
}

static void push_merge_at(long_run *p, uint32_t at)
{
    uint64_t merge = merge_at(p, at);
    if (merge != NO_MERGE)
        heap_push(p, (merge & ~(uint64_t)UINT32_MAX) | at);
}

static void merge_long(long_run *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        p->previous[i] = i == 0 ? END : i - 1;
        p->next[i]     = i + 1 == p->n ? END : i + 1;
    }
    for (uint32_t i = 0; i < p->n; i++)
        push_merge_at(p, i);
    while (p->n_heap > 0) {
        uint64_t entry = heap_pop(p);
        uint32_t at    = (uint32_t)entry;
        uint64_t merge = merge_at(p, at);
        if (merge == NO_MERGE || merge >> 32 != entry >> 32)
            continue;
        uint32_t gone    = p->next[at];
        p->symbols[at]   = (uint32_t)merge;
        p->symbols[gone] = DEAD;
        p->next[at]      = p->next[gone];
        if (p->next[at] != END)
            p->previous[p->next[at]] = at;
        push_merge_at(p, at);
        if (p->previous[at] != END)
            push_merge_at(p, p->previous[at]);
    }
}

/* A run of more than SHORT_SYMBOLS symbols, in place. Returns how many are left; 0 when scratch is too small. */
static size_t merge_long_run(const bpe *b, uint32_t *symbols, size_t n, arena *scratch)
{
    size_t   mark = arena_mark(scratch), n_left = 0;
    long_run p = {.bpe = b, .symbols = symbols, .n = (uint32_t)n};
    p.previous = arena_take_array(scratch, n, sizeof *p.previous);
    p.next     = arena_take_array(scratch, n, sizeof *p.next);
    p.heap     = arena_take_array(scratch, n, 2 * sizeof *p.heap);
    if (p.previous && p.next && p.heap) {
        merge_long(&p);
        for (size_t i = 0; i < n; i++)
            if (symbols[i] != DEAD)
                symbols[n_left++] = symbols[i];
    }
    arena_rewind(scratch, mark);
    return n_left;
}

static bool may_join(const bpe *b, uint32_t left, uint32_t right)
{
    uint8_t last = b->edges[left].last, first = b->edges[right].first;
    return b->joins[last][first / 64] >> first % 64 & 1;
}

/* Merges symbols[0..n) and puts what is left. */
static bool encode_runs(const bpe *b, uint32_t *symbols, size_t n, arena *scratch, uint32_t *tokens, size_t n_max,
                        size_t *n_tokens, error *err)
{
    *n_tokens = 0;
    for (size_t at = 0, end; at < n; at = end) {
        for (end = at + 1; end < n && may_join(b, symbols[end - 1], symbols[end]);)
            end++;
        size_t size = end - at, left = 1;
        if (size > SHORT_SYMBOLS)
            left = merge_long_run(b, symbols + at, size, scratch);
        else if (size > 1)
            left = merge_short(b, symbols + at, size);
        if (left == 0)
            return error_set(err, ERR_NO_MEMORY, "no scratch memory to encode a word of %zu characters", size);
        if (left > n_max - *n_tokens)
            return error_set(err, ERR_TOO_LARGE, "the text is more than %zu tokens long", n_max);
        memcpy(tokens + *n_tokens, symbols + at, left * sizeof *tokens);
        *n_tokens += left;
    }
    return true;
}

static bool encode_long(const bpe *b, span piece, arena *scratch, uint32_t *tokens, size_t n_max, size_t *n_tokens,
                        error *err)
{
    size_t mark = arena_mark(scratch);
    if (piece.size >= UINT32_MAX)
        return error_set(err, ERR_TOO_LARGE, "a word of %zu bytes", piece.size);
    uint32_t *symbols = arena_take_array(scratch, piece.size, sizeof *symbols);
    if (!symbols)
        return error_set(err, ERR_NO_MEMORY, "no scratch memory to encode a word of %zu bytes", piece.size);
    bool done = encode_runs(b, symbols, symbols_of(b, piece, symbols), scratch, tokens, n_max, n_tokens, err);
    arena_rewind(scratch, mark);
    return done;
}

bool bpe_encode(const bpe *b, span piece, arena *scratch, uint32_t *tokens, size_t n_max, size_t *n_tokens, error *err)
{
    uint32_t symbols[SHORT_SYMBOLS], whole = whole_token(b, piece);
    if (whole != VOCABULARY_NONE && n_max > 0) {
        tokens[0] = whole;
        *n_tokens = 1;
        return true;
    }
    if (piece.size > SHORT_SYMBOLS)
        return encode_long(b, piece, scratch, tokens, n_max, n_tokens, err);
    return encode_runs(b, symbols, symbols_of(b, piece, symbols), scratch, tokens, n_max, n_tokens, err);
}

/* A token can be looked up whole when merging its bytes ends in it alone. */
void bpe_finish(bpe *b)
{
    const vocabulary *v = b->options.vocabulary;
    for (uint32_t token = 0; token < vocabulary_n_tokens(v); token++) {
        span     bytes = vocabulary_bytes(v, token);
        uint32_t symbols[SHORT_SYMBOLS];
        if (!(vocabulary_kinds(v, token) & TOKEN_NORMAL) || bytes.size > WORD_BYTES)
            continue;
        size_t n = merge_short(b, symbols, symbols_of(b, bytes, symbols));
        if (!b->options.ignore_merges && !(n == 1 && symbols[0] == token))
            continue;
        add_word(b, bytes, token);
    }
}
