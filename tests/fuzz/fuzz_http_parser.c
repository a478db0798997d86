/* Any bytes: no crash, and the same verdict whole as in pieces whose size the input's first byte chooses. Of a request
 * that is taken the path, the query and the key are read as the endpoints do. */
// links: service_gateway
#include "services/gateway/api_keys.h"
#include "services/gateway/http_parser.h"
#include <assert.h>

static http_progress read_in_steps(http_parser *p, const char *data, size_t size, size_t step)
{
    http_parser_init(p, &(http_limits){512, 1024, 20, 64, 4096});
    http_progress got = HTTP_MORE;
    size_t        at  = 0; /* of the body; 0 while in the head */
    for (size_t end = 0; got == HTTP_MORE && end < size;) {
        end = end + step < size ? end + step : size;
        if (at == 0 && (got = http_parser_head(p, data, end)) != HTTP_DONE)
            continue;
        at = at ? at : p->head_bytes;
        do {
            size_t n_used;
            span   piece;
            got = http_parser_body(p, data + at, end - at, &n_used, &piece);
            at += n_used;
        } while (got == HTTP_MORE && at < end);
    }
    return got;
}

static bool is_within(span part, span whole)
{
    return part.data >= whole.data && part.data + part.size <= whole.data + whole.size;
}

static void decode(span text)
{
    char out[64];
    span decoded;
    if (http_percent_decode(text, out, sizeof out, &decoded))
        assert(decoded.size <= text.size && (memchr(text.data, '%', text.size) || span_equal(decoded, text)));
    else
        assert(memchr(text.data, '%', text.size) || text.size > sizeof out);
}

static void use_head(const http_parser *p, const char *data)
{
    span query = http_parser_query(p, data), whole = query, name, value, header;
    decode(http_parser_path(p, data));
    while (http_query_next(&query, &name, &value)) {
        assert(is_within(name, whole) && is_within(value, whole) && !memchr(name.data, '&', name.size));
        decode(name);
        decode(value);
    }
    if (http_parser_header(p, data, "Authorization", &header)) {
        span key = api_key_of(header);
        assert(key.size == 0 || is_within(key, header));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    http_parser whole = {0}, pieces = {0};
    const char *text = (const char *)data + 1;
    if (size < 2)
        return 0;
    http_progress got = read_in_steps(&whole, text, size - 1, size);
    assert(got == read_in_steps(&pieces, text, size - 1, 1 + data[0] % 32));
    assert(whole.refusal == pieces.refusal && whole.body_bytes == pieces.body_bytes);
    if (whole.head_bytes > 0 && !whole.refusal)
        use_head(&whole, text);
    return 0;
}
