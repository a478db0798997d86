/* Keywords that must not leave: masked, replaced, or a reason to end the answer, while the text streams.
 *
 *   rules:
 *     - name: secrets
 *       action: block              # block | mask | replace
 *       keywords: [project bluebird, "4711"]
 *     - name: swearing
 *       action: replace
 *       replacement: "[removed]"   # of action replace, and only there
 *       keywords: [darn]
 *       case_insensitive: true     # the default
 *       whole_words: true          # default false: no letter, digit or underscore on either side
 *
 * One Aho-Corasick automaton (Aho, Corasick, 1975) finds every occurrence of every keyword, overlapping ones too. What
 * may still become a keyword is kept back, so no part of one ever leaves:
 *   - block: the text ends before the match; of several, the one that is complete first, then the one that begins
 * first.
 *   - mask: every character of a match becomes `*`.
 *   - replace: a run of overlapping matches becomes one replacement, that of its first match (the longest of those that
 *     begin there, then that of the first rule); a character that is masked and replaced is replaced.
 * Without regard to case means: as lower case of upper case, a character at a time.
 *
 * An output_filter is immutable but for its counters and belongs to one thread. */
#ifndef TROUPE_POSTPROCESSOR_OUTPUT_FILTER_H
#define TROUPE_POSTPROCESSOR_OUTPUT_FILTER_H

#include "base/arena.h"
#include "base/error.h"
#include "base/metric.h"
#include "base/span.h"

enum {
    FILTER_RULES_MAX             = 1000,
    FILTER_KEYWORDS_MAX          = 1 << 16, /* of all rules */
    FILTER_KEYWORD_BYTES_MAX     = 256,
    FILTER_REPLACEMENT_BYTES_MAX = 256,
    FILTER_NAME_BYTES_MAX        = 64, /* letters, digits, '_', '-' and '.' */
    FILTER_FILE_BYTES_MAX        = 4 << 20,
    FILTER_STREAM_BYTES_MAX      = 4096,                         /* of any rules */
    FILTER_EXPANSION_MAX         = FILTER_REPLACEMENT_BYTES_MAX, /* bytes out for a byte in */
};

typedef struct output_filter output_filter;

/* Compiles rules from YAML text; `name` is for errors, which say line and column. NULL with *err. The caller holds one
 * reference. */
output_filter *output_filter_parse(span yaml, const char *name, error *err);
output_filter *output_filter_load(const char *path, error *err);

output_filter *output_filter_hold(output_filter *f); /* one more reference; returns f */
void           output_filter_release(output_filter **f);

uint32_t    output_filter_n_rules(const output_filter *f);
const char *output_filter_rule_name(const output_filter *f, uint32_t rule);
uint64_t    output_filter_n_matches(const output_filter *f, uint32_t rule); /* occurrences found since it was made */

/* Adds to `counter` for each occurrence from now on. */
void output_filter_count_in(output_filter *f, uint32_t rule, metric *counter);

/* ---- one text ---- */

/* Where text goes; the caller's memory. */
typedef struct {
    char  *data;
    size_t size, capacity;
} filter_output;

typedef struct filter_stream filter_stream;

/* Takes at most FILTER_STREAM_BYTES_MAX of the arena. `f` must outlive the stream. */
filter_stream *filter_stream_new(arena *memory, output_filter *f, error *err);

/* Calls `said` for each character of the text that left, in order: covered ones were masked or replaced. What a rule
 * blocked never leaves. */
void filter_stream_watch(filter_stream *s, void (*said)(void *self, bool is_covered), void *self);

/* What filter_stream_push of a text of text_bytes, or filter_stream_finish (of 0), appends at most with any rules. */
size_t filter_output_bytes_max(size_t text_bytes);

/* Adds whole characters of UTF-8 and appends to *out what became final; out has room for filter_output_bytes_max.
 * Returns false when a rule blocks: the text ended with what was appended, and later calls append nothing. */
bool filter_stream_push(filter_stream *s, span text, filter_output *out);
bool filter_stream_finish(filter_stream *s, filter_output *out); /* the text ends here: appends what was kept back */

/* The rule that blocked; UINT32_MAX while none did. */
uint32_t filter_stream_blocked_by(const filter_stream *s);
void     filter_stream_check(const filter_stream *s); /* asserts every invariant */

#endif
