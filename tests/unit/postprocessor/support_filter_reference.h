/* What the output filter has to say of a text, worked out the slow way: every rule at every place, all text in hand.
 * Letters are those of a small alphabet, whose cases are written down here. Shared by tests and the fuzzer. */
#ifndef TROUPE_TESTS_UNIT_POSTPROCESSOR_SUPPORT_FILTER_REFERENCE_H
#define TROUPE_TESTS_UNIT_POSTPROCESSOR_SUPPORT_FILTER_REFERENCE_H

#include "base/utf8.h"
#include "services/postprocessor/output_filter.h"

#include <stdio.h>
#include <stdlib.h>

enum { REFERENCE_CHARACTERS_MAX = 4096 };

typedef struct {
    const char *action, *keyword, *replacement; /* replacement NULL: none */
    bool        case_matters, whole_words;
} reference_rule;

static inline uint32_t reference_fold(uint32_t c)
{
    static const uint32_t pairs[][2] = {{'A', 'a'}, {'B', 'b'}, {0xC9, 0xE9}, {0x3A3, 0x3C3}, {0x3C2, 0x3C3}};
    for (size_t i = 0; i < COUNT(pairs); i++)
        if (pairs[i][0] == c)
            return pairs[i][1];
    return c;
}

static inline bool reference_in_word(uint32_t c)
{
    return c == '_' || (c < 0x80 ? (c | 32) >= 'a' && (c | 32) <= 'z' : c != 0x2014);
}

static inline uint32_t reference_characters(const char *text, size_t bytes, uint32_t *out)
{
    uint32_t n = 0;
    for (size_t at = 0; at < bytes && n < REFERENCE_CHARACTERS_MAX;)
        at += utf8_decode((span){text + at, bytes - at}, &out[n++]);
    return n;
}

/* The length of the match of `r` at `at` in characters, 0 when there is none. */
static inline uint32_t reference_match(const reference_rule *r, const uint32_t *text, uint32_t n, uint32_t at)
{
    uint32_t keyword[256], k = reference_characters(r->keyword, strlen(r->keyword), keyword);
    if (at + k > n)
        return 0;
    for (uint32_t i = 0; i < k; i++)
        if (r->case_matters ? keyword[i] != text[at + i] : reference_fold(keyword[i]) != reference_fold(text[at + i]))
            return 0;
    if (r->whole_words &&
        ((at > 0 && reference_in_word(text[at - 1])) || (at + k < n && reference_in_word(text[at + k]))))
        return 0;
    return k;
}

/* The rule that blocks, UINT32_MAX for none; *end is where the text ends and *time when that is known: the characters
 * read until then. */
static inline uint32_t reference_block(const reference_rule *rules, uint32_t n_rules, const uint32_t *text, uint32_t n,
                                       uint32_t *end, uint32_t *time)
{
    uint32_t best = UINT32_MAX, longest = 0;
    *end = n, *time = UINT32_MAX;
    for (uint32_t at = 0; at < n; at++)
        for (uint32_t r = 0; r < n_rules; r++) {
            uint32_t k = strcmp(rules[r].action, "block") == 0 ? reference_match(&rules[r], text, n, at) : 0;
            uint32_t t = at + k + rules[r].whole_words;
            if (k > 0 && (t < *time || (t == *time && at == *end && k > longest)))
                best = r, *end = at, *time = t, longest = k;
        }
    return best;
}

/* Writes the filtered text to out, NUL-terminated; returns the rule that blocks. */
static inline uint32_t reference_filter(const reference_rule *rules, uint32_t n_rules, span input, char *out)
{
    static uint32_t text[REFERENCE_CHARACTERS_MAX];
    uint32_t        n       = reference_characters(input.data, input.size, text), end, time;
    uint32_t        blocked = reference_block(rules, n_rules, text, n, &end, &time);
    for (uint32_t at = 0; at < end; at++) {
        uint32_t first = UINT32_MAX, longest = 0;
        bool     masked = false, replaced = false, continues = false;
        for (uint32_t start = 0; start <= at; start++)
            for (uint32_t r = 0; r < n_rules; r++) {
                uint32_t k = reference_match(&rules[r], text, n, start);
                if (start + k <= at || start + k + rules[r].whole_words > time || rules[r].action[0] == 'b')
                    continue;
                bool replaces = rules[r].action[0] == 'r';
                masked        = masked || !replaces;
                replaced      = replaced || replaces;
                continues     = continues || (replaces && start < at);
                if (replaces && start == at && k > longest)
                    first = r, longest = k;
            }
        if (replaced && !continues)
            out += sprintf(out, "%s", rules[first].replacement);
        else if (!replaced && masked)
            *out++ = '*';
        else if (!replaced)
            out += utf8_encode(text[at], out);
    }
    *out = 0;
    return blocked;
}

/* The rules as a file; the caller frees. Rule i is named "r<i>". */
static inline char *reference_yaml(const reference_rule *rules, uint32_t n_rules)
{
    char  *yaml;
    size_t size;
    FILE  *f = open_memstream(&yaml, &size);
    fprintf(f, "rules:%s\n", n_rules ? "" : " []");
    for (uint32_t i = 0; i < n_rules; i++) {
        const reference_rule *r = &rules[i];
        fprintf(f, "  - {name: r%u, action: %s, keywords: [\"%s\"], case_insensitive: %s, whole_words: %s", i,
                r->action, r->keyword, r->case_matters ? "false" : "true", r->whole_words ? "true" : "false");
        fprintf(f, r->replacement ? ", replacement: \"%s\"}\n" : "}\n", r->replacement);
    }
    fclose(f);
    return yaml;
}

/* Random rules and a random text of the alphabet, from `take(arg)`, a source of bytes. */
static const char *const reference_alphabet[] = {"a",      "b",      "A",      " ", "\u00e9",
                                                 "\u00c9", "\u03c3", "\u03c2", "_", "\u2014"};

static inline void reference_random_text(char *out, uint32_t n, uint32_t letters, uint8_t (*take)(void *), void *arg)
{
    *out = 0;
    while (n-- > 0)
        out = stpcpy(out, reference_alphabet[take(arg) % letters]);
}

typedef struct {
    reference_rule rules[6];
    char           keywords[6][64];
    uint32_t       n_rules;
    char           text[1024];
} reference_case;

static inline void reference_random_case(reference_case *c, uint8_t (*take)(void *), void *arg)
{
    static const char *const actions[] = {"mask", "replace", "block"}, *const replacements[] = {"<x>", "", "a\u00e9"};
    uint32_t letters = 1 + take(arg) % COUNT(reference_alphabet);
    c->n_rules       = take(arg) % 7;
    for (uint32_t i = 0; i < c->n_rules; i++) {
        uint8_t how = take(arg);
        reference_random_text(c->keywords[i], 1 + take(arg) % 6, letters, take, arg);
        c->rules[i] = (reference_rule){actions[how % 8 < 4   ? 0
                                               : how % 8 < 7 ? 1
                                                             : 2],
                                       c->keywords[i], NULL, how & 16, how & 32};
        if (c->rules[i].action[0] == 'r')
            c->rules[i].replacement = replacements[(how >> 6) % 3];
    }
    reference_random_text(c->text, take(arg) % 64, letters, take, arg);
}

/* Feeds the text to a stream, a piece at a time: each of 1 + take(arg) % longest characters. Writes what left,
 * NUL-terminated, returns the rule that blocked. */
static inline uint32_t reference_run(output_filter *f, arena *memory, span text, uint32_t longest,
                                     uint8_t (*take)(void *), void *arg, char *out, size_t out_bytes)
{
    filter_output  to = {out, 0, out_bytes};
    filter_stream *s  = filter_stream_new(memory, f, NULL);
    for (size_t at = 0; at < text.size;) {
        size_t   n = 0;
        uint32_t character, left = 1 + take(arg) % longest;
        while (left-- > 0 && at + n < text.size)
            n += utf8_decode((span){text.data + at + n, text.size - at - n}, &character);
        filter_stream_push(s, (span){text.data + at, n}, &to);
        filter_stream_check(s);
        at += n;
    }
    filter_stream_finish(s, &to);
    filter_stream_check(s);
    to.data[to.size] = 0;
    return filter_stream_blocked_by(s);
}

#endif
