/* The strict parser: the table of requests in tests/data/http/requests.txt, every way of splitting them, and limits. */
#include "services/gateway/http_parser.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// cmocka needs the headers above
#include <cmocka.h>

#include "base/error.h"

static const char *const refusal_names[] = {
#define X(name, status, cause, sentence) #name,
    HTTP_REFUSALS(X)
#undef X
};

typedef struct {
    http_parser   parser;
    http_progress progress;
    bool          in_body;
    size_t        n_used; /* of all bytes given */
    char          body[64 * 1024];
    size_t        body_size;
} reader;

static void reader_init(reader *r, const http_limits *limits)
{
    http_parser_init(&r->parser, limits);
    r->progress  = HTTP_MORE;
    r->in_body   = false;
    r->n_used    = 0;
    r->body_size = 0;
}

/* Gives the parser data[0..size) as far as it hasn't had it, as a connection would. */
static http_progress read_up_to(reader *r, const char *data, size_t size)
{
    if (!r->in_body) {
        r->progress = http_parser_head(&r->parser, data, size);
        if (r->progress != HTTP_DONE)
            return r->progress;
        r->in_body  = true;
        r->n_used   = r->parser.head_bytes;
        r->progress = HTTP_MORE;
    }
    for (;;) {
        size_t n_used;
        span   piece;
        r->progress = http_parser_body(&r->parser, data + r->n_used, size - r->n_used, &n_used, &piece);
        assert_true(r->body_size + piece.size <= sizeof r->body);
        if (piece.size > 0)
            memcpy(r->body + r->body_size, piece.data, piece.size);
        r->body_size += piece.size;
        r->n_used += n_used;
        if (r->progress != HTTP_MORE || r->n_used == size)
            return r->progress;
    }
}

static reader read_whole(const char *data, size_t size, const http_limits *limits)
{
    reader      r;
    http_limits standard = http_limits_default();
    reader_init(&r, limits ? limits : &standard);
    read_up_to(&r, data, size);
    return r;
}

static bool same_outcome(const reader *a, const reader *b)
{
    const http_parser *p = &a->parser, *q = &b->parser;
    if (a->progress != b->progress || p->refusal != q->refusal)
        return false;
    if (a->progress != HTTP_DONE)
        return true;
    return p->method == q->method && p->minor == q->minor && p->close == q->close && p->body_bytes == q->body_bytes &&
           p->head_bytes == q->head_bytes && p->n_headers == q->n_headers && a->n_used == b->n_used &&
           memcmp(p->headers, q->headers, p->n_headers * sizeof p->headers[0]) == 0 &&
           span_equal((span){a->body, a->body_size}, (span){b->body, b->body_size});
}

static size_t unescape(const char *text, char *out)
{
    size_t n = 0;
    for (; *text; text++) {
        if (*text != '\\') {
            out[n++] = *text;
            continue;
        }
        static const char from[] = "rnt0\\", to[] = "\r\n\t\0\\";
        const char       *at = strchr(from, *++text);
        if (*text == 'x') {
            char digits[3] = {text[1], text[2], 0};
            assert_true(isxdigit((unsigned char)digits[0]) && isxdigit((unsigned char)digits[1]));
            out[n++] = (char)strtol(digits, NULL, 16);
            text += 2;
        } else {
            assert_true(*text && at);
            out[n++] = to[at - from];
        }
    }
    return n;
}

typedef void (*row_check)(const char *row, const char *verdict, const char *data, size_t size);

static void for_each_row(row_check check)
{
    FILE *file = fopen(TESTS_DIR "/data/http/requests.txt", "r");
    assert_non_null(file);
    char   row[4096], data[4096];
    size_t n_rows = 0;
    while (fgets(row, sizeof row, file)) {
        row[strcspn(row, "\n")] = '\0';
        if (row[0] == '#' || row[0] == '\0')
            continue;
        char verdict[64];
        assert_int_equal(1, sscanf(row, "%63s", verdict));
        check(row, verdict, data, unescape(row + strlen(verdict) + 1, data));
        n_rows++;
    }
    fclose(file);
    assert_true(n_rows > 150);
}

static const char *verdict_of(const reader *r)
{
    return r->progress == HTTP_DONE ? "ok" : r->progress == HTTP_MORE ? "more" : refusal_names[r->parser.refusal];
}

static void check_verdict(const char *row, const char *verdict, const char *data, size_t size)
{
    reader r = read_whole(data, size, NULL);
    if (strcmp(verdict, verdict_of(&r)) != 0)
        fail_msg("%s: the parser said %s", row, verdict_of(&r));
}

static void every_request_of_the_table_gets_its_verdict(void **state)
{
    (void)state;
    for_each_row(check_verdict);
}

static void check_splits(const char *row, const char *verdict, const char *data, size_t size)
{
    (void)verdict;
    reader      whole  = read_whole(data, size, NULL);
    http_limits limits = http_limits_default();
    for (size_t split = 0; split <= size; split++) {
        reader r;
        reader_init(&r, &limits);
        if (read_up_to(&r, data, split) == HTTP_MORE)
            read_up_to(&r, data, size);
        if (!same_outcome(&whole, &r))
            fail_msg("%s: split at byte %zu gives another outcome: %s", row, split, verdict_of(&r));
    }
    reader r;
    reader_init(&r, &limits);
    for (size_t end = 1; end <= size && r.progress == HTTP_MORE; end++)
        read_up_to(&r, data, end);
    if (!same_outcome(&whole, &r))
        fail_msg("%s: byte by byte gives another outcome: %s", row, verdict_of(&r));
}

static void every_way_of_splitting_the_bytes_gives_the_same_outcome(void **state)
{
    (void)state;
    for_each_row(check_splits);
}

static void a_request_reads_back_as_it_was_sent(void **state)
{
    (void)state;
    static const char data[] = "POST /v1/chat%20x?stream=1&&name=a%20b&flag&empty= HTTP/1.1\r\n"
                               "Host: example.org\r\n"
                               "X-Trace:  abc def \t\r\n"
                               "x-trace: second\r\n"
                               "Transfer-Encoding: chunked\r\n"
                               "\r\n"
                               "5;x=y\r\nhello\r\n7\r\n, world\r\n0\r\nX-Sum: 1\r\n\r\n"
                               "GET /next";
    reader            r      = read_whole(data, sizeof data - 1, NULL);
    assert_int_equal(HTTP_DONE, r.progress);
    assert_int_equal(HTTP_POST, r.parser.method);
    assert_false(r.parser.close);
    assert_true(span_is(http_parser_path(&r.parser, data), "/v1/chat%20x"));
    assert_true(span_equal((span){r.body, r.body_size}, SPAN("hello, world")));
    assert_int_equal(12, r.parser.body_bytes);
    assert_string_equal("GET /next", data + r.n_used);

    span value;
    assert_true(http_parser_header(&r.parser, data, "X-TRACE", &value));
    assert_true(span_is(value, "abc def"));
    assert_false(http_parser_header(&r.parser, data, "X-Trac", &value));
    assert_int_equal(4, r.parser.n_headers);
    span name;
    http_parser_header_at(&r.parser, data, 2, &name, &value);
    assert_true(span_is(name, "x-trace") && span_is(value, "second"));

    static const char *const pairs[][2] = {{"stream", "1"}, {"name", "a%20b"}, {"flag", ""}, {"empty", ""}};
    span                     query      = http_parser_query(&r.parser, data);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        assert_true(http_query_next(&query, &name, &value));
        assert_true(span_is(name, pairs[i][0]) && span_is(value, pairs[i][1]));
    }
    assert_false(http_query_next(&query, &name, &value));
}

static void pipelined_requests_are_read_one_after_the_other(void **state)
{
    (void)state;
    static const char data[] = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                               "POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
                               "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n"
                               "GET /4 HTTP/1.0\r\n\r\n";
    static const struct {
        const char *path, *body;
        bool        close;
    } expected[] = {{"/1", "abc", false}, {"/2", "de", false}, {"/3", "", false}, {"/4", "", true}};
    size_t at    = 0;
    for (size_t i = 0; i < COUNT(expected); i++) {
        reader r = read_whole(data + at, sizeof data - 1 - at, NULL);
        assert_int_equal(HTTP_DONE, r.progress);
        assert_true(span_is(http_parser_path(&r.parser, data + at), expected[i].path));
        assert_true(span_equal((span){r.body, r.body_size}, span_of(expected[i].body)));
        assert_int_equal(expected[i].close, r.parser.close);
        at += r.n_used;
    }
    assert_int_equal(sizeof data - 1, at);
}

/* head + filler repeated up to n bytes + tail */
static reader read_padded(const char *head, char filler, size_t n, const char *tail, const http_limits *limits)
{
    size_t size = strlen(head) + n + strlen(tail);
    char  *data = malloc(size + 1);
    assert_non_null(data);
    memcpy(data, head, strlen(head));
    memset(data + strlen(head), filler, n);
    strcpy(data + strlen(head) + n, tail);
    reader r = read_whole(data, size, limits);
    free(data);
    return r;
}

static void limits_are_exact(void **state)
{
    (void)state;
    http_limits limits = {
        .request_line_bytes = 100, .headers_bytes = 200, .n_headers = 3, .trailers_bytes = 20, .body_bytes = 1000};
    static const struct {
        const char *head, *tail;
        size_t      n;
        const char *verdict;
    } rows[] = {
        /* "GET /" + n + " HTTP/1.1" is the request line */
        {"GET /", " HTTP/1.1\r\nHost: a\r\n\r\n", 100 - 14, "ok"},
        {"GET /", " HTTP/1.1\r\nHost: a\r\n\r\n", 100 - 13, "REQUEST_LINE_TOO_LONG"},
        {"GET /", "", 5000, "REQUEST_LINE_TOO_LONG"},
        {"GET /", "", 90, "more"},
        /* "Host: a\r\nX: " + n + "\r\n" are the headers */
        {"GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n", 200 - 14, "ok"},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n", 200 - 13, "HEADERS_TOO_LARGE"},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: ", "", 5000, "HEADERS_TOO_LARGE"},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: ", "\r\n\r\n", 1, "ok"},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2\r\nX: ", "\r\n\r\n", 1, "TOO_MANY_HEADERS"},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", "", 1000, "ok"},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", "", 1001, "BODY_TOO_LARGE"},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n", "\r\n0\r\n\r\n", 1000, "ok"},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n", "\r\n1\r\n", 1000,
         "BODY_TOO_LARGE"},
        /* a trailer section counts its last CRLF too */
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX:", "\r\n\r\n", 15, "ok"},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX:", "\r\n\r\n", 18,
         "TRAILERS_TOO_LARGE"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        reader r = read_padded(rows[i].head, 'a', rows[i].n, rows[i].tail, &limits);
        if (strcmp(rows[i].verdict, verdict_of(&r)) != 0)
            fail_msg("row %zu (%s...): expected %s, the parser said %s", i, rows[i].head, rows[i].verdict,
                     verdict_of(&r));
    }
}

static void default_limits_are_those_documented(void **state)
{
    (void)state;
    reader r = read_padded("GET /", 'a', 8192 - 14, " HTTP/1.1\r\nHost: a\r\n\r\n", NULL);
    assert_string_equal("ok", verdict_of(&r));
    r = read_padded("GET /", 'a', 8192 - 13, " HTTP/1.1\r\nHost: a\r\n\r\n", NULL);
    assert_int_equal(414, http_refusal_status(r.parser.refusal));
    r = read_padded("GET / HTTP/1.1\r\nHost: a\r\nX: ", 'a', 32768 - 14, "\r\n\r\n", NULL);
    assert_string_equal("ok", verdict_of(&r));
    r = read_padded("GET / HTTP/1.1\r\nHost: a\r\nX: ", 'a', 32768 - 13, "\r\n\r\n", NULL);
    assert_int_equal(431, http_refusal_status(r.parser.refusal));
}

static void a_refusal_is_final(void **state)
{
    (void)state;
    reader r = read_whole("GET / HTTP/1.1\nHost: a\r\n", 24, NULL);
    assert_int_equal(HTTP_REFUSED, r.progress);
    static const char good[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_int_equal(HTTP_REFUSED, read_up_to(&r, good, sizeof good - 1));
}

static void every_refusal_has_an_error_status_and_a_sentence(void **state)
{
    (void)state;
    for (int i = HTTP_REFUSED_NONE + 1; i < N_HTTP_REFUSALS; i++) {
        int         status   = http_refusal_status(i);
        const char *sentence = http_refusal_sentence(i);
        assert_true(status >= 400 && status <= 599);
        assert_true(strlen(sentence) > 20 && sentence[strlen(sentence) - 1] == '.');
        assert_null(strpbrk(sentence, "\"\\")); /* goes into JSON as it is */
    }
}

static void response_fields_with_control_characters_are_not_clean(void **state)
{
    (void)state;
    assert_true(http_field_is_clean(SPAN("X-A"), SPAN("b c")));
    assert_true(http_field_is_clean(SPAN("X-A"), SPAN("")));
    assert_false(http_field_is_clean(SPAN("X-A"), SPAN("b\r\nSet-Cookie: x")));
    assert_false(http_field_is_clean(SPAN("X-A:"), SPAN("b")));
    assert_false(http_field_is_clean(SPAN(""), SPAN("b")));
}

static void percent_encoded_text_is_decoded_or_refused(void **state)
{
    static const struct {
        const char *text;
        span        decoded; /* no data: refused */
    } cases[] = {
        {"", SPAN("")},
        {"a-b.gguf", SPAN("a-b.gguf")},
        {"org%2Fa%20x", SPAN("org/a x")},
        {"%2f%2F%C3%a9%00", {"//\xC3\xA9\0", 5}},
        {"%252F", SPAN("%2F")},
        {"a+b", SPAN("a+b")},
        {"%", {0}},
        {"%2", {0}},
        {"x%g0", {0}},
        {"%0x1", {0}},
        {"% 1", {0}},
        {"eight%20ch", SPAN("eight ch")},
        {"nine%20cha", SPAN("nine cha")},
        {"nine%20char", {0}}, /* over the eight bytes there are */
        {"12345678%20", {0}},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char out[8];
        span decoded = {0};
        bool ok      = http_percent_decode(span_of(cases[i].text), out, sizeof out, &decoded);
        if (ok != (cases[i].decoded.data != NULL) || (ok && !span_equal(decoded, cases[i].decoded)))
            fail_msg("\"%s\" became %s\"%.*s\"", cases[i].text, ok ? "" : "refused ", SPAN_ARG(decoded));
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_of_the_table_gets_its_verdict),
        cmocka_unit_test(every_way_of_splitting_the_bytes_gives_the_same_outcome),
        cmocka_unit_test(a_request_reads_back_as_it_was_sent),
        cmocka_unit_test(pipelined_requests_are_read_one_after_the_other),
        cmocka_unit_test(limits_are_exact),
        cmocka_unit_test(default_limits_are_those_documented),
        cmocka_unit_test(a_refusal_is_final),
        cmocka_unit_test(every_refusal_has_an_error_status_and_a_sentence),
        cmocka_unit_test(response_fields_with_control_characters_are_not_clean),
        cmocka_unit_test(percent_encoded_text_is_decoded_or_refused),
    };
    return cmocka_run_group_tests_name("http_parser", tests, NULL, NULL);
}
