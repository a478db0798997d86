/* The hand-written scanners behind pretokenize.h, and the regular expressions beside them. */
#ifndef TROUPE_TEXT_PRETOKENIZE_RULES_H
#define TROUPE_TEXT_PRETOKENIZE_RULES_H

#include "text/pretokenize.h"

/* Each returns the end of the piece that begins at byte `at` of `text`; at < text.size. */
size_t pretokenize_next_gpt2(span text, size_t at, bool single_digits);
size_t pretokenize_next_llama3(span text, size_t at, uint32_t digits_max);
size_t pretokenize_next_digits(span text, size_t at, bool single_digits);
size_t pretokenize_next_bert(span text, size_t at, bool punctuation_alone); /* no space begins at `at` */
size_t pretokenize_next_word(span text, size_t at);                         /* no space begins at `at` */
size_t pretokenize_next_punctuation(span text, size_t at);
size_t pretokenize_next_blank(span text, size_t at, bool cuts_runs);

typedef struct pretokenize_regex pretokenize_regex;

pretokenize_regex *pretokenize_regex_new(span pattern, error *err);
void               pretokenize_regex_free(pretokenize_regex **regex);

/* The matches of one text, first to last. `match_data` lives in the arena given to pretokenize_regex_begin. */
typedef struct {
    const pretokenize_regex *regex;
    void                    *match_data;
    span                     text;
    size_t                   at; /* where the next search begins */
} pretokenize_search;

bool pretokenize_regex_begin(pretokenize_search *s, const pretokenize_regex *regex, span text, arena *scratch,
                             error *err);

/* The next match that is not empty; *found is false when there is none. */
bool pretokenize_regex_next(pretokenize_search *s, size_t *start, size_t *end, bool *found, error *err);

#endif
