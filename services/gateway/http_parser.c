/* The strict request parser: the head line by line in place, the framing of the body through a byte machine. */
#include "services/gateway/http_parser.h"

#include <assert.h>
#include <strings.h>

enum {
    PHASE_REQUEST_LINE,
    PHASE_HEADERS,
    PHASE_LENGTH, /* a body of known length */
    PHASE_CHUNK_FIRST,
    PHASE_CHUNK_DIGITS,
    PHASE_CHUNK_EXTENSION,
    PHASE_CHUNK_LF,
    PHASE_CHUNK_DATA,
    PHASE_DATA_CR,
    PHASE_DATA_LF,
    PHASE_TRAILER_FIRST,
    PHASE_TRAILER_NAME,
    PHASE_TRAILER_VALUE,
    PHASE_TRAILER_LF,
    PHASE_LAST_LF,
    PHASE_DONE,
};

/* RFC 9110 §5.6.2 tokens and §5.5 values, RFC 3986 §3.3 path and query; hosts without the characters nobody uses. */
enum { TOKEN = 1, TARGET = 2, HOST = 4, VALUE = 8, HEX = 16, DIGIT = 32 };

static const uint8_t kinds[256] = {
    ['\t']          = VALUE,
    [' ']           = VALUE,
    ['"']           = VALUE,
    ['<']           = VALUE,
    ['>']           = VALUE,
    ['\\']          = VALUE,
    ['{']           = VALUE,
    ['}']           = VALUE,
    [0x80 ... 0xff] = VALUE,
    ['#']           = VALUE | TOKEN,
    ['^']           = VALUE | TOKEN,
    ['`']           = VALUE | TOKEN,
    ['|']           = VALUE | TOKEN,
    ['[']           = VALUE | HOST,
    [']']           = VALUE | HOST,
    [':']           = VALUE | HOST | TARGET,
    ['(']           = VALUE | TARGET,
    [')']           = VALUE | TARGET,
    [',']           = VALUE | TARGET,
    [';']           = VALUE | TARGET,
    ['=']           = VALUE | TARGET,
    ['@']           = VALUE | TARGET,
    ['/']           = VALUE | TARGET,
    ['?']           = VALUE | TARGET,
    ['!']           = VALUE | TARGET | TOKEN,
    ['$']           = VALUE | TARGET | TOKEN,
    ['%']           = VALUE | TARGET | TOKEN,
    ['&']           = VALUE | TARGET | TOKEN,
    ['\'']          = VALUE | TARGET | TOKEN,
    ['*']           = VALUE | TARGET | TOKEN,
    ['+']           = VALUE | TARGET | TOKEN,
    ['~']           = VALUE | TARGET | TOKEN,
    ['-']           = VALUE | TARGET | TOKEN | HOST,
    ['.']           = VALUE | TARGET | TOKEN | HOST,
    ['_']           = VALUE | TARGET | TOKEN | HOST,
    ['0' ... '9']   = VALUE | TARGET | TOKEN | HOST | HEX | DIGIT,
    ['A' ... 'F']   = VALUE | TARGET | TOKEN | HOST | HEX,
    ['G' ... 'Z']   = VALUE | TARGET | TOKEN | HOST,
    ['a' ... 'f']   = VALUE | TARGET | TOKEN | HOST | HEX,
    ['g' ... 'z']   = VALUE | TARGET | TOKEN | HOST,
};

static bool is(char c, uint8_t kind)
{
    return kinds[(uint8_t)c] & kind;
}

static bool all_are(span text, uint8_t kind)
{
    for (size_t i = 0; i < text.size; i++)
        if (!is(text.data[i], kind))
            return false;
    return true;
}

static const struct {
    const char *cause;
    const char *sentence;
    int         status;
} refusals[N_HTTP_REFUSALS] = {
#define X(name, status, cause, sentence) [HTTP_REFUSED_##name] = {cause, sentence, status},
    HTTP_REFUSALS(X)
#undef X
};

int http_refusal_status(http_refusal refusal)
{
    assert(refusal < N_HTTP_REFUSALS);
    return refusals[refusal].status;
}

const char *http_refusal_cause(http_refusal refusal)
{
    assert(refusal < N_HTTP_REFUSALS);
    return refusals[refusal].cause;
}

const char *http_refusal_sentence(http_refusal refusal)
{
    assert(refusal < N_HTTP_REFUSALS);
    return refusals[refusal].sentence;
}

static const char *const method_names[N_HTTP_METHODS] = {"GET",     "HEAD",  "POST",  "PUT",  "DELETE",
                                                         "OPTIONS", "PATCH", "TRACE", "QUERY"};

const char *http_method_name(http_method method)
{
    assert(method < N_HTTP_METHODS);
    return method_names[method];
}

http_limits http_limits_default(void)
{
    return (http_limits){.request_line_bytes = 8 * 1024,
                         .headers_bytes      = 32 * 1024,
                         .n_headers          = HTTP_HEADERS_MAX,
                         .trailers_bytes     = 4 * 1024,
                         .body_bytes         = 4 * 1024 * 1024};
}

void http_parser_init(http_parser *p, const http_limits *limits)
{
    assert(limits->n_headers <= HTTP_HEADERS_MAX);
    assert((uint64_t)limits->request_line_bytes + limits->headers_bytes <= HTTP_HEAD_BYTES_MAX);
    memset(p, 0, offsetof(http_parser, limits)); /* not the header places: they are written before they are read */
    p->limits = *limits;
}

static http_progress refuse(http_parser *p, http_refusal refusal)
{
    p->refusal = refusal;
    return HTTP_REFUSED;
}

static bool method_from(span name, http_method *method)
{
    for (int i = 0; i < N_HTTP_METHODS; i++) {
        if (span_is(name, method_names[i])) {
            *method = i;
            return true;
        }
    }
    return false;
}

static bool target_is_valid(span target)
{
    if (target.size == 0 || target.data[0] != '/' || !all_are(target, TARGET))
        return false;
    for (size_t i = 0; i < target.size; i++) {
        if (target.data[i] != '%')
            continue;
        if (target.size - i < 3 || !is(target.data[i + 1], HEX) || !is(target.data[i + 2], HEX))
            return false;
    }
    return true;
}

/* The version is judged before the rest, so that the client of another protocol learns that first. */
static http_refusal parse_request_line(http_parser *p, const char *data, span line)
{
    const char *end    = line.data + line.size;
    const char *space  = memchr(line.data, ' ', line.size);
    const char *second = space ? memchr(space + 1, ' ', (size_t)(end - space - 1)) : NULL;
    if (!second)
        return HTTP_REFUSED_REQUEST_LINE;
    span method  = {line.data, (size_t)(space - line.data)};
    span target  = {space + 1, (size_t)(second - space - 1)};
    span version = {second + 1, (size_t)(end - second - 1)};

    if (method.size == 0 || !all_are(method, TOKEN) || version.size != 8 || memcmp(version.data, "HTTP/", 5) != 0 ||
        !is(version.data[5], DIGIT) || version.data[6] != '.' || !is(version.data[7], DIGIT))
        return HTTP_REFUSED_REQUEST_LINE;
    if (version.data[5] != '1' || version.data[7] > '1')
        return HTTP_REFUSED_VERSION;
    if (!method_from(method, &p->method))
        return HTTP_REFUSED_METHOD;
    if (!target_is_valid(target))
        return HTTP_REFUSED_TARGET;

    p->minor       = (uint8_t)(version.data[7] - '0');
    p->close       = p->minor == 0;
    p->target_at   = (uint16_t)(target.data - data);
    p->target_size = (uint16_t)target.size;
    return HTTP_REFUSED_NONE;
}

static span trim(span text)
{
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = (span){text.data + 1, text.size - 1};
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t'))
        text.size--;
    return text;
}

static bool same_name(span name, const char *wanted)
{
    return name.size == strlen(wanted) && strncasecmp(name.data, wanted, name.size) == 0;
}

static http_refusal on_host(http_parser *p, span value)
{
    (void)p;
    return value.size > 0 && all_are(value, HOST) ? HTTP_REFUSED_NONE : HTTP_REFUSED_HOST;
}

static http_refusal on_content_length(http_parser *p, span value)
{
    if (value.size == 0 || !all_are(value, DIGIT) || (value.size > 1 && value.data[0] == '0'))
        return HTTP_REFUSED_CONTENT_LENGTH;
    if (value.size > 18) /* fits no 64-bit number for sure, or no memory */
        return HTTP_REFUSED_BODY_TOO_LARGE;
    for (size_t i = 0; i < value.size; i++)
        p->body_bytes = p->body_bytes * 10 + (uint64_t)(value.data[i] - '0');
    return p->body_bytes > p->limits.body_bytes ? HTTP_REFUSED_BODY_TOO_LARGE : HTTP_REFUSED_NONE;
}

static http_refusal on_transfer_encoding(http_parser *p, span value)
{
    if (p->minor == 0)
        return HTTP_REFUSED_CHUNKED_IN_1_0;
    p->chunked = span_is(value, "chunked");
    return p->chunked ? HTTP_REFUSED_NONE : HTTP_REFUSED_TRANSFER_CODING;
}

static http_refusal on_expect(http_parser *p, span value)
{
    if (p->minor == 0) /* RFC 9110 §10.1.1: to be ignored */
        return HTTP_REFUSED_NONE;
    p->expects_continue = same_name(value, "100-continue");
    return p->expects_continue ? HTTP_REFUSED_NONE : HTTP_REFUSED_EXPECTATION;
}

/* Headers that must not be repeated, in the order of their bits in p->seen. */
static const struct {
    const char *name;
    http_refusal (*check)(http_parser *p, span value);
} singletons[] = {
    {"host", on_host},
    {"content-length", on_content_length},
    {"transfer-encoding", on_transfer_encoding},
    {"expect", on_expect},
    {"content-type", NULL},
    {"authorization", NULL},
    {"idempotency-key", NULL},
};
enum { SEEN_HOST = 1, SEEN_LENGTH = 2 };

static void on_connection(http_parser *p, span value)
{
    while (value.size > 0) {
        const char *comma = memchr(value.data, ',', value.size);
        size_t      size  = comma ? (size_t)(comma - value.data) : value.size;
        if (same_name(trim((span){value.data, size}), "close"))
            p->close = true;
        size += comma ? 1 : 0;
        value = (span){value.data + size, value.size - size};
    }
}

static http_refusal parse_header(http_parser *p, const char *data, span line)
{
    if (line.data[0] == ' ' || line.data[0] == '\t')
        return HTTP_REFUSED_FOLDED_HEADER;
    if (p->n_headers == p->limits.n_headers)
        return HTTP_REFUSED_TOO_MANY_HEADERS;
    const char *colon = memchr(line.data, ':', line.size);
    if (!colon)
        return HTTP_REFUSED_HEADER_NAME;
    span name  = {line.data, (size_t)(colon - line.data)};
    span value = {colon + 1, line.size - name.size - 1};
    if (name.size == 0 || !all_are(name, TOKEN))
        return HTTP_REFUSED_HEADER_NAME;
    if (!all_are(value, VALUE))
        return HTTP_REFUSED_HEADER_VALUE;
    value = trim(value);

    p->headers[p->n_headers++] = (http_field_place){(uint16_t)(name.data - data), (uint16_t)name.size,
                                                    (uint16_t)(value.data - data), (uint16_t)value.size};
    if (same_name(name, "connection"))
        on_connection(p, value);
    for (unsigned i = 0; i < sizeof singletons / sizeof singletons[0]; i++) {
        if (!same_name(name, singletons[i].name))
            continue;
        if (p->seen & 1u << i)
            return HTTP_REFUSED_REPEATED_HEADER;
        p->seen |= (uint8_t)(1u << i);
        return singletons[i].check ? singletons[i].check(p, value) : HTTP_REFUSED_NONE;
    }
    return HTTP_REFUSED_NONE;
}

static http_refusal finish_head(http_parser *p)
{
    if (p->minor == 1 && !(p->seen & SEEN_HOST))
        return HTTP_REFUSED_NO_HOST;
    if (p->chunked && (p->seen & SEEN_LENGTH))
        return HTTP_REFUSED_LENGTH_AND_CHUNKED;
    p->head_bytes = p->line_at;
    p->left       = p->body_bytes;
    p->phase      = p->chunked ? PHASE_CHUNK_FIRST : p->left > 0 ? PHASE_LENGTH : PHASE_DONE;
    p->expects_continue &= p->phase != PHASE_DONE;
    return HTTP_REFUSED_NONE;
}

http_progress http_parser_head(http_parser *p, const char *data, size_t size)
{
    enum { TLS_HANDSHAKE_RECORD = 0x16 };
    if (p->refusal)
        return HTTP_REFUSED;
    if (size > 0 && data[0] == TLS_HANDSHAKE_RECORD)
        return refuse(p, HTTP_REFUSED_TLS);
    while (p->phase <= PHASE_HEADERS) {
        bool   first = p->phase == PHASE_REQUEST_LINE;
        size_t limit = first ? p->limits.request_line_bytes + 2u : p->headers_at + p->limits.headers_bytes + 2u;
        size_t end   = size < limit ? size : limit;

        const char *lf = end > p->scan_at ? memchr(data + p->scan_at, '\n', end - p->scan_at) : NULL;
        if (!lf) {
            p->scan_at = (uint32_t)end;
            if (end < limit)
                return HTTP_MORE;
            return refuse(p, first ? HTTP_REFUSED_REQUEST_LINE_TOO_LONG : HTTP_REFUSED_HEADERS_TOO_LARGE);
        }
        span line = {data + p->line_at, (size_t)(lf - data) - p->line_at};
        if (line.size == 0 || lf[-1] != '\r')
            return refuse(p, HTTP_REFUSED_BARE_LF);
        line.size--;
        p->line_at = p->scan_at = (uint32_t)(lf + 1 - data);

        http_refusal refusal;
        if (first) {
            refusal       = parse_request_line(p, data, line);
            p->headers_at = p->line_at;
            p->phase      = PHASE_HEADERS;
        } else {
            refusal = line.size > 0 ? parse_header(p, data, line) : finish_head(p);
        }
        if (refusal)
            return refuse(p, refusal);
    }
    return HTTP_DONE;
}

static uint8_t hex_value(char c)
{
    return (uint8_t)(is(c, DIGIT) ? c - '0' : (c | 0x20) - 'a' + 10);
}

static http_refusal step_chunk_digits(http_parser *p, char c)
{
    enum { CHUNK_DIGITS_MAX = 8 };
    if (is(c, HEX)) {
        if (p->n_digits++ == CHUNK_DIGITS_MAX)
            return HTTP_REFUSED_CHUNK_SIZE;
        p->left  = p->left * 16 + hex_value(c);
        p->phase = PHASE_CHUNK_DIGITS;
        return p->left > p->limits.body_bytes - p->body_bytes ? HTTP_REFUSED_BODY_TOO_LARGE : HTTP_REFUSED_NONE;
    }
    if (p->n_digits == 0 || (c != ';' && c != '\r'))
        return HTTP_REFUSED_CHUNK_SIZE;
    p->n_extra = 0;
    p->phase   = c == ';' ? PHASE_CHUNK_EXTENSION : PHASE_CHUNK_LF;
    return HTTP_REFUSED_NONE;
}

static http_refusal step_trailer(http_parser *p, char c)
{
    if (p->n_extra++ == p->limits.trailers_bytes)
        return HTTP_REFUSED_TRAILERS_TOO_LARGE;
    if (p->phase == PHASE_TRAILER_FIRST && c == '\r')
        p->phase = PHASE_LAST_LF;
    else if (p->phase == PHASE_TRAILER_NAME && c == ':')
        p->phase = PHASE_TRAILER_VALUE;
    else if (p->phase == PHASE_TRAILER_VALUE && c == '\r')
        p->phase = PHASE_TRAILER_LF;
    else if (p->phase == PHASE_TRAILER_LF && c == '\n')
        p->phase = PHASE_TRAILER_FIRST;
    else if (p->phase == PHASE_TRAILER_VALUE)
        return is(c, VALUE) ? HTTP_REFUSED_NONE : HTTP_REFUSED_TRAILER;
    else if (p->phase != PHASE_TRAILER_LF && is(c, TOKEN))
        p->phase = PHASE_TRAILER_NAME;
    else
        return HTTP_REFUSED_TRAILER;
    return HTTP_REFUSED_NONE;
}

/* One byte of what surrounds the chunks (RFC 9112 §7.1). */
static http_refusal step(http_parser *p, char c)
{
    switch (p->phase) {
    case PHASE_CHUNK_FIRST:
    case PHASE_CHUNK_DIGITS:
        return step_chunk_digits(p, c);
    case PHASE_CHUNK_EXTENSION:
        if (c == '\r')
            p->phase = PHASE_CHUNK_LF;
        else if (!is(c, VALUE) || p->n_extra++ == HTTP_CHUNK_EXTENSION_BYTES)
            return HTTP_REFUSED_CHUNK_EXTENSION;
        return HTTP_REFUSED_NONE;
    case PHASE_CHUNK_LF:
        if (c != '\n')
            return HTTP_REFUSED_CHUNK_SIZE;
        p->phase   = p->left > 0 ? PHASE_CHUNK_DATA : PHASE_TRAILER_FIRST;
        p->n_extra = 0;
        return HTTP_REFUSED_NONE;
    case PHASE_DATA_CR:
        p->phase = PHASE_DATA_LF;
        return c == '\r' ? HTTP_REFUSED_NONE : HTTP_REFUSED_CHUNK_END;
    case PHASE_DATA_LF:
        p->phase    = PHASE_CHUNK_FIRST;
        p->n_digits = 0;
        return c == '\n' ? HTTP_REFUSED_NONE : HTTP_REFUSED_CHUNK_END;
    case PHASE_LAST_LF:
        p->phase = PHASE_DONE;
        return c == '\n' ? HTTP_REFUSED_NONE : HTTP_REFUSED_TRAILER;
    default:
        return step_trailer(p, c);
    }
}

static void take_data(http_parser *p, const char *data, size_t size, size_t *n_used, span *piece)
{
    size_t n = size < p->left ? size : (size_t)p->left;
    *piece   = (span){data, n};
    *n_used += n;
    p->left -= n;
    if (p->phase == PHASE_CHUNK_DATA) {
        p->body_bytes += n;
        p->phase = p->left > 0 ? PHASE_CHUNK_DATA : PHASE_DATA_CR;
    } else if (p->left == 0) {
        p->phase = PHASE_DONE;
    }
}

http_progress http_parser_body(http_parser *p, const char *data, size_t size, size_t *n_used, span *piece)
{
    assert(p->phase > PHASE_HEADERS);
    *n_used = 0;
    *piece  = (span){NULL, 0};
    while (!p->refusal && p->phase != PHASE_DONE) {
        if (*n_used == size)
            return HTTP_MORE;
        if (p->phase == PHASE_LENGTH || p->phase == PHASE_CHUNK_DATA) {
            take_data(p, data + *n_used, size - *n_used, n_used, piece);
            return p->phase == PHASE_DONE ? HTTP_DONE : HTTP_MORE;
        }
        p->refusal = step(p, data[(*n_used)++]);
    }
    return p->refusal ? HTTP_REFUSED : HTTP_DONE;
}

static span target_of(const http_parser *p, const char *data)
{
    return (span){data + p->target_at, p->target_size};
}

span http_parser_path(const http_parser *p, const char *data)
{
    span        target = target_of(p, data);
    const char *mark   = memchr(target.data, '?', target.size);
    return (span){target.data, mark ? (size_t)(mark - target.data) : target.size};
}

span http_parser_query(const http_parser *p, const char *data)
{
    span        target = target_of(p, data);
    const char *end    = target.data + target.size;
    const char *mark   = memchr(target.data, '?', target.size);
    return mark ? (span){mark + 1, (size_t)(end - mark - 1)} : (span){end, 0};
}

void http_parser_header_at(const http_parser *p, const char *data, uint32_t i, span *name, span *value)
{
    assert(i < p->n_headers);
    http_field_place place = p->headers[i];
    *name                  = (span){data + place.name_at, place.name_size};
    *value                 = (span){data + place.value_at, place.value_size};
}

bool http_parser_header(const http_parser *p, const char *data, const char *name, span *value)
{
    for (uint32_t i = 0; i < p->n_headers; i++) {
        span found;
        http_parser_header_at(p, data, i, &found, value);
        if (same_name(found, name))
            return true;
    }
    *value = (span){NULL, 0};
    return false;
}

bool http_query_next(span *query, span *name, span *value)
{
    while (query->size > 0) {
        const char *mark  = memchr(query->data, '&', query->size);
        span        pair  = {query->data, mark ? (size_t)(mark - query->data) : query->size};
        size_t      taken = pair.size + (mark ? 1 : 0);
        *query            = (span){query->data + taken, query->size - taken};
        if (pair.size == 0)
            continue;
        const char *equals = memchr(pair.data, '=', pair.size);
        *name              = (span){pair.data, equals ? (size_t)(equals - pair.data) : pair.size};
        *value             = equals ? (span){equals + 1, pair.size - name->size - 1} : (span){pair.data + pair.size, 0};
        return true;
    }
    return false;
}

bool http_percent_decode(span text, char *out, size_t out_bytes, span *decoded)
{
    size_t n = 0;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (n == out_bytes)
            return false;
        if (c == '%') {
            if (text.size - i < 3 || !is(text.data[i + 1], HEX) || !is(text.data[i + 2], HEX))
                return false;
            c = (char)(hex_value(text.data[i + 1]) << 4 | hex_value(text.data[i + 2]));
            i += 2;
        }
        out[n++] = c;
    }
    *decoded = (span){out, n};
    return true;
}

bool http_field_is_clean(span name, span value)
{
    return name.size > 0 && all_are(name, TOKEN) && all_are(value, VALUE);
}
