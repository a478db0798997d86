/* Threads that share one job at a time: n_slices calls of a function. Each begins with a range of its own, in order,
 * and then helps the others.
 *
 * The caller of thread_pool_run works too, so a pool of n threads starts n - 1. A worker with nothing to do spins for
 * some microseconds (a forward pass is a dense train of jobs), then sleeps on a futex. Which thread runs which slice
 * must not matter to the result. */
#ifndef TROUPE_KERNELS_THREAD_POOL_H
#define TROUPE_KERNELS_THREAD_POOL_H

#include <stdint.h>

typedef struct thread_pool thread_pool;

enum { THREAD_POOL_MAX = 1024 };

/* One slice of a job. `worker` is in [0, n_threads): an index of scratch memory that nobody else uses meanwhile. */
typedef void thread_pool_slice(void *job, uint32_t slice, uint32_t worker);

/* Cores that this process may use, at most THREAD_POOL_MAX: what a caller without a wish takes. */
uint32_t thread_pool_n_cores(void);

/* NULL when memory or threads run out. n_threads >= 1 counts the caller. */
thread_pool *thread_pool_new(uint32_t n_threads);
void         thread_pool_free(thread_pool **pool);
uint32_t     thread_pool_n_threads(const thread_pool *pool);

/* Runs slices 0 .. n_slices - 1 and returns when all are done. One caller at a time. */
void thread_pool_run(thread_pool *pool, thread_pool_slice *slice, void *job, uint32_t n_slices);

#endif
