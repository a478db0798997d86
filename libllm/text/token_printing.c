/* A second vocabulary by the same ids, of what the tokens print. */
#include "text/token_printing.h"

#include <stdlib.h>

#define BLANK SPAN("\xE2\x96\x81") /* U+2581 */

/* One token on its way to what it prints; never longer than it is spelled but for a blank. */
typedef struct {
    char  *data;
    size_t size;
} printed;

static bool begins_with(span text, span beginning)
{
    return text.size >= beginning.size && memcmp(text.data, beginning.data, beginning.size) == 0;
}

static void print_replaced(span spelling, bool drop, printed *out)
{
    for (size_t at = 0; at < spelling.size;) {
        if (!begins_with((span){spelling.data + at, spelling.size - at}, BLANK)) {
            out->data[out->size++] = spelling.data[at++];
            continue;
        }
        if (!drop)
            out->data[out->size++] = ' ';
        at += BLANK.size;
    }
}

/* `tokenizers`' cleanup, which sees a token and the blank before it. Inside a token nothing has a blank before it. */
static bool loses_its_blank(span spelling)
{
    static const char *const beginnings[] = {".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"};
    for (size_t i = 0; i < COUNT(beginnings); i++)
        if (begins_with(spelling, span_of(beginnings[i])))
            return true;
    return false;
}

static void print_joined(span spelling, const token_printing *how, bool first, printed *out)
{
    bool continues = begins_with(spelling, how->prefix);
    if (!first && continues)
        spelling = (span){spelling.data + how->prefix.size, spelling.size - how->prefix.size};
    if (!first && !continues && !(how->cleanup && loses_its_blank(spelling)))
        out->data[out->size++] = ' ';
    memcpy(out->data + out->size, spelling.data, spelling.size);
    out->size += spelling.size;
}

static void print(span spelling, const token_printing *how, bool first, printed *out)
{
    int byte  = how->bytes ? vocabulary_byte_of_name(spelling) : -1;
    out->size = 0;
    if (byte >= 0)
        out->data[out->size++] = (char)byte;
    else if (how->start == START_WITHOUT_JOINT)
        print_joined(spelling, how, first, out);
    else if (how->blanks)
        print_replaced(spelling, first && how->start == START_WITHOUT_BLANKS, out);
    else
        memcpy(out->data, spelling.data, out->size = spelling.size);
    if (first && how->start == START_WITHOUT_ONE_BLANK && out->size > 0 && out->data[0] == ' ')
        memmove(out->data, out->data + 1, --out->size);
}

vocabulary *printed_tokens(const vocabulary *spelled, const token_printing *how, bool first, error *err)
{
    uint32_t    n    = vocabulary_n_tokens(spelled);
    printed     out  = {malloc(vocabulary_longest(spelled) + 1), 0};
    vocabulary *v    = out.data ? vocabulary_new(n, err) : NULL;
    bool        done = v || error_set(err, ERR_NO_MEMORY, "no memory for what %u tokens print", n);
    for (uint32_t token = 0; token < n && done; token++) {
        span spelling = vocabulary_bytes(spelled, token);
        out.size      = 0;
        if (spelling.size > 0)
            print(spelling, how, first, &out);
        done = vocabulary_append(v, (span){out.data, out.size}, TOKEN_NORMAL, err);
    }
    if (!done)
        vocabulary_free(&v);
    free(out.data);
    return v;
}
