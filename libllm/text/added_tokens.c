/* A trie in an array: a node's children are a list of siblings, the root's a table by byte. */
#include "text/added_tokens.h"

#include "text/unicode.h"
#include <stdlib.h>

typedef struct {
    uint32_t child, sibling; /* node numbers; 0 is none */
    uint32_t entry;          /* list index + 1 of the token that ends here; 0 is none */
    uint8_t  byte;
} node;

typedef struct {
    uint32_t token;
    uint32_t flags;
} entry;

struct added_tokens {
    uint32_t first[256]; /* the root's children */
    node    *nodes;      /* [0] is unused */
    uint32_t n_nodes;
    entry   *entries;
};

/* The child of a list of siblings for `byte`; 0 when there is none. */
static uint32_t child_for(const added_tokens *a, uint32_t child, uint8_t byte)
{
    while (child && a->nodes[child].byte != byte)
        child = a->nodes[child].sibling;
    return child;
}

static void insert(added_tokens *a, span text, uint32_t entry_number)
{
    uint32_t *children = NULL, at = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = (uint8_t)text.data[i];
        children     = i == 0 ? &a->first[byte] : &a->nodes[at].child;
        at           = child_for(a, *children, byte);
        if (!at) {
            at           = a->n_nodes++;
            a->nodes[at] = (node){.sibling = *children, .byte = byte};
            *children    = at;
        }
    }
    if (at)
        a->nodes[at].entry = entry_number;
}

added_tokens *added_tokens_new(const added_token *list, uint32_t n, error *err)
{
    size_t n_bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        n_bytes += list[i].text.size;
    added_tokens *a = n_bytes < UINT32_MAX ? calloc(1, sizeof *a) : NULL;
    if (a) {
        a->nodes   = calloc(n_bytes + 1, sizeof *a->nodes);
        a->entries = calloc((size_t)n + 1, sizeof *a->entries);
        a->n_nodes = 1;
    }
    if (!a || !a->nodes || !a->entries) {
        error_set(err, ERR_NO_MEMORY, "no memory for %u added tokens", n);
        added_tokens_free(&a);
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++) {
        a->entries[i] = (entry){list[i].token, list[i].flags};
        insert(a, list[i].text, i + 1);
    }
    return a;
}

void added_tokens_free(added_tokens **a)
{
    if (!*a)
        return;
    free((*a)->nodes);
    free((*a)->entries);
    free(*a);
    *a = NULL;
}

static bool all_trusted_alike(const marked_text *text, size_t start, size_t end)
{
    const uint8_t *trusted = text->trusted;
    return end - start < 2 || memcmp(trusted + start, trusted + start + 1, end - start - 1) == 0;
}

/* The longest token that begins at `at`: its entry and end, or NULL. A special one counts, found or not, only where all
 * of it has one origin, so that no text of a user's can swallow the beginning of what the template wrote. */
static const entry *longest_at(const added_search *s, size_t at, size_t *end)
{
    const added_tokens *a     = s->added;
    const entry        *found = NULL;
    uint32_t            child = a->first[(uint8_t)s->text.data[at]];
    for (size_t i = at; child;) {
        const node *here = &a->nodes[child];
        i++;
        if (here->entry) {
            const entry *e = &a->entries[here->entry - 1];
            if (!(e->flags & ADDED_SPECIAL) || all_trusted_alike(&s->text, at, i)) {
                found = e;
                *end  = i;
            }
        }
        child = i < s->text.size ? child_for(a, here->child, (uint8_t)s->text.data[i]) : 0;
    }
    return found;
}

static bool next_to_a_word(span text, size_t start, size_t end)
{
    return (start > 0 && unicode_before(text, start).classes & UNICODE_WORD) ||
           (end < text.size && unicode_at(text, end).classes & UNICODE_WORD);
}

bool added_tokens_next(added_search *s, size_t *start, size_t *end, uint32_t *token)
{
    span            text  = {s->text.data, s->text.size};
    const uint32_t *first = s->added->first;
    for (size_t at = s->at; at < text.size; at++) {
        if (!first[(uint8_t)text.data[at]])
            continue;
        const entry *e = longest_at(s, at, end);
        if (!e)
            continue;
        s->at = *end;
        if ((e->flags & ADDED_SPECIAL && !s->text.trusted[at]) ||
            (e->flags & ADDED_SINGLE_WORD && next_to_a_word(text, at, *end))) {
            at = *end - 1; /* what it covers is text, and no other token begins inside */
            continue;
        }
        *start = at;
        *token = e->token;
        while (e->flags & ADDED_LSTRIP && *start > s->done && unicode_before(text, *start).classes & UNICODE_SPACE)
            *start -= unicode_before(text, *start).n_bytes;
        while (e->flags & ADDED_RSTRIP && *end < text.size && unicode_at(text, *end).classes & UNICODE_SPACE)
            *end += unicode_at(text, *end).n_bytes;
        s->done = *end;
        return true;
    }
    s->at = text.size;
    return false;
}
