/* Cases for every operator: shapes, number formats and magnitudes, with inputs drawn from a seed, so that any device
 * can run them and be compared with the reference. Each output comes with the largest difference from the reference
 * that is right for it. */
#ifndef TROUPE_TESTS_KERNELS_SUPPORT_CASES_H
#define TROUPE_TESTS_KERNELS_SUPPORT_CASES_H

#include "kernels/kernels.h"

/* Which rows of a case's batch to run, and how attention cuts its sequences. */
typedef struct {
    uint32_t first, n; /* rows; n 0: all */
    uint32_t chunk;    /* attention: the most rows of a sequence in a call; 0: all */
} case_part;

typedef struct {
    float *values, *bounds; /* [n]: bounds[i] is what values[i] may differ from the reference by */
    size_t n;
} case_output;

typedef struct kernel_case kernel_case;
typedef void               kernel_case_run(const kernel_case *, kern_device *, const case_part *, case_output *);

struct kernel_case {
    char             name[120];
    kernel_case_run *run;
    uint32_t         n_rows; /* of the batch; each gives output.n / n_rows values */
    bool             by_row; /* a part of the rows can be run alone */
    uint64_t         seed;
    float            magnitude;
    union {
        struct {
            kern_dtype dtypes[KERN_GEMM_OUTPUTS_MAX];
            uint32_t   n_outputs, weight_rows[KERN_GEMM_OUTPUTS_MAX], n_cols;
            bool       bias, accumulate;
        } gemm;
        struct {
            kern_dtype dtype;
            uint32_t   n_vocab, n_cols;
            bool       accumulate;
        } embed;
        struct {
            uint32_t n_cols, row_stride;
            bool     in_place, accumulate;
        } rmsnorm;
        struct {
            uint32_t n_cols;
            bool     in_place;
            float    center; /* of the rows' values, in magnitudes */
        } layernorm;
        struct {
            uint32_t n_cols, n_longest;
        } pool;
        struct {
            uint32_t        n_heads, head_dim, rope_dim;
            kern_rope_pairs pairs;
        } rope;
        struct {
            uint32_t        n_cols;
            kern_activation activation;
            bool            alone; /* nothing is multiplied by it */
        } glu;
        struct {
            uint32_t n_cols;
            float    cap; /* of kern_softcap; 0: the rows as they are */
        } gather;
        struct {
            kern_dtype dtype;
            uint32_t   n_heads, n_kv_heads, head_dim, window, n_sequences;
            uint32_t   position[4], n_q[4];
            float      softcap;
            bool       copied; /* the blocks that are read are copies */
            bool       bidirectional;
        } attention;
        struct {
            uint32_t        n_vocab, n_edits;
            kern_sample_row row;
            enum { LOGITS_RANDOM, LOGITS_TIED, LOGITS_BROKEN, LOGITS_NONE } logits;
        } sample;
    };
};

/* All cases; the caller frees the array. */
kernel_case *kernel_cases_new(uint32_t *n);

/* False where the device refuses a number format, as cuda may refuse the newer ones by name; any other refusal fails
 * the test. A case fits when its formats do. */
bool kernel_device_has(kern_device *, kern_dtype);
bool kernel_case_fits(const kernel_case *, kern_device *);

/* Runs a part of a case; the caller frees output's arrays with case_output_free. */
void kernel_case_run_part(const kernel_case *, kern_device *, const case_part *, case_output *output);
void case_output_free(case_output *output);

/* Opens a device with limits that suit every case; fails the test when it can't. */
kern_device *case_device(const char *backend, const char *variant, const char *library, uint32_t n_threads);

/* Gives an open device these limits; NULL or a refusal fails the test with `why`. */
kern_device *case_device_reserved(kern_device *device, char *why);

#endif
