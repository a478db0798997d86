/* See recorder.h. Two buffers: actors fill one while the thread writes the other. */
#include "actor/recorder.h"

#include "actor/record_files.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/random.h"
#include "bus/envelope.h"
#include "bus/messages.h"

#include <pthread.h>
#include <stdlib.h>

enum { FLUSH_MS = 100, BUFFER_BYTES = RECORD_BYTES_MAX };

typedef struct {
    uint8_t *data; /* whole records, not sealed */
    size_t   used;
} record_buffer;

struct recorder {
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t  wake, written;
    record_buffer   front;
    uint64_t        n_lost; /* since the last record in `front` */
    uint64_t        n_flushes_asked, n_flushes_done;
    bool            stop;

    record_buffer back; /* the thread's own, and all below */
    record_files *files;
    uint64_t      n_lost_writing;
    bool          failing;
    uint32_t      n_pins;
    uint64_t      pins[RECORD_PINS_MAX]; /* incarnations of executors whose executor.ready is pinned */
    pthread_t     thread;
    metric       *records, *lost, *bytes;
};

/* ---- the actors' side ---- */

static bool is_chatter(span frame)
{
    envelope e;
    return envelope_decode(frame, &e, NULL) && (e.type == MSG_NODE_HEARTBEAT || e.type == MSG_NODE_CREDIT);
}

static void push(record_buffer *b, const record *r)
{
    record_write(r, b->data + b->used);
    b->used += record_bytes(r);
}

void recorder_take(recorder *r, record_kind kind, const char *node, const char *peer, span envelope_frame, span body)
{
    if (is_chatter(envelope_frame))
        return;
    record message = {.kind         = kind,
                      .monotonic_ns = clock_now_ns(clock_system()),
                      .unix_ms      = clock_unix_ms(clock_system()),
                      .node         = span_of(node),
                      .peer         = span_of(peer),
                      .envelope     = envelope_frame,
                      .body         = body};
    record gap     = {.kind = RECORD_GAP, .monotonic_ns = message.monotonic_ns, .unix_ms = message.unix_ms};
    pthread_mutex_lock(&r->lock);
    size_t before = r->front.used;
    gap.n_lost    = r->n_lost;
    bool fits     = before + (gap.n_lost > 0 ? record_bytes(&gap) : 0) + record_bytes(&message) <= BUFFER_BYTES;
    if (fits && gap.n_lost > 0)
        push(&r->front, &gap);
    if (fits)
        push(&r->front, &message);
    r->n_lost = fits ? 0 : r->n_lost + 1;
    if (before < BUFFER_BYTES / 2 && (r->front.used >= BUFFER_BYTES / 2 || !fits))
        pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    metric_add(fits ? r->records : r->lost, 1);
}

void recorder_flush(recorder *r)
{
    pthread_mutex_lock(&r->lock);
    uint64_t mine = ++r->n_flushes_asked;
    pthread_cond_signal(&r->wake);
    while (r->n_flushes_done < mine)
        pthread_cond_wait(&r->written, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

/* ---- the thread ---- */

/* What an executor is stands at the beginning of every file: its fingerprint says which model gave the tokens. */
static void pin_if_ready(recorder *r, const uint8_t *sealed, size_t bytes)
{
    record   parsed;
    envelope e;
    span     rest = {(const char *)sealed, bytes};
    if (bytes > RECORD_PIN_BYTES || recording_next(&rest, &parsed) != RECORDING_RECORD ||
        !envelope_decode(parsed.envelope, &e, NULL) || e.type != MSG_EXECUTOR_READY)
        return;
    uint32_t pin = 0;
    while (pin < r->n_pins && r->pins[pin] != e.incarnation)
        pin++;
    if (pin == RECORD_PINS_MAX)
        pin = (uint32_t)(e.incarnation % RECORD_PINS_MAX);
    else if (pin == r->n_pins)
        r->n_pins++;
    r->pins[pin] = e.incarnation;
    record_files_pin(r->files, pin, sealed, bytes);
}

static bool write_lost(recorder *r, error *err)
{
    uint8_t bytes[RECORD_HEADER_BYTES];
    record  gap = {.kind         = RECORD_GAP,
                   .monotonic_ns = clock_now_ns(clock_system()),
                   .unix_ms      = clock_unix_ms(clock_system()),
                   .n_lost       = r->n_lost_writing};
    if (r->n_lost_writing == 0)
        return true;
    record_write(&gap, bytes);
    record_seal(bytes);
    if (!record_files_append(r->files, bytes, sizeof bytes, err))
        return false;
    r->n_lost_writing = 0;
    return true;
}

static void tell(recorder *r, bool ok, const error *why)
{
    if (!ok && !r->failing)
        log_error("the flight recorder can't write; messages are lost to it", "reason=\"%s\"", why->text);
    if (ok && r->failing)
        log_info("the flight recorder writes again", " ");
    r->failing = !ok;
}

/* Writes in runs small enough for the smallest ring. */
static void write_back(recorder *r)
{
    enum { RUN_BYTES = 64 << 10 };
    error          err;
    record_buffer *b     = &r->back;
    bool           ok    = write_lost(r, &err);
    uint64_t       n_bad = 0;
    for (size_t at = 0; at < b->used;) {
        size_t   run       = 0;
        uint64_t n_records = 0;
        while (at + run < b->used) {
            size_t bytes = record_seal(b->data + at + run);
            if (run > 0 && run + bytes > RUN_BYTES)
                break;
            pin_if_ready(r, b->data + at + run, bytes);
            n_records += b->data[at + run + 4] != RECORD_GAP;
            run += bytes;
        }
        ok = (ok || write_lost(r, &err)) && record_files_append(r->files, b->data + at, run, &err);
        if (!ok) {
            r->n_lost_writing += n_records;
            n_bad += n_records;
        }
        at += run;
    }
    metric_add(r->lost, (double)n_bad);
    metric_set(r->bytes, (double)record_files_bytes(r->files));
    if (b->used > 0)
        tell(r, ok, &err);
    b->used = 0;
}

static struct timespec after_ms(int64_t ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t ns = t.tv_nsec + ms * NS_PER_MS;
    return (struct timespec){.tv_sec = t.tv_sec + ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

static void *run(void *arg)
{
    recorder *r = arg;
    pthread_mutex_lock(&r->lock);
    for (bool last = false; !last;) {
        struct timespec until = after_ms(FLUSH_MS);
        while (!r->stop && r->front.used < BUFFER_BYTES / 2 && r->n_flushes_asked == r->n_flushes_done &&
               pthread_cond_timedwait(&r->wake, &r->lock, &until) == 0)
            ;
        last                = r->stop;
        uint64_t      asked = r->n_flushes_asked;
        record_buffer full  = r->front;
        r->front            = r->back;
        r->back             = full;
        pthread_mutex_unlock(&r->lock);
        write_back(r);
        pthread_mutex_lock(&r->lock);
        r->n_flushes_done = asked;
        pthread_cond_broadcast(&r->written);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ---- life ---- */

static bool open_parts(recorder *r, const recorder_options *options, error *err)
{
    uint64_t           incarnation;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, &monotonic);
    pthread_cond_init(&r->written, NULL);
    pthread_condattr_destroy(&monotonic);
    r->front.data = malloc(BUFFER_BYTES);
    r->back.data  = malloc(BUFFER_BYTES);
    r->records    = metric_counter("troupe_recorder_messages_total", "", "Messages that the flight recorder took.");
    r->lost  = metric_counter("troupe_recorder_lost_total", "", "Messages that the flight recorder could not keep.");
    r->bytes = metric_gauge("troupe_recorder_bytes", "", "Bytes of the flight recorder's files.");
    if (!r->front.data || !r->back.data)
        return error_set(err, ERR_NO_MEMORY, "no memory for the flight recorder");
    if (options->bytes_max < RECORDER_BYTES_MIN)
        return error_set(err, ERR_INVALID, "--record-bytes: at least %d", RECORDER_BYTES_MIN);
    if (!random_bytes(&incarnation, sizeof incarnation, err))
        return false;
    r->files = record_files_new(options->folder, options->service, incarnation, options->bytes_max, err);
    return r->files != NULL;
}

static void free_parts(recorder **r)
{
    record_files_free(&(*r)->files);
    free((*r)->front.data);
    free((*r)->back.data);
    pthread_cond_destroy(&(*r)->wake);
    pthread_cond_destroy(&(*r)->written);
    pthread_mutex_destroy(&(*r)->lock);
    free(*r);
    *r = NULL;
}

recorder *recorder_new(const recorder_options *options, error *err)
{
    recorder *r = calloc(1, sizeof *r);
    if (!r) {
        error_set(err, ERR_NO_MEMORY, "no memory for the flight recorder");
        return NULL;
    }
    if (open_parts(r, options, err) && pthread_create(&r->thread, NULL, run, r) != 0)
        error_set(err, ERR_NO_MEMORY, "no thread for the flight recorder");
    else if (r->files) {
        log_warn("the flight recorder is on: prompts and answers are written to disk", "folder=%s bytes_max=%llu",
                 options->folder, (unsigned long long)options->bytes_max);
        return r;
    }
    free_parts(&r);
    return NULL;
}

void recorder_free(recorder **r)
{
    if (!*r)
        return;
    pthread_mutex_lock(&(*r)->lock);
    (*r)->stop = true;
    pthread_cond_signal(&(*r)->wake);
    pthread_mutex_unlock(&(*r)->lock);
    pthread_join((*r)->thread, NULL);
    free_parts(r);
}
