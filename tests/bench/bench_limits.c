// links: kernels
/* What this machine can do at most, each figure the best of many short tries, as a line of JSON: bytes read a second
 * from memory and from the last-level cache, and multiply-adds a second by instruction. The bounds that the other
 * benchmarks' figures are shares of.
 *
 *     bench_limits [n_threads] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"
#include "kernels/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/gemm/tiles_amx.h"
#endif

enum { PIECE_BYTES = 1 << 20, PIECES = 192, CACHE_PIECES = 6, ROUNDS = 9, STEPS = 200000, CHAINS = 12 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static const unsigned char *ring;
static volatile uint64_t    sink; /* what is summed must be wanted by somebody */

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void read_piece(void *job, uint32_t slice, uint32_t worker)
{
    (void)job, (void)worker;
    const unsigned char *at     = ring + (size_t)slice * PIECE_BYTES;
    __m256i              sum[8] = {_mm256_setzero_si256()};
    for (size_t i = 0; i < PIECE_BYTES; i += sizeof sum) {
        for (size_t k = 0; k < 8; k++) {
            sum[k] = _mm256_xor_si256(sum[k], _mm256_load_si256((const __m256i *)(at + i) + k));
        }
    }
    for (size_t k = 1; k < 8; k++) {
        sum[0] = _mm256_xor_si256(sum[0], sum[k]);
    }
    sink ^= (uint64_t)_mm256_extract_epi64(sum[0], 0);
}
#else
static void read_piece(void *job, uint32_t slice, uint32_t worker)
{
    (void)job, (void)worker;
    const uint64_t *at     = (const uint64_t *)(ring + (size_t)slice * PIECE_BYTES);
    uint64_t        sum[8] = {0};
    for (size_t i = 0; i < PIECE_BYTES / sizeof(uint64_t); i++) {
        sum[i % 8] ^= at[i];
    }
    sink ^= sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}
#endif

/* GB/s of reading the first n_pieces of the ring, again and again. */
static double read_speed(thread_pool *pool, uint32_t n_pieces)
{
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_s();
        thread_pool_run(pool, read_piece, NULL, n_pieces);
        double each = now_s() - start;
        best        = each < best ? each : best;
    }
    return (double)n_pieces * PIECE_BYTES / best / 1e9;
}

/* ---- multiplying ------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* A loop of CHAINS independent chains of one instruction. */
#define CHAIN_LOOP(name, features, type, zero, step)                                                                   \
    __attribute__((target(features))) static void name(void *job, uint32_t slice, uint32_t worker)                     \
    {                                                                                                                  \
        (void)job, (void)slice, (void)worker;                                                                          \
        type sum[CHAINS], a = zero, b = zero;                                                                          \
        __asm__ volatile("" : "+x"(a), "+x"(b));                                                                       \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++)                                                      \
        {                                                                                                              \
            sum[i] = zero;                                                                                             \
        }                                                                                                              \
        for (int n = 0; n < STEPS; n++) {                                                                              \
            _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++)                                                  \
            {                                                                                                          \
                sum[i] = step;                                                                                         \
                __asm__ volatile("" : "+x"(sum[i]));                                                                   \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++)                                                      \
        {                                                                                                              \
            __asm__ volatile("" : "+x"(sum[i]));                                                                       \
        }                                                                                                              \
    }

CHAIN_LOOP(fma_avx2, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(a, b, sum[i]))
CHAIN_LOOP(int16_avx2, "avx2", __m256i, _mm256_setzero_si256(), _mm256_add_epi32(sum[i], _mm256_madd_epi16(sum[i], b)))
CHAIN_LOOP(fma_avx512, "avx512f", __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(a, b, sum[i]))
CHAIN_LOOP(int16_vnni, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_dpwssd_epi32(sum[i], a, b))
CHAIN_LOOP(int8_vnni, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(sum[i], a, b))

/* As many products of whole tiles. An activation of 16 bits is two rows of bytes: half the multiply-adds. */
__attribute__((target("amx-tile,amx-int8"))) static void int16_amx(void *job, uint32_t slice, uint32_t worker)
{
    (void)job, (void)slice, (void)worker;
    tile_config config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        config.n_rows[tile]    = 16;
        config.row_bytes[tile] = 64;
    }
    tile_configure(&config);
    for (int n = 0; n < STEPS * CHAINS / 4; n++) {
        tile_dot_i8(0, 4, 6);
        tile_dot_i8(1, 5, 6);
        tile_dot_i8(2, 4, 7);
        tile_dot_i8(3, 5, 7);
    }
    tile_release();
}

static const struct {
    const char        *name, *variant; /* the CPU variant that has the instruction */
    thread_pool_slice *loop;
    double             n_multiply_adds; /* an instruction */
} instructions[] = {
    {"float32_avx2", "avx2", fma_avx2, 8},        {"int16_avx2", "avx2", int16_avx2, 16},
    {"float32_avx512", "avx512", fma_avx512, 16}, {"int16_vnni", "avx512_vnni", int16_vnni, 32},
    {"int8_vnni", "avx512_vnni", int8_vnni, 64},  {"int16_amx", "avx512_amx", int16_amx, 16 * 16 * 64 / 2},
};

static bool runs_here(const char *variant)
{
    const char *names[8];
    uint32_t    n = kern_cpu_variants(names, 8);
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(names[i], variant) == 0) {
            return true;
        }
    }
    return false;
}

static void print_multiply_adds(thread_pool *pool, uint32_t n_threads)
{
    for (size_t k = 0; k < sizeof instructions / sizeof instructions[0]; k++) {
        double best = 1e9;
        if (!runs_here(instructions[k].variant)) {
            continue;
        }
        for (int round = 0; round < ROUNDS; round++) {
            double start = now_s();
            thread_pool_run(pool, instructions[k].loop, NULL, n_threads);
            double each = now_s() - start;
            best        = each < best ? each : best;
        }
        double all = (double)n_threads * STEPS * CHAINS * instructions[k].n_multiply_adds;
        printf(", \"%s_gmac_s\": %.1f", instructions[k].name, all / best / 1e9);
    }
}
#else
static void print_multiply_adds(thread_pool *pool, uint32_t n_threads)
{
    (void)pool, (void)n_threads;
}
#endif

int main(int argc, char **argv)
{
    uint32_t       n_threads = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1;
    thread_pool   *pool      = thread_pool_new(n_threads ? n_threads : 1);
    unsigned char *memory    = aligned_alloc(4096, (size_t)PIECES * PIECE_BYTES);
    if (!pool || !memory) {
        perror("bench_limits");
        return 1;
    }
    memset(memory, 1, (size_t)PIECES * PIECE_BYTES);
    ring = memory;
    printf("{\"threads\": %u, \"memory_gb_s\": %.2f", n_threads, read_speed(pool, PIECES));
    printf(", \"cache_gb_s\": %.2f", read_speed(pool, CACHE_PIECES));
    print_multiply_adds(pool, n_threads);
    printf("}\n");
    thread_pool_free(&pool);
    free(memory);
    return 0;
}
