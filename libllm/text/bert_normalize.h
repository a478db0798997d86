/* What BERT's tokenizer does to a text before it cuts it into words: `tokenizers`' BertNormalizer, character by
 * character as that has it. */
#ifndef TROUPE_TEXT_BERT_NORMALIZE_H
#define TROUPE_TEXT_BERT_NORMALIZE_H

#include "base/arena.h"
#include "base/error.h"
#include "base/span.h"

/* In the order they are done in. */
typedef struct {
    bool clean_text;     /* control characters and what is not UTF-8 vanish, other whitespace becomes a blank */
    bool chinese_blanks; /* a blank on both sides of each CJK ideograph */
    bool strip_accents;  /* form D without its nonspacing marks */
    bool lowercase;
} bert_options;

/* The bytes that a byte of text can become, and the scratch memory it takes besides. */
enum { BERT_GROWTH = 6, BERT_SCRATCH_PER_BYTE = 74 };

/* Writes `text` normalized to `out`, which has room for BERT_GROWTH times its bytes; *n_out is how many were written.
 * Linear time. ERR_NO_MEMORY. */
bool bert_normalize(const bert_options *options, span text, arena *scratch, char *out, size_t *n_out,
                    error *err) MUST_CHECK;

/* What BertPreTokenizer makes a word of its own. */
bool bert_is_punctuation(uint32_t code_point);

/* What the normalizer StripAccents drops: marks of every kind, while BertNormalizer drops those that take no space. */
bool bert_is_accent(uint32_t code_point);

/* The generated tables: sorted ranges of code points, both ends included. */
typedef struct {
    uint32_t first, last;
} bert_range;

typedef struct {
    uint32_t first, last;
    int32_t  difference; /* to the lowercase letter */
} bert_difference;

extern const bert_range      bert_dropped[], bert_blanks[], bert_marks[], bert_accents[], bert_chinese[];
extern const bert_range      bert_punctuation[];
extern const bert_difference bert_lowercase[]; /* letters that utf8proc does not know yet */
extern const size_t          bert_dropped_ranges, bert_blanks_ranges, bert_marks_ranges, bert_chinese_ranges;
extern const size_t          bert_accents_ranges, bert_punctuation_ranges, bert_lowercase_ranges;

#endif
