/* See process.h. Signals are blocked in every thread and taken by the main one with sigtimedwait, so that no handler
 * runs anywhere. */
#include "troupe/process.h"

#include "troupe/admin.h"
#include "troupe/endpoints.h"
#include "troupe/resolver.h"
#include "troupe/span_exporter.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { ACTORS_MAX = N_SERVICES + 1, POLL_MS = 100 };

struct process {
    const process_options *options;
    bus                   *bus;
    recorder              *recorder;           /* NULL: nothing is recorded */
    actor                 *actors[ACTORS_MAX]; /* in the order of starting; drained in the order of drain_order */
    uint32_t               n_actors;
    char                   endpoints[ACTORS_MAX][3][ENDPOINTS_BYTES]; /* flags, cut at their commas */
    admin                 *admin;
    resolver              *resolver;
    span_exporter         *exporter;
    atomic_bool            quit, drained;
    pthread_t              drainer;
};

static sigset_t handled_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGHUP);
    return set;
}

/* Where a gateway or a scheduler listens for actors of the same process. */
static const char *inside(const process *p, role listening)
{
    static const char *const names[2][2] = {{"inproc://gateway", "inproc://scheduler"},
                                            {"queue://gateway", "queue://scheduler"}};
    return names[p->options->transport][listening == ROLE_SCHEDULER];
}

static bool endpoints_of(process *p, const service *what, bool alone, actor_options *options, error *err)
{
    char(*copies)[ENDPOINTS_BYTES] = p->endpoints[p->n_actors];
    if (!alone) {
        if (what->bind)
            options->bind[0] = inside(p, what->class->role);
        options->connect[0]                   = what->calls_gateway ? inside(p, ROLE_GATEWAY) : NULL;
        options->connect[what->calls_gateway] = what->calls_scheduler ? inside(p, ROLE_SCHEDULER) : NULL;
        return what->class->role != ROLE_GATEWAY || !p->options->bind ||
               cut_endpoints(copies[0], p->options->bind, options->bind, COUNT(options->bind), "--bus-bind", err);
    }
    const char *bind = p->options->bind ? p->options->bind : what->bind;
    if (!what->bind && p->options->bind)
        return error_set(err, ERR_INVALID, "--bus-bind: a %s does not listen; it connects to --scheduler and --gateway",
                         what->name);
    return (!what->bind || cut_endpoints(copies[0], bind, options->bind, COUNT(options->bind), "--bus-bind", err)) &&
           (!what->calls_gateway || cut_endpoints(copies[1], p->options->gateways, options->connect,
                                                  COUNT(options->connect), "--gateway", err)) &&
           (!what->calls_scheduler || cut_endpoints(copies[2], p->options->schedulers, options->connect,
                                                    COUNT(options->connect), "--scheduler", err));
}

/* Each actor runs as soon as it is made: a gateway answers /health while an executor still loads its model. */
static bool start_actor(process *p, const actor_class *class, const void *options, const actor_options *where,
                        error *err)
{
    actor *a = actor_new(class, options, where, err);
    if (!a)
        return false;
    if (!actor_start(a, err)) {
        actor_free(&a);
        return false;
    }
    p->actors[p->n_actors++] = a;
    return true;
}

/* Endpoints with a name in them are the resolver's: the actor calls every address that they stand for. */
static uint32_t take_names(actor_options *options, const char **names)
{
    uint32_t n_names = 0, n_left = 0;
    for (size_t i = 0; i < COUNT(options->connect); i++) {
        const char *endpoint = options->connect[i];
        options->connect[i]  = NULL;
        if (endpoint && resolver_wants(endpoint))
            names[n_names++] = endpoint;
        else if (endpoint)
            options->connect[n_left++] = endpoint;
    }
    return n_names;
}

static bool add_service(process *p, service_id id, const all_options *all, bool alone, error *err)
{
    const service *what    = &services[id];
    actor_options  options = {.bus = p->bus, .credits = what->credits, .recorder = p->recorder};
    const char    *names[COUNT(options.connect)];
    if (!endpoints_of(p, what, alone, &options, err))
        return false;
    if (id == SERVICE_EXECUTOR && all->executor.kv_bind)
        options.bind[0] = all->executor.kv_bind;
    uint32_t n_names = take_names(&options, names);
    if (!start_actor(p, what->class, (const char *)all + what->offset, &options, err))
        return error_wrap(err, "%s", what->name);
    for (uint32_t i = 0; i < n_names; i++)
        if (!bus_may_connect(p->bus, names[i], err) ||
            !resolver_add(p->resolver, p->actors[p->n_actors - 1], names[i], err))
            return error_wrap(err, "%s cannot connect", what->name);
    return true;
}

/* While a model loads, which can take minutes, the main thread takes no signal; and nobody has anything in hand. Who
 * wants the process to end gets that at once, as the signal itself would have it. Cancelled when all is loaded. */
static void *end_when_told(void *arg)
{
    sigset_t set;
    int      signal_number;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigwait(&set, &signal_number) == 0) {
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
        log_warn("told to end while starting", "signal=%d", signal_number);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        raise(signal_number);
    }
    return arg;
}

static bool add_services(process *p, const all_options *all, int only, error *err)
{
    pthread_t watcher;
    bool      ok = pthread_create(&watcher, NULL, end_when_told, NULL) == 0;
    if (!ok)
        return error_set(err, ERR_NO_MEMORY, "no thread for signals");
    for (int id = 0; ok && id < N_SERVICES; id++)
        ok = (only >= 0 && only != id) || add_service(p, (service_id)id, all, only >= 0, err);
    pthread_cancel(watcher);
    pthread_join(watcher, NULL);
    return ok;
}

static bool start_recorder(process *p, int only, error *err)
{
    recorder_options options = {.folder    = p->options->record,
                                .service   = only < 0 ? "serve" : services[only].name,
                                .bytes_max = p->options->record_bytes};
    if (!options.folder)
        return true;
    p->recorder = recorder_new(&options, err);
    return p->recorder != NULL;
}

static void stop_all(process *p)
{
    for (uint32_t i = 0; i < p->n_actors; i++)
        actor_stop(p->actors[i]);
}

/* The usual soft limit of 1024 files is there for programs that use select(): a gateway needs one for each client. */
static void raise_file_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static bool read_log_level(const char *path, log_level *level, error *err)
{
    char  line[64] = "", word[16] = "";
    FILE *file = fopen(path, "re");
    bool  ok   = file && fgets(line, sizeof line, file);
    if (!file)
        error_set(err, ERR_IO, "--log-level-file %s: %s", path, strerror(errno));
    else if (!ok || sscanf(line, "%15s", word) != 1 || !log_level_from_name(word, level))
        ok = error_set(err, ERR_INVALID, "--log-level-file %s, line 1: expected debug, info, warn, error or off", path);
    if (file)
        fclose(file);
    return ok;
}

static bool set_log_level(const process_options *options, error *err)
{
    log_level level = LOG_INFO;
    if (options->log_level_file) {
        if (!read_log_level(options->log_level_file, &level, err))
            return false;
    } else if (!log_level_from_name(options->log_level, &level)) {
        return error_set(err, ERR_INVALID, "--log-level %s: expected debug, info, warn, error or off",
                         options->log_level);
    }
    log_set_level(level);
    return true;
}

/* What SIGHUP asks for: every file that may change is read again, here and by the actors. */
static void reload(process *p)
{
    error err;
    if (p->options->log_level_file && !set_log_level(p->options, &err))
        log_error("the log level stays as it was", "reason=\"%s\"", err.text);
    for (uint32_t i = 0; i < p->n_actors; i++)
        actor_reload(p->actors[i]);
}

process *process_new(const process_options *options, const all_options *all, int only, error *err)
{
    sigset_t set = handled_signals();
    process *p   = calloc(1, sizeof *p);
    if (!p) {
        error_set(err, ERR_NO_MEMORY, "no memory for a process");
        return NULL;
    }
    p->options = options;
    if (!set_log_level(options, err))
        goto failed;
    log_set_format((log_format)(options->log_format == 1   ? LOG_FORMAT_JSON
                                : options->log_format == 2 ? LOG_FORMAT_TEXT
                                                           : LOG_FORMAT_AUTO));
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (options->otlp_endpoint) {
        p->exporter = span_exporter_new(options->otlp_endpoint, options->otlp_sample_ratio, err);
        if (!p->exporter)
            goto failed;
    }
    bus_options security = {
        .secret_key_file = options->secret_key_file,
        .peers_file      = options->peers_file,
        .server_key_file = options->server_key_file,
        .insecure        = options->insecure,
    };
    p->bus      = bus_new(&security, err);
    p->resolver = p->bus ? resolver_new(NULL, err) : NULL;
    if (!p->resolver || !start_recorder(p, only, err) || !add_services(p, all, only, err) ||
        !resolver_start(p->resolver, err))
        goto failed;
    if (options->admin_port > 0) {
        p->admin = admin_new(options->admin_host, (uint16_t)options->admin_port, err);
        if (!p->admin)
            goto failed;
    }
    return p;
failed:
    process_free(&p);
    return NULL;
}

bool process_add_client(process *p, const actor_class *class, const void *options, error *err)
{
    actor_options where = {.bus = p->bus, .connect = {inside(p, ROLE_GATEWAY)}, .credits = 16};
    return start_actor(p, class, options, &where, err);
}

/* Gateways first: they finish what clients wait for while everybody else still works. */
static int drain_rank(const char *node)
{
    static const char *const order[] = {"client", "gateway", "tokenizer", "scheduler", "executor"};
    for (int i = 0; i < (int)COUNT(order); i++)
        if (strncmp(node, order[i], strlen(order[i])) == 0)
            return i;
    return COUNT(order);
}

static void *drain_all(void *arg)
{
    process *p = arg;
    for (int rank = 0; rank <= 5; rank++)
        for (uint32_t i = 0; i < p->n_actors; i++)
            if (drain_rank(actor_name(p->actors[i])) == rank) {
                actor_drain(p->actors[i]);
                actor_join(p->actors[i]);
            }
    atomic_store(&p->drained, true);
    return NULL;
}

void process_quit(process *p)
{
    atomic_store(&p->quit, true);
}

int process_wait(process *p)
{
    sigset_t        set     = handled_signals();
    struct timespec poll    = {.tv_nsec = POLL_MS * NS_PER_MS};
    int64_t         give_up = 0;
    bool            stopped = false;
    while (!atomic_load(&p->drained)) {
        int signal_number = sigtimedwait(&set, NULL, &poll);
        for (uint32_t i = 0; signal_number == SIGUSR1 && i < p->n_actors; i++)
            actor_dump(p->actors[i]);
        if (signal_number == SIGHUP)
            reload(p);
        bool    wants_end = signal_number == SIGTERM || signal_number == SIGINT;
        int64_t now       = clock_now_ns(clock_system());
        if (give_up == 0 && (wants_end || atomic_load(&p->quit))) {
            give_up = now + (int64_t)p->options->drain_timeout_s * NS_PER_S;
            if (pthread_create(&p->drainer, NULL, drain_all, p) != 0)
                abort();
        } else if (give_up > 0 && !stopped && (wants_end || now > give_up)) {
            log_warn("stopping with requests in hand", " ");
            stop_all(p);
            stopped = true;
        }
    }
    pthread_join(p->drainer, NULL);
    return stopped ? 1 : 0;
}

void process_free(process **process_to_free)
{
    process *p = *process_to_free;
    if (!p)
        return;
    admin_free(&p->admin);
    resolver_free(&p->resolver);
    stop_all(p);
    while (p->n_actors > 0) {
        actor_join(p->actors[--p->n_actors]);
        actor_free(&p->actors[p->n_actors]);
    }
    span_exporter_free(&p->exporter);
    bus_free(&p->bus);
    recorder_free(&p->recorder);
    free(p);
    *process_to_free = NULL;
}
