// links: service_scheduler service_executor service_drafter
/* KV blocks that the prefix cache gives up come back from the executor's second tier: the tokens are those of a
 * deployment with all the room it wants, and prompts are not computed twice. */
#include "support_generation.h"

#include "base/metric.h"
#include "scheduler/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_PROMPTS = 12, PROMPT = 100, OUTPUT = 12, ROUNDS = 3, SMALL_POOL = 24 * 4096 };

static uint32_t expected[N_PROMPTS][OUTPUT];

typedef struct {
    uint64_t    kv_memory, memory, disk;
    const char *folder;
    uint32_t    dtype;
    bool        at_once; /* all prompts of a round, or one after the other */
} setup;

static void start(deployment *d, const setup *c, uint64_t seed)
{
    deployment_init(d);
    d->executor_options.kv_cache_memory   = c->kv_memory;
    d->executor_options.kv_offload_memory = c->memory;
    d->executor_options.kv_offload_disk   = c->disk;
    d->executor_options.kv_offload_dir    = c->folder;
    d->executor_options.kv_cache_dtype    = c->dtype;
    d->executor_options.max_model_len     = 160;
    deployment_start(d, seed, 1, 0);
}

static generation *ask(deployment *d, uint32_t prompt)
{
    generation *g                = deployment_add(d, prompt + 1, PROMPT, OUTPUT);
    g->body.sampling.seed        = prompt;
    g->body.sampling.temperature = prompt % 2 ? 1 : 0;
    deployment_send(d, g);
    return g;
}

/* Every prompt, several rounds; returns the tokens of prompts that were not computed. */
static uint32_t run_rounds(const setup *c, uint64_t seed, bool is_reference)
{
    deployment d;
    uint32_t   n_cached = 0;
    start(&d, c, seed);
    for (uint32_t round = 0; round < (is_reference ? 1 : ROUNDS); round++) {
        generation *asked[N_PROMPTS];
        for (uint32_t i = 0; i < N_PROMPTS; i++) {
            asked[i] = ask(&d, i);
            if (!c->at_once)
                deployment_run_one(&d, asked[i], 60);
        }
        deployment_run(&d, 60);
        for (uint32_t i = 0; i < N_PROMPTS; i++) {
            assert_int_equal(OUTPUT, asked[i]->n_tokens[0]);
            if (is_reference)
                memcpy(expected[i], asked[i]->tokens[0], sizeof expected[i]);
            assert_memory_equal(expected[i], asked[i]->tokens[0], sizeof expected[i]);
            n_cached += asked[i]->n_cached;
        }
    }
    deployment_check_idle(&d);
    deployment_end(&d);
    return n_cached;
}

static void what_was_evicted_comes_back_with_the_same_tokens(void **state)
{
    (void)state;
    for (uint32_t dtype = 0; dtype < 6; dtype++) {
        run_rounds(&(setup){.kv_memory = 4 << 20, .dtype = dtype}, 1, true);
        for (uint32_t at_once = 0; at_once < 2; at_once++) {
            setup    small   = {.kv_memory = SMALL_POOL, .dtype = dtype, .at_once = at_once};
            setup    offload = {.kv_memory = SMALL_POOL, .dtype = dtype, .at_once = at_once, .memory = 4 << 20};
            double   hits    = metric_of("troupe_kv_offload_hits_total");
            uint32_t without = run_rounds(&small, 2, false);
            assert_true(metric_of("troupe_kv_offload_hits_total") == hits);
            uint32_t with = run_rounds(&offload, 2, false);
            assert_true(metric_of("troupe_kv_offload_hits_total") > hits);
            assert_true(with > without);
            if (!at_once && dtype == 0) /* all but the last tokens of every prompt, in every round but the first */
                assert_int_equal((ROUNDS - 1) * N_PROMPTS * (PROMPT / 16 * 16), with);
        }
    }
}

/* So few slots that what is wanted has mostly gone, and what was saved is overwritten all the time. */
static void few_slots_change_no_token(void **state)
{
    (void)state;
    run_rounds(&(setup){.kv_memory = 4 << 20}, 1, true);
    for (uint64_t n_slots = 1; n_slots < 70; n_slots += 17)
        for (uint32_t at_once = 0; at_once < 2; at_once++)
            run_rounds(&(setup){.kv_memory = SMALL_POOL, .memory = n_slots * 4096, .at_once = at_once}, n_slots, false);
}

static void blocks_come_back_from_disk(void **state)
{
    (void)state;
    setup  disk   = {.kv_memory = SMALL_POOL, .disk = 4 << 20, .folder = "/tmp"};
    double failed = metric_of("troupe_kv_offload_failed_blocks_total"), loaded;
    run_rounds(&(setup){.kv_memory = 4 << 20}, 1, true);
    loaded = metric_of("troupe_kv_offload_loaded_blocks_total");
    assert_int_equal((ROUNDS - 1) * N_PROMPTS * (PROMPT / 16 * 16), run_rounds(&disk, 3, false));
    disk.at_once = true;
    assert_true(run_rounds(&disk, 4, false) > 0);
    assert_true(metric_of("troupe_kv_offload_loaded_blocks_total") > loaded + N_PROMPTS);
    assert_true(metric_of("troupe_kv_offload_failed_blocks_total") == failed);
}

/* Overwrites the file that has no name any more. */
static void damage_file(size_t bytes)
{
    char path[64], target[512];
    for (int fd = 3; fd < 256; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n             = readlink(path, target, sizeof target - 1);
        target[n > 0 ? n : 0] = 0;
        if (!strstr(target, "/troupe-kv-"))
            continue;
        char *garbage = malloc(bytes);
        memset(garbage, 0x55, bytes);
        assert_int_equal(bytes, pwrite(fd, garbage, bytes, 0));
        free(garbage);
        return;
    }
    fail_msg("there is no file of KV blocks");
}

static void what_is_damaged_on_disk_is_computed(void **state)
{
    (void)state;
    deployment d;
    setup      c = {.kv_memory = SMALL_POOL, .disk = 1 << 20, .folder = "/tmp"};
    run_rounds(&(setup){.kv_memory = 4 << 20}, 1, true);
    start(&d, &c, 5);
    double failed = metric_of("troupe_kv_offload_failed_blocks_total");
    for (uint32_t i = 0; i < 2 * N_PROMPTS; i++) {
        generation *g = ask(&d, i % N_PROMPTS);
        deployment_run_one(&d, g, 60);
        assert_memory_equal(expected[i % N_PROMPTS], g->tokens[0], sizeof expected[0]);
        damage_file(c.disk);
    }
    assert_true(metric_of("troupe_kv_offload_failed_blocks_total") > failed + N_PROMPTS);
    deployment_check_idle(&d);
    deployment_end(&d);
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

/* Clients leave while blocks are on their way. */
static void cancelled_requests_leave_no_block_behind(void **state)
{
    (void)state;
    setup c = {.kv_memory = SMALL_POOL, .memory = 4 << 20};
    run_rounds(&(setup){.kv_memory = 4 << 20}, 1, true);
    for (uint64_t seed = 1; seed <= 10; seed++) {
        deployment  d;
        generation *asked[N_PROMPTS];
        start(&d, &c, seed);
        for (uint32_t i = 0; i < N_PROMPTS; i++)
            deployment_run_one(&d, ask(&d, i), 60);
        for (uint32_t i = 0; i < N_PROMPTS; i++) {
            asked[i] = ask(&d, i);
            (void)simulation_run_until(d.sim, never, NULL, (int64_t)(seed * 13 % 7) * 100 * 1000);
            if (i % 3 == 0)
                deployment_cancel(&d, asked[i]);
        }
        deployment_run(&d, 60);
        for (uint32_t i = 0; i < N_PROMPTS; i++)
            if (!asked[i]->cancelled)
                assert_memory_equal(expected[i], asked[i]->tokens[0], sizeof expected[i]);
        deployment_check_idle(&d);
        deployment_end(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_evicted_comes_back_with_the_same_tokens),
        cmocka_unit_test(few_slots_change_no_token),
        cmocka_unit_test(blocks_come_back_from_disk),
        cmocka_unit_test(what_is_damaged_on_disk_is_computed),
        cmocka_unit_test(cancelled_requests_leave_no_block_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
