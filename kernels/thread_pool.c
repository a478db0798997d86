#include "kernels/thread_pool.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS = 4000 }; /* some tens of microseconds of pause instructions */

/* A worker begins with a range of slices of its own, in order, so that what it reads of memory is one stream; then it
 * takes from the ranges of others. A range is (end << 32 | next) and taking its next slice a compare-and-swap of the
 * whole: a worker that wakes late takes what is there by then, or nothing. Who holds a slice keeps `slice` and `job`
 * from changing, because the caller waits for every slice before it writes them again. */
struct thread_pool {
    _Alignas(64) _Atomic uint32_t n_unfinished; /* slices not yet done; the caller sleeps on it */
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) _Atomic uint32_t job_number; /* workers sleep on it */
    _Atomic uint32_t n_asleep;
    _Atomic bool     stop;

    thread_pool_slice *slice;
    void              *job;
    uint32_t           n_threads, n_started;
    struct worker {
        _Alignas(64) _Atomic uint64_t range;
        thread_pool *pool;
        uint32_t     index;
        pthread_t    thread;
    } * workers;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work_through(thread_pool *pool, _Atomic uint64_t *range, uint32_t worker)
{
    uint64_t seen = atomic_load_explicit(range, memory_order_acquire);
    while ((uint32_t)seen < seen >> 32) {
        if (!atomic_compare_exchange_weak_explicit(range, &seen, seen + 1, memory_order_acq_rel,
                                                   memory_order_acquire)) {
            continue;
        }
        pool->slice(pool->job, (uint32_t)seen, worker);
        if (atomic_fetch_sub(&pool->n_unfinished, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
            futex_wake(&pool->n_unfinished);
        }
        seen = atomic_load_explicit(range, memory_order_acquire);
    }
}

/* Takes slices until none is left: its own first. */
static void work(thread_pool *pool, uint32_t worker)
{
    for (uint32_t i = 0; i < pool->n_threads; i++) {
        work_through(pool, &pool->workers[(worker + i) % pool->n_threads].range, worker);
    }
}

static void *worker_main(void *argument)
{
    struct worker *self = argument;
    thread_pool   *pool = self->pool;
    uint32_t       seen = 0;
    while (!atomic_load(&pool->stop)) {
        work(pool, self->index);
        for (uint32_t i = 0; i < SPINS && atomic_load(&pool->job_number) == seen; i++) {
            pause_cpu();
        }
        if (atomic_load(&pool->job_number) == seen) {
            atomic_fetch_add(&pool->n_asleep, 1);
            futex_wait(&pool->job_number, seen);
            atomic_fetch_sub(&pool->n_asleep, 1);
        }
        seen = atomic_load(&pool->job_number);
    }
    return NULL;
}

/* The order is: count, then wake those who sleep. A worker that was about to sleep sees the new count in futex_wait. */
static void wake_workers(thread_pool *pool)
{
    atomic_fetch_add(&pool->job_number, 1);
    if (atomic_load(&pool->n_asleep) > 0) {
        futex_wake(&pool->job_number);
    }
}

thread_pool *thread_pool_new(uint32_t n_threads)
{
    assert(n_threads >= 1);
    thread_pool *pool = aligned_alloc(64, sizeof *pool);
    if (!pool) {
        return NULL;
    }
    *pool = (thread_pool){.n_threads = n_threads, .workers = aligned_alloc(64, n_threads * sizeof *pool->workers)};
    if (!pool->workers) {
        free(pool);
        return NULL;
    }
    for (uint32_t i = 0; i < n_threads; i++) {
        pool->workers[i] = (struct worker){.pool = pool, .index = i};
    }
    for (uint32_t i = 1; i < n_threads; i++) {
        if (pthread_create(&pool->workers[i].thread, NULL, worker_main, &pool->workers[i]) != 0) {
            thread_pool_free(&pool);
            return NULL;
        }
        pool->n_started = i;
    }
    return pool;
}

void thread_pool_free(thread_pool **pool)
{
    if (!*pool) {
        return;
    }
    atomic_store(&(*pool)->stop, true);
    wake_workers(*pool);
    for (uint32_t i = 1; i <= (*pool)->n_started; i++) {
        pthread_join((*pool)->workers[i].thread, NULL);
    }
    free((*pool)->workers);
    free(*pool);
    *pool = NULL;
}

uint32_t thread_pool_n_cores(void)
{
    cpu_set_t set;
    int       n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n > THREAD_POOL_MAX ? THREAD_POOL_MAX : (uint32_t)n;
}

uint32_t thread_pool_n_threads(const thread_pool *pool)
{
    return pool->n_threads;
}

static void wait_for_all(thread_pool *pool)
{
    for (uint32_t i = 0; i < SPINS; i++) {
        if (atomic_load(&pool->n_unfinished) == 0) {
            return;
        }
        pause_cpu();
    }
    atomic_store(&pool->caller_sleeps, 1);
    for (uint32_t left; (left = atomic_load(&pool->n_unfinished)) != 0;) {
        futex_wait(&pool->n_unfinished, left);
    }
    atomic_store(&pool->caller_sleeps, 0);
}

void thread_pool_run(thread_pool *pool, thread_pool_slice *slice, void *job, uint32_t n_slices)
{
    if (pool->n_threads == 1 || n_slices <= 1) {
        for (uint32_t i = 0; i < n_slices; i++) {
            slice(job, i, 0);
        }
        return;
    }
    pool->slice = slice;
    pool->job   = job;
    atomic_store(&pool->n_unfinished, n_slices);
    for (uint64_t i = 0, next = 0, n = pool->n_threads; i < n; i++) {
        uint64_t end = (i + 1) * n_slices / n;
        atomic_store_explicit(&pool->workers[i].range, end << 32 | next, memory_order_release);
        next = end;
    }
    wake_workers(pool);
    work(pool, 0);
    wait_for_all(pool);
}
