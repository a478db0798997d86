/* Pumping a store until an answer comes. */
#include "support_calls.h"

#include <poll.h>
#include <stdio.h>
#include <time.h>

int64_t real_ms(void)
{
    return clock_now_ns(clock_system()) / NS_PER_MS;
}

void on_answer(void *arg, const store_reply *reply)
{
    answer *a    = arg;
    a->status    = reply->status;
    a->epoch     = reply->epoch;
    a->value     = reply->value;
    a->session   = reply->session;
    a->n_workers = reply->n_workers;
    a->n_blocks  = reply->n_blocks;
    a->n_calls++;
    snprintf(a->session_worker, sizeof a->session_worker, "%.*s", SPAN_ARG(reply->session.worker));
    for (uint32_t i = 0; i < reply->n_workers && i < COUNT(a->workers); i++) {
        const store_worker *w = &reply->workers[i];
        snprintf(a->workers[i].id, sizeof a->workers[i].id, "%.*s", SPAN_ARG(w->id));
        snprintf(a->workers[i].address, sizeof a->workers[i].address, "%.*s", SPAN_ARG(w->address));
        memcpy(a->workers[i].capabilities, w->capabilities.data, w->capabilities.size);
        a->workers[i].n_capability_bytes = w->capabilities.size;
        a->workers[i].epoch              = w->epoch;
    }
    a->log       = reply->log;
    a->n_entries = reply->n_entries;
    if (reply->n_entries) {
        snprintf(a->first_entry, sizeof a->first_entry, "%.*s", SPAN_ARG(reply->entries[0]));
        snprintf(a->last_entry, sizeof a->last_entry, "%.*s", SPAN_ARG(reply->entries[reply->n_entries - 1]));
    }
    if (reply->n_blocks)
        memcpy(a->blocks, reply->blocks, reply->n_blocks * sizeof *a->blocks);
}

/* Waits as an actor's loop does, at most `most_ms`, and takes a turn. */
static void pump(store_under_test *t, int most_ms)
{
    if (!t->virtual_clock) {
        int64_t       due_ns = store_next_ns(t->store), now_ns = clock_now_ns(clock_system());
        int64_t       wait_ms = due_ns <= now_ns ? 0 : (due_ns - now_ns) / NS_PER_MS + 1;
        struct pollfd fd      = {.fd = store_fd(t->store), .events = POLLIN};
        poll(&fd, 1, wait_ms < most_ms ? (int)wait_ms : most_ms);
    }
    store_turn(t->store);
}

store_status wait_for(store_under_test *t, answer *a)
{
    int64_t give_up_ms = real_ms() + 3000;
    while (a->n_calls == 0) {
        if (real_ms() > give_up_ms)
            fail_msg("no answer within 3 s");
        pump(t, 20);
    }
    assert_int_equal(a->n_calls, 1);
    return a->status;
}

void let_pass_ms(store_under_test *t, int ms)
{
    if (t->virtual_clock) {
        clock_advance(t->virtual_clock, ms * NS_PER_MS);
        store_turn(t->store);
        return;
    }
    for (int64_t end_ms = real_ms() + ms, now_ms; (now_ms = real_ms()) < end_ms;)
        pump(t, (int)(end_ms - now_ms));
}

void wait_until_degraded_is(store_under_test *t, bool wanted)
{
    int64_t give_up_ms = real_ms() + 5000;
    while (store_is_degraded(t->store) != wanted) {
        if (real_ms() > give_up_ms)
            fail_msg("the store is not %s within 5 s", wanted ? "degraded" : "back");
        pump(t, 20);
    }
}

store_status do_register(store_under_test *t, const char *id, const char *role, uint32_t ttl_ms, uint64_t *epoch)
{
    answer      a     = {0};
    error       err   = {0};
    store_lease lease = {.id           = span_of(id),
                         .role         = span_of(role),
                         .address      = SPAN("tcp://10.0.0.1:7001"),
                         .capabilities = SPAN("caps\0\xff\r\n"),
                         .ttl_ms       = ttl_ms};
    if (!store_register(t->store, &lease, on_answer, &a, &err))
        fail_msg("%s", err.text);
    wait_for(t, &a);
    if (epoch)
        *epoch = a.epoch;
    return a.status;
}

store_status do_renew(store_under_test *t, const char *id, const char *role, uint64_t epoch, uint32_t ttl_ms)
{
    answer a = {0};
    assert_true(store_renew(t->store, span_of(id), span_of(role), epoch, ttl_ms, on_answer, &a, NULL));
    return wait_for(t, &a);
}

store_status do_release(store_under_test *t, const char *id, const char *role, uint64_t epoch)
{
    answer a = {0};
    assert_true(store_release(t->store, span_of(id), span_of(role), epoch, on_answer, &a, NULL));
    return wait_for(t, &a);
}

store_status do_list(store_under_test *t, const char *role, answer *a)
{
    a->n_calls = 0;
    assert_true(store_list(t->store, span_of(role), on_answer, a, NULL));
    return wait_for(t, a);
}

store_status do_session_set(store_under_test *t, const char *id, uint64_t fence, const char *worker, uint32_t ttl_ms)
{
    answer        a       = {0};
    store_session session = {.worker    = span_of(worker),
                             .epoch     = 1795812601123,
                             .fence     = fence,
                             .last_hash = UINT64_MAX - 1,
                             .n_blocks  = 1234};
    assert_true(store_session_set(t->store, span_of(id), &session, ttl_ms, on_answer, &a, NULL));
    return wait_for(t, &a);
}

store_status do_session_get(store_under_test *t, const char *id, uint32_t ttl_ms, answer *a)
{
    a->n_calls = 0;
    assert_true(store_session_get(t->store, span_of(id), ttl_ms, on_answer, a, NULL));
    return wait_for(t, a);
}

store_status do_count(store_under_test *t, const char *name, int64_t amount, uint32_t ttl_ms, int64_t *value)
{
    answer a = {0};
    assert_true(store_count(t->store, span_of(name), amount, ttl_ms, on_answer, &a, NULL));
    wait_for(t, &a);
    *value = a.value;
    return a.status;
}
