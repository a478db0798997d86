/* What the host build must find in a faulty kernel. Each fault runs in a child, which must abort with the right
 * sentence. */
#include "kernels/cuda/launch.cuh"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static __global__ void half_of_the_block_waits()
{
    if (threadIdx.x < 32)
        __syncthreads();
}

static __global__ void two_barriers_are_mixed_up()
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

static __global__ void half_of_a_warp_shuffles()
{
    if (threadIdx.x % 32 < 16)
        __shfl_xor_sync(0xffffffffu, 1, 1);
}

static __global__ void one_thread_more_than_a_gpu_has()
{
}

/* Sums what the other warp wrote; without the barrier it may not be there yet. */
static __global__ void exchange(float *out, bool with_barrier)
{
    SHARED(float, values, 64);
    values[threadIdx.x] = 1.0f;
    if (with_barrier)
        __syncthreads();
    out[threadIdx.x] = values[63 - threadIdx.x];
}

static bool aborts_with(void (*launch)(), const char *sentence)
{
    int  ends[2], status = 0;
    char said[4096];
    if (pipe(ends) != 0)
        return false;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        launch();
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; n < sizeof said - 1 && (got = read(ends[0], said + n, sizeof said - 1 - n)) > 0;)
        n += (size_t)got;
    said[n] = 0;
    close(ends[0]);
    waitpid(child, &status, 0);
    bool right = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(said, sentence);
    printf("%s: %s\n", right ? "ok" : "FAILED", sentence);
    return right;
}

static bool exchange_is_right_for_all_seeds(bool with_barrier)
{
    bool right = true;
    for (int seed = 0; seed < 8; seed++) {
        float out[64];
        char  text[8];
        snprintf(text, sizeof text, "%d", seed);
        setenv("TROUPE_CUDA_HOST_SEED", text, 1);
        LAUNCH(exchange, 1, 64, 0, 0, out, with_barrier);
        for (float value : out)
            right = right && value == 1.0f;
    }
    return right;
}

int main()
{
    bool found = aborts_with([] { LAUNCH(half_of_the_block_waits, 1, 64, 0, 0); }, "barrier");
    found &= aborts_with([] { LAUNCH(two_barriers_are_mixed_up, 1, 64, 0, 0); }, "different barriers");
    found &= aborts_with([] { LAUNCH(half_of_a_warp_shuffles, 1, 32, 0, 0); }, "not reached by all threads");
    found &= aborts_with([] { LAUNCH(one_thread_more_than_a_gpu_has, 1, 1025, 0, 0); }, "no GPU would launch");
    bool with = exchange_is_right_for_all_seeds(true), without = exchange_is_right_for_all_seeds(false);
    printf("%s: a missing barrier shows, a present one does not\n", with && !without ? "ok" : "FAILED");
    return found && with && !without ? 0 : 1;
}
