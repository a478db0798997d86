// links: service_troupe
/* Any bytes as a file of the flight recorder, as they are and with checksums made right, so that what stands inside of
 * records is reached too. Whatever comes out lies inside the file, and can be listed and compared. */
#include "actor/recording.h"
#include "troupe/replay.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_span(span inner, span file)
{
    assert(inner.size == 0 || (inner.data >= file.data && inner.data + inner.size <= file.data + file.size));
}

static void walk(span file)
{
    span             rest = file;
    recording_header h;
    record           r;
    if (!recording_read_header(&rest, &h, NULL))
        return;
    while (recording_next(&rest, &r) == RECORDING_RECORD) {
        check_span(r.node, file);
        check_span(r.peer, file);
        check_span(r.envelope, file);
        check_span(r.body, file);
        assert(record_bytes(&r) <= file.size);
    }
    check_span(rest, file);
}

static void compare(span file)
{
    uint32_t           tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    replayed_choice    now       = {.tokens = tokens, .n_tokens = 8};
    recorded_requests *all       = recorded_requests_of(file, NULL);
    for (uint32_t i = 0; all && i < recorded_requests_n(all); i++) {
        const recorded_request *r = recorded_requests_at(all, i);
        for (uint32_t choice = 0; choice < RECORDED_CHOICES_MAX; choice++) {
            uint32_t         n;
            token_difference d;
            bool             same = replay_compare(r, choice, &now, &n, &d);
            assert(n <= r->ends[choice] && (same || d.index <= r->ends[choice]));
        }
    }
    recorded_requests_free(&all);
}

/* Makes checksums right wherever the sizes of a record are possible. */
static void seal_all(uint8_t *file, size_t size)
{
    if (size < RECORDING_HEADER_BYTES)
        return;
    recording_write_header(&(recording_header){.service = "serve"}, file);
    for (size_t at = RECORDING_HEADER_BYTES; size - at >= RECORD_HEADER_BYTES;) {
        uint32_t bytes;
        memcpy(&bytes, file + at, sizeof bytes);
        if (bytes < RECORD_HEADER_BYTES || bytes > size - at)
            return;
        at += record_seal(file + at);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    assert(copy);
    memcpy(copy, data, size);
    walk((span){(char *)copy, size});
    seal_all(copy, size);
    walk((span){(char *)copy, size});
    compare((span){(char *)copy, size});
    free(copy);
    return 0;
}
