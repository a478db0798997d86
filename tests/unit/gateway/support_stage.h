/* A gateway on a thread of its own, and around it the ends of its protocol: a tokenizer, a postprocessor, a scheduler
 * and a client on the bus. They are real actors that speak the real messages, but do only what the test says, on the
 * test's thread. HTTP goes over real loopback sockets. */
#ifndef TROUPE_GATEWAY_SUPPORT_STAGE_H
#define TROUPE_GATEWAY_SUPPORT_STAGE_H

#include "base/clock.h"
#include "services/gateway/gateway.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
// cmocka needs the headers above
#include <cmocka.h>

enum { SEEN_MAX = 64, SEEN_TEXT = 256, SEEN_TOKENS = 32 };

/* A text.request, text.encode or text.decode as the tokenizer saw it. */
typedef struct {
    envelope     about;
    prompt_kind  kind;
    char         text[SEEN_TEXT]; /* the prompt, or the last message */
    char         tenant[65], session[129], reply_to[65];
    uint64_t     seed;
    uint32_t     max_tokens, n, n_tokens, n_stop, n_top_logprobs, n_resume, n_resume_tokens;
    uint32_t     resume_tokens[SEEN_TOKENS]; /* of choice 0 */
    bool         prompt_logprobs, echo;
    request_task task;
    char         document[SEEN_TEXT];
} seen_request;

/* What a client on the bus was told. */
typedef struct {
    uint16_t type;
    envelope about;
    char     text[SEEN_TEXT];
    uint32_t finish, code, n_tokens;
} seen_reply;

typedef struct {
    bus            *bus;
    gateway_options options;
    actor          *gateway, *tokenizer, *postprocessor, *scheduler, *client;
    peer           *gateway_of_tokenizer, *gateway_of_postprocessor, *gateway_of_scheduler, *gateway_of_client;
    uint32_t        tokenizer_credits; /* before stage_open */
    bool            keeps_credits;
    enum { FIND_NO_ANSWER, FIND_NOTHING, FIND_AT_SCHEDULER } find; /* what gen.find is answered with */
    uint32_t      n_finds;                                         /* that asked the scheduler for runs */
    seen_request  seen[SEEN_MAX];
    uint32_t      n_seen;
    envelope      cancelled;
    cancel_reason cancel_reason;
    uint32_t      n_cancels;
    int64_t       cancelled_at_ns;
    bool          answers_status; /* the scheduler reports what it has */
    uint32_t      n_status_asked;
    seen_reply    replies[SEEN_MAX];
    uint32_t      n_replies;
} stage;

typedef struct {
    int    fd;
    char   in[256 * 1024];
    size_t in_size;
    bool   closed;
} http_client;

extern const char hello[], hello_stream[]; /* bodies of a chat */

int  stage_prepare(void **state); /* options are set; nothing runs */
int  stage_clean_up(void **state);
void stage_open(stage *s); /* gateway and scheduler; then, and waits until ready: */
void stage_add_tokenizer(stage *s);
void stage_add_postprocessor(stage *s);
void stage_add_client(stage *s);
void stage_open_all(stage *s); /* all three but the client */
void stage_remove(actor **a);
void stage_turn(stage *s, http_client *c); /* of the actors; then reads what c has been sent */

http_client *http_ask(stage *s, const char *method, const char *path, const char *headers, const char *body);
http_client *http_post(stage *s, const char *path, const char *body);
http_client *ask(stage *s, const char *path, const char *body); /* and waits until the tokenizer has it */
void         http_close(http_client **c);
int          http_status(const http_client *c); /* 0: none yet */
bool         http_has(const http_client *c, const char *text);
uint32_t     http_count(const http_client *c, const char *text);

/* A delta for the run of a seen request: `n` tokens from `index` on, numbered from 100 + index. */
void stage_delta(stage *s, const envelope *about, uint32_t choice, uint32_t index, uint32_t n, const char *text,
                 finish_reason finish);
void stage_send_delta(stage *s, const envelope *about, const text_delta *d);

/* What a scheduler says of an embedding or a score. */
void stage_pooled(stage *s, const envelope *about, const float *numbers, uint32_t n);
void stage_refuse(stage *s, const envelope *about, error_code code, const char *text, const char *field,
                  uint32_t retry_after_ms);

#define pump_stage(s, c, ms, condition)                                                                                \
    do {                                                                                                               \
        int64_t until_ns = clock_now_ns(clock_system()) + (ms)*NS_PER_MS;                                              \
        while (stage_turn(s, c), !(condition) && clock_now_ns(clock_system()) < until_ns)                              \
            usleep(200);                                                                                               \
        assert_true(condition);                                                                                        \
    } while (0)

#define STAGE_TEST(name) cmocka_unit_test_setup_teardown(name, stage_prepare, stage_clean_up)

#endif
