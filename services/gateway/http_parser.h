/* A strict parser for HTTP/1.1 requests (RFC 9112) that refuses everything unusual.
 *
 * Two servers that read one request differently can be made to see two different requests; so wherever the grammar has
 * a lenient corner (bare LF, folded headers, a sign in a size, two lengths) this parser has none, and says which rule
 * was broken. It takes bytes in any pieces, allocates nothing, and gives the same result for every way of splitting
 * them. The head is read in place: the parser keeps offsets, the caller keeps the bytes. The body, plain or chunked, is
 * handed out as spans of the caller's bytes. The parser never waits, times or answers: http_conn.c does. */
#ifndef TROUPE_GATEWAY_HTTP_PARSER_H
#define TROUPE_GATEWAY_HTTP_PARSER_H

#include "base/span.h"

/*    refusal             status  cause (metrics label)  sentence for the client */
#define HTTP_REFUSALS(X)                                                                                               \
    X(NONE, 200, "none", "nothing is wrong")                                                                           \
    X(REQUEST_LINE, 400, "request_line",                                                                               \
      "The request line must be a method, a target and a version with single spaces between them.")                    \
    X(TLS, 400, "request_line", "The client began a TLS handshake, but this port speaks plain HTTP.")                  \
    X(REQUEST_LINE_TOO_LONG, 414, "request_line", "The request line is longer than this server allows.")               \
    X(METHOD, 501, "method", "This server knows GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH, TRACE and QUERY.")       \
    X(TARGET, 400, "target",                                                                                           \
      "The request target must be a path that starts with / and percent-encodes what a URL does not allow.")           \
    X(VERSION, 505, "version", "This server speaks HTTP/1.1 and HTTP/1.0.")                                            \
    X(BARE_LF, 400, "header", "Every line of the head must end with CRLF.")                                            \
    X(FOLDED_HEADER, 400, "header", "A header must not begin with a space or continue on the next line.")              \
    X(HEADER_NAME, 400, "header", "A header must be a name of token characters followed at once by a colon.")          \
    X(HEADER_VALUE, 400, "header", "A header value must not hold control characters.")                                 \
    X(HEADERS_TOO_LARGE, 431, "header_size", "The headers together are longer than this server allows.")               \
    X(TOO_MANY_HEADERS, 431, "header_size", "The request has more headers than this server allows.")                   \
    X(REPEATED_HEADER, 400, "header",                                                                                  \
      "Host, Content-Length, Transfer-Encoding, Expect, Content-Type and Authorization may appear only once.")         \
    X(NO_HOST, 400, "host", "An HTTP/1.1 request must have a Host header.")                                            \
    X(HOST, 400, "host", "The Host header must be a name or address with an optional port.")                           \
    X(CONTENT_LENGTH, 400, "framing", "Content-Length must be one plain decimal number.")                              \
    X(LENGTH_AND_CHUNKED, 400, "framing", "A request must not have both Content-Length and Transfer-Encoding.")        \
    X(TRANSFER_CODING, 501, "framing", "The only Transfer-Encoding this server takes is chunked.")                     \
    X(CHUNKED_IN_1_0, 400, "framing", "An HTTP/1.0 request must not have a Transfer-Encoding.")                        \
    X(EXPECTATION, 417, "expect", "The only expectation this server can meet is 100-continue.")                        \
    X(BODY_TOO_LARGE, 413, "body_size", "The request body is larger than this server allows.")                         \
    X(CHUNK_SIZE, 400, "framing", "A chunk must begin with its size as one to eight hexadecimal digits and CRLF.")     \
    X(CHUNK_EXTENSION, 400, "framing", "A chunk extension must be at most 64 printable bytes.")                        \
    X(CHUNK_END, 400, "framing", "The bytes of a chunk must be followed by CRLF.")                                     \
    X(TRAILER, 400, "framing", "A trailer must be a name, a colon and a value, ended by CRLF.")                        \
    X(TRAILERS_TOO_LARGE, 431, "header_size", "The trailers are longer than this server allows.")                      \
    X(HEAD_TIMEOUT, 408, "timeout", "The head of the request did not arrive in time.")                                 \
    X(BODY_TIMEOUT, 408, "timeout", "The body of the request did not arrive in time.")                                 \
    X(NO_MEMORY, 503, "memory", "This server holds as many request bodies as it can; try again shortly.")

typedef enum {
#define X(name, status, cause, sentence) HTTP_REFUSED_##name,
    HTTP_REFUSALS(X)
#undef X
        N_HTTP_REFUSALS
} http_refusal;

int         http_refusal_status(http_refusal refusal);
const char *http_refusal_cause(http_refusal refusal);
const char *http_refusal_sentence(http_refusal refusal);

typedef enum {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_PATCH,
    HTTP_TRACE,
    HTTP_QUERY,
    N_HTTP_METHODS
} http_method;

const char *http_method_name(http_method method);

typedef struct {
    uint32_t request_line_bytes; /* without its CRLF; more is 414 */
    uint32_t headers_bytes;      /* all header lines with their CRLFs; more is 431 */
    uint32_t n_headers;          /* at most HTTP_HEADERS_MAX; more is 431 */
    uint32_t trailers_bytes;     /* read and thrown away; more is 431 */
    uint64_t body_bytes;         /* after chunks are joined; more is 413 */
} http_limits;

enum { HTTP_HEADERS_MAX = 100, HTTP_HEAD_BYTES_MAX = 60 * 1024, HTTP_CHUNK_EXTENSION_BYTES = 64 };

/* 8 KiB request line, 32 KiB and 100 headers, 4 KiB trailers, 4 MiB body. */
http_limits http_limits_default(void);

typedef enum {
    HTTP_MORE,   /* all bytes were read and the request goes on */
    HTTP_DONE,   /* the head, or the body, is complete */
    HTTP_REFUSED /* parser.refusal says why; the connection can't be read any further */
} http_progress;

typedef struct {
    uint16_t name_at, name_size, value_at, value_size;
} http_field_place;

/* One request being read. Callers read the fields above the line; the rest is the parser's own. */
typedef struct {
    http_refusal refusal;
    http_method  method;
    uint8_t      minor;            /* HTTP/1.minor: 0 or 1 */
    bool         close;            /* the client wants, or HTTP/1.0 means, no further request on this connection */
    bool         expects_continue; /* Expect: 100-continue, and a body is to come */
    bool         chunked;
    uint64_t     body_bytes; /* chunked: received so far; else the announced length */
    uint32_t     head_bytes; /* once the head is done: the bytes up to and with the empty line */
    uint32_t     n_headers;
    /* ---- */
    uint8_t          phase;
    uint8_t          seen; /* singleton headers met, a bit each */
    uint8_t          n_digits;
    uint16_t         target_at, target_size;
    uint32_t         line_at, scan_at, headers_at;
    uint32_t         n_extra; /* bytes of the chunk extension, or of all trailers */
    uint64_t         left;    /* bytes to come of the body or the chunk */
    http_limits      limits;
    http_field_place headers[HTTP_HEADERS_MAX];
} http_parser;

/* Makes ready for one request. Asserts n_headers <= HTTP_HEADERS_MAX and line + headers <= HTTP_HEAD_BYTES_MAX. */
void http_parser_init(http_parser *p, const http_limits *limits);

/* Reads the head. data[0..size) is everything received of this request so far, from its first byte; after HTTP_MORE
 * call again with the same bytes and more behind them (they may have moved). Each byte is looked at once. After
 * HTTP_DONE the body begins at data[p->head_bytes]. */
http_progress http_parser_head(http_parser *p, const char *data, size_t size);

/* Reads on in the body: data[0..size) is what follows the bytes read before. *n_used of them were read and are not to
 * be passed again; *piece is the run of body bytes among them, perhaps empty. Use the piece first, whatever is
 * returned. HTTP_MORE with *n_used < size asks to be called again with the rest. After HTTP_DONE the next request
 * begins at data[*n_used]. A request without a body is done at the first call. */
http_progress http_parser_body(http_parser *p, const char *data, size_t size, size_t *n_used, span *piece);

/* Where things are in the head. `data` is as for http_parser_head. The path is as sent, still percent-encoded;
 * the query is what follows the first '?', empty when there is none. */
span http_parser_path(const http_parser *p, const char *data);
span http_parser_query(const http_parser *p, const char *data);

/* The value of the first header of that name (compared without case), without spaces around it. */
bool http_parser_header(const http_parser *p, const char *data, const char *name, span *value);

/* Header number i < n_headers. */
void http_parser_header_at(const http_parser *p, const char *data, uint32_t i, span *name, span *value);

/* Takes the next name=value pair off *query; false when none is left. Empty pairs are skipped; a pair without '=' has
 * an empty value. Both stay percent-encoded. */
bool http_query_next(span *query, span *name, span *value);

/* Decodes the %XX of a path or a query into out[0..out_bytes). False when a % lacks its two hexadecimal digits, or when
 * the text does not fit. */
bool http_percent_decode(span text, char *out, size_t out_bytes, span *decoded);

/* True when a response may carry this header: the name a token, the value free of control characters. */
bool http_field_is_clean(span name, span value);

#endif
