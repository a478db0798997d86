/* Jinja's lexer with trim_blocks and lstrip_blocks, as transformers configures it: the newline after a block tag goes,
 * and so does the blank space before one that stands first on its line. jinja2/lexer.py is the reference. */
#include "text/jinja_parser.h"

#include "base/utf8.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

enum { BRACKETS_MAX = 4 * CHAT_TEMPLATE_DEPTH_MAX };

typedef struct {
    jinja_tokens *out;
    const char   *at, *end;
    uint32_t      line;
    bool          line_starting; /* the last thing consumed ended a line */
    uint32_t      n_brackets;
    char          brackets[BRACKETS_MAX]; /* the closers still wanted */
} lexer;

void jinja_fail_at(const jinja_tokens *tokens, uint32_t line, const char *at, const char *format, ...)
{
    char    text[ERROR_TEXT_BYTES / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    text[utf8_valid_prefix(span_of(text))] = '\0';
    size_t column                          = 1;
    for (const char *c = at; c > tokens->source.data && c[-1] != '\n'; c--)
        column++;
    error_set(tokens->j->err, ERR_INVALID, "chat template, line %u, column %zu: %s", line, column, text);
    longjmp(*tokens->j->failure, 1);
}

static bool looking_at(const lexer *l, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(l->end - l->at) >= n && memcmp(l->at, text, n) == 0;
}

static void advance(lexer *l, size_t n)
{
    for (size_t i = 0; i < n; i++)
        l->line += l->at[i] == '\n';
    if (n > 0)
        l->line_starting = l->at[n - 1] == '\n';
    l->at += n;
}

/* Bytes of the white space at `at`. */
static size_t space_at(const lexer *l, const char *at)
{
    span   rest = {at, (size_t)(l->end - at)};
    size_t n    = 0;
    for (size_t next = 0; n < rest.size; n = next)
        if (!jinja_is_space(jinja_next_char(rest, &next)))
            break;
    return n;
}

/* The part of text before its trailing white space. */
static size_t without_trailing_space(span text)
{
    size_t end = text.size;
    while (end > 0) {
        size_t begin = end - 1;
        while (begin > 0 && ((unsigned char)text.data[begin] & 0xC0) == 0x80)
            begin--;
        size_t at = begin;
        if (!jinja_is_space(jinja_next_char(text, &at)))
            break;
        end = begin;
    }
    return end;
}

static jinja_token *add(lexer *l, uint8_t kind)
{
    jinja_tokens *out = l->out;
    if (out->n == out->capacity) {
        size_t       capacity = out->capacity ? 2 * out->capacity : 256;
        jinja_token *tokens   = jinja_take(out->j, capacity, sizeof *tokens);
        if (out->n > 0)
            memcpy(tokens, out->tokens, out->n * sizeof *tokens);
        out->tokens   = tokens;
        out->capacity = capacity;
    }
    out->tokens[out->n] = (jinja_token){.kind = kind, .line = l->line, .at = l->at};
    return &out->tokens[out->n++];
}

static void add_data(lexer *l, span text)
{
    if (text.size > 0)
        add(l, TOKEN_DATA)->text = text;
}

/* The text in front of a tag, less what the tag's sign ('-', '+' or 0) or lstrip_blocks takes away. */
static span before_tag(const lexer *l, span text, char sign, bool is_variable)
{
    if (sign == '-')
        text.size = without_trailing_space(text);
    else if (sign != '+' && !is_variable) {
        const char *newline = text.size ? memrchr(text.data, '\n', text.size) : NULL;
        size_t      begin   = newline ? (size_t)(newline - text.data) + 1 : 0;
        if (begin > 0 || l->line_starting)
            if (without_trailing_space((span){text.data + begin, text.size - begin}) == 0)
                text.size = begin;
    }
    return text;
}

/* Whether a closing tag ("%}") is at `at`, with its sign; *n is its length with the white space it takes along. */
static bool closes(const lexer *l, const char *at, const char *tag, bool plus, bool trim, size_t *n)
{
    size_t left  = (size_t)(l->end - at);
    bool   sign  = left > 0 && (at[0] == '-' || (plus && at[0] == '+'));
    size_t begin = sign ? 1 : 0;
    if (left < begin + 2 || memcmp(at + begin, tag, 2) != 0)
        return false;
    *n = begin + 2;
    if (sign && at[0] == '-')
        *n += space_at(l, at + *n);
    else if (!sign && trim && left > *n && at[*n] == '\n')
        ++*n;
    return true;
}

static void skip_comment(lexer *l)
{
    uint32_t    line = l->line;
    const char *open = l->at;
    for (const char *at = l->at; at < l->end; at++) {
        size_t n;
        if ((*at == '#' || *at == '-' || *at == '+') && closes(l, at, "#}", true, true, &n)) {
            advance(l, (size_t)(at - l->at) + n);
            return;
        }
    }
    jinja_fail_at(l->out, line, open, "a comment that is never closed with #}");
}

/* At "{%": the length of a `{% raw %}` or `{% endraw %}` tag, else 0; *sign is the opening one. */
static size_t raw_tag(const lexer *l, const char *at, const char *word, bool trim, char *sign)
{
    const char *c = at + 2;
    *sign         = c < l->end && (*c == '-' || *c == '+') ? *c : 0;
    c += *sign != 0;
    c += space_at(l, c);
    size_t n = strlen(word), close;
    if ((size_t)(l->end - c) < n || memcmp(c, word, n) != 0)
        return 0;
    c += n;
    c += space_at(l, c);
    return closes(l, c, "%}", trim, trim, &close) ? (size_t)(c - at) + close : 0;
}

static void lex_raw(lexer *l)
{
    for (const char *at = l->at; (at = memmem(at, (size_t)(l->end - at), "{%", 2)); at += 2) {
        char   sign;
        size_t n = raw_tag(l, at, "endraw", true, &sign);
        if (n > 0) {
            add_data(l, before_tag(l, (span){l->at, (size_t)(at - l->at)}, sign, false));
            advance(l, (size_t)(at - l->at) + n);
            return;
        }
    }
    jinja_fail_at(l->out, l->line, l->at, "a raw block that is never closed with endraw");
}

/* ---- inside tags ---- */

static unsigned digit_value(char c)
{
    return c >= '0' && c <= '9'        ? (unsigned)(c - '0')
           : isalpha((unsigned char)c) ? (unsigned)(tolower(c) - 'a' + 10)
                                       : 99;
}

/* Copies digits of `base` (single underscores between them are skipped) to `digits`; returns the bytes read. */
static size_t read_digits(const lexer *l, const char *at, unsigned base, char *digits, size_t *n_digits, size_t n_max)
{
    const char *c = at;
    while (c < l->end) {
        bool underscore = *c == '_' && c > at && c + 1 < l->end && digit_value(c[1]) < base;
        if (!underscore && digit_value(*c) >= base)
            break;
        if (!underscore && *n_digits + 1 < n_max)
            digits[(*n_digits)++] = *c;
        else if (!underscore)
            jinja_fail_at(l->out, l->line, l->at, "a number of too many digits");
        c++;
    }
    digits[*n_digits] = '\0';
    return (size_t)(c - at);
}

enum { DIGITS_MAX = 400 };

/* A float at l->at: digits, then a fraction or an exponent or both. Returns its length, 0 when there is none. */
static size_t read_float(const lexer *l, char *digits)
{
    size_t n = 0, at = read_digits(l, l->at, 10, digits, &n, DIGITS_MAX);
    bool   is_float = false;
    if (at == 0 || (l->at > l->out->source.data && l->at[-1] == '.'))
        return 0;
    if (l->at + at + 1 < l->end && l->at[at] == '.' && isdigit((unsigned char)l->at[at + 1])) {
        digits[n++] = '.';
        at += 1 + read_digits(l, l->at + at + 1, 10, digits, &n, DIGITS_MAX);
        is_float = true;
    }
    if (l->at + at < l->end && (l->at[at] == 'e' || l->at[at] == 'E') && n + 2 < DIGITS_MAX) {
        const char *c     = l->at + at + 1;
        size_t      saved = n;
        digits[n++]       = 'e';
        if (c < l->end && (*c == '+' || *c == '-'))
            digits[n++] = *c++;
        size_t exponent = read_digits(l, c, 10, digits, &n, DIGITS_MAX);
        if (exponent > 0) {
            at       = (size_t)(c - l->at) + exponent;
            is_float = true;
        } else
            n = saved;
    }
    digits[n] = '\0';
    return is_float ? at : 0;
}

static void lex_number(lexer *l)
{
    char   digits[DIGITS_MAX];
    size_t n_digits = 0, n = read_float(l, digits);
    if (n > 0) {
        add(l, TOKEN_NUMBER)->value = jinja_float(strtod(digits, NULL));
        advance(l, n);
        return;
    }
    unsigned base = 10;
    size_t   skip = 0;
    if (l->at[0] == '0' && l->at + 2 < l->end) {
        char kind = (char)tolower(l->at[1]);
        base      = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
        skip      = base != 10 ? 2 + (l->at[2] == '_') : 0;
    }
    n = read_digits(l, l->at + skip, base, digits, &n_digits, DIGITS_MAX);
    char              *stop;
    unsigned long long value = strtoull(digits, &stop, (int)base);
    if (n == 0 || *stop || value > INT64_MAX || n_digits > 64 || (base == 10 && n_digits > 19))
        jinja_fail_at(l->out, l->line, l->at, "an integer that does not fit in 64 bits");
    if (base == 10 && digits[0] == '0' && value != 0)
        jinja_fail_at(l->out, l->line, l->at, "a decimal number with a leading zero");
    add(l, TOKEN_NUMBER)->value = jinja_int((int64_t)value);
    advance(l, skip + n);
}

static bool is_name_char(uint32_t c, bool first)
{
    if (c < 0x80)
        return c == '_' || isalpha((int)c) || (!first && isdigit((int)c));
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) || k == UTF8PROC_CATEGORY_NL ||
           (!first && k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ND);
}

static size_t name_at(const lexer *l)
{
    span   rest = {l->at, (size_t)(l->end - l->at)};
    size_t n    = 0;
    for (size_t next = 0; n < rest.size; n = next)
        if (!is_name_char(jinja_next_char(rest, &next), n == 0))
            break;
    return n;
}

/* One backslash escape of a Python literal at *c (behind the backslash); unknown ones stand for themselves. */
static void unescape(lexer *l, const char **c, const char *end, jinja_builder *out)
{
    static const char letters[] = "\\'\"abfnrtv", values[] = "\\'\"\a\b\f\n\r\t\v";
    char              kind  = *(*c)++;
    const char       *found = strchr(letters, kind);
    uint32_t          code  = 0;
    if (kind == '\n')
        return;
    if (found && kind) {
        jinja_builder_add(out, (span){&values[found - letters], 1}, false);
        return;
    }
    if (kind >= '0' && kind <= '7') {
        code = (uint32_t)(kind - '0');
        for (int i = 0; i < 2 && *c < end && **c >= '0' && **c <= '7'; i++)
            code = code * 8 + (uint32_t)(*(*c)++ - '0');
        jinja_builder_add_char(out, code, false);
        return;
    }
    int n = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    if (kind == 'N')
        jinja_fail_at(l->out, l->line, l->at, "\\N{...} in a string is not supported");
    if (n == 0) {
        jinja_builder_add(out, SPAN("\\"), false);
        *c -= 1; /* the character itself is copied next, whole, also when it has several bytes */
        return;
    }
    for (int i = 0; i < n; i++) {
        if (*c >= end || digit_value(**c) >= 16)
            jinja_fail_at(l->out, l->line, l->at, "\\%c needs %d hexadecimal digits", kind, n);
        code = code * 16 + digit_value(*(*c)++);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        jinja_fail_at(l->out, l->line, l->at, "\\%c%0*X is not a character", kind, n, (unsigned)code);
    jinja_builder_add_char(out, code, false);
}

static void lex_string(lexer *l)
{
    char        quote = *l->at;
    const char *end   = l->at + 1;
    bool        plain = true;
    for (; end < l->end && *end != quote; end++)
        if (*end == '\\') {
            plain = false;
            if (++end == l->end)
                break;
        }
    if (end >= l->end)
        jinja_fail_at(l->out, l->line, l->at, "a string that is never closed");
    span text = {l->at + 1, (size_t)(end - l->at) - 1};
    if (!plain) {
        jinja_builder out;
        jinja_builder_start(&out, l->out->j);
        for (const char *c = text.data; c < end;) {
            const char *slash = memchr(c, '\\', (size_t)(end - c));
            jinja_builder_add(&out, (span){c, (size_t)((slash ? slash : end) - c)}, false);
            c                  = slash ? slash + 1 : end;
            const char *before = c;
            if (slash)
                unescape(l, &c, end, &out);
            if (slash && c == before) { /* an unknown escape: its first character must not be read as a slash again */
                size_t at = 0;
                jinja_builder_add_char(&out, jinja_next_char((span){c, (size_t)(end - c)}, &at), false);
                c += at;
            }
        }
        text = jinja_builder_finish(&out)->text;
    }
    add(l, TOKEN_STRING)->text = text;
    advance(l, (size_t)(end - l->at) + 1);
}

static void lex_operator(lexer *l)
{
    static const struct {
        char    text[3];
        uint8_t kind;
    } pairs[] = {{"**", TOKEN_POWER},     {"//", TOKEN_FLOOR_DIVIDE}, {"==", TOKEN_EQUAL},
                 {"!=", TOKEN_NOT_EQUAL}, {">=", TOKEN_AT_LEAST},     {"<=", TOKEN_AT_MOST}};
    for (size_t i = 0; i < COUNT(pairs); i++)
        if (looking_at(l, pairs[i].text)) {
            add(l, pairs[i].kind);
            advance(l, 2);
            return;
        }
    char c = *l->at;
    if (!c || !strchr("+-/*%~[](){}><=.:|,;", c)) {
        size_t at = 0;
        (void)jinja_next_char((span){l->at, (size_t)(l->end - l->at)}, &at);
        jinja_fail_at(l->out, l->line, l->at, "unexpected '%.*s'", (int)at, l->at);
    }
    if (c == '(' || c == '[' || c == '{') {
        if (l->n_brackets == BRACKETS_MAX)
            jinja_fail_at(l->out, l->line, l->at, "brackets nested more than %d deep", BRACKETS_MAX);
        l->brackets[l->n_brackets++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (l->n_brackets == 0)
            jinja_fail_at(l->out, l->line, l->at, "unexpected '%c'", c);
        if (l->brackets[--l->n_brackets] != c)
            jinja_fail_at(l->out, l->line, l->at, "unexpected '%c', expected '%c'", c, l->brackets[l->n_brackets]);
    }
    add(l, (uint8_t)c);
    advance(l, 1);
}

/* Tokens up to the tag's end. */
static void lex_tag(lexer *l, bool is_variable)
{
    l->n_brackets = 0;
    while (l->at < l->end) {
        size_t n;
        if (l->n_brackets == 0 && closes(l, l->at, is_variable ? "}}" : "%}", !is_variable, !is_variable, &n)) {
            add(l, is_variable ? TOKEN_VARIABLE_END : TOKEN_BLOCK_END);
            advance(l, n);
            return;
        }
        if ((n = space_at(l, l->at)) > 0)
            advance(l, n);
        else if (isdigit((unsigned char)*l->at))
            lex_number(l);
        else if ((n = name_at(l)) > 0) {
            add(l, TOKEN_NAME)->text = (span){l->at, n};
            advance(l, n);
        } else if (*l->at == '"' || *l->at == '\'')
            lex_string(l);
        else
            lex_operator(l);
    }
    /* Without its end the tag runs into the end of the template; the parser says what it still wanted. */
}

static const char *next_tag(const lexer *l)
{
    for (const char *at = l->at; at < l->end && (at = memchr(at, '{', (size_t)(l->end - at))); at++)
        if (at + 1 < l->end && (at[1] == '%' || at[1] == '{' || at[1] == '#'))
            return at;
    return NULL;
}

static void lex_next(lexer *l)
{
    const char *tag = next_tag(l);
    if (!tag) {
        add_data(l, (span){l->at, (size_t)(l->end - l->at)});
        advance(l, (size_t)(l->end - l->at));
        return;
    }
    char   kind = tag[1], sign;
    size_t raw  = kind == '%' ? raw_tag(l, tag, "raw", false, &sign) : 0;
    if (raw == 0)
        sign = tag + 2 < l->end && (tag[2] == '-' || tag[2] == '+') ? tag[2] : 0;
    add_data(l, before_tag(l, (span){l->at, (size_t)(tag - l->at)}, sign, kind == '{'));
    advance(l, (size_t)(tag - l->at));
    if (raw > 0) {
        advance(l, raw);
        lex_raw(l);
        return;
    }
    if (kind != '#')
        add(l, kind == '{' ? TOKEN_VARIABLE_BEGIN : TOKEN_BLOCK_BEGIN);
    advance(l, 2 + (sign != 0));
    if (kind == '#')
        skip_comment(l);
    else
        lex_tag(l, kind == '{');
}

void jinja_lex(jinja *j, span source, jinja_tokens *tokens)
{
    *tokens = (jinja_tokens){.j = j, .source = source};
    if (!utf8_is_valid(source))
        jinja_fail_at(tokens, 1, source.data, "the template is not valid UTF-8");
    char  *text = jinja_take(j, source.size, 1);
    size_t n    = 0;
    for (size_t i = 0; i < source.size; i++)
        if (source.data[i] != '\r')
            text[n++] = source.data[i];
        else if (i + 1 == source.size || source.data[i + 1] != '\n')
            text[n++] = '\n';
    if (n > 0 && text[n - 1] == '\n') /* keep_trailing_newline is off */
        n--;
    tokens->source = (span){text, n};
    lexer l        = {.out = tokens, .at = text, .end = text + n, .line = 1, .line_starting = true};
    while (l.at < l.end)
        lex_next(&l);
    add(&l, TOKEN_EOF);
}
