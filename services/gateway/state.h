/* What the gateway knows, and who may change it.
 *
 * An `answer` is what one client waits for: an HTTP request, or a text.request of a client on the bus. It has one `run`
 * for each prompt: a message to a tokenizer under an id of its own, sent again under the next attempt when something
 * downstream died. A run has a choice_state for each choice, with the tokens that the client has already.
 *
 *   endpoints.c, bus_clients.c   take requests in, make answers
 *   runs.c                       send, receive, try again
 *   answers.c                    begin and end
 *   http_answers.c, http_pooled.c   what an HTTP client sees  (bus_clients.c has it for the bus)
 *   status.c                     what people see who watch */
#ifndef TROUPE_GATEWAY_STATE_H
#define TROUPE_GATEWAY_STATE_H

#include "base/arena.h"
#include "base/metric.h"
#include "bus/request_list.h"
#include "services/gateway/api_keys.h"
#include "services/gateway/front_rules.h"
#include "services/gateway/gateway.h"
#include "services/gateway/http_server.h"
#include "services/gateway/openai_pooled.h"
#include "services/gateway/openai_response.h"
#include "services/gateway/throughput.h"

#include <event2/event.h>

typedef struct gateway    gateway;
typedef struct answer     answer;
typedef struct reply_log  reply_log; /* reply_log.h */
typedef struct reply_logs reply_logs;

enum {
    RUN_TABLE_SIZE    = 8192,
    LOSSES_MAX        = 3,  /* of parts that compute for few requests at a time: this one may be at fault */
    SHARED_LOSSES_MAX = 20, /* of those that everybody's requests go through */
    RUNS_AT_ONCE      = 64, /* of one answer: so many texts don't fill everybody's queues */
    N_FINISHES        = 8
};

/* How far one choice has come. */
typedef struct {
    uint32_t      n_tokens, tokens_capacity;
    uint32_t     *tokens;        /* delivered to the client */
    uint32_t      text_bytes;    /* delivered too */
    uint32_t      n_prompt_seen; /* tokens of the prompt's echo that were delivered */
    bool          echoed;
    bool          begun; /* the client has seen this choice */
    bool          finished;
    finish_reason finish;
    usage         usage;
    span          stop_reason;
    size_t        text_size, text_capacity; /* collected answers: the text, and its log probabilities */
    char         *text;
    uint32_t      n_logprobs, logprobs_capacity;
    text_logprob *logprobs;
    openai_vector pooled; /* embeddings and scores */
} choice_state;

typedef enum {
    RUN_WAITING, /* for a tokenizer with a credit; in gateway.waiting */
    RUN_RESTING, /* before its next attempt */
    RUN_SENT,
    RUN_DONE
} run_state;

typedef struct run {
    answer       *answer;
    uint32_t      index; /* in answer->runs */
    run_state     state;
    request_id    id;
    uint32_t      attempt;
    bool          sent;                      /* this attempt or one before it: somebody may work on it */
    uint8_t       n_losses[ROLE_CLIENT + 1]; /* of each role, since the last new token */
    uint16_t      type;                      /* MSG_TEXT_REQUEST, MSG_TEXT_ENCODE or MSG_TEXT_DECODE */
    void         *body; /* of that type; a text_request's resume is filled in when it is sent again */
    peer         *tokenizer, *postprocessor; /* that have it, as far as is known */
    uint32_t      n_choices, n_open;
    choice_state *choices;
    actor_timer   rest;
    int64_t       heard_ns;                 /* when it was sent, or heard of last */
    uint32_t      asked_in_round, n_missed; /* by run_search.c; rounds in a row in which nobody had it */
    bool          was_found;
    int64_t       held_since_ns; /* refused for lack of a part that is coming back; 0: not */
    struct run   *next_in_table;
    struct run   *next, *previous; /* waiting */
} run;

/* What a kind of client sees. An answer ends with `done` or `refused`, once. */
typedef struct {
    /* New text of one choice. False: *err ends the answer. */
    bool (*delta)(answer *a, run *r, const text_delta *d, error *err);
    void (*done)(answer *a);
    void (*refused)(answer *a, const error *why, span field, uint32_t retry_after_ms);
    void (*encoded)(answer *a, const text_encoded *body);
    void (*decoded)(answer *a, const text_decoded *body);
} answer_sink;

/* Of a server-sent event: "17-342". The text tells whether two streams were cut in the same places. */
typedef struct {
    uint64_t number;     /* 1 and on */
    uint64_t text_bytes; /* of all choices, up to this event */
} event_id;

struct answer {
    gateway           *gateway;
    const answer_sink *sink;
    arena             *memory; /* this struct is in it too */
    size_t             kept_bytes;
    answer            *next, *previous;
    const char        *what; /* for the log: "chat", "completion", ... */
    uint32_t           n_runs;
    uint32_t           n_open;  /* choices whose end the client was not told */
    uint32_t           n_begun; /* runs that were sent or answered, or wait to be sent */
    run               *runs;
    uint32_t           n_choices;   /* of each run */
    bool               sums;        /* it generates: counted in the metrics of requests */
    bool               is_computed; /* and in n_generating: not by rules or from a log */
    bool               score_only;
    int64_t            arrived_ns, first_ns, last_ns;
    int64_t            deadline_unix_ms;
    actor_timer        deadline;
    finish_reason      finish; /* of the last choice that ended */
    bool               from_front_rule;

    http_handle          handle; /* HTTP */
    key_usage           *usage;  /* of the client's key; NULL: no keys are asked for */
    openai_answer        head;
    const openai_pooled *pooled; /* the request, when numbers answer it */
    bool                 stream, streaming;
    reply_log           *log;               /* NULL: it ends with this gateway. Else events have ids: */
    event_id             event, last_event; /* of the latest, and of the one that the client had before */
    actor_timer          silence;           /* until a stream that has no text yet begins all the same */

    peer    *client; /* the bus */
    envelope about;  /* of the client's message; its trace in any case, with our span as the parent of what follows */
    uint8_t  trace_parent[8]; /* the client's span; all zero: none */
};

/* A round of asking everybody for the runs that are silent. */
typedef struct {
    uint32_t    round, n_unanswered, n_words;
    uint32_t    words[REQUEST_LIST_WORDS * REQUEST_LIST_MAX];
    actor_timer timer;
} run_search;

enum { STATUS_SCHEDULERS_MAX = 64, STATUS_LOOKERS_MAX = 64 };

/* What a scheduler said last. */
typedef struct {
    peer  *scheduler;
    bool   is_asked; /* in this round, and has not answered */
    char  *text;     /* JSON; NULL: nothing yet */
    size_t text_bytes;
    double tokens_per_s;
} scheduler_report;

/* For /status.json: who looks, and the round of questions that is under way. */
typedef struct {
    scheduler_report reports[STATUS_SCHEDULERS_MAX];
    http_handle      lookers[STATUS_LOOKERS_MAX];
    uint32_t         n_reports, n_lookers, n_unanswered, round;
    bool             is_asking;
    int64_t          ended_ns; /* the last round; 0: there was none */
    actor_timer      late;
} status_board;

typedef struct {
    metric *received, *in_hand, *waiting, *retries, *client_gone, *first_token, *inter_token, *elapsed;
    metric *prompt_tokens, *request_prompt_tokens, *request_generation_tokens;
    metric *status[5]; /* 2xx to 5xx, and clients that left */
    metric *finished[N_FINISHES];
    metric *overloaded, *rate_limited, *deltas_dropped, *retry_exhausted;
} gateway_metrics;

struct gateway {
    actor                 *actor;
    const gateway_options *options;
    struct event_base     *base;
    struct event          *wake; /* the actor's descriptor */
    struct event          *until;
    int                    wake_fd;
    http_server           *http;
    api_keys              *keys; /* NULL: open to everybody */
    front_rules           *rules;
    reply_logs            *logs;
    span                   model;
    char                  *out; /* JSON is written here before it is sent */
    size_t                 out_bytes;
    run                   *table[RUN_TABLE_SIZE];
    run                   *waiting_first, *waiting_last;
    uint32_t               n_waiting;
    answer                *answers;
    uint32_t               n_answers;
    uint32_t               n_generating; /* of them, those that generate */
    throughput             throughput;   /* of those */
    size_t                 kept_bytes;
    int64_t                ready_ns; /* when everything needed was there, to a tick; 0: never yet */
    int64_t                created_s;
    int64_t                drain_ns;  /* 0: goes on; else until then requests are taken still */
    bool                   is_closed; /* no answer is left, and it listens no more */
    actor_timer            tick, leave;
    run_search             search;
    status_board           status;
    gateway_metrics        metrics;
};

/* gateway.c */

/* What is missing before a request can be answered; NULL when nothing is. */
const char *gateway_lacks(const gateway *g);
const char *gateway_lacks_parts(const gateway *g); /* the same for requests in hand, which a drain finishes */
bool        gateway_is_leaving(const gateway *g);  /* it takes no new ones */
void        gateway_timer_set(gateway *g, actor_timer *timer, int64_t delay_ns, void (*fire)(void *, actor_timer *));
int64_t     gateway_now_ns(const gateway *g); /* not the turn's: callbacks of HTTP come between turns */

/* Whether everything was there within --resume-wait: then what is away is waited for. */
bool gateway_was_ready(const gateway *g);

/* Refuses what can't be begun now: draining, not ready, too many requests, too much memory, no time for it. */
bool gateway_may_take(gateway *g, const answer *a, uint32_t *retry_after_ms, error *err);

/* answers.c */

/* Makes an answer in `memory`, which it owns from then on, with `n_runs` runs of n_choices each; the caller fills in
 * the bodies. NULL (memory freed) with *err. */
answer *answer_new(gateway *g, arena *memory, const answer_sink *sink, uint32_t n_runs, uint32_t n_choices, error *err);

/* Sets the deadline (`timeout_s` 0: the server's) and begins; with a log, reads that first. */
void answer_start(answer *a, double timeout_s);

/* Sends every run that is open but those that a front rule answers. `is_promised`: the client has a part of it, so that
 * it waits for what is missing here. */
void answer_begin(answer *a, bool is_promised);

bool answer_is_complete(const answer *a); /* all has been taken in, if not handed out */

/* All three free the answer. */
void answer_finish(answer *a);
void answer_refuse(answer *a, const error *why, span field, uint32_t retry_after_ms);
void answer_abandon(answer *a); /* the client left: cancels what runs */

bool answer_begin_run(answer *a, error *err);  /* the next one that has not begun; the turn's end sends it */
void answer_saw_tokens(answer *a, uint32_t n); /* first token, time between tokens */
void answer_usage(const answer *a, usage *sum);

/* answer_trace.c */
void answer_trace_http(answer *a, const http_request *request); /* takes its traceparent, or draws a trace */
void answer_trace_bus(answer *a);                               /* the same with the trace in a->about */
void answer_trace_end(const answer *a, int status, const usage *sum, uint32_t n_attempts);

/* runs.c */
run *run_find(gateway *g, const request_id *id);
bool run_new_id(gateway *g, run *r, error *err);
void run_forget(gateway *g, run *r); /* cancels it when it is still open */
void run_wait(gateway *g, run *r);   /* to the end of the queue */
void runs_pump(gateway *g);          /* sends what waits while there are credits */
void runs_expire_waiting(gateway *g);
void runs_peer_down(gateway *g, peer *p);
void runs_on_delta(gateway *g, const message *m);
void runs_on_refused(gateway *g, const message *m, const text_refused *why);
void runs_each(gateway *g, void (*visit)(gateway *g, run *r, void *arg), void *arg); /* visit may end that answer */
void run_lost(gateway *g, run *r, const error *why); /* nobody works on it: it is sent again */
bool run_deliver(run *r, const text_delta *d); /* takes it in and hands it out, if need be by the log. False: the answer
                                                  ended */
bool run_hand_out(run *r, const text_delta *d); /* the second half alone */

/* run_search.c */
void run_search_start(gateway *g);
void run_search_found(gateway *g, const gen_found *body);
void run_search_peer_down(gateway *g);

/* status.c */
void status_look(gateway *g, http_handle handle); /* answers it, within half a second */
void status_on_report(gateway *g, peer *from, const status_report *body);
void status_refused(gateway *g, peer *from); /* a scheduler that does not know the question */
void status_peer_down(gateway *g, const peer *p);
void status_free(gateway *g);

/* http_answers.c */
extern const answer_sink http_sink;
void                     http_answer_refused(answer *a, const error *why, span field, uint32_t retry_after_ms);
void http_answer_expect_silence(answer *a); /* a stream whose text is long in coming begins without */
void http_refuse(gateway *g, http_handle handle, key_usage *key, const error *why, span field,
                 uint32_t retry_after_ms); /* `key` may be NULL */
void http_reply_json(gateway *g, http_handle handle, int status, json_out *j);

/* http_pooled.c: embeddings and scores */
extern const answer_sink http_pooled_sink;

/* endpoints.c */
void endpoints_on_request(void *context, const http_request *request);
void endpoints_on_gone(void *context, http_handle handle, void *owner, http_gone why);
void endpoints_on_writable(void *context, http_handle handle, void *owner);

/* The path in row i of the table, one that ends in / goes on; NULL: no more. */
const char *endpoints_path(size_t i, http_method *method);

/* bus_clients.c */
void bus_on_request(void *self, const message *m);
void bus_on_cancel(void *self, const message *m);
void bus_on_encode(void *self, const message *m);
void bus_on_decode(void *self, const message *m);
void bus_client_down(gateway *g, peer *p);

#endif
