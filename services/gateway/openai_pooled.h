/* Requests that are answered with numbers in place of text: embeddings as OpenAI has them, and reranking as Jina,
 * Cohere and vLLM do. Strict like openai_request.h; nothing here knows of HTTP or of the bus. */
#ifndef TROUPE_GATEWAY_OPENAI_POOLED_H
#define TROUPE_GATEWAY_OPENAI_POOLED_H

#include "base/json_out.h"
#include "services/gateway/openai_request.h"

enum { OPENAI_INPUTS_MAX = 2048 /* as OpenAI has it */ };

typedef struct {
    request_task         task;  /* REQUEST_TASK_EMBED or REQUEST_TASK_SCORE */
    span                 model; /* as the client says it; empty when it does not */
    double               timeout_s;
    int32_t              priority;
    uint32_t             n_inputs;
    const openai_prompt *inputs;           /* texts or token ids to embed, or documents to rank, which are texts */
    uint32_t             n_dimensions;     /* embeddings: 0 is all */
    bool                 base64;           /* embeddings: of little-endian floats */
    span                 query;            /* reranking */
    uint32_t             top_n;            /* reranking: at most n_inputs */
    bool                 return_documents; /* reranking */
} openai_pooled;

/* Fills *out from the body of /v1/embeddings or /v1/rerank; all memory is taken from `memory`. False with *fault set.
 */
bool openai_pooled_parse(request_task task, span body, arena *memory, openai_pooled *out,
                         openai_fault *fault) MUST_CHECK;

/* What came for one input. */
typedef struct {
    const float *numbers;
    uint32_t     n;
} openai_vector;

/* Whether an input may be answered with `n` numbers: one score, or at least as many as dimensions are asked for. */
bool openai_pooled_accepts(const openai_pooled *request, uint32_t n, error *err) MUST_CHECK;

/* The answer: vectors[n_inputs] in the order of the inputs, each of a length that is accepted. False with *err when
 * `memory` is too small, or the vectors are not all of one length. */
bool openai_pooled_body(json_out *j, const openai_pooled *request, span id, span model, const openai_vector *vectors,
                        const usage *cost, arena *memory, error *err) MUST_CHECK;

#endif
