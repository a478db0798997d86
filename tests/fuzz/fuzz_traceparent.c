// links: llm_trace
/* Any bytes as a traceparent header: what is taken has both ids, the header's own, and no flag that is not defined. */
#include "trace/trace_context.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t context[TRACE_CONTEXT_BYTES];
    char    id[TRACE_ID_TEXT];
    char   *exact = malloc(size ? size : 1); /* so that a byte read behind it is noticed */
    if (!exact)
        return 0;
    if (size > 0)
        memcpy(exact, data, size);
    if (trace_context_parse((span){exact, size}, context)) {
        assert(trace_context_is_valid(context));
        assert((context[TRACE_CONTEXT_BYTES - 1] & ~TRACE_SAMPLED) == 0);
        trace_id_print(context, id);
        assert(memcmp(id, exact + 3, TRACE_ID_TEXT - 1) == 0);
    }
    free(exact);
    return 0;
}
