/* Runs one gen.request in this process: a scheduler, an executor, and in the places of tokenizer, postprocessor and
 * gateway actors that ask, collect and hear refusals. */
#ifndef TROUPE_TROUPE_REPLAY_RUN_H
#define TROUPE_TROUPE_REPLAY_RUN_H

#include "executor/executor.h"
#include "scheduler/scheduler.h"

enum { REPLAY_CHOICES_MAX = 64 };

/* What became of a choice; the tokens of its resume point stand first. */
typedef struct {
    uint32_t     *tokens; /* room for max_tokens */
    uint32_t      n_tokens;
    finish_reason finish;
} replayed_choice;

typedef struct {
    uint64_t        fingerprint; /* of the model */
    uint32_t        n_choices;
    replayed_choice choices[REPLAY_CHOICES_MAX];
} replayed;

/* Loads the model, runs the request to its end and leaves. `memory` takes the tokens. False with *err set when the
 * model can't be loaded, or the request is refused or fails. */
bool replay_run(const scheduler_options *scheduler, const executor_options *executor, const envelope *about,
                const gen_request *request, arena *memory, replayed *out, error *err) MUST_CHECK;

#endif
