/* Upper, lower, title: Python's full case mappings, character by character so that each keeps its origin. */
#include "text/jinja_eval.h"

#include <utf8proc.h>

/* The unconditional entries of SpecialCasing.txt whose upper case has several characters, as far as living scripts use
 * them. */
static const struct {
    uint32_t from;
    uint32_t upper[3], title[3];
} special[] = {
    {0x00DF, {'S', 'S'}, {'S', 's'}},
    {0x0149, {0x02BC, 'N'}, {0x02BC, 'N'}},
    {0x01F0, {'J', 0x030C}, {'J', 0x030C}},
    {0x0390, {0x0399, 0x0308, 0x0301}, {0x0399, 0x0308, 0x0301}},
    {0x03B0, {0x03A5, 0x0308, 0x0301}, {0x03A5, 0x0308, 0x0301}},
    {0x0587, {0x0535, 0x0552}, {0x0535, 0x0582}},
    {0x1E96, {'H', 0x0331}, {'H', 0x0331}},
    {0x1E97, {'T', 0x0308}, {'T', 0x0308}},
    {0x1E98, {'W', 0x030A}, {'W', 0x030A}},
    {0x1E99, {'Y', 0x030A}, {'Y', 0x030A}},
    {0x1E9A, {'A', 0x02BE}, {'A', 0x02BE}},
    {0xFB00, {'F', 'F'}, {'F', 'f'}},
    {0xFB01, {'F', 'I'}, {'F', 'i'}},
    {0xFB02, {'F', 'L'}, {'F', 'l'}},
    {0xFB03, {'F', 'F', 'I'}, {'F', 'f', 'i'}},
    {0xFB04, {'F', 'F', 'L'}, {'F', 'f', 'l'}},
    {0xFB05, {'S', 'T'}, {'S', 't'}},
    {0xFB06, {'S', 'T'}, {'S', 't'}},
};

static bool is_cased(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
           utf8proc_toupper((utf8proc_int32_t)c) != (utf8proc_int32_t)c ||
           utf8proc_tolower((utf8proc_int32_t)c) != (utf8proc_int32_t)c;
}

static void add_upper(jinja_builder *out, uint32_t c, bool title, bool untrusted)
{
    for (size_t i = 0; c >= 0x80 && i < COUNT(special); i++)
        if (special[i].from == c) {
            const uint32_t *to = title ? special[i].title : special[i].upper;
            for (size_t k = 0; k < 3 && to[k]; k++)
                jinja_builder_add_char(out, to[k], untrusted);
            return;
        }
    jinja_builder_add_char(
        out, (uint32_t)(title ? utf8proc_totitle((utf8proc_int32_t)c) : utf8proc_toupper((utf8proc_int32_t)c)),
        untrusted);
}

/* Final sigma: a capital sigma behind a cased letter with none after it. Marks in between don't count. */
static bool is_final_sigma(span text, size_t begin, size_t end)
{
    bool before = false;
    for (size_t at = begin; at > 0 && !before;) {
        size_t last = at - 1;
        while (last > 0 && ((unsigned char)text.data[last] & 0xC0) == 0x80)
            last--;
        size_t   next = last;
        uint32_t c    = jinja_next_char(text, &next);
        before        = is_cased(c);
        if (!before && utf8proc_category((utf8proc_int32_t)c) != UTF8PROC_CATEGORY_MN)
            return false;
        at = last;
    }
    for (size_t at = end; before && at < text.size;) {
        uint32_t c = jinja_next_char(text, &at);
        if (is_cased(c))
            return false;
        if (utf8proc_category((utf8proc_int32_t)c) != UTF8PROC_CATEGORY_MN)
            return true;
    }
    return before;
}

static void add_lower(jinja_builder *out, span text, size_t begin, size_t end, uint32_t c, bool untrusted)
{
    if (c == 0x0130) { /* capital I with dot: i and a combining dot */
        jinja_builder_add_char(out, 'i', untrusted);
        jinja_builder_add_char(out, 0x0307, untrusted);
        return;
    }
    if (c == 0x03A3 && is_final_sigma(text, begin, end))
        jinja_builder_add_char(out, 0x03C2, untrusted);
    else
        jinja_builder_add_char(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c), untrusted);
}

static void add_folded(jinja_builder *out, uint32_t c, bool untrusted)
{
    utf8proc_int32_t folded[4];
    int              boundary = 0;
    utf8proc_ssize_t n        = utf8proc_decompose_char((utf8proc_int32_t)c, folded, 4, UTF8PROC_CASEFOLD, &boundary);
    for (utf8proc_ssize_t i = 0; i < n && i < 4; i++)
        jinja_builder_add_char(out, (uint32_t)folded[i], untrusted);
}

jinja_string *jinja_change_case(jinja *j, const jinja_string *s, jinja_case to)
{
    span          text = jinja_string_text(j, s);
    jinja_builder out;
    bool          in_word = false;
    uint32_t      mark    = 0;
    jinja_builder_start(&out, j);
    for (size_t at = 0, begin = 0; at < text.size; begin = at) {
        uint32_t c = jinja_next_char(text, &at);
        while (mark < s->n_marks && s->marks[mark].end <= begin)
            mark++;
        bool untrusted = s->n_marks ? s->marks[mark].untrusted : s->untrusted;
        bool up        = to == CASE_UPPER || (to == CASE_CAPITALIZE && begin == 0) || (to == CASE_TITLE && !in_word) ||
                  (to == CASE_SWAP && utf8proc_tolower((utf8proc_int32_t)c) == (utf8proc_int32_t)c);
        if (to == CASE_FOLD)
            add_folded(&out, c, untrusted);
        else if (up)
            add_upper(&out, c, to == CASE_TITLE || to == CASE_CAPITALIZE, untrusted);
        else
            add_lower(&out, text, begin, at, c, untrusted);
        in_word = is_cased(c);
    }
    return jinja_builder_finish(&out);
}
