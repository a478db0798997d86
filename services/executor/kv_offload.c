/* See kv_offload.h. A frame is a block's place in memory. The thread that uses the device alone gives frames to slots;
 * the disk's thread turns DIRTY into CLEAN by writing and WANTED into CLEAN by reading. */
#include "executor/kv_offload.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metric.h"
#include "kv/block_pool.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DISK_FRAMES_MIN = 16 };

#define NO_FRAME UINT32_MAX

typedef enum {
    FRAME_FREE,
    FRAME_FILLING, /* from the cache */
    FRAME_DIRTY,   /* in the queue of writes */
    FRAME_WRITING,
    FRAME_WANTED, /* in the queue of reads */
    FRAME_READING,
    FRAME_CLEAN,
} frame_state;

typedef struct {
    frame_state state;
    bool        used; /* since the hand passed */
    uint32_t    slot;
    uint64_t    stamp;
} frame;

typedef struct {
    uint64_t stamp; /* 0: empty */
    uint64_t checksum;
    uint32_t frame;
    bool     on_disk;
} slot_place;

typedef struct {
    uint32_t *frames; /* room for all */
    uint32_t  first, n;
} frame_queue;

struct kv_offload {
    kern_device    *device;
    kern_kv_cache  *cache;
    size_t          block_bytes;
    uint32_t        n_slots, n_frames, hand;
    int             file; /* -1: no disk */
    bool            without_thread, has_thread, stopping, warned;
    unsigned char  *memory; /* [n_frames][block_bytes] */
    frame          *frames;
    slot_place     *slots;
    frame_queue     reads, writes;
    kv_offload_move loads[KV_OFFLOAD_LOADS_MAX];
    uint32_t        n_loads;
    int64_t         loading_ns; /* of loads that were not reported yet */
    pthread_t       thread;
    pthread_mutex_t mutex; /* guards frames, slots, queues, stopping */
    pthread_cond_t  work, done;
    metric         *saved, *loaded, *failed;
};

static unsigned char *bytes_of(const kv_offload *o, uint32_t f)
{
    return o->memory + f * o->block_bytes;
}

static void put(kv_offload *o, frame_queue *queue, uint32_t f)
{
    queue->frames[(queue->first + queue->n++) % o->n_frames] = f;
}

static uint32_t take(const kv_offload *o, frame_queue *queue)
{
    uint32_t f   = queue->frames[queue->first];
    queue->first = (queue->first + 1) % o->n_frames;
    queue->n--;
    return f;
}

/* ---- the disk's thread ---- */

/* All bytes, or false. */
static bool transfer(const kv_offload *o, uint32_t slot, unsigned char *bytes, bool into_file)
{
    size_t done = 0;
    while (done < o->block_bytes) {
        off_t   at = (off_t)(slot * (uint64_t)o->block_bytes + done);
        ssize_t n  = into_file ? pwrite(o->file, bytes + done, o->block_bytes - done, at)
                               : pread(o->file, bytes + done, o->block_bytes - done, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static uint64_t checksum_of(const kv_offload *o, const frame *f, const unsigned char *bytes)
{
    return hash_64((hash_key){f->stamp, f->slot}, bytes, o->block_bytes);
}

static void warn_once(kv_offload *o, const char *what)
{
    if (!o->warned)
        log_warn("a KV block is lost", "why=\"%s\"", what);
    o->warned = true;
}

static void write_frame(kv_offload *o, uint32_t index)
{
    frame *f = &o->frames[index];
    f->state = FRAME_WRITING;
    pthread_mutex_unlock(&o->mutex);
    uint64_t checksum = checksum_of(o, f, bytes_of(o, index));
    bool     ok       = transfer(o, f->slot, bytes_of(o, index), true);
    pthread_mutex_lock(&o->mutex);
    slot_place *s    = &o->slots[f->slot];
    bool        owns = s->stamp == f->stamp && s->frame == index;
    f->state         = owns ? FRAME_CLEAN : FRAME_FREE;
    if (owns) {
        s->on_disk  = ok;
        s->checksum = checksum;
    }
    if (!ok)
        warn_once(o, "it could not be written to --kv-offload-dir");
}

static void read_frame(kv_offload *o, uint32_t index)
{
    frame   *f        = &o->frames[index];
    uint64_t checksum = o->slots[f->slot].checksum;
    f->state          = FRAME_READING;
    pthread_mutex_unlock(&o->mutex);
    int64_t begin = clock_now_ns(clock_system());
    bool    ok  = transfer(o, f->slot, bytes_of(o, index), false) && checksum_of(o, f, bytes_of(o, index)) == checksum;
    int64_t end = clock_now_ns(clock_system());
    pthread_mutex_lock(&o->mutex);
    o->loading_ns += end - begin;
    slot_place *s    = &o->slots[f->slot];
    bool        owns = s->stamp == f->stamp && s->frame == index;
    f->state         = owns && ok ? FRAME_CLEAN : FRAME_FREE;
    if (owns && !ok) {
        *s = (slot_place){.frame = NO_FRAME};
        warn_once(o, "what --kv-offload-dir gave is not what was written");
    }
}

/* One read or write; reads first, as somebody waits for them. Called with the mutex. */
static bool work_once(kv_offload *o)
{
    if (o->reads.n > 0)
        read_frame(o, take(o, &o->reads));
    else if (o->writes.n > 0)
        write_frame(o, take(o, &o->writes));
    else
        return false;
    pthread_cond_signal(&o->done);
    return true;
}

static void *disk_thread(void *arg)
{
    kv_offload *o = arg;
    log_set_thread_service("executor");
    pthread_mutex_lock(&o->mutex);
    while (!o->stopping)
        if (!work_once(o))
            pthread_cond_wait(&o->work, &o->mutex);
    pthread_mutex_unlock(&o->mutex);
    return NULL;
}

static void start_work(kv_offload *o)
{
    while (o->without_thread && work_once(o))
        ;
    pthread_cond_signal(&o->work);
}

static void wait_for_work(kv_offload *o)
{
    if (!o->without_thread)
        pthread_cond_wait(&o->done, &o->mutex);
}

/* ---- start and end ---- */

static bool open_file(kv_offload *o, const kv_offload_options *options, error *err)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/troupe-kv-XXXXXX", options->folder) >= (int)sizeof path)
        return error_set(err, ERR_INVALID, "--kv-offload-dir: the path is too long");
    o->file = mkostemp(path, O_CLOEXEC);
    if (o->file < 0)
        return error_set(err, ERR_INVALID, "--kv-offload-dir %s: %s", options->folder, strerror(errno));
    (void)unlink(path);
    int why = posix_fallocate(o->file, 0, (off_t)(o->n_slots * (uint64_t)o->block_bytes));
    return why == 0 || error_set(err, ERR_INVALID, "--kv-offload-disk: no %llu bytes in %s: %s",
                                 (unsigned long long)o->n_slots * o->block_bytes, options->folder, strerror(why));
}

static bool plan_sizes(kv_offload *o, const kv_offload_options *options, error *err)
{
    uint64_t n_frames = options->memory_bytes / o->block_bytes, n_disk = options->disk_bytes / o->block_bytes;
    if ((options->folder != NULL) != (options->disk_bytes > 0))
        return error_set(err, ERR_INVALID, "--kv-offload-dir and --kv-offload-disk need each other");
    if (options->folder && n_disk == 0)
        return error_set(err, ERR_INVALID, "--kv-offload-disk %llu: one KV block takes %zu bytes",
                         (unsigned long long)options->disk_bytes, o->block_bytes);
    if (!options->folder && n_frames == 0)
        return error_set(err, ERR_INVALID, "--kv-offload-memory %llu: one KV block takes %zu bytes",
                         (unsigned long long)options->memory_bytes, o->block_bytes);
    if (options->folder && n_frames < DISK_FRAMES_MIN)
        n_frames = DISK_FRAMES_MIN;
    n_frames    = n_frames < KV_BLOCKS_MAX ? n_frames : KV_BLOCKS_MAX;
    n_disk      = n_disk < KV_BLOCKS_MAX ? n_disk : KV_BLOCKS_MAX;
    o->n_frames = (uint32_t)n_frames;
    o->n_slots  = options->folder ? (uint32_t)n_disk : o->n_frames;
    return true;
}

static bool take_memory(kv_offload *o, error *err)
{
    o->memory        = malloc(o->n_frames * o->block_bytes);
    o->frames        = calloc(o->n_frames, sizeof *o->frames);
    o->slots         = calloc(o->n_slots, sizeof *o->slots);
    o->reads.frames  = calloc(o->n_frames, sizeof *o->reads.frames);
    o->writes.frames = calloc(o->n_frames, sizeof *o->writes.frames);
    return (o->memory && o->frames && o->slots && o->reads.frames && o->writes.frames) ||
           error_set(err, ERR_NO_MEMORY, "--kv-offload-memory: no memory for %u KV blocks of %zu bytes", o->n_frames,
                     o->block_bytes);
}

kv_offload *kv_offload_new(const kv_offload_options *options, kern_device *device, kern_kv_cache *cache,
                           size_t block_bytes, error *err)
{
    kv_offload *o = calloc(1, sizeof *o);
    if (!o) {
        error_set(err, ERR_NO_MEMORY, "no memory for KV offload");
        return NULL;
    }
    o->device         = device;
    o->cache          = cache;
    o->block_bytes    = block_bytes;
    o->file           = -1;
    o->without_thread = options->without_thread;
    o->saved          = metric_counter("troupe_kv_offload_saved_blocks_total", "", "KV blocks kept beside the cache.");
    o->loaded         = metric_counter("troupe_kv_offload_loaded_blocks_total", "", "KV blocks that came back.");
    o->failed = metric_counter("troupe_kv_offload_failed_blocks_total", "", "KV blocks not kept, or not to be had.");
    pthread_mutex_init(&o->mutex, NULL);
    pthread_cond_init(&o->work, NULL);
    pthread_cond_init(&o->done, NULL);
    if (!plan_sizes(o, options, err) || !take_memory(o, err) || (options->folder && !open_file(o, options, err))) {
        kv_offload_free(&o);
        return NULL;
    }
    kv_offload_forget(o);
    if (o->file >= 0 && !o->without_thread) {
        o->has_thread = pthread_create(&o->thread, NULL, disk_thread, o) == 0;
        if (!o->has_thread) {
            error_set(err, ERR_NO_MEMORY, "no thread for --kv-offload-dir");
            kv_offload_free(&o);
        }
    }
    return o;
}

void kv_offload_free(kv_offload **offload)
{
    kv_offload *o = *offload;
    if (!o)
        return;
    if (o->has_thread) {
        pthread_mutex_lock(&o->mutex);
        o->stopping = true;
        pthread_cond_signal(&o->work);
        pthread_mutex_unlock(&o->mutex);
        pthread_join(o->thread, NULL);
    }
    if (o->file >= 0)
        close(o->file);
    void *owned[] = {o->memory, o->frames, o->slots, o->reads.frames, o->writes.frames};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    pthread_mutex_destroy(&o->mutex);
    pthread_cond_destroy(&o->work);
    pthread_cond_destroy(&o->done);
    free(o);
    *offload = NULL;
}

uint32_t kv_offload_n_slots(const kv_offload *o)
{
    return o->n_slots;
}

void kv_offload_forget(kv_offload *o)
{
    pthread_mutex_lock(&o->mutex);
    for (uint32_t i = 0; i < o->n_slots; i++)
        o->slots[i] = (slot_place){.frame = NO_FRAME};
    for (uint32_t i = 0; i < o->n_frames; i++) /* those in the thread's hands are free when it is done */
        if (o->frames[i].state != FRAME_WRITING && o->frames[i].state != FRAME_READING)
            o->frames[i].state = FRAME_FREE;
    o->reads.n = o->writes.n = o->n_loads = 0;
    pthread_mutex_unlock(&o->mutex);
}

/* ---- saving and loading ---- */

/* A frame for a slot: its own where there is no disk, else one that is free, or clean and not used for long (the clock
 * algorithm). NO_FRAME: all are still to be written. */
static uint32_t give_frame(kv_offload *o, const kv_offload_move *what, frame_state state)
{
    uint32_t f = o->file < 0 ? what->slot : NO_FRAME;
    for (uint32_t i = 0; f == NO_FRAME && i < 2 * o->n_frames; i++) {
        frame *at = &o->frames[o->hand];
        if (at->state == FRAME_FREE || (at->state == FRAME_CLEAN && !at->used))
            f = o->hand;
        at->used = false;
        o->hand  = (o->hand + 1) % o->n_frames;
    }
    if (f == NO_FRAME)
        return f;
    if (o->frames[f].state == FRAME_CLEAN && o->slots[o->frames[f].slot].frame == f)
        o->slots[o->frames[f].slot].frame = NO_FRAME;
    o->frames[f]               = (frame){.state = state, .used = true, .slot = what->slot, .stamp = what->stamp};
    o->slots[what->slot].frame = f;
    return f;
}

static void move_block(kv_offload *o, uint32_t block, uint32_t f, bool into_cache)
{
    kern_kv_block_args args = {.cache = o->cache, .block = block, .host = bytes_of(o, f), .into_cache = into_cache};
    kern_kv_block(o->device, &args);
}

/* The slot's old content goes; a frame of it that waits to be written goes with it. */
static void empty_slot(kv_offload *o, uint32_t slot)
{
    uint32_t f = o->slots[slot].frame;
    if (f != NO_FRAME && o->frames[f].state == FRAME_CLEAN)
        o->frames[f].state = FRAME_FREE;
    o->slots[slot] = (slot_place){.frame = NO_FRAME};
}

void kv_offload_save(kv_offload *o, const kv_offload_move *what)
{
    assert(what->slot < o->n_slots);
    pthread_mutex_lock(&o->mutex);
    empty_slot(o, what->slot);
    uint32_t f = give_frame(o, what, FRAME_FILLING);
    pthread_mutex_unlock(&o->mutex);
    if (f == NO_FRAME) {
        metric_add(o->failed, 1);
        return;
    }
    move_block(o, what->block, f, false);
    pthread_mutex_lock(&o->mutex);
    o->slots[what->slot].stamp = what->stamp;
    o->frames[f].state         = o->file < 0 ? FRAME_CLEAN : FRAME_DIRTY;
    if (o->file >= 0) {
        put(o, &o->writes, f);
        start_work(o);
    }
    pthread_mutex_unlock(&o->mutex);
    metric_add(o->saved, 1);
}

bool kv_offload_load(kv_offload *o, const kv_offload_move *what)
{
    if (o->n_loads == KV_OFFLOAD_LOADS_MAX)
        return false;
    o->loads[o->n_loads++] = *what;
    return true;
}

typedef enum { LOAD_WAITS, LOAD_IS_HERE, LOAD_FAILED } load_state;

/* Where a load stands; asks for it to be read when it is on disk and there is a frame. */
static load_state look_at(kv_offload *o, const kv_offload_move *load)
{
    if (load->slot >= o->n_slots || load->stamp == 0 || o->slots[load->slot].stamp != load->stamp)
        return LOAD_FAILED;
    slot_place *s = &o->slots[load->slot];
    if (s->frame == NO_FRAME && !s->on_disk)
        return LOAD_FAILED;
    if (s->frame == NO_FRAME) {
        uint32_t f = give_frame(o, load, FRAME_WANTED);
        if (f == NO_FRAME)
            return LOAD_WAITS;
        put(o, &o->reads, f);
        start_work(o);
        if (s->stamp != load->stamp) /* read at once, and damaged */
            return LOAD_FAILED;
    }
    frame *f = &o->frames[s->frame];
    f->used  = true;
    return f->state == FRAME_WANTED || f->state == FRAME_READING ? LOAD_WAITS : LOAD_IS_HERE;
}

void kv_offload_collect(kv_offload *o, bool wait, kv_offload_report *report)
{
    report->n_loaded = report->n_not_loaded = 0;
    pthread_mutex_lock(&o->mutex);
    for (;;) {
        uint32_t n_left = 0;
        for (uint32_t i = 0; i < o->n_loads; i++) {
            kv_offload_move load  = o->loads[i];
            load_state      state = look_at(o, &load);
            if (state == LOAD_WAITS)
                o->loads[n_left++] = load;
            else if (state == LOAD_FAILED)
                report->not_loaded[report->n_not_loaded++] = load.slot;
            else {
                int64_t begin = clock_now_ns(clock_system());
                move_block(o, load.block, o->slots[load.slot].frame, true);
                o->loading_ns += clock_now_ns(clock_system()) - begin;
                report->loaded[report->n_loaded++] = load.slot;
            }
        }
        o->n_loads = n_left;
        if (!wait || n_left == 0)
            break;
        wait_for_work(o);
    }
    report->elapsed_us = (uint32_t)(o->loading_ns / 1000);
    o->loading_ns      = report->n_loaded > 0 ? 0 : o->loading_ns;
    pthread_mutex_unlock(&o->mutex);
    metric_add(o->loaded, report->n_loaded);
    metric_add(o->failed, report->n_not_loaded);
}

static bool check_moves(const kv_offload_move *moves, uint32_t n, uint32_t n_blocks, uint32_t n_slots, error *err)
{
    for (uint32_t i = 0; i < n; i++)
        if (moves[i].block >= n_blocks || moves[i].slot >= n_slots || moves[i].stamp == 0)
            return error_set(err, ERR_INVALID, "KV block %u of %u and offload slot %u of %u, stamp %llu",
                             moves[i].block, n_blocks, moves[i].slot, n_slots, (unsigned long long)moves[i].stamp);
    return true;
}

bool kv_offload_follow(kv_offload *o, const step_plan *plan, uint32_t n_blocks, error *err)
{
    uint32_t n_slots = o ? o->n_slots : 0;
    if (!check_moves(plan->saves, plan->n_saves, n_blocks, n_slots, err) ||
        !check_moves(plan->loads, plan->n_loads, n_blocks, n_slots, err))
        return false;
    for (uint32_t i = 0; i < plan->n_saves; i++)
        kv_offload_save(o, &plan->saves[i]);
    for (uint32_t i = 0; i < plan->n_loads; i++)
        if (!kv_offload_load(o, &plan->loads[i]))
            return error_set(err, ERR_INVALID, "more than %d loads under way", KV_OFFLOAD_LOADS_MAX);
    return true;
}

bool kv_offload_answer(kv_offload *o, const step_plan *plan, arena *memory, step_result *result)
{
    if (!o)
        return true;
    kv_offload_report *report = arena_take_uncleared(memory, sizeof *report);
    if (!report)
        return false;
    kv_offload_collect(o, plan->n_entries == 0, report);
    result->loaded       = report->loaded;
    result->n_loaded     = report->n_loaded;
    result->not_loaded   = report->not_loaded;
    result->n_not_loaded = report->n_not_loaded;
    result->load_us      = report->n_loaded > 0 ? report->elapsed_us : 0;
    return true;
}

void kv_offload_wait_written(kv_offload *o, uint32_t slot)
{
    pthread_mutex_lock(&o->mutex);
    while (!o->slots[slot].on_disk)
        wait_for_work(o);
    pthread_mutex_unlock(&o->mutex);
}

void kv_offload_damage(kv_offload *o, uint32_t slot)
{
    off_t         at = (off_t)(slot * (uint64_t)o->block_bytes);
    unsigned char byte;
    bool          ok = pread(o->file, &byte, 1, at) == 1;
    byte ^= 1;
    ok = ok && pwrite(o->file, &byte, 1, at) == 1;
    assert(ok);
    (void)ok;
}
