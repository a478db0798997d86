/* The store behind a connection to Redis that may be gone at any moment.
 *
 *   DOWN ──pause over──▶ RESOLVING ──address──▶ CONNECTING ──set up and probed──▶ READY
 *    ▲                       │                      │                              │
 *    └───────────────────────┴── failed, too late ──┴──── lost, or a reply late ───┘
 *
 * Replies are positional, so one late reply means that nothing on the connection can be trusted to come: it is dropped,
 * all its requests degrade, and after a pause that doubles from try to try a new one is made. Until that is set up
 * (authenticated, scripts loaded, a script run) requests degrade at once; only before the first attempt has failed do
 * they wait for it, up to their deadline.
 *
 * hiredis 0.14 frees a context that failed; its cleanup hook tells us. We free one only from here, outside its
 * callbacks, and never after asking it to disconnect. */
#include "base/log.h"
#include "base/random.h"
#include "store/redis_address.h"
#include "store/redis_commands.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <hiredis/async.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SETUP_MS         = 1000, /* to connect, authenticate, load the scripts and run one */
    LOOKUP_POLL_MS   = 5,
    BACKOFF_MIN_MS   = 50,
    BACKOFF_MAX_MS   = 5000,
    STABLE_MS        = 10000, /* a connection that lasted this long resets the pause */
    READS_A_TURN     = 16,
    PASSWORD_BYTES   = 512,
    KEY_PREFIX_BYTES = STORE_ROLE_BYTES + 1,
};

typedef enum { LINK_DOWN, LINK_RESOLVING, LINK_CONNECTING, LINK_READY } link_state;

typedef struct {
    store        *owner;
    redis_address address;
    const char   *password_file;
    char          url[REDIS_HOST_BYTES + 32]; /* for the log */
    char          key_prefix[KEY_PREFIX_BYTES];
    redis_names   names;

    link_state         state;
    redisAsyncContext *context; /* NULL unless connecting or ready */
    redis_lookup      *lookup;
    int                epoll_fd;
    uint32_t           watched, wanted; /* EPOLLIN, EPOLLOUT: as epoll has it, as hiredis asked */
    bool               is_probed;
    char               failure[200]; /* why the connection is to be given up; empty while all is well */

    bool          is_down;     /* an attempt failed and none has succeeded since */
    bool          is_refusing; /* connected, but commands fail: out of memory, read-only, ... */
    store_op      refused_op;
    int64_t       retry_ns, setup_deadline_ns, ready_ns, down_since_ns, last_turn_ns;
    uint32_t      backoff_ms;
    random_seeded jitter;

    store_queue        waiting;   /* for the first connection */
    store_queue        in_flight; /* sent, in the order of their replies */
    redis_command      command;
    redis_lists        lists;
    redis_reader_guard guard;
    metric            *errors, *outages;
} redis_store;

/* ---------------------------------------------------------------------------------------- hiredis' event hooks */

static void update_watch(redis_store *r)
{
    struct epoll_event event = {.events = r->wanted};
    if (r->wanted == r->watched)
        return;
    epoll_ctl(r->epoll_fd, EPOLL_CTL_MOD, r->context->c.fd, &event);
    r->watched = r->wanted;
}

static void add_read(void *self)
{
    ((redis_store *)self)->wanted |= EPOLLIN;
    update_watch(self);
}

static void delete_read(void *self)
{
    ((redis_store *)self)->wanted &= ~(uint32_t)EPOLLIN;
    update_watch(self);
}

static void add_write(void *self)
{
    ((redis_store *)self)->wanted |= EPOLLOUT;
    update_watch(self);
}

static void delete_write(void *self)
{
    ((redis_store *)self)->wanted &= ~(uint32_t)EPOLLOUT;
    update_watch(self);
}

/* hiredis is about to free the context, whoever asked for it. */
static void on_cleanup(void *self)
{
    redis_store *r = self;
    if (r->context)
        epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, r->context->c.fd, NULL);
    r->context = NULL;
}

static void note_failure(redis_store *r, const char *what, const char *why)
{
    if (!r->failure[0])
        snprintf(r->failure, sizeof r->failure, "%s%.150s", what, why);
}

static void on_connect(const redisAsyncContext *context, int status)
{
    if (status != REDIS_OK)
        note_failure(context->data, "", context->c.errstr);
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
    redis_store *r = context->data;
    if (status != REDIS_OK)
        note_failure(r, "",
                     r->guard.refused ? "a reply longer or deeper than any command asks for" : context->c.errstr);
}

/* hiredis aborts the process on a reply that nobody asked for. The last thing that a callback does is to look whether
 * one is in the buffer; hiredis frees the context once the callback has returned. */
static void refuse_surplus(redisAsyncContext *context)
{
    const redisReader *reader = context->c.reader;
    if (context->replies.head || reader->pos >= reader->len)
        return;
    note_failure(context->data, "", "more replies than commands");
    redisAsyncFree(context);
}

/* The same for what arrives while no reply is due: anything but the end of the connection. */
static bool is_unasked(const redisAsyncContext *context)
{
    char byte;
    return (context->c.flags & REDIS_CONNECTED) && !context->replies.head &&
           recv(context->c.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

/* ---------------------------------------------------------------------------------------------------- requests */

static void on_reply(redisAsyncContext *context, void *reply, void *arg);
static void on_setup_reply(redisAsyncContext *context, void *reply, void *arg);

static void send_request(redis_store *r, store_request *request)
{
    redis_command *c = &r->command;
    redis_command_make(c, &r->names, request);
    if (redisAsyncCommandArgv(r->context, on_reply, request, c->n_arguments, c->arguments, c->sizes) == REDIS_OK)
        store_queue_push(&r->in_flight, request);
    else
        store_degrade(request);
}

static bool load_script(redis_store *r, store_op op)
{
    const char  *script       = redis_script(op);
    const char  *arguments[3] = {"SCRIPT", "LOAD", script};
    const size_t sizes[3]     = {6, 4, strlen(script)};
    return redisAsyncCommandArgv(r->context, on_setup_reply, (void *)"SCRIPT LOAD: ", 3, arguments, sizes) == REDIS_OK;
}

/* Redis answers, but with an error. The connection is good; the operation failed. Said once until it works again. */
static void on_refusal(redis_store *r, store_request *request, const char *why)
{
    metric_add(r->errors, 1);
    if (!r->is_refusing)
        log_warn("the store refuses commands; going on without it", "url=%s error=\"%.200s\"", r->url, why);
    r->is_refusing = true;
    r->refused_op  = request->op;
    store_set_degraded(r->owner, true);
    store_degrade(request);
}

/* A command that was refused works again, or one that writes does: reads work in a full server, too. */
static void on_acceptance(redis_store *r, store_op op)
{
    bool is_write = op == STORE_OP_REGISTER || op == STORE_OP_RENEW || op == STORE_OP_SESSION_SET ||
                    op == STORE_OP_PUBLISH || op == STORE_OP_COUNT || op == STORE_OP_LOG_OPEN ||
                    op == STORE_OP_LOG_APPEND;
    if (!r->is_refusing || !(is_write || op == r->refused_op))
        return;
    log_info("the store takes commands again", "url=%s", r->url);
    r->is_refusing = false;
    store_set_degraded(r->owner, false);
}

static void on_reply(redisAsyncContext *context, void *reply, void *arg)
{
    redis_store      *r       = context->data;
    store_request    *request = store_queue_pop(&r->in_flight);
    const redisReply *answer  = reply;
    store_reply       result;
    assert(request == arg);
    if (!answer) { /* the connection ends */
        store_degrade(request);
    } else if (answer->type == REDIS_REPLY_ERROR && strncmp(answer->str, "NOSCRIPT", 8) == 0 &&
               !request->was_reloaded) {
        /* Someone flushed the scripts. */
        request->was_reloaded = true;
        if (load_script(r, request->op))
            send_request(r, request);
        else
            store_degrade(request);
    } else if (answer->type == REDIS_REPLY_ERROR) {
        on_refusal(r, request, answer->str);
    } else if (!redis_reply_read(request, answer, &r->lists, &result)) {
        on_refusal(r, request, "a reply of an unexpected shape");
    } else {
        on_acceptance(r, request->op);
        store_complete(request, &result);
    }
    if (answer)
        refuse_surplus(context);
}

static void redis_submit(void *self, store_request *request)
{
    redis_store *r = self;
    if (r->state == LINK_READY && r->context)
        send_request(r, request);
    else if (r->is_down)
        store_degrade(request);
    else
        store_queue_push(&r->waiting, request);
}

/* -------------------------------------------------------------------------------------------- the way down, up */

static void drop_link(redis_store *r)
{
    r->state = LINK_DOWN;
    redis_lookup_free(&r->lookup);
    if (r->context)
        redisAsyncFree(r->context); /* calls on_reply without an answer for everything in flight */
    assert(!r->context && !r->in_flight.first);
}

static void fail_link(redis_store *r, int64_t now_ns)
{
    drop_link(r);
    for (store_request *request; (request = store_queue_pop(&r->waiting));)
        store_degrade(request);
    if (!r->is_down) {
        log_warn("the store is down; going on without it", "url=%s error=\"%s\"", r->url, r->failure);
        metric_add(r->outages, 1);
        r->is_down       = true;
        r->down_since_ns = now_ns;
        store_set_degraded(r->owner, true);
    }
    if (r->ready_ns && now_ns - r->ready_ns > STABLE_MS * NS_PER_MS)
        r->backoff_ms = BACKOFF_MIN_MS;
    r->ready_ns   = 0;
    r->retry_ns   = now_ns + (int64_t)((0.5 + random_unit(&r->jitter) / 2) * r->backoff_ms * NS_PER_MS);
    r->backoff_ms = r->backoff_ms * 2 < BACKOFF_MAX_MS ? r->backoff_ms * 2 : BACKOFF_MAX_MS;
}

static void become_ready(redis_store *r, int64_t now_ns)
{
    r->state    = LINK_READY;
    r->ready_ns = now_ns;
    if (r->is_down) {
        log_info("the store is back", "url=%s outage_ms=%lld", r->url,
                 (long long)((now_ns - r->down_since_ns) / NS_PER_MS));
        r->is_down     = false;
        r->is_refusing = false; /* it may be another server */
        store_set_degraded(r->owner, false);
    }
    for (store_request *request; (request = store_queue_pop(&r->waiting));)
        send_request(r, request);
}

/* A reply during set-up; `arg` names the command. */
static void on_setup_reply(redisAsyncContext *context, void *reply, void *arg)
{
    redis_store      *r      = context->data;
    const redisReply *answer = reply;
    if (answer && answer->type == REDIS_REPLY_ERROR)
        note_failure(r, arg, answer->str);
    if (answer)
        refuse_surplus(context);
}

static void on_probe_reply(redisAsyncContext *context, void *reply, void *arg)
{
    const redisReply *answer = reply;
    if (answer && answer->type == REDIS_REPLY_INTEGER)
        ((redis_store *)context->data)->is_probed = true;
    on_setup_reply(context, reply, arg);
}

/* The first line of the password file, without its end. */
static bool read_password(const char *path, char password[PASSWORD_BYTES], error *err)
{
    int     fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n  = fd < 0 ? -1 : read(fd, password, PASSWORD_BYTES);
    if (n < 0)
        error_set(err, ERR_IO, "store password file %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return false;
    size_t length = 0;
    while (length < (size_t)n && password[length] != '\n' && password[length] != '\r')
        length++;
    if (length == 0 || length == PASSWORD_BYTES)
        return error_set(err, ERR_INVALID, "store password file %s: its first line is empty or over %d bytes", path,
                         PASSWORD_BYTES - 1);
    password[length] = '\0';
    return true;
}

static void send_authentication(redis_store *r)
{
    char  password[PASSWORD_BYTES];
    error err;
    if (!r->password_file)
        return;
    if (!read_password(r->password_file, password, &err)) {
        note_failure(r, "", err.text);
        return;
    }
    const char  *arguments[3] = {"AUTH", r->address.user, password};
    const size_t sizes[3]     = {4, strlen(r->address.user), strlen(password)};
    if (r->address.user[0]) {
        redisAsyncCommandArgv(r->context, on_setup_reply, (void *)"AUTH: ", 3, arguments, sizes);
    } else {
        redisAsyncCommandArgv(r->context, on_setup_reply, (void *)"AUTH: ", 2,
                              (const char *[]){arguments[0], arguments[2]}, (const size_t[]){sizes[0], sizes[2]});
    }
    explicit_bzero(password, sizeof password);
}

/* Ends with a script, as a server whose writes are paused would still answer a PING. */
static void send_setup(redis_store *r)
{
    send_authentication(r);
    if (r->address.database)
        redisAsyncCommand(r->context, on_setup_reply, (void *)"SELECT: ", "SELECT %u", r->address.database);
    for (int op = 0; op < N_STORE_OPS; op++) {
        if (redis_script((store_op)op))
            load_script(r, (store_op)op);
    }
    redisAsyncCommand(r->context, on_probe_reply, (void *)"EVAL: ", "EVAL %s 0", "return 1");
}

static void open_link(redis_store *r, const char *ip, int64_t now_ns)
{
    redisAsyncContext *context =
        r->address.is_unix ? redisAsyncConnectUnix(ip) : redisAsyncConnect(ip, r->address.port);
    if (!context || context->err) {
        note_failure(r, "", context ? context->errstr : "no memory for a connection");
        if (context)
            redisAsyncFree(context);
        fail_link(r, now_ns);
        return;
    }
    struct epoll_event event = {.events = 0};
    r->context               = context;
    r->watched = r->wanted = 0;
    r->is_probed           = false;
    r->state               = LINK_CONNECTING;
    context->data          = r;
    context->ev.data       = r;
    context->ev.addRead    = add_read;
    context->ev.delRead    = delete_read;
    context->ev.addWrite   = add_write;
    context->ev.delWrite   = delete_write;
    context->ev.cleanup    = on_cleanup;
    epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, context->c.fd, &event);
    redis_guard_reader(&r->guard, context->c.reader);
    redisAsyncSetConnectCallback(context, on_connect);
    redisAsyncSetDisconnectCallback(context, on_disconnect);
    send_setup(r);
}

static void begin_link(redis_store *r, int64_t now_ns)
{
    error err;
    r->failure[0]        = '\0';
    r->setup_deadline_ns = now_ns + SETUP_MS * NS_PER_MS;
    if (r->address.is_unix || r->address.is_numeric) {
        open_link(r, r->address.host, now_ns);
    } else if ((r->lookup = redis_lookup_start(r->address.host, &err))) {
        r->state = LINK_RESOLVING;
    } else {
        note_failure(r, "", err.text);
        fail_link(r, now_ns);
    }
}

static void poll_lookup(redis_store *r, int64_t now_ns)
{
    char               ip[REDIS_HOST_BYTES];
    error              err;
    redis_lookup_state state = redis_lookup_poll(r->lookup, ip, &err);
    if (state == REDIS_LOOKUP_PENDING)
        return;
    redis_lookup_free(&r->lookup);
    if (state == REDIS_LOOKUP_FOUND) {
        open_link(r, ip, now_ns);
    } else {
        note_failure(r, "", err.text);
        fail_link(r, now_ns);
    }
}

/* ------------------------------------------------------------------------------------------------------- turns */

static bool move_bytes(redis_store *r)
{
    struct epoll_event event;
    bool               did_something = false;
    for (int i = 0; r->context && !r->failure[0] && i < READS_A_TURN && epoll_wait(r->epoll_fd, &event, 1, 0) > 0;
         i++) {
        did_something = true;
        if ((event.events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) && (r->wanted & EPOLLOUT))
            redisAsyncHandleWrite(r->context);
        if (r->context && is_unasked(r->context))
            note_failure(r, "", "a reply to no command");
        else if (r->context && (event.events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
            redisAsyncHandleRead(r->context);
    }
    return did_something;
}

/* Requests that were sent are looked through one by one: one that was sent again is older than its neighbours. */
static int64_t earliest_deadline(const redis_store *r)
{
    int64_t earliest = r->waiting.first ? r->waiting.first->deadline_ns : INT64_MAX;
    for (const store_request *request = r->in_flight.first; request; request = request->next)
        earliest = request->deadline_ns < earliest ? request->deadline_ns : earliest;
    return earliest;
}

static void judge_link(redis_store *r, int64_t now_ns)
{
    while (r->waiting.first && r->waiting.first->deadline_ns <= now_ns)
        store_degrade(store_queue_pop(&r->waiting));
    if (r->state == LINK_DOWN)
        return;
    if (r->state != LINK_RESOLVING && !r->context)
        note_failure(r, "", "the connection ended");
    if (r->state == LINK_CONNECTING && r->is_probed && !r->failure[0])
        become_ready(r, now_ns);
    if (r->state != LINK_READY && now_ns >= r->setup_deadline_ns)
        note_failure(r, "", "not connected and set up within a second");
    if (r->state == LINK_READY && earliest_deadline(r) <= now_ns)
        note_failure(r, "", "a reply is later than its deadline");
    if (r->failure[0])
        fail_link(r, now_ns);
}

static bool redis_turn(void *self, int64_t now_ns)
{
    redis_store *r      = self;
    link_state   before = r->state;
    r->last_turn_ns     = now_ns;
    if (r->state == LINK_DOWN && now_ns >= r->retry_ns)
        begin_link(r, now_ns);
    if (r->state == LINK_RESOLVING)
        poll_lookup(r, now_ns);
    bool did_something = move_bytes(r);
    judge_link(r, now_ns);
    return did_something || r->state != before;
}

static int64_t redis_next_ns(const void *self)
{
    const redis_store *r      = self;
    int64_t            next   = earliest_deadline(r);
    int64_t            own_ns = INT64_MAX;
    if (r->state == LINK_DOWN)
        own_ns = r->retry_ns;
    else if (r->state == LINK_RESOLVING)
        own_ns = r->last_turn_ns + LOOKUP_POLL_MS * NS_PER_MS;
    else if (r->state == LINK_CONNECTING)
        own_ns = r->setup_deadline_ns;
    return own_ns < next ? own_ns : next;
}

static int redis_fd(const void *self)
{
    return ((const redis_store *)self)->epoll_fd;
}

/* ----------------------------------------------------------------------------------------------- open and close */

static void redis_close(void *self)
{
    redis_store *r = self;
    drop_link(r);
    if (r->epoll_fd >= 0)
        close(r->epoll_fd);
    free(r);
}

static bool redis_configure(redis_store *r, const store_options *options, error *err)
{
    char     password[PASSWORD_BYTES];
    uint64_t seed;
    if (!redis_address_parse(options->url ? options->url : "", &r->address, err) ||
        !random_bytes(&seed, sizeof seed, err))
        return false;
    if (options->password_file && !read_password(options->password_file, password, err))
        return false;
    explicit_bzero(password, sizeof password);
    if (r->address.user[0] && !options->password_file)
        return error_set(err, ERR_INVALID, "store URL: the user \"%.100s\" needs a password file", r->address.user);
    for (int op = 0; op < N_STORE_OPS; op++) {
        if (redis_script((store_op)op) && !redis_script_sha((store_op)op, r->names.shas[op], err))
            return false;
    }
    snprintf(r->key_prefix, sizeof r->key_prefix, "%s", options->key_prefix ? options->key_prefix : "troupe");
    snprintf(r->url, sizeof r->url, r->address.is_unix ? "unix:%s" : "redis://%s:%u/%u", r->address.host,
             r->address.port, r->address.database);
    r->names.key_prefix = r->key_prefix;
    r->password_file    = options->password_file;
    r->jitter           = random_from_seed(seed);
    r->epoll_fd         = epoll_create1(EPOLL_CLOEXEC);
    return r->epoll_fd >= 0 || error_set(err, ERR_IO, "store: epoll_create1: %s", strerror(errno));
}

static void *redis_open(store *s, const store_options *options, error *err)
{
    redis_store *r = calloc(1, sizeof *r);
    if (!r) {
        error_set(err, ERR_NO_MEMORY, "store: no memory for %zu bytes", sizeof *r);
        return NULL;
    }
    const char *labels = store_metric_labels(s);
    r->owner           = s;
    r->backoff_ms      = BACKOFF_MIN_MS;
    r->epoll_fd        = -1;
    r->errors =
        metric_counter("troupe_store_errors_total", labels, "Store commands that Redis answered with an error.");
    r->outages = metric_counter("troupe_store_outages_total", labels, "Times that the store went down.");
    if (!redis_configure(r, options, err)) {
        redis_close(r);
        return NULL;
    }
    /* hiredis writes without MSG_NOSIGNAL, and a closed connection must not end the process. */
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    return r;
}

const store_backend store_redis_backend = {
    .open    = redis_open,
    .close   = redis_close,
    .submit  = redis_submit,
    .turn    = redis_turn,
    .next_ns = redis_next_ns,
    .fd      = redis_fd,
};
