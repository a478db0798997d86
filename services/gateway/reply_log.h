/* Replies that outlive their gateway: what a client with an Idempotency-Key gets lies in a log in the store, so that it
 * gets the same from any gateway that it asks again.
 *
 * An answer with a log hands nothing out that the log does not have: a delta goes into the log first, and to the client
 * when the store has said so. So what a client saw is a prefix of the log, cut where the log is. Whoever opens the log
 * reads it from its beginning through the same functions that made it, and then
 *
 *   - is done, when the log is;
 *   - follows it, while its writer's lease runs: the first request is being answered elsewhere;
 *   - becomes its writer when that lease has run out, and sends the request with the tokens in the log as points to
 *     resume at, as a gateway does that lost something downstream. Tokens are a function of the request and its seed,
 * so they go on as the first writer would have gone on.
 *
 * The store fences writers: one that was frozen and comes back is refused, and its client told to ask again. While the
 * store is down, answers go on without protection; what they said is logged later when the outage was short.
 *
 * In the log: deltas (text, token ids, log probabilities) and how often. Not in it: the request. Whoever asks again
 * brings it, and a digest tells whether it is the same. Keys are digests of tenant and Idempotency-Key. */
#ifndef TROUPE_GATEWAY_REPLY_LOG_H
#define TROUPE_GATEWAY_REPLY_LOG_H

#include "services/gateway/http_server.h"
#include "services/gateway/state.h"

enum { IDEMPOTENCY_KEY_BYTES_MAX = 255 };

/* What follows from a request and its key: the same on every gateway. */
typedef struct {
    char     log_key[65];     /* of tenant and key */
    char     fingerprint[65]; /* of key, path and body */
    uint8_t  id[16];          /* for the id of the reply */
    uint64_t seed;            /* for a request that names none */
} reply_identity;

bool reply_identity_make(reply_identity *out, span tenant, span idempotency_key, span path, span body,
                         error *err) MUST_CHECK;

/* The store of a gateway, from its flags. */
bool reply_logs_open(gateway *g, error *err) MUST_CHECK;
void reply_logs_start(gateway *g); /* once there is a loop */
void reply_logs_turn(gateway *g);
void reply_logs_free(gateway *g); /* after all answers */

/* Gives an answer a log, to be opened by reply_log_open. The client has the events up to `last_event`. */
bool reply_log_new(answer *a, const reply_identity *identity, event_id last_event, error *err) MUST_CHECK;

/* Begins the answer, or reads what is there of it. The answer may end, later. */
void reply_log_open(answer *a);

/* A delta for the client: handed out by and by. False: the answer ended. */
bool reply_log_add(run *r, const text_delta *delta);

/* The answer ends: gives the log back, or forgets it when it is empty and the answer was `refused`. */
void reply_log_close(answer *a, bool refused);

/* Header fields that tell the client: room for REPLY_LOG_FIELDS. Returns how many. */
enum { REPLY_LOG_FIELDS = 2 };
size_t reply_log_fields(const answer *a, http_field *fields);

#endif
