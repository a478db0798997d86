/* See scale.h. All services are real but the engine. Only the scheduler's turns take virtual time, as much as the
 * processor took for them; the network and the other services are as fast as they can be. So what falls behind is the
 * scheduler. Its time is an upper bound: it includes what it takes from the simulated network, whose receive looks at
 * every connection. */
#include "sim/schedules/scale.h"

#include "base/metric.h"
#include "sim/schedules/world.h"

#include <stdio.h>
#include <stdlib.h>

enum { STREAMS = 32, ROUNDS = 2, PROMPT = 16, OUTPUT = 32, STEP_US = 15000, TOKEN_US = 150 };

typedef struct {
    double tokens_per_s, cpu_us_per_token, busy, step_ms;
} measured;

static void make_kind(kind *k, uint32_t i)
{
    *k = (kind){.body = text_request_defaults};
    for (uint32_t t = 0; t < PROMPT; t++)
        k->prompt[t] = DOUBLE_TOKEN_FIRST + (i * 7 + t * 13) % DOUBLE_TOKENS;
    k->body.kind                 = PROMPT_KIND_TOKENS;
    k->body.prompt_tokens        = k->prompt;
    k->body.n_prompt_tokens      = PROMPT;
    k->body.max_tokens           = OUTPUT;
    k->body.sampling.seed        = i + 1;
    k->body.sampling.ignore_eos  = true;
    k->body.sampling.temperature = 0;
}

static void make_world(world *w, uint32_t n_schedulers, uint32_t n_executors)
{
    world_init(w, n_executors);
    w->options.scheduler.max_num_seqs          = STREAMS;
    w->options.scheduler.max_queue             = 65536;
    w->options.executor.max_num_seqs           = STREAMS;
    w->options.executor.max_num_batched_tokens = 256;
    w->options.postprocessor.max_num_streams   = WORLD_ASKS_MAX;
    w->options.gateway.max_requests            = WORLD_ASKS_MAX;
    w->options.gateway.max_waiting             = WORLD_ASKS_MAX;
    world_start(w, &(world_shape){.n_gateways       = 1,
                                  .n_schedulers     = n_schedulers,
                                  .n_tokenizers     = 1,
                                  .n_postprocessors = 1,
                                  .n_executors      = n_executors,
                                  .n_kv_blocks_min  = 4 * STREAMS,
                                  .n_kv_blocks_max  = 4 * STREAMS,
                                  .step_us          = STEP_US,
                                  .token_us         = TOKEN_US,
                                  .delay_min_ns     = 20000,
                                  .delay_max_ns     = 50000,
                                  .credits          = WORLD_ASKS_MAX});
}

static measured measure(uint32_t n_schedulers, uint32_t n_executors)
{
    static world  w;
    uint32_t      n_asks = n_executors * STREAMS * ROUNDS;
    const metric *steps;
    make_world(&w, n_schedulers, n_executors);
    for (uint32_t i = 0; i < KINDS; i++)
        make_kind(&kinds[i], i);
    simulation_run_until(w.sim, NULL, NULL, 30 * NS_PER_S); /* executors spread over the schedulers */
    steps          = metric_find("troupe_steps_total", "");
    double n_steps = metric_value(steps);
    simulation_charge(w.sim, w.nodes[0].actor);
    int64_t begin_ns = world_now_ns(&w);
    for (uint32_t i = 0; i < n_asks; i++)
        world_ask(&w, &kinds[i % KINDS], begin_ns);
    if (!simulation_run_until(w.sim, world_all_ended, &w, 600 * NS_PER_S)) {
        fprintf(stderr, "%u executors do not come to an end\n", n_executors);
        exit(1);
    }
    double   elapsed_s = (double)(world_now_ns(&w) - begin_ns) / 1e9;
    double   cpu_s     = (double)simulation_charged_ns(w.sim) / 1e9;
    double   n_tokens  = (double)n_asks * OUTPUT;
    measured m         = {.tokens_per_s     = n_tokens / elapsed_s,
                          .cpu_us_per_token = cpu_s * 1e6 / (n_tokens / n_schedulers),
                          .busy             = cpu_s / elapsed_s,
                          .step_ms          = elapsed_s * 1e3 * n_executors / (metric_value(steps) - n_steps)};
    world_free(&w);
    return m;
}

static void print_row(uint32_t n_schedulers, uint32_t n_executors, const measured *m, double one)
{
    printf("%10u %10u %12.0f %10.2f %14.2f %14.0f %% %10.2f\n", n_schedulers, n_executors, m->tokens_per_s,
           m->tokens_per_s / one, m->cpu_us_per_token, m->busy * 100, m->step_ms);
    fflush(stdout);
}

void scale_print(void)
{
    static const uint32_t sizes[] = {1, 2, 4, 8, 16, 32, 64, 100};
    measured              m       = {0};
    double                one     = 0;
    printf("A step of %d sequences takes %.1f ms; each executor has %d streams at a time, of %d tokens after %d.\n\n",
           STREAMS, (STEP_US + STREAMS * TOKEN_US) / 1e3, STREAMS, OUTPUT, PROMPT);
    printf("%10s %10s %12s %10s %14s %16s %10s\n", "schedulers", "executors", "tokens/s", "times one", "CPU us/token",
           "scheduler busy", "step ms");
    for (size_t i = 0; i < COUNT(sizes); i++) {
        m   = measure(1, sizes[i]);
        one = i == 0 ? m.tokens_per_s : one;
        print_row(1, sizes[i], &m, one);
    }
    printf("\nOne scheduler's thread would be busy all the time with about %.0f such executors, or more: some of its "
           "time\n"
           "is the simulated network's, which grows with the connections.\n",
           100 / m.busy);
    m = measure(2, 100);
    print_row(2, 100, &m, one);
}
