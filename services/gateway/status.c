/* /status.json: what this gateway knows and has, and what the schedulers say of theirs.
 *
 * Nothing travels unless somebody looks. Whoever does starts a round: each scheduler is asked for a report, and when
 * all have answered, or one is late, all who look meanwhile get the same text. What is younger than FRESH_MS is handed
 * out again, so any number of viewers cost two small messages a second and scheduler. */
#include "services/gateway/state.h"

#include "base/log.h"

#include <stdlib.h>

enum { FRESH_MS = 500, LATE_MS = 500 };

static const char *state_of(bool ready, bool draining)
{
    return draining ? "draining" : ready ? "ready" : "not ready";
}

/* ---- what schedulers report ---- */

static void write_node(json_out *j, const node_status *n)
{
    json_out_member_string(j, "name", n->name);
    json_out_member_string(j, "state", span_of(state_of(n->ready, n->draining)));
    json_out_member_string(j, "version", n->version);
    json_out_member_u64(j, "connected_s", n->connected_ms / 1000);
    json_out_member_u64(j, "load", n->load);
}

static void write_executor(json_out *j, const executor_status *x)
{
    json_out_object(j);
    write_node(j, &x->node);
    json_out_member_string(j, "model", x->model);
    json_out_member_string(j, "device", x->device);
    json_out_member_u64(j, "running", x->n_running);
    json_out_member_u64(j, "slots", x->n_slots);
    json_out_member_u64(j, "kv_blocks", x->n_kv_blocks);
    json_out_member_u64(j, "kv_blocks_used", x->n_kv_blocks_used);
    json_out_member_u64(j, "kv_blocks_cached", x->n_kv_blocks_cached);
    json_out_member_u64(j, "kv_block_tokens", x->kv_block_tokens);
    json_out_member_double(j, "tokens_per_s", (double)x->tokens_per_s);
    json_out_member_u64(j, "plans_in_flight", x->plans_in_flight);
    json_out_end(j);
}

/* The members of the scheduler's object. */
static void write_report(json_out *j, const status_report *r)
{
    json_out_object(j);
    json_out_member_u64(j, "requests", r->n_requests);
    json_out_member_u64(j, "running", r->n_running);
    json_out_member_u64(j, "waiting", r->n_waiting);
    json_out_member_u64(j, "waiting_tokens", r->n_waiting_tokens);
    json_out_member_double(j, "tokens_per_s", (double)r->tokens_per_s);
    json_out_member_u64(j, "executors_in_all", r->executors_in_all);
    json_out_key(j, SPAN("executors"));
    json_out_array(j);
    for (uint32_t i = 0; i < r->n_executors; i++)
        write_executor(j, &r->executors[i]);
    json_out_end(j);
    json_out_key(j, SPAN("drafters"));
    json_out_array(j);
    for (uint32_t i = 0; i < r->n_drafters; i++) {
        json_out_object(j);
        write_node(j, &r->drafters[i]);
        json_out_end(j);
    }
    json_out_end(j);
    json_out_end(j);
}

static scheduler_report *report_of(status_board *b, const peer *p)
{
    for (uint32_t i = 0; i < b->n_reports; i++)
        if (b->reports[i].scheduler == p)
            return &b->reports[i];
    return NULL;
}

/* ---- the answer ---- */

static void write_gateway(json_out *j, const gateway *g)
{
    const char *lacks     = gateway_lacks(g);
    uint32_t    n_streams = 0;
    for (const answer *a = g->answers; a; a = a->next)
        n_streams += a->streaming;
    json_out_key(j, SPAN("gateway"));
    json_out_object(j);
    json_out_member_string(j, "name", span_of(actor_name(g->actor)));
    json_out_member_string(j, "state", span_of(state_of(!lacks, actor_is_draining(g->actor))));
    json_out_member_string(j, "version", SPAN(TROUPE_VERSION));
    if (lacks)
        json_out_member_string(j, "reason", span_of(lacks));
    json_out_member_i64(j, "started_s", clock_unix_ms(actor_clock(g->actor)) / 1000 - g->created_s);
    json_out_member_u64(j, "connections", http_server_n_connections(g->http));
    json_out_member_u64(j, "requests", g->n_answers);
    json_out_member_u64(j, "generating", g->n_generating);
    json_out_member_u64(j, "streams", n_streams);
    json_out_member_u64(j, "prompts_waiting", g->n_waiting);
    json_out_member_u64(j, "kept_bytes", g->kept_bytes);
    json_out_end(j);
}

typedef struct {
    gateway  *gateway;
    json_out *j;
    uint32_t  n_clients;
} node_list;

/* Clients on the bus are counted: who they are is nobody else's business. */
static void write_peer(void *arg, peer *p)
{
    node_list *list = arg;
    json_out  *j    = list->j;
    if (p->role == ROLE_CLIENT) {
        list->n_clients++;
        return;
    }
    json_out_object(j);
    json_out_member_string(j, "name", span_of(p->name));
    json_out_member_string(j, "role", span_of(role_name(p->role)));
    json_out_member_string(j, "state", span_of(state_of(p->ready, p->draining)));
    json_out_member_string(j, "version", span_of(p->version));
    json_out_member_i64(j, "connected_s", (gateway_now_ns(list->gateway) - p->since_ns) / NS_PER_S);
    json_out_member_u64(j, "load", p->load);
    json_out_member_u64(j, "credits", p->credits);
    json_out_end(j);
}

static void write_schedulers(json_out *j, const gateway *g)
{
    const status_board *b = &g->status;
    json_out_key(j, SPAN("schedulers"));
    json_out_array(j);
    for (uint32_t i = 0; i < b->n_reports; i++) {
        const scheduler_report *r = &b->reports[i];
        json_out_object(j);
        json_out_member_string(j, "name", span_of(r->scheduler->name));
        json_out_member_bool(j, "answers", !r->is_asked && r->text);
        json_out_key(j, SPAN("report")); /* the last one, when it does not answer */
        if (r->text)
            json_out_raw(j, (span){r->text, r->text_bytes});
        else
            json_out_null(j);
        json_out_end(j);
    }
    json_out_end(j);
}

static double tokens_per_s(const status_board *b)
{
    double sum = 0;
    for (uint32_t i = 0; i < b->n_reports; i++)
        sum += b->reports[i].is_asked ? 0 : b->reports[i].tokens_per_s;
    return sum;
}

static void respond(gateway *g, http_handle handle)
{
    json_out  j    = json_out_into(g->out, g->out_bytes);
    node_list list = {.gateway = g, .j = &j};
    json_out_object(&j);
    json_out_member_i64(&j, "unix_ms", clock_unix_ms(actor_clock(g->actor)));
    json_out_member_string(&j, "model", g->model);
    json_out_member_double(&j, "tokens_per_s", tokens_per_s(&g->status));
    write_gateway(&j, g);
    json_out_key(&j, SPAN("nodes"));
    json_out_array(&j);
    actor_each_peer(g->actor, ROLE_UNKNOWN, write_peer, &list);
    json_out_end(&j);
    json_out_member_u64(&j, "clients", list.n_clients);
    write_schedulers(&j, g);
    json_out_end(&j);
    http_reply_json(g, handle, 200, &j);
}

/* ---- rounds ---- */

static void end_round(gateway *g)
{
    status_board *b = &g->status;
    actor_timer_cancel(g->actor, &b->late);
    b->is_asking = false;
    b->ended_ns  = gateway_now_ns(g);
    uint32_t n   = b->n_lookers;
    b->n_lookers = 0;
    for (uint32_t i = 0; i < n; i++)
        respond(g, b->lookers[i]);
}

static void on_late(void *self, actor_timer *timer)
{
    (void)timer;
    end_round(self);
}

static void count_answer(gateway *g, scheduler_report *r)
{
    status_board *b = &g->status;
    b->n_unanswered -= r->is_asked;
    r->is_asked = false;
    if (b->is_asking && b->n_unanswered == 0)
        end_round(g);
}

static void ask(void *arg, peer *p)
{
    gateway          *g    = arg;
    status_board     *b    = &g->status;
    status_get        body = {.round = b->round};
    scheduler_report *r    = report_of(b, p);
    error             err;
    if (!r && b->n_reports < STATUS_SCHEDULERS_MAX) {
        r  = &b->reports[b->n_reports++];
        *r = (scheduler_report){.scheduler = p};
    }
    if (!r)
        return;
    r->is_asked = actor_send(g->actor, p, MSG_STATUS_GET, &body, NULL, &err);
    b->n_unanswered += r->is_asked;
}

void status_look(gateway *g, http_handle handle)
{
    status_board *b = &g->status;
    if (!b->is_asking && b->ended_ns > 0 && gateway_now_ns(g) - b->ended_ns < FRESH_MS * NS_PER_MS) {
        respond(g, handle);
        return;
    }
    if (b->n_lookers == STATUS_LOOKERS_MAX) {
        respond(g, handle); /* with what is there */
        return;
    }
    b->lookers[b->n_lookers++] = handle;
    if (b->is_asking)
        return;
    b->is_asking    = true;
    b->n_unanswered = 0;
    b->round++;
    actor_each_peer(g->actor, ROLE_SCHEDULER, ask, g);
    if (b->n_unanswered == 0)
        end_round(g);
    else
        gateway_timer_set(g, &b->late, LATE_MS * NS_PER_MS, on_late);
}

void status_on_report(gateway *g, peer *from, const status_report *body)
{
    scheduler_report *r = report_of(&g->status, from);
    json_out          j = json_out_into(g->out, g->out_bytes);
    span              text;
    error             err;
    if (!r || !r->is_asked || body->round != g->status.round)
        return;
    write_report(&j, body);
    char *copy = json_out_finish(&j, &text, &err) ? malloc(text.size) : NULL;
    if (copy) {
        memcpy(copy, text.data, text.size);
        free(r->text);
        r->text         = copy;
        r->text_bytes   = text.size;
        r->tokens_per_s = (double)body->tokens_per_s;
    }
    count_answer(g, r);
}

void status_refused(gateway *g, peer *from)
{
    scheduler_report *r = report_of(&g->status, from);
    if (r)
        count_answer(g, r);
}

void status_peer_down(gateway *g, const peer *p)
{
    status_board     *b = &g->status;
    scheduler_report *r = report_of(b, p);
    if (!r)
        return;
    scheduler_report gone = *r;
    *r                    = b->reports[--b->n_reports];
    free(gone.text);
    count_answer(g, &gone);
}

void status_free(gateway *g)
{
    status_board *b = &g->status;
    actor_timer_cancel(g->actor, &b->late);
    for (uint32_t i = 0; i < b->n_reports; i++)
        free(b->reports[i].text);
    b->n_reports = 0;
}
