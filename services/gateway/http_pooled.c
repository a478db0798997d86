/* What an HTTP client sees of embeddings and scores: one JSON body when the last number is there. */
#include "services/gateway/state.h"

static bool pooled_delta(answer *a, run *r, const text_delta *d, error *err)
{
    float *kept = arena_take_array(a->memory, d->n_pooled, sizeof *kept);
    if (!openai_pooled_accepts(a->pooled, d->n_pooled, err))
        return false;
    if (!kept)
        return error_set(err, ERR_NO_MEMORY, "the answer outgrew the memory of one request");
    memcpy(kept, d->pooled, d->n_pooled * sizeof *kept);
    r->choices[0].pooled = (openai_vector){kept, d->n_pooled};
    return true;
}

static void pooled_done(answer *a)
{
    json_out       j       = json_out_into(a->gateway->out, a->gateway->out_bytes);
    openai_vector *vectors = arena_take_array(a->memory, a->n_runs, sizeof *vectors);
    usage          sum;
    error          err;
    answer_usage(a, &sum);
    for (uint32_t i = 0; vectors && i < a->n_runs; i++)
        vectors[i] = a->runs[i].choices[0].pooled;
    bool ok = vectors ? openai_pooled_body(&j, a->pooled, a->head.id, a->head.model, vectors, &sum, a->memory, &err)
                      : error_set(&err, ERR_NO_MEMORY, "the answer outgrew the memory of one request");
    if (ok)
        http_reply_json(a->gateway, a->handle, 200, &j);
    else
        http_refuse(a->gateway, a->handle, a->usage, &err, (span){0}, 0);
}

const answer_sink http_pooled_sink = {.delta = pooled_delta, .done = pooled_done, .refused = http_answer_refused};
