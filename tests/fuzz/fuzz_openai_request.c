/* The first byte chooses the endpoint, the rest is the body. What embeddings and reranking take is answered too. */
// links: service_gateway
#include "services/gateway/openai_pooled.h"
#include "services/gateway/openai_request.h"

/* Takes a body of embeddings or reranking, and writes an answer of made-up numbers. */
static bool pool(request_task task, span body, arena *memory, openai_fault *fault)
{
    static char        text[1 << 20];
    static const float numbers[] = {0.5f, -2, 3e30f, 0};
    openai_pooled      request;
    openai_vector     *vectors;
    usage              cost = {.prompt_tokens = 1};
    json_out           j    = json_out_into(text, sizeof text);
    span               out;
    error              err;
    if (!openai_pooled_parse(task, body, memory, &request, fault))
        return false;
    uint32_t n = task == REQUEST_TASK_SCORE ? 1 : 4;
    vectors    = arena_take_array(memory, request.n_inputs, sizeof *vectors);
    for (uint32_t i = 0; vectors && i < request.n_inputs; i++)
        vectors[i] = (openai_vector){numbers, n};
    if (vectors && openai_pooled_accepts(&request, n, &err) &&
        openai_pooled_body(&j, &request, SPAN("id"), request.model, vectors, &cost, memory, &err) &&
        !json_out_finish(&j, &out, &err) && err.code != ERR_NO_MEMORY)
        __builtin_trap();
    return true;
}

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
    bool ok = data[0] == 'e'   ? pool(REQUEST_TASK_EMBED, body, memory, &fault)
              : data[0] == 'r' ? pool(REQUEST_TASK_SCORE, body, memory, &fault)
              : data[0] == 't' ? openai_tokenize_parse(body, memory, &encode, &model, &fault)
              : data[0] == 'd' ? openai_detokenize_parse(body, memory, &decode, &model, &fault)
                               : openai_request_parse(data[0] == 'c' ? OPENAI_CHAT : OPENAI_COMPLETION, body, memory,
                                                      &request, &fault);
    if (!ok && (fault.error.code == ERR_NONE || !fault.error.text[0]))
        __builtin_trap();
    return 0;
}
