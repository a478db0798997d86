/* Schedules: each a deployment of the real services, requests of every kind, and a few faults at random moments, all
 * drawn from one seed and run in virtual time. A schedule that fails prints its seed and fails again from it:
 *
 *   sim_schedules --seed N --verbose */
#include "sim/schedules/client.h"
#include "sim/schedules/faults.h"
#include "sim/schedules/scale.h"

#include "base/log.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ASKS_MAX = 16, FAULTS_IN_SCHEDULE_MAX = 3 };

static const int64_t traffic_ns  = 2500 * NS_PER_MS; /* requests and faults begin within */
static const int64_t patience_ns = 60 * NS_PER_S, idle_ns = 20 * NS_PER_S;
static const int64_t silence_ns = 8 * NS_PER_S; /* of a request at most, beside the time that the faults last */

typedef struct {
    uint64_t seed, first, count, jobs, faults;
    bool     verbose, trace, scale;
} sim_options;

static const option_row rows[] = {
    OPTION_UINT(sim_options, seed, "--seed", "N", 0, 0, 1e18, "Runs this schedule alone; 0: many."),
    OPTION_UINT(sim_options, first, "--first", "N", 1, 1, 1e18, "Seed of the first schedule."),
    OPTION_UINT(sim_options, count, "--count", "N", 10000, 1, 1e9, "How many schedules."),
    OPTION_UINT(sim_options, jobs, "--jobs", "N", 2, 1, 64, "Processes that share them."),
    OPTION_UINT(sim_options, faults, "--faults", "N", FAULTS_IN_SCHEDULE_MAX, 0, FAULTS_MAX,
                "Faults of one schedule at most."),
    OPTION_BOOL(sim_options, verbose, "--verbose", false, "Prints what each schedule is made of and how it went."),
    OPTION_BOOL(sim_options, scale, "--scale", false,
                "Instead: one scheduler with 1 to 100 executors whose steps take modelled time, and what it costs."),
    OPTION_BOOL(sim_options, trace, "--trace", false, "Prints what the services log."),
};

static struct {
    uint64_t   seed;
    fault_plan faults;
    world      world;
} running;

/* What all schedules together showed. */
typedef struct {
    uint64_t n_asks, n_asked_again, n_cancelled, n_turns;
    int64_t  worst_gap_ns;
    uint64_t worst_gap_seed;
} summary;

static void print_schedule(void)
{
    const world_shape *s = &running.world.shape;
    fprintf(stderr,
            "seed %llu: %u gateways, %u schedulers, %u tokenizers, %u postprocessors, %u executors, %u drafters, "
            "%u requests%s\n",
            (unsigned long long)running.seed, s->n_gateways, s->n_schedulers, s->n_tokenizers, s->n_postprocessors,
            s->n_executors, s->n_drafters, running.world.n_asks,
            !s->moves_kv_blocks ? ""
            : s->has_roles      ? ", executors with roles"
                                : ", executors that exchange KV blocks");
    faults_print(&running.faults, &running.world);
}

static void print_again(void)
{
    fprintf(stderr, "again: sim_schedules --seed %llu --verbose --trace\n", (unsigned long long)running.seed);
}

void schedule_failed(const world *w, const ask *a, const char *why)
{
    print_schedule();
    fprintf(stderr, "at %.3f s: %s\n", (double)world_now_ns(w) / 1e9, why);
    if (a) {
        fprintf(stderr, "request %td (kind %td, %u choices, beam %u, drafts %u), asked %u times:\n", a - w->asks,
                a->kind - kinds, a->kind->body.n, a->kind->body.sampling.beam_width, a->kind->body.draft_tokens,
                a->n_asked);
        for (uint32_t i = 0; i < a->kind->body.n; i++)
            fprintf(stderr, "  choice %u: %u of %u tokens, finish %d of %d\n", i, a->got.choices[i].n_tokens,
                    a->kind->expected.choices[i].n_tokens, a->got.choices[i].finish,
                    a->kind->expected.choices[i].finish);
    }
    world_dump(w);
    print_again();
    exit(1);
}

static void on_abort(int signal_number)
{
    (void)signal_number;
    print_schedule();
    print_again();
    signal(SIGABRT, SIG_DFL);
}

/* ---- one schedule ---- */

static uint32_t draw(random_seeded *rng, uint32_t least, uint32_t most)
{
    return least + (uint32_t)random_below(rng, most - least + 1);
}

static world_shape draw_shape(random_seeded *rng)
{
    return (world_shape){.n_gateways       = draw(rng, 1, 2),
                         .n_schedulers     = draw(rng, 1, 3),
                         .n_tokenizers     = draw(rng, 1, 2),
                         .n_postprocessors = draw(rng, 1, 2),
                         .n_drafters       = draw(rng, 0, 1),
                         .n_executors      = draw(rng, 1, 4),
                         .n_kv_blocks_min  = 32,
                         .n_kv_blocks_max  = draw(rng, 0, 1) ? 48 : 256,
                         .step_us          = draw(rng, 500, 30000),
                         .token_us         = 100,
                         .delay_min_ns     = 20000,
                         .delay_max_ns     = draw(rng, 1, 3) * NS_PER_MS,
                         .moves_kv_blocks  = draw(rng, 0, 3) > 0,
                         .has_roles        = draw(rng, 0, 1)};
}

static void draw_options(random_seeded *rng, all_options *o)
{
    static const uint64_t chunks[] = {0, 7, 16}, budgets[] = {0, 16, 40};
    o->scheduler.policy                 = draw(rng, 0, 3) ? POLICY_CONTINUOUS : draw(rng, 1, 2);
    o->scheduler.max_prefill_chunk      = chunks[draw(rng, 0, 2)];
    o->scheduler.max_num_batched_tokens = budgets[draw(rng, 0, 2)];
    o->scheduler.prefix_caching         = draw(rng, 0, 3) > 0;
    o->scheduler.max_num_seqs           = draw(rng, 2, 8);
    o->scheduler.priority_aging_s       = 0.1;
    o->scheduler.step_timeout_ms        = 2000;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Runs until done(world), with faults and restarts in between. */
static bool run_until(world *w, fault_plan *faults, bool (*done)(void *), int64_t max_ns)
{
    int64_t end_ns = world_now_ns(w) + max_ns;
    while (world_now_ns(w) < end_ns) {
        faults_turn(faults, w);
        world_restore(w);
        int64_t slice_ns = world_now_ns(w) + 500 * NS_PER_MS; /* who has left is seen then */
        int64_t next_ns  = earlier(earlier(end_ns, slice_ns), earlier(faults_due_ns(faults), world_restore_due_ns(w)));
        if (simulation_run_until(w->sim, done, w, next_ns - world_now_ns(w)))
            return true;
    }
    return false;
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static void collect(const world *w, summary *sum)
{
    int64_t faults_ns = 0;
    for (uint32_t i = 0; i < running.faults.n; i++)
        faults_ns += running.faults.all[i].length_ns;
    for (uint32_t i = 0; i < w->n_asks; i++) {
        const ask *a = &w->asks[i];
        sum->n_asks++;
        sum->n_asked_again += a->n_asked > 1;
        sum->n_cancelled += a->cancelled;
        if (a->longest_gap_ns > faults_ns + silence_ns)
            schedule_failed(w, a, "it was silent for too long");
        if (a->longest_gap_ns > sum->worst_gap_ns) {
            sum->worst_gap_ns   = a->longest_gap_ns;
            sum->worst_gap_seed = running.seed;
        }
    }
    sum->n_turns += simulation_turns(w->sim);
}

static void draw_asks(world *w, random_seeded *rng, int64_t begin_ns)
{
    uint32_t n = draw(rng, 1, ASKS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        int64_t at_ns = begin_ns + (int64_t)random_below(rng, (uint64_t)traffic_ns);
        ask    *a     = world_ask(w, &kinds[draw(rng, 0, KINDS - 1)], at_ns);
        a->gateway    = draw(rng, 0, 1);
        if (draw(rng, 0, 7) == 0)
            a->cancel_at_ns = at_ns + (int64_t)random_below(rng, (uint64_t)NS_PER_S);
    }
}

static void run_schedule(uint64_t seed, const sim_options *o, summary *sum)
{
    world        *w   = &running.world;
    random_seeded rng = random_from_seed(seed);
    running.seed      = seed;
    running.faults    = (fault_plan){0};
    world_init(w, seed);
    w->verify = true;
    draw_options(&rng, &w->options);
    world_shape shape = draw_shape(&rng);
    world_start(w, &shape);
    if (o->trace)
        log_set_clock(simulation_clock(w->sim));
    run_until(w, &running.faults, never, 500 * NS_PER_MS); /* they find each other, or not quite yet */
    int64_t begin_ns = world_now_ns(w);
    draw_asks(w, &rng, begin_ns);
    faults_draw(&running.faults, w, &rng, (uint32_t)o->faults, begin_ns + traffic_ns);
    if (o->verbose)
        print_schedule();
    if (!run_until(w, &running.faults, world_all_ended, patience_ns)) {
        uint32_t i = 0;
        while (w->asks[i].ended)
            i++;
        schedule_failed(w, &w->asks[i], "a request does not end");
    }
    for (uint32_t i = 0; i < w->n_asks; i++)
        if (w->asks[i].cancelled && requests_compare(w->asks[i].kind, &w->asks[i].got, true))
            schedule_failed(w, &w->asks[i], requests_compare(w->asks[i].kind, &w->asks[i].got, true));
    int64_t left_ns = running.faults.over_ns - world_now_ns(w);
    if (left_ns > 0)
        run_until(w, &running.faults, never, left_ns);
    if (!run_until(w, &running.faults, world_is_idle, idle_ns))
        schedule_failed(w, NULL, w->trouble);
    collect(w, sum);
    if (o->verbose)
        fprintf(stderr, "  went well in %.3f s of virtual time, %llu turns\n", (double)world_now_ns(w) / 1e9,
                (unsigned long long)simulation_turns(w->sim));
    log_set_clock(NULL);
    world_free(w);
}

/* ---- all of them ---- */

static void run_share(uint64_t job, const sim_options *o, int out)
{
    summary sum = {0};
    for (uint64_t i = job; i < o->count; i += o->jobs)
        run_schedule(o->first + i, o, &sum);
    if (write(out, &sum, sizeof sum) != sizeof sum)
        abort();
}

static void add(summary *all, const summary *one)
{
    all->n_asks += one->n_asks;
    all->n_asked_again += one->n_asked_again;
    all->n_cancelled += one->n_cancelled;
    all->n_turns += one->n_turns;
    if (one->worst_gap_ns > all->worst_gap_ns) {
        all->worst_gap_ns   = one->worst_gap_ns;
        all->worst_gap_seed = one->worst_gap_seed;
    }
}

static int run_all(const sim_options *o)
{
    int     pipes[2], status, failed = 0;
    summary all = {0}, one;
    if (pipe(pipes) != 0)
        abort();
    for (uint64_t job = 0; job < o->jobs; job++) {
        pid_t pid = fork();
        if (pid < 0)
            abort();
        if (pid == 0) {
            run_share(job, o, pipes[1]);
            exit(0);
        }
    }
    close(pipes[1]);
    while (read(pipes[0], &one, sizeof one) == sizeof one)
        add(&all, &one);
    while (wait(&status) > 0)
        failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    if (failed > 0)
        return 1;
    printf(
        "%llu schedules: %llu requests, %llu of them asked again, %llu cancelled, %llu turns; longest silence %.2f s "
        "(seed %llu)\n",
        (unsigned long long)o->count, (unsigned long long)all.n_asks, (unsigned long long)all.n_asked_again,
        (unsigned long long)all.n_cancelled, (unsigned long long)all.n_turns, (double)all.worst_gap_ns / 1e9,
        (unsigned long long)all.worst_gap_seed);
    return 0;
}

int main(int argc, char **argv)
{
    static sim_options o;
    option_group       group = {"Schedules", rows, COUNT(rows), &o};
    error              err;
    if (option_wants_help(argc - 1, argv + 1)) {
        option_help(stdout, &group, 1);
        return 0;
    }
    if (!option_parse(&group, 1, argc - 1, argv + 1, NULL, &err)) {
        fprintf(stderr, "sim_schedules: %s\n", err.text);
        return 2;
    }
    mallopt(M_MMAP_THRESHOLD, 1 << 17); /* and so it stays: large tables that are hardly used are not zeroed by hand */
    log_set_level(LOG_OFF);
    signal(SIGABRT, on_abort);
    signal(SIGPIPE, SIG_IGN);
    if (o.scale) {
        scale_print();
        return 0;
    }
    requests_prepare();
    if (o.seed == 0)
        return run_all(&o);
    summary sum = {0};
    if (o.trace)
        log_set_level(LOG_DEBUG);
    run_schedule(o.seed, &o, &sum);
    return 0;
}
