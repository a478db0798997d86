/* A block of CUDA threads as fibers of one operating-system thread (ucontext).
 *
 * A fiber runs until it must wait: at the block's barrier, or at a meeting of its warp. The scheduler walks over the
 * warps, in an order drawn anew each round from TROUPE_CUDA_HOST_SEED, and over a warp's lanes likewise, until all have
 * returned. Whoever arrives last at a meeting releases the others. A round in which nobody could run is a barrier that
 * not all threads reach: it is reported with the places where they stand, and the program stops, as such a kernel would
 * hang on a GPU. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define FIBERS_TELL_SANITIZER 1
#endif

thread_local uint3 threadIdx, blockIdx;
thread_local dim3  blockDim, gridDim;

namespace
{

enum { LANES = 32, MEETING_BYTES = 64, STACK_BYTES = 256 << 10 };
enum fiber_state { READY, AT_BARRIER, AT_MEETING, RETURNED };

struct place {
    const char *file;
    int         line;
};

struct fiber {
    ucontext_t  context;
    char       *stack;
    void       *fake_stack; /* the sanitizer's */
    uint3       index;
    fiber_state state;
    place       at;
    unsigned    n_meetings;
};

/* What the lanes of one warp gave at a meeting. Two take turns: no lane can reach the next but one meeting before all
 * have left. */
struct warp {
    alignas(16) unsigned char given[2][LANES * MEETING_BYTES];
    size_t   bytes;
    unsigned n_arrived;
};

struct shared_piece {
    place  at;
    size_t bytes;
    void  *memory;
};

struct block_runner {
    std::vector<fiber>        fibers;
    std::vector<warp>         warps;
    std::vector<shared_piece> shared;
    std::vector<unsigned>     order;
    void                     *dynamic_shared = nullptr;
    ucontext_t                scheduler;
    void                     *scheduler_fake_stack  = nullptr;
    const void               *scheduler_stack       = nullptr;
    size_t                    scheduler_stack_bytes = 0;
    fiber                    *current               = nullptr;
    unsigned                  n_threads = 0, n_at_barrier = 0, n_returned = 0;
    uint64_t                  random = 0;
    void (*body)(void *)             = nullptr;
    void *body_context               = nullptr;
};

thread_local block_runner runner;

[[noreturn]] void stop(const char *what, place at)
{
    fprintf(stderr, "cuda host: %s at %s:%d, block (%u,%u,%u), thread %u\n", what, at.file, at.line, blockIdx.x,
            blockIdx.y, blockIdx.z, threadIdx.x);
    for (unsigned i = 0; i < runner.n_threads; i += LANES) {
        static const char *const names[] = {"ready", "at the barrier", "at a meeting of its warp", "returned"};
        const fiber             &f       = runner.fibers[i];
        fprintf(stderr, "  thread %u: %s, last at %s:%d\n", i, names[f.state], f.at.file ? f.at.file : "its start",
                f.at.line);
    }
    abort();
}

void switch_to_scheduler(fiber *f)
{
#ifdef FIBERS_TELL_SANITIZER
    __sanitizer_start_switch_fiber(&f->fake_stack, runner.scheduler_stack, runner.scheduler_stack_bytes);
#endif
    swapcontext(&f->context, &runner.scheduler);
#ifdef FIBERS_TELL_SANITIZER
    __sanitizer_finish_switch_fiber(f->fake_stack, &runner.scheduler_stack, &runner.scheduler_stack_bytes);
#endif
}

/* A fiber outlives its block: making a context costs more than running a small kernel's thread. */
void fiber_main()
{
#ifdef FIBERS_TELL_SANITIZER
    __sanitizer_finish_switch_fiber(nullptr, &runner.scheduler_stack, &runner.scheduler_stack_bytes);
#endif
    for (;;) {
        fiber *f = runner.current;
        runner.body(runner.body_context);
        f->state = RETURNED;
        runner.n_returned++;
        switch_to_scheduler(f);
    }
}

void run_fiber(fiber *f)
{
    runner.current = f;
    threadIdx      = f->index;
#ifdef FIBERS_TELL_SANITIZER
    __sanitizer_start_switch_fiber(&runner.scheduler_fake_stack, f->stack, STACK_BYTES);
#endif
    swapcontext(&runner.scheduler, &f->context);
#ifdef FIBERS_TELL_SANITIZER
    __sanitizer_finish_switch_fiber(runner.scheduler_fake_stack, nullptr, nullptr);
#endif
}

/* By itself: getcontext returns twice for all the compiler knows, and would spoil a caller's loop. */
void make_context(fiber *f)
{
    getcontext(&f->context);
    f->context.uc_stack.ss_sp   = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link          = nullptr;
    makecontext(&f->context, fiber_main, 0);
}

void ensure_fibers(unsigned n_threads)
{
    unsigned n_old = (unsigned)runner.fibers.size();
    if (n_threads <= n_old)
        return;
    /* Contexts point into themselves (the saved floating-point state), so they may not move: start all afresh. */
    std::vector<char *> stacks;
    for (fiber &f : runner.fibers)
        stacks.push_back(f.stack);
    runner.fibers = std::vector<fiber>(n_threads);
    runner.warps  = std::vector<warp>((n_threads + LANES - 1) / LANES);
    for (unsigned i = 0; i < n_threads; i++) {
        fiber &f = runner.fibers[i];
        f.stack  = i < n_old ? stacks[i]
                             : static_cast<char *>(mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (f.stack == MAP_FAILED) {
            fprintf(stderr, "cuda host: no memory for the stacks of %u threads\n", n_threads);
            abort();
        }
        make_context(&f);
    }
}

uint64_t next_random()
{
    /* splitmix64 (Steele, Lea and Flood 2014) */
    uint64_t z = (runner.random += 0x9e3779b97f4a7c15u);
    z          = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z          = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void shuffle_warps()
{
    unsigned n_warps = (runner.n_threads + LANES - 1) / LANES;
    runner.order.resize(n_warps);
    for (unsigned i = 0; i < n_warps; i++)
        runner.order[i] = i;
    for (unsigned i = n_warps; i > 1; i--) {
        unsigned j          = (unsigned)(next_random() % i);
        unsigned swapped    = runner.order[i - 1];
        runner.order[i - 1] = runner.order[j];
        runner.order[j]     = swapped;
    }
}

/* One walk over all warps; false when nobody could run. */
bool run_round()
{
    bool any = false;
    shuffle_warps();
    for (unsigned w : runner.order) {
        unsigned turn = (unsigned)next_random() % LANES;
        for (unsigned l = 0; l < LANES; l++) {
            unsigned thread = w * LANES + (l + turn) % LANES;
            if (thread >= runner.n_threads || runner.fibers[thread].state != READY)
                continue;
            run_fiber(&runner.fibers[thread]);
            any = true;
        }
    }
    return any;
}

void run_block(size_t dynamic_shared_bytes)
{
    for (unsigned i = 0; i < runner.n_threads; i++) {
        fiber &f     = runner.fibers[i];
        f.state      = READY;
        f.at         = {nullptr, 0};
        f.n_meetings = 0;
        f.index      = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    }
    for (warp &w : runner.warps)
        w.n_arrived = 0;
    runner.n_at_barrier = runner.n_returned = 0;
    if (dynamic_shared_bytes > 0) {
        runner.dynamic_shared = malloc(dynamic_shared_bytes);
        memset(runner.dynamic_shared, 0xff, dynamic_shared_bytes);
    }
    while (runner.n_returned < runner.n_threads)
        if (!run_round())
            stop("a barrier is not reached by all threads", {"the scheduler", 0});
    for (shared_piece &piece : runner.shared)
        free(piece.memory);
    runner.shared.clear();
    free(runner.dynamic_shared);
    runner.dynamic_shared = nullptr;
}

} // namespace

void host_launch(dim3 grid, dim3 block, size_t dynamic_shared_bytes, void (*body)(void *), void *context)
{
    const char *seed    = getenv("TROUPE_CUDA_HOST_SEED");
    runner.random       = seed ? strtoull(seed, nullptr, 10) : 0;
    runner.n_threads    = block.x * block.y * block.z;
    runner.body         = body;
    runner.body_context = context;
    if (runner.n_threads == 0 || runner.n_threads > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
        grid.y > 65535 || grid.z > 65535 || dynamic_shared_bytes > 227 * 1024) {
        fprintf(stderr, "cuda host: no GPU would launch a grid of (%u,%u,%u) blocks of %u threads with %zu bytes\n",
                grid.x, grid.y, grid.z, runner.n_threads, dynamic_shared_bytes);
        abort();
    }
    ensure_fibers(runner.n_threads);
    blockDim = block;
    gridDim  = grid;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                run_block(dynamic_shared_bytes);
            }
}

void *host_shared(const char *file, int line, size_t bytes)
{
    for (shared_piece &piece : runner.shared)
        if (piece.at.line == line && strcmp(piece.at.file, file) == 0 && piece.bytes == bytes)
            return piece.memory;
    void *memory = aligned_alloc(16, (bytes + 15) / 16 * 16);
    memset(memory, 0xff, bytes);
    runner.shared.push_back({{file, line}, bytes, memory});
    return memory;
}

void *host_shared_dynamic()
{
    return runner.dynamic_shared;
}

void host_block_barrier(const char *file, int line)
{
    fiber *f = runner.current;
    f->at    = {file, line};
    if (runner.n_returned > 0)
        stop("a barrier after some threads have returned", f->at);
    if (++runner.n_at_barrier < runner.n_threads) {
        f->state = AT_BARRIER;
        switch_to_scheduler(f);
        return;
    }
    for (unsigned i = 0; i < runner.n_threads; i++) {
        fiber &other = runner.fibers[i];
        if (other.at.line != line || strcmp(other.at.file, file) != 0)
            stop("threads wait at different barriers", f->at);
        other.state = READY;
    }
    runner.n_at_barrier = 0;
}

const void *host_warp_meet(const char *file, int line, unsigned mask, const void *give, size_t bytes)
{
    fiber   *f      = runner.current;
    unsigned thread = (unsigned)(f - runner.fibers.data()), lane = thread % LANES, first = thread - lane;
    warp    &w = runner.warps[thread / LANES];
    f->at      = {file, line};
    if (mask != 0xffffffffu || first + LANES > runner.n_threads)
        stop("a meeting of less than a whole warp", f->at);
    if (bytes > MEETING_BYTES)
        stop("a meeting with too many bytes", f->at);
    unsigned char *given = w.given[f->n_meetings++ % 2];
    if (w.n_arrived > 0 && w.bytes != bytes)
        stop("lanes of a warp meet with different things", f->at);
    w.bytes = bytes;
    memcpy(given + lane * bytes, give, bytes);
    if (++w.n_arrived < LANES) {
        f->state = AT_MEETING;
        switch_to_scheduler(f);
        return given;
    }
    w.n_arrived = 0;
    for (unsigned i = first; i < first + LANES; i++) {
        fiber &other = runner.fibers[i];
        if (other.at.line != line || strcmp(other.at.file, file) != 0)
            stop("lanes of a warp wait at different places", f->at);
        other.state = READY;
    }
    return given;
}
