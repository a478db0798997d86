/* The gateway: speaks OpenAI's API over HTTP, and text.* on the bus, and owns every request until its last byte.
 *
 * It validates a request, answers it from the front rules or sends it to a tokenizer, and hands the text.delta of the
 * postprocessors on. When anything downstream dies it sends the request again, with the tokens already delivered; when
 * the client leaves it cancels. Tokenizers, postprocessors and clients on the bus connect to it; it connects to the
 * schedulers. */
#ifndef TROUPE_GATEWAY_GATEWAY_H
#define TROUPE_GATEWAY_GATEWAY_H

#include "actor/actor.h"
#include "base/option.h"

typedef struct {
    const char *host;
    uint64_t    port; /* 0: any free one, see gateway_port */
    const char *served_model_name;
    const char *api_key_file;         /* NULL: no keys are asked for */
    const char *tls_cert, *tls_key;   /* both NULL: plain HTTP */
    const char *front_rules;          /* NULL: none */
    double      request_timeout_s;    /* the deadline of a request that names none, and the longest it may name */
    double      stream_ping_s;        /* how long a stream may be silent; 0: for ever */
    double      resume_wait_s;        /* how long requests wait for a part of the system that is away */
    uint64_t    max_requests;         /* in hand, in all */
    uint64_t    max_waiting;          /* of them, waiting for a tokenizer's credit */
    uint64_t    request_memory_bytes; /* one request: its body, and its answer unless that streams */
    uint64_t    kept_request_bytes;   /* bodies of all requests in hand */
    uint64_t    max_body_bytes;
    uint64_t    max_connections, max_connections_per_peer;
    const char *store_url;           /* replies to requests with an Idempotency-Key: see store/store.h */
    const char *store_password_file; /* NULL: none */
    double      idempotency_ttl_s;
    bool        pages;         /* a chat and the status, for people */
    double      drain_delay_s; /* how long after SIGTERM requests are taken still */
} gateway_options;

extern const option_row gateway_option_rows[];
extern const size_t     n_gateway_option_rows;

extern const actor_class gateway_class;

/* The TCP port it listens on. */
uint16_t gateway_port(const actor *a);

#endif
