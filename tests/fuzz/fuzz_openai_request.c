/* The first byte chooses the endpoint, the rest is the body. */
// links: service_gateway
#include "services/gateway/openai_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static arena  *memory;
    openai_request request;
    text_encode    encode;
    text_decode    decode;
    openai_fault   fault = {0};
    span           model, body = {(const char *)data + 1, size - 1};
    if (!memory)
        memory = arena_new(1 << 20, NULL);
    arena_reset(memory);
    if (size == 0)
        return 0;
    bool ok = data[0] == 't'   ? openai_tokenize_parse(body, memory, &encode, &model, &fault)
              : data[0] == 'd' ? openai_detokenize_parse(body, memory, &decode, &model, &fault)
                               : openai_request_parse(data[0] == 'c' ? OPENAI_CHAT : OPENAI_COMPLETION, body, memory,
                                                      &request, &fault);
    if (!ok && (fault.error.code == ERR_NONE || !fault.error.text[0]))
        __builtin_trap();
    return 0;
}
