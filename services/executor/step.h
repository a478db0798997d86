/* Runs step plans on one model: the part of the executor that knows nothing of the bus.
 *
 * A slot remembers one sequence: its tokens, sampling parameters and block table. Everything is allocated in
 * engine_new. */
#ifndef TROUPE_EXECUTOR_STEP_H
#define TROUPE_EXECUTOR_STEP_H

#include "executor/executor.h"
#include "model/model.h"

typedef struct engine engine;

/* Opens the device and the model, takes KV cache and activations. The error says which of them failed and why. */
engine *engine_new(const executor_options *options, error *err);
void    engine_free(engine **e);

/* What executor.ready says; strings live as long as the engine. */
executor_ready engine_about(const engine *e);

/* Forgets every slot. */
void engine_reset(engine *e);

/* Runs one plan. The result and all it points to are in `memory`; its elapsed_us is the caller's to fill in, unless it
 * is set (a stand-in in simulations knows how long a pass would have taken). A plan that asks for the impossible, or an
 * arena that is too small, gives a result whose error says so; nothing was computed then, and the slots it opened stay
 * open. A sequence for which no token can be sampled fails alone: its output has an error, in this plan and in all that
 * name it before its slot is closed. */
step_result engine_run(engine *e, const step_plan *plan, arena *memory);

/* A KV block as bytes: engine_block_bytes of them, which mean the same to every engine with this one's fingerprint.
 * `block` exists. Between plans only. */
size_t engine_block_bytes(const engine *e);
void   engine_read_block(engine *e, uint32_t block, void *bytes);
void   engine_write_block(engine *e, uint32_t block, const void *bytes);

/* Bytes that the result of any plan may take. */
size_t engine_result_bytes(const engine *e);

#endif
