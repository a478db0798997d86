/* Every operator on every device that this machine has, against the reference: the one place where all variants meet
 * all cases. The CUDA kernels run as the host's build of them (ctest names it in TROUPE_CUDA_HOST_LIBRARY), or on a GPU
 * when that names their library. Then the promises that are about bits, of the CPU's variants; those of CUDA, whose
 * host build takes minutes for as many, are kept by test_cuda_operators.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu_device.h"
#include "modelled_variants.h"
#include "support_cases.h"

enum { DEVICES_MAX = 16 };

/* The host's build of the CUDA kernels switches fibers all the time, which the address sanitizer makes five times
 * slower: there it takes one case of so many. A prime, so that all operators and formats have their turn. */
#if defined(__SANITIZE_ADDRESS__)
enum { CUDA_CASES = 5 };
#else
enum { CUDA_CASES = 1 };
#endif

typedef struct {
    kern_device *device;
    bool         cpu;      /* one of those whose bits must agree */
    bool         modelled; /* but gemm and attention, what it has is another's */
} tested_device;

static const modelled_variant modelled[] = {
    {"avx512_amx modelled in plain C", "portable", tiles_over_portable},
#if defined(__x86_64__)
    {"avx512_amx modelled over avx512", "avx512", tiles_over_avx512},
    {"avx2_vnni by avx512_vnni", "avx512_vnni", avx2_vnni_over_avx512},
#endif
};

static kernel_case  *cases;
static uint32_t      n_cases, n_devices;
static tested_device devices[DEVICES_MAX];

static bool runs_here(const char *variant)
{
    const char *here[8];
    bool        found = false;
    for (uint32_t i = 0, n = kern_cpu_variants(here, 8); i < n; i++) {
        found |= strcmp(variant, here[i]) == 0;
    }
    if (!found) {
        print_message("SKIPPED: what needs cpu %s, which this CPU can't run\n", variant);
    }
    return found;
}

/* Past kern_device_open, which does not know them. */
static kern_device *open_modelled(const modelled_variant *variant)
{
    char                why[KERN_WHY_BYTES];
    const kern_backend *backend = variant->backend();
    kern_device_options options = {.variant = variant->name, .n_threads = 2};
    cpu_device         *device  = (cpu_device *)backend->device_open(&options, why);
    if (device) {
        device->backend = backend;
    }
    return case_device_reserved((kern_device *)device, why);
}

static int open_devices(void **state)
{
    (void)state;
    static const char *all[]   = {"avx512_amx", "avx512_vnni", "avx512", "avx2_vnni", "avx2", "portable"};
    const char        *library = getenv("TROUPE_CUDA_HOST_LIBRARY");
    for (uint32_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (runs_here(all[i])) {
            devices[n_devices++] = (tested_device){case_device("cpu", all[i], NULL, 2), .cpu = true};
        }
    }
    for (uint32_t i = 0; i < sizeof modelled / sizeof modelled[0]; i++) {
        if (runs_here(modelled[i].needs)) {
            kern_device *device  = open_modelled(&modelled[i]);
            devices[n_devices++] = (tested_device){device, .cpu = true, .modelled = true};
        }
    }
    if (library) {
        devices[n_devices++] = (tested_device){case_device("cuda", NULL, library, 1), .cpu = false};
    } else {
        print_message("SKIPPED: cuda on the host, as TROUPE_CUDA_HOST_LIBRARY does not name its library\n");
    }
    cases = kernel_cases_new(&n_cases);
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < n_devices; i++) {
        kern_device_close(&devices[i].device);
    }
    free(cases);
    return 0;
}

static bool has_case(const tested_device *d, const kernel_case *c)
{
    return !d->modelled || strncmp(c->name, "gemm", 4) == 0 || strncmp(c->name, "attention", 9) == 0;
}

static void assert_near(const kernel_case *c, kern_device *device, const case_output *truth, const case_output *got)
{
    assert_int_equal(truth->n, got->n);
    for (size_t i = 0; i < truth->n; i++) {
        float wanted = truth->values[i], value = got->values[i];
        bool  near = value == wanted || fabsf(value - wanted) <= truth->bounds[i];
        if (!near) {
            fail_msg("%s on %s: value %zu is %.9g, expected %.9g within %.3g", c->name, kern_device_name(device), i,
                     (double)value, (double)wanted, (double)truth->bounds[i]);
        }
    }
}

static void assert_same_bits(const kernel_case *c, const char *what, const float *wanted, const float *got, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&wanted[i], &got[i], 4) != 0) {
            fail_msg("%s, %s: value %zu is %.9g, expected the bits of %.9g", c->name, what, i, (double)got[i],
                     (double)wanted[i]);
        }
    }
}

static void every_operator_on_every_device_is_near_the_reference(void **state)
{
    (void)state;
    kern_device *ref = case_device("ref", NULL, NULL, 1);
    for (uint32_t i = 0; i < n_cases; i++) {
        case_output truth, got;
        kernel_case_run_part(&cases[i], ref, NULL, &truth);
        for (uint32_t d = 0; d < n_devices; d++) {
            if ((!devices[d].cpu && i % CUDA_CASES) || !has_case(&devices[d], &cases[i])) {
                continue;
            }
            if (!kernel_case_fits(&cases[i], devices[d].device)) {
                print_message("SKIPPED: %s, which %s refuses\n", cases[i].name, kern_device_name(devices[d].device));
                continue;
            }
            kernel_case_run_part(&cases[i], devices[d].device, NULL, &got);
            assert_near(&cases[i], devices[d].device, &truth, &got);
            case_output_free(&got);
        }
        case_output_free(&truth);
    }
    print_message("%u cases on %u devices\n", n_cases, n_devices);
    kern_device_close(&ref);
}

static void cpu_variants_give_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < n_cases; i++) {
        case_output first, other;
        kernel_case_run_part(&cases[i], devices[0].device, NULL, &first);
        for (uint32_t d = 1; d < n_devices && devices[d].cpu; d++) {
            if (!has_case(&devices[d], &cases[i])) {
                continue;
            }
            kernel_case_run_part(&cases[i], devices[d].device, NULL, &other);
            assert_same_bits(&cases[i], kern_device_name(devices[d].device), first.values, other.values, first.n);
            case_output_free(&other);
        }
        case_output_free(&first);
    }
}

/* Each row alone, and the batch in two halves. */
static void a_row_depends_on_its_own_inputs_alone(void **state)
{
    (void)state;
    for (uint32_t d = 0; d < n_devices && devices[d].cpu; d++) {
        for (uint32_t i = 0; i < n_cases; i++) {
            const kernel_case *c = &cases[i];
            case_output        batch, part;
            if (!c->by_row || (c->n_rows > 20 && d > 0) || !kernel_case_fits(c, devices[d].device) ||
                !has_case(&devices[d], c)) {
                continue;
            }
            kernel_case_run_part(c, devices[d].device, NULL, &batch);
            size_t width = batch.n / c->n_rows;
            for (uint32_t row = 0; row < c->n_rows; row += 1 + c->n_rows / 8) {
                kernel_case_run_part(c, devices[d].device, &(case_part){.first = row, .n = 1}, &part);
                assert_same_bits(c, "a row alone", batch.values + row * width, part.values, width);
                case_output_free(&part);
            }
            uint32_t half = c->n_rows / 2;
            kernel_case_run_part(c, devices[d].device, &(case_part){.first = half, .n = c->n_rows - half}, &part);
            assert_same_bits(c, "the second half of the rows", batch.values + half * width, part.values, part.n);
            case_output_free(&part);
            case_output_free(&batch);
        }
    }
}

static void attention_is_the_same_however_its_rows_are_cut(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {1, 5, 16};
    for (uint32_t d = 0; d < n_devices && devices[d].cpu; d++) {
        for (uint32_t i = 0; i < n_cases; i++) {
            case_output whole, cut;
            if (strncmp(cases[i].name, "attention", 9) != 0 || devices[d].modelled) {
                continue;
            }
            kernel_case_run_part(&cases[i], devices[d].device, NULL, &whole);
            for (uint32_t k = 0; k < 3; k++) {
                kernel_case_run_part(&cases[i], devices[d].device, &(case_part){.chunk = chunks[k]}, &cut);
                assert_same_bits(&cases[i], "in chunks", whole.values, cut.values, whole.n);
                case_output_free(&cut);
            }
            case_output_free(&whole);
        }
    }
}

static void any_number_of_threads_gives_the_same_bits(void **state)
{
    (void)state;
    kern_device *threads[3];
    for (uint32_t n = 0; n < 3; n++) {
        threads[n] = case_device("cpu", NULL, NULL, n + 1);
    }
    for (uint32_t i = 0; i < n_cases; i++) {
        case_output one, more;
        kernel_case_run_part(&cases[i], threads[0], NULL, &one);
        for (uint32_t n = 1; n < 3; n++) {
            kernel_case_run_part(&cases[i], threads[n], NULL, &more);
            assert_same_bits(&cases[i], kern_device_name(threads[n]), one.values, more.values, one.n);
            case_output_free(&more);
        }
        case_output_free(&one);
    }
    for (uint32_t n = 0; n < 3; n++) {
        kern_device_close(&threads[n]);
    }
}

/* A NaN in one row of activations reaches that row's outputs, and no other row's. */
static void a_nan_stays_in_its_row(void **state)
{
    (void)state;
    enum { ROWS = 20, COLUMNS = 256, TOKENS = 9 };
    static unsigned char data[ROWS * COLUMNS * 4];
    char                 why[KERN_WHY_BYTES];
    float                x[TOKENS * COLUMNS] = {0}, y[TOKENS * ROWS];
    x[COLUMNS + 40]                          = NAN;
    for (kern_dtype dtype = 0; dtype < KERN_N_DTYPES; dtype++) {
        for (uint32_t d = 0; d < n_devices; d++) {
            kern_device *device = devices[d].device;
            if (!kernel_device_has(device, dtype)) {
                continue;
            }
            kern_matrix    source  = {dtype, ROWS, COLUMNS, data};
            kern_weight   *weight  = kern_weight_new(device, &source, why);
            kern_gemm_args args    = {.x = kern_alloc(device, sizeof x), .n_tokens = TOKENS, .n_outputs = 1};
            args.outputs[0].weight = weight;
            args.outputs[0].y      = kern_alloc(device, sizeof y);
            kern_upload(device, (void *)args.x, x, sizeof x);
            kern_gemm(device, &args);
            kern_synchronize(device);
            kern_download(device, y, args.outputs[0].y, sizeof y);
            for (uint32_t i = 0; i < TOKENS * ROWS; i++) {
                assert_int_equal(isnan(y[i]) != 0, i / ROWS == 1);
            }
            kern_free(device, (void *)args.x);
            kern_free(device, args.outputs[0].y);
            kern_weight_free(device, &weight);
        }
    }
}

/* Attention of one query at `position` of block 1, whose positions up to there were written with `k`. */
static void attend_block(kern_device *device, kern_kv_cache *cache, const float *k, uint32_t n_written,
                         uint32_t position, float *out)
{
    enum { WIDTH = 48 };
    uint32_t      slots[KERN_KV_BLOCK_TOKENS], table = 1;
    kern_sequence sequence = {0, 1, position, 0};
    for (uint32_t i = 0; i < n_written; i++) {
        slots[i] = KERN_KV_BLOCK_TOKENS + i;
    }
    const void *host[]  = {k, slots, &table, &sequence};
    size_t      bytes[] = {n_written * WIDTH * 4, n_written * 4, 4, sizeof sequence};
    void       *memory[4], *result = kern_alloc(device, WIDTH * 4);
    for (uint32_t i = 0; i < 4; i++) {
        memory[i] = kern_alloc(device, bytes[i]);
        kern_upload(device, memory[i], host[i], bytes[i]);
    }
    kern_kv_write(device, &(kern_kv_write_args){cache, 0, memory[0], memory[0], memory[1], n_written});
    kern_attention(device, &(kern_attention_args){.cache        = cache,
                                                  .q            = memory[0],
                                                  .out          = result,
                                                  .sequences    = memory[3],
                                                  .block_tables = memory[2],
                                                  .n_sequences  = 1,
                                                  .n_tokens     = 1,
                                                  .n_heads      = 1,
                                                  .scale        = 0.2f});
    kern_synchronize(device);
    kern_download(device, out, result, WIDTH * 4);
    for (uint32_t i = 0; i < 4; i++) {
        kern_free(device, memory[i]);
    }
    kern_free(device, result);
}

/* A block that an ill sequence left full of NaN and infinities serves the next one as a fresh block does; and whoever
 * sees such a key gets NaN. */
static void what_a_block_held_before_counts_nothing(void **state)
{
    (void)state;
    enum { WIDTH = 48, N = 6 };
    static const kern_dtype dtypes[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_Q8_0, KERN_Q4_1};
    float k[KERN_KV_BLOCK_TOKENS * WIDTH], ill[KERN_KV_BLOCK_TOKENS * WIDTH], fresh[WIDTH], got[WIDTH];
    char  why[KERN_WHY_BYTES];
    for (uint32_t i = 0; i < KERN_KV_BLOCK_TOKENS * WIDTH; i++) {
        k[i]   = sinf((float)i);
        ill[i] = i % 3 ? (i % 2 ? NAN : INFINITY) : k[i];
    }
    for (uint32_t i = 0; i < n_devices * 5; i++) {
        kern_device   *device = devices[i / 5].device;
        kern_kv_shape  shape  = {1, 2, 1, WIDTH, dtypes[i % 5]};
        kern_kv_cache *cache  = kern_kv_cache_new(device, &shape, why);
        attend_block(device, cache, k, N, N - 1, fresh);
        attend_block(device, cache, ill, KERN_KV_BLOCK_TOKENS, KERN_KV_BLOCK_TOKENS - 1, got);
        assert_true(isnan(got[0]) && isnan(got[WIDTH - 1]));
        attend_block(device, cache, k, N, N - 1, got);
        assert_memory_equal(fresh, got, sizeof fresh);
        assert_true(isfinite(got[0]));
        kern_kv_cache_free(device, &cache);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operator_on_every_device_is_near_the_reference),
        cmocka_unit_test(cpu_variants_give_the_same_bits),
        cmocka_unit_test(a_row_depends_on_its_own_inputs_alone),
        cmocka_unit_test(attention_is_the_same_however_its_rows_are_cut),
        cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(a_nan_stays_in_its_row),
        cmocka_unit_test(what_a_block_held_before_counts_nothing),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
