/* Which variants of the CPU backend this machine can run: what the CPU has, and what the operating system saves of it.
 */
#include <string.h>

#include "kernels/cpu_device.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    XSTATE_AVX    = 0x6,
    XSTATE_AVX512 = 0xe6,
    XSTATE_TILES  = 0x60000
}; /* XCR0: SSE and AVX; those and opmask, upper halves, upper registers; shapes and data of tiles */

/* Register state that the operating system switches between threads (Intel SDM vol. 1, 13.3). */
static uint32_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool all_of(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

static bool has_avx2(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !all_of(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C)) {
        return false;
    }
    return all_of(saved_state(), XSTATE_AVX) && __get_cpuid_count(7, 0, &a, &b, &c, &d) && all_of(b, bit_AVX2);
}

static bool has_avx2_vnni(void)
{
    enum { EAX_AVX_VNNI = 1 << 4 };
    uint32_t a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && all_of(a, EAX_AVX_VNNI);
}

static bool has_avx512(void)
{
    uint32_t a, b, c, d;
    return has_avx2() && all_of(saved_state(), XSTATE_AVX512) && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           all_of(b, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL);
}

static bool has_avx512_vnni(void)
{
    uint32_t a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && all_of(c, bit_AVX512VNNI);
}

/* Linux saves the data of tiles for processes that asked (from 5.16 on); asking twice does no harm. Sandboxes may
 * refuse what the CPU has. */
static bool has_avx512_amx(void)
{
    enum {
        EDX_AMX_TILE  = 1 << 24,
        EDX_AMX_INT8  = 1 << 25,
        REQUEST_STATE = 0x1023, /* ARCH_REQ_XCOMP_PERM, which older headers lack */
        STATE_OF_DATA = 18,
    };
    uint32_t a, b, c, d;
    return has_avx512_vnni() && all_of(saved_state(), XSTATE_TILES) && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           all_of(d, EDX_AMX_TILE | EDX_AMX_INT8) && syscall(SYS_arch_prctl, REQUEST_STATE, STATE_OF_DATA) == 0;
}
#endif

static bool always(void)
{
    return true;
}

static const struct {
    const char *name;
    bool (*runs_here)(void);
    const kern_backend *backend;
} variants[] = {
#if defined(__x86_64__)
    {"avx512_vnni", has_avx512_vnni, &cpu_backend_avx512_vnni},
    {"avx512_amx", has_avx512_amx, &cpu_backend_avx512_amx}, /* first, once it has proved itself on hardware */
    {"avx512", has_avx512, &cpu_backend_avx512},
    {"avx2_vnni", has_avx2_vnni, &cpu_backend_avx2_vnni},
    {"avx2", has_avx2, &cpu_backend_avx2},
#endif
    {"portable", always, &cpu_backend_portable},
};

enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

uint32_t kern_cpu_variants(const char **names, uint32_t n_max)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < N_VARIANTS && n < n_max; i++) {
        if (variants[i].runs_here()) {
            names[n++] = variants[i].name;
        }
    }
    return n;
}

const kern_backend *cpu_variant_backend(const char **variant)
{
    for (uint32_t i = 0; i < N_VARIANTS; i++) {
        if (strcmp(variants[i].name, *variant) == 0 && variants[i].runs_here()) {
            *variant = variants[i].name;
            return variants[i].backend;
        }
    }
    return NULL;
}
