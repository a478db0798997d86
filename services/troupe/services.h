/* The services that this program can be, and the options of each. */
#ifndef TROUPE_TROUPE_SERVICES_H
#define TROUPE_TROUPE_SERVICES_H

#include "actor/actor.h"
#include "base/log.h"
#include "base/option.h"

#include "drafter/drafter.h"
#include "executor/executor.h"
#include "gateway/gateway.h"
#include "postprocessor/postprocessor.h"
#include "scheduler/scheduler.h"
#include "tokenizer/tokenizer.h"

/* In the order in which a process that holds them all starts them: who is called stands before who calls. */
typedef enum {
    SERVICE_SCHEDULER,
    SERVICE_GATEWAY,
    SERVICE_EXECUTOR,
    SERVICE_TOKENIZER,
    SERVICE_POSTPROCESSOR,
    SERVICE_DRAFTER,
    N_SERVICES
} service_id;

/* The options of every service: one process may hold them all. */
typedef struct {
    scheduler_options     scheduler;
    gateway_options       gateway;
    executor_options      executor;
    tokenizer_options     tokenizer;
    postprocessor_options postprocessor;
    drafter_options       drafter;
} all_options;

typedef struct {
    const char *name, *summary;
    const actor_class *class;
    const option_row *rows;
    const size_t     *n_rows;
    size_t            offset; /* of its options in all_options */
    bool              calls_gateway, calls_scheduler;
    const char       *bind;    /* default endpoint, NULL: it binds none */
    uint32_t          credits; /* messages that a peer may have in flight to it */
} service;

extern const service services[N_SERVICES];

/* How a process speaks, logs and is watched. */
typedef struct {
    const char *bind, *gateways, *schedulers; /* endpoints, separated by commas */
    const char *secret_key_file, *peers_file, *server_key_file;
    bool        insecure;
    uint32_t    transport; /* between actors of one process: index into inproc|queue */
    const char *log_level;
    const char *log_level_file; /* NULL: none; else its first word, read again on SIGHUP */
    uint32_t    log_format;
    const char *admin_host;
    uint64_t    admin_port;
    uint64_t    drain_timeout_s;
    const char *otlp_endpoint; /* NULL: spans go nowhere */
    double      otlp_sample_ratio;
    const char *record; /* folder of the flight recorder; NULL: none */
    uint64_t    record_bytes;
} process_options;

extern const option_row process_option_rows[]; /* of every command that runs services */
extern const size_t     n_process_option_rows;
extern const option_row record_option_rows[]; /* of every service */
extern const size_t     n_record_option_rows;
extern const option_row endpoint_option_rows[]; /* of single services */
extern const size_t     n_endpoint_option_rows;
extern const option_row client_endpoint_option_rows[]; /* of all in one process, where clients may call it */
extern const size_t     n_client_endpoint_option_rows;
extern const option_row key_option_rows[]; /* of both */
extern const size_t     n_key_option_rows;

#endif
