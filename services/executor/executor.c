/* The executor actor. Plans wait in a ring of jobs that a thread of their own works off; results come back through the
 * same ring.
 *
 * Bodies of messages die when their handler returns, so a plan is encoded again into its job: microseconds, against the
 * milliseconds of a pass. */
#include "executor/executor.h"

#include "base/log.h"
#include "base/metric.h"
#include "executor/employer.h"
#include "executor/kv_transfer.h"
#include "executor/step.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

/* Two plans and a reset, or a second one, of the scheduler that has us: it is offered us when nothing is left of the
 * one before. */
enum { JOBS = 4, PLAN_BYTES_MAX = 8 << 20, PLAN_ARENA_BYTES = 16 << 20 };

/* Written by the actor while waiting, by the compute thread while computing: `state` says whose it is. */
typedef struct {
    enum { JOB_FREE, JOB_WAITING, JOB_DONE } state;
    peer       *scheduler; /* gets the credit back; NULL when it left */
    uint64_t    term;      /* the employer's when it came */
    bool        is_reset;
    uint8_t    *plan;
    size_t      plan_bytes;
    arena      *memory; /* of the decoded plan, then of the result */
    step_result result;
    int64_t     done_ns; /* computed inline by an engine that says how long it took: when it is done */
} job;

typedef struct {
    actor                  *actor;
    const executor_options *options;
    engine                 *engine;
    employer                employer; /* whose plans are run */
    kv_transfer            *transfers;
    job                     jobs[JOBS];
    uint32_t                next_in, next_compute, next_out; /* rising; modulo JOBS */
    pthread_t               thread;
    bool                    has_thread;
    actor_timer             pass;  /* computed inline: its end */
    pthread_mutex_t         mutex; /* guards job states, `stopping` and `copies_wait` */
    pthread_cond_t          changed;
    bool                    stopping, copies_wait;
    metric                 *steps, *tokens, *busy_seconds;
} executor;

const option_row executor_option_rows[] = {
    OPTION_STRING(executor_options, model, "--model", "FILE", NULL,
                  "GGUF file, or a folder with config.json and *.safetensors."),
    OPTION_STRING(executor_options, model_name, "--served-model-name", "NAME", NULL,
                  "Name that clients use; from the file by default."),
    OPTION_STRING(executor_options, backend, "--device", "NAME", NULL,
                  "cpu, ref or cuda; by default the best there is."),
    OPTION_STRING(
        executor_options, variant, "--cpu-variant", "NAME", NULL,
        "Instruction set of the CPU kernels (portable, avx2, avx512...); by default the best this CPU has, but "
        "avx512_amx, which has not proved itself on hardware yet, only when it is asked for."),
    OPTION_CHOICE(executor_options, quantization, "--quantization", "none|int8|int4", 0,
                  "Make weights that the file holds as F32, F16 or BF16 smaller while loading: int8 takes 8.5 bits a "
                  "weight and hardly changes an answer; int4 takes 5 (embedding and head 8.5), costs small models much "
                  "of their quality, and takes a second of a core for 50 million weights."),
    OPTION_STRING(
        executor_options, weight_cache, "--weight-cache", "DIR", "auto",
        "Where weights are kept as the CPU kernels want them, about as large as the model, to be mapped by later "
        "starts and shared between executors: a folder; auto is beside the model, else $XDG_CACHE_HOME/troupe or "
        "~/.cache/troupe; or off."),
    OPTION_UINT(executor_options, n_threads, "--threads", "N", 0, 0, 1024, "Threads that compute; 0: one a core."),
    OPTION_UINT(executor_options, max_model_len, "--max-model-len", "N", 0, 0, 1 << 20,
                "Positions of one sequence, prompt and output; 0: what the model was trained for."),
    OPTION_UINT(executor_options, max_num_seqs, "--max-num-seqs", "N", 64, 1, 2048, "Sequences that run at once."),
    OPTION_UINT(executor_options, max_num_batched_tokens, "--max-num-batched-tokens", "N", 512, 16, 65536,
                "Tokens of one step."),
    OPTION_UINT(executor_options, max_logit_rows, "--max-logit-rows", "N", 128, 1, 65536,
                "Rows of one step that are sampled or scored; each takes the vocabulary's size in floats."),
    OPTION_BYTES(executor_options, kv_cache_memory, "--kv-cache-memory", 512 << 20, 1 << 16, 1e15,
                 "Memory for keys and values."),
    OPTION_CHOICE(executor_options, kv_cache_dtype, "--kv-cache-dtype", "auto|f32|f16|bf16|int8|int4", 0,
                  "Numbers in the KV cache; auto is f16, of an encoder, which keeps none beyond a pass, f32. int8 "
                  "takes 0.53 of its bytes and changes about 1 in 100 likeliest "
                  "tokens of a small model; int4 takes 0.31 and changes 13 in 100."),
    OPTION_CHOICE(executor_options, serves, "--role", "both|prefill|decode", 0,
                  "What this executor is for. Prompts are computed by prefill executors, whose KV blocks go to decode "
                  "executors for the tokens after them; where one kind is missing or full, the other does its work."),
    OPTION_STRING(executor_options, kv_bind, "--kv-bind", "ENDPOINT", NULL,
                  "Where other executors fetch KV blocks of this one: tcp://host:port or ipc://path. Those that have "
                  "it hand over prompts and take warm prefixes from each other instead of computing them."),
    OPTION_BYTES(executor_options, kv_offload_memory, "--kv-offload-memory", 0, 0, 1e15,
                 "Host memory for KV blocks of the prefix cache that had to make room: they come back when a prompt "
                 "begins like theirs, instead of being computed again. 0: none."),
    OPTION_STRING(executor_options, kv_offload_dir, "--kv-offload-dir", "DIR", NULL,
                  "Folder for a file of such blocks, where host memory then holds those used last (16 at least). The "
                  "file has no name, holds what prompts were about, and goes with the process."),
    OPTION_BYTES(executor_options, kv_offload_disk, "--kv-offload-disk", 0, 0, 1e15,
                 "Bytes that this file takes, from the start on."),
    OPTION_CHOICE(executor_options, pooling, "--pooling", "auto|mean|cls|last", 0,
                  "Which of a text's last hidden states its embedding is made of; auto: what the model's files say. A "
                  "model that generates gives embeddings too when its files or this say how."),
};
const size_t n_executor_option_rows = COUNT(executor_option_rows);

/* ---- computing ---- */

static void compute(executor *x, job *j)
{
    if (j->is_reset) {
        engine_reset(x->engine);
        return;
    }
    if (j->term != atomic_load(&x->employer.term)) {
        j->result = (step_result){0}; /* nobody waits for it */
        return;
    }
    arena_reset(j->memory);
    int64_t     begin = clock_now_ns(clock_system());
    const void *plan;
    error       err;
    if (message_decode(MSG_STEP_PLAN, (span){(const char *)j->plan, j->plan_bytes}, j->memory, &plan, &err)) {
        j->result = engine_run(x->engine, plan, j->memory);
    } else {
        span text = arena_copy(j->memory, span_of(err.text));
        j->result = (step_result){.error = text.data ? text : SPAN("the plan could not be read")};
    }
    int64_t elapsed_ns = clock_now_ns(clock_system()) - begin;
    if (j->result.elapsed_us == 0)
        j->result.elapsed_us = (uint32_t)(elapsed_ns / 1000);
    else
        j->done_ns = actor_now_ns(x->actor) + (int64_t)j->result.elapsed_us * 1000;
    metric_add(x->busy_seconds, (double)elapsed_ns / 1e9);
}

static void *compute_thread(void *arg)
{
    executor *x = arg;
    log_set_thread_service("executor");
    pthread_mutex_lock(&x->mutex);
    while (!x->stopping) {
        job *j       = &x->jobs[x->next_compute % JOBS];
        bool has_job = j->state == JOB_WAITING;
        if (!has_job && !x->copies_wait) {
            pthread_cond_wait(&x->changed, &x->mutex);
            continue;
        }
        x->copies_wait = false;
        pthread_mutex_unlock(&x->mutex);
        kv_transfer_copy(x->transfers); /* first: what was asked for before this job may be gone after it */
        if (has_job)
            compute(x, j);
        pthread_mutex_lock(&x->mutex);
        if (has_job) {
            j->state = JOB_DONE;
            x->next_compute++;
        }
        actor_wake(x->actor);
    }
    pthread_mutex_unlock(&x->mutex);
    return NULL;
}

/* The next job that nobody uses; NULL when there is none: its scheduler sends more than it has credits for. */
static job *take_job(executor *x, peer *scheduler)
{
    job *j = &x->jobs[x->next_in % JOBS];
    pthread_mutex_lock(&x->mutex);
    bool is_free = j->state == JOB_FREE;
    pthread_mutex_unlock(&x->mutex);
    if (!is_free)
        return NULL;
    j->scheduler = scheduler;
    j->done_ns   = 0;
    j->term      = atomic_load(&x->employer.term);
    j->is_reset  = false;
    return j;
}

static void submit(executor *x, job *j)
{
    x->next_in++;
    pthread_mutex_lock(&x->mutex);
    j->state = JOB_WAITING;
    pthread_cond_signal(&x->changed);
    pthread_mutex_unlock(&x->mutex);
}

/* ---- messages ---- */

static void send_result(executor *x, const job *j)
{
    error err;
    peer *scheduler = j->scheduler;
    if (!scheduler)
        return;
    if (j->term != atomic_load(&x->employer.term)) { /* it does not wait for this */
        actor_grant(x->actor, scheduler, 1);
        return;
    }
    metric_add(x->steps, 1);
    for (uint32_t i = 0; i < j->result.n_outputs; i++)
        metric_add(x->tokens, j->result.outputs[i].n_tokens);
    step_result failed = {.step = j->result.step};
    bool        sent   = actor_send(x->actor, scheduler, MSG_STEP_RESULT, &j->result, NULL, &err);
    if (!sent && err.code != ERR_GONE) { /* too large: the scheduler waits for a word of each plan */
        log_error("step result not sent", "node=%s why=\"%s\"", scheduler->name, err.text);
        failed.error = span_of(err.text);
        sent         = actor_send(x->actor, scheduler, MSG_STEP_RESULT, &failed, NULL, NULL);
    }
    if (!sent)
        log_warn("the scheduler left before its result", "node=%s", scheduler->name);
    actor_grant(x->actor, scheduler, 1);
}

static void on_pass_done(void *self, actor_timer *timer)
{
    (void)self, (void)timer; /* the turn that follows looks */
}

static bool is_done(executor *x, const job *j)
{
    if (!x->options->compute_inline || actor_now_ns(x->actor) >= j->done_ns)
        return true;
    actor_timer_set(x->actor, &x->pass, j->done_ns - actor_now_ns(x->actor), on_pass_done);
    return false;
}

static void turn_transfers(executor *x)
{
    bool to_copy = kv_transfer_turn(x->transfers, x->next_out);
    if (x->options->compute_inline) {
        while (kv_transfer_copy(x->transfers))
            kv_transfer_turn(x->transfers, x->next_out);
    } else if (to_copy) {
        pthread_mutex_lock(&x->mutex);
        x->copies_wait = true;
        pthread_cond_signal(&x->changed);
        pthread_mutex_unlock(&x->mutex);
    }
}

static executor_ready about_of(const executor *x)
{
    executor_ready about = engine_about(x->engine);
    about.serves         = (executor_role)x->options->serves;
    kv_transfer_describe(x->transfers, &about);
    return about;
}

static void on_turn(void *self)
{
    executor *x = self;
    for (;;) {
        job *j = &x->jobs[x->next_out % JOBS];
        pthread_mutex_lock(&x->mutex);
        int state = j->state;
        pthread_mutex_unlock(&x->mutex);
        if (state == JOB_WAITING && x->options->compute_inline) {
            compute(x, j);
            x->next_compute++;
            state = j->state = JOB_DONE;
        }
        if (state != JOB_DONE || !is_done(x, j))
            break;
        if (!j->is_reset)
            send_result(x, j);
        pthread_mutex_lock(&x->mutex);
        j->state = JOB_FREE;
        pthread_mutex_unlock(&x->mutex);
        x->next_out++;
    }
    turn_transfers(x);
    if (!actor_is_draining(x->actor)) {
        executor_ready about = about_of(x);
        employer_turn(&x->employer, x->next_out == x->next_in, &about);
    } else if (x->next_out == x->next_in) {
        employer_leave(&x->employer);
        actor_finish(x->actor);
    }
}

static void on_executor_reset(void *self, const message *m)
{
    executor *x = self;
    if (!employer_takes(&x->employer, m->from, ((const executor_reset *)m->body)->term))
        return; /* late: it has been told */
    job *j = take_job(x, m->from);
    if (!j) { /* a reset costs no credit, so this is one too many */
        actor_end_session(x->actor, m->from, "a reset found no free job");
        return;
    }
    j->is_reset = true;
    submit(x, j);
    log_info("obeys a scheduler", "node=%s epoch=%llu", m->from->name, (unsigned long long)m->envelope->epoch);
}

/* Its scheduler must plan the same again, here or elsewhere. */
static void refuse_plan(executor *x, const message *m, const char *why)
{
    const step_plan *plan   = m->body;
    step_result      result = {.step = plan->step, .error = span_of(why)};
    error            err;
    log_warn("plan refused", "node=%s why=\"%s\"", m->from->name, why);
    if (!actor_send(x->actor, m->from, MSG_STEP_RESULT, &result, NULL, &err))
        log_error("step result not sent", "node=%s why=\"%s\"", m->from->name, err.text);
    actor_grant(x->actor, m->from, 1);
}

static void on_step_plan(void *self, const message *m)
{
    executor *x = self;
    job      *j;
    error     err;
    if (m->from != x->employer.scheduler || !x->employer.taken) {
        actor_grant(x->actor, m->from, 1); /* executor.leave is on its way */
    } else if (!(j = take_job(x, m->from))) {
        refuse_plan(x, m, "a plan found no free job");
    } else {
        wire_writer out = {.data = j->plan, .capacity = PLAN_BYTES_MAX};
        if (!message_encode(MSG_STEP_PLAN, m->body, &out, &err)) {
            refuse_plan(x, m, err.text);
            return;
        }
        j->plan_bytes = out.size;
        submit(x, j);
    }
}

static void on_kv_load(void *self, const message *m)
{
    executor *x = self;
    kv_transfer_on_load(x->transfers, m, x->next_in);
}

static void on_kv_fetch(void *self, const message *m)
{
    kv_transfer_on_fetch(((executor *)self)->transfers, m);
}

static void on_kv_blocks(void *self, const message *m)
{
    kv_transfer_on_blocks(((executor *)self)->transfers, m);
}

static void on_peer_down(void *self, peer *p)
{
    executor *x = self;
    kv_transfer_peer_down(x->transfers, p);
    for (uint32_t i = 0; i < JOBS; i++)
        if (x->jobs[i].scheduler == p)
            x->jobs[i].scheduler = NULL;
    employer_peer_down(&x->employer, p);
}

static void on_drain(void *self)
{
    (void)self; /* on_turn leaves when the last plan has been answered */
}

/* ---- life ---- */

static void destroy(void *self)
{
    executor *x = self;
    if (x->has_thread) {
        pthread_mutex_lock(&x->mutex);
        x->stopping = true;
        pthread_cond_signal(&x->changed);
        pthread_mutex_unlock(&x->mutex);
        pthread_join(x->thread, NULL);
    }
    for (uint32_t i = 0; i < JOBS; i++) {
        free(x->jobs[i].plan);
        arena_free(&x->jobs[i].memory);
    }
    kv_transfer_free(&x->transfers);
    engine_free(&x->engine);
    pthread_mutex_destroy(&x->mutex);
    pthread_cond_destroy(&x->changed);
    free(x);
}

static bool take_jobs(executor *x, error *err)
{
    for (uint32_t i = 0; i < JOBS; i++) {
        job *j    = &x->jobs[i];
        j->plan   = malloc(PLAN_BYTES_MAX);
        j->memory = arena_new(PLAN_ARENA_BYTES + engine_result_bytes(x->engine), err);
        if (!j->plan || !j->memory)
            return error_set(err, ERR_NO_MEMORY, "no memory for step plans");
    }
    return true;
}

static void *create(actor *a, const void *options, error *err)
{
    executor *x = calloc(1, sizeof *x);
    if (!x) {
        error_set(err, ERR_NO_MEMORY, "no memory for the executor");
        return NULL;
    }
    x->actor   = a;
    x->options = options;
    employer_init(&x->employer, a);
    pthread_mutex_init(&x->mutex, NULL);
    pthread_cond_init(&x->changed, NULL);
    x->steps        = metric_counter("troupe_executor_steps_total", "", "Passes that this executor ran.");
    x->tokens       = metric_counter("troupe_executor_tokens_total", "", "Tokens that this executor sampled.");
    x->busy_seconds = metric_counter("troupe_executor_busy_seconds_total", "", "Time spent computing.");
    if (!x->options->model) {
        error_set(err, ERR_INVALID, "--model is missing: a GGUF file, or a folder with config.json and *.safetensors");
        destroy(x);
        return NULL;
    }
    if (x->options->serves != EXECUTOR_ROLE_BOTH && !x->options->kv_bind) {
        error_set(err, ERR_INVALID, "--role %s needs --kv-bind: KV blocks go from prefill to decode executors",
                  x->options->serves == EXECUTOR_ROLE_PREFILL ? "prefill" : "decode");
        destroy(x);
        return NULL;
    }
    x->engine    = engine_new(x->options, err);
    x->transfers = x->engine ? kv_transfer_new(a, x->engine, &x->employer, err) : NULL;
    if (!x->transfers || !take_jobs(x, err)) {
        destroy(x);
        return NULL;
    }
    if (!x->options->compute_inline) {
        if (pthread_create(&x->thread, NULL, compute_thread, x) != 0) {
            error_set(err, ERR_NO_MEMORY, "no thread to compute on");
            destroy(x);
            return NULL;
        }
        x->has_thread = true;
    }
    executor_ready about = engine_about(x->engine);
    log_info("model loaded", "model=\"%.*s\" device=\"%.*s\" kv_blocks=%u max_model_len=%u", SPAN_ARG(about.model),
             SPAN_ARG(about.device), about.n_kv_blocks, about.max_model_len);
    return x;
}

static uint32_t load(const void *self)
{
    const executor *x = self;
    return x->next_in - x->next_out;
}

static const actor_route routes[] = {
    {MSG_EXECUTOR_RESET, on_executor_reset}, /* a scheduler takes this executor, or takes it anew */
    {MSG_STEP_PLAN, on_step_plan},           /* one forward pass to run */
    {MSG_KV_LOAD, on_kv_load},               /* KV blocks to be fetched from another executor */
    {MSG_KV_FETCH, on_kv_fetch},             /* another executor asks for KV blocks */
    {MSG_KV_BLOCKS, on_kv_blocks},           /* and gets them */
};

const actor_class executor_class = {
    .name         = "executor",
    .role         = ROLE_EXECUTOR,
    .routes       = routes,
    .n_routes     = COUNT(routes),
    .create       = create,
    .destroy      = destroy,
    .on_turn      = on_turn,
    .on_peer_down = on_peer_down,
    .on_drain     = on_drain,
    .load         = load,
};

uint64_t executor_fingerprint(const actor *a)
{
    const executor *x = actor_self(a);
    return engine_about(x->engine).fingerprint;
}
