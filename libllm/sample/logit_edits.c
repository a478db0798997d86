/* See logit_edits.h. `place` maps a token to its edit in the list being built; it is put back to "none" after each
 * build. */
#include "sample/logit_edits.h"

#include <assert.h>
#include <stdlib.h>

enum { NONE = UINT32_MAX };

struct logit_editor {
    uint32_t  n_vocab;
    uint32_t *place;
};

logit_editor *logit_editor_new(uint32_t n_vocab, error *err)
{
    logit_editor *e = calloc(1, sizeof *e);
    if (!e || !(e->place = malloc(n_vocab * sizeof *e->place))) {
        free(e);
        error_set(err, ERR_NO_MEMORY, "no memory for the logit edits of %u tokens", n_vocab);
        return NULL;
    }
    e->n_vocab = n_vocab;
    memset(e->place, 0xff, n_vocab * sizeof *e->place);
    return e;
}

void logit_editor_free(logit_editor **e)
{
    if (*e) {
        free((*e)->place);
        free(*e);
        *e = NULL;
    }
}

static bool has_penalty(const sampling_params *p)
{
    return p->repetition_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0;
}

static uint32_t n_output(const logit_history *h)
{
    return h->n_tokens - h->n_prompt;
}

/* Too early to stop. With ignore_eos stop tokens mean nothing, so there is nothing to ban. */
static bool bans_stops(const logit_history *h)
{
    return !h->sampling->ignore_eos && n_output(h) < h->sampling->min_tokens;
}

uint32_t logit_edits_max(const logit_editor *e, const logit_history *h)
{
    uint64_t n = (uint64_t)h->sampling->n_logit_bias + h->n_stop_tokens;
    if (has_penalty(h->sampling) || h->sampling->no_repeat_ngram > 0)
        n += h->n_tokens;
    return n < e->n_vocab ? (uint32_t)n : e->n_vocab;
}

typedef struct {
    logit_editor    *editor;
    kern_logit_edit *edits;
    uint32_t         n;
} builder;

/* The edit of `token`, made when there is none; NULL when the token is not in the vocabulary. */
static kern_logit_edit *edit_of(builder *b, uint32_t token)
{
    if (token >= b->editor->n_vocab)
        return NULL;
    uint32_t *place = &b->editor->place[token];
    if (*place == NONE) {
        *place           = b->n++;
        b->edits[*place] = (kern_logit_edit){.token = token};
    }
    return &b->edits[*place];
}

static void count_tokens(builder *b, const logit_history *h)
{
    for (uint32_t i = 0; i < h->n_tokens; i++) {
        kern_logit_edit *edit = edit_of(b, h->tokens[i]);
        if (edit) {
            edit->seen = true;
            edit->n_output += i >= h->n_prompt;
        }
    }
}

/* Bans every token that followed an earlier occurrence of the last n - 1 tokens. */
static void ban_repeated_ngrams(builder *b, const logit_history *h)
{
    uint32_t n_before = h->sampling->no_repeat_ngram - 1;
    if (h->n_tokens < n_before + 1)
        return;
    const uint32_t *last = h->tokens + h->n_tokens - n_before;
    for (uint32_t i = 0; i + n_before < h->n_tokens; i++) {
        if (n_before == 0 || memcmp(h->tokens + i, last, n_before * sizeof *last) == 0) {
            kern_logit_edit *edit = edit_of(b, h->tokens[i + n_before]);
            if (edit)
                edit->banned = true;
        }
    }
}

uint32_t logit_edits_build(logit_editor *e, const logit_history *h, kern_logit_edit *edits)
{
    builder                b = {e, edits, 0};
    const sampling_params *p = h->sampling;
    if (has_penalty(p))
        count_tokens(&b, h);
    if (p->no_repeat_ngram > 0)
        ban_repeated_ngrams(&b, h);
    for (uint32_t i = 0; i < p->n_logit_bias; i++) {
        kern_logit_edit *edit = edit_of(&b, p->logit_bias[i].token);
        if (edit)
            edit->bias += p->logit_bias[i].bias;
    }
    for (uint32_t i = 0; i < h->n_stop_tokens && bans_stops(h); i++) {
        kern_logit_edit *edit = edit_of(&b, h->stop_tokens[i]);
        if (edit)
            edit->banned = true;
    }
    assert(b.n <= logit_edits_max(e, h));
    for (uint32_t i = 0; i < b.n; i++)
        e->place[edits[i].token] = NONE;
    return b.n;
}
