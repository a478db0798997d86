/* Any bytes as an entry of a reply's log: what can be read is written again and reads the same. */
// links: service_gateway
#include "services/gateway/reply_records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t    out[1 << 20];
    error             err;
    arena            *memory  = arena_new(8 << 20, &err);
    span              records = {(const char *)data, size};
    const text_delta *delta, *again;
    uint32_t          run, run_again;
    while (memory && reply_record_read(&records, memory, &run, &delta, &err)) {
        wire_writer w = {.data = out, .capacity = sizeof out};
        if (!reply_record_write(&w, run, delta, &err))
            break; /* larger than `out`, or over a limit that only a writer keeps */
        span copy = {(const char *)out, w.size};
        if (!reply_record_read(&copy, memory, &run_again, &again, &err)) {
            if (err.code != ERR_NO_MEMORY)
                __builtin_trap();
            break;
        }
        if (copy.size > 0 || run != run_again || delta->index != again->index || !span_equal(delta->text, again->text))
            __builtin_trap();
    }
    arena_free(&memory);
    return 0;
}
