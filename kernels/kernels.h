/* The whole contract between a model and the hardware it runs on.
 *
 * A device (CPU or GPU) offers memory, packed weights, a paged KV cache, and the operators below on ragged batches:
 * `n_tokens` rows of activations that belong to several sequences. The forward pass is written once over this header; a
 * backend is one struct of functions (kernels/backend.h).
 *
 * Rules that every backend keeps:
 *  - Batch-invariant: a row's result depends on that row's inputs alone, never on n_tokens, on how rows are split
 * between threads, or on where a row stands. Sums run in one fixed order for a given (operator, weight, length).
 *  - All variants of the CPU backend (portable, avx2, avx512, ...) give the same bits; `ref` is plain float32 and the
 * truth that they are compared with, within stated tolerances (tests/unit/kernels/test_operators.c).
 *  - Activations are float32. Row-major, innermost dimension last; shapes stand in brackets.
 *  - Pointers in argument structs are device memory unless named host_. Operators of one device run in order; they may
 * return before the work is done; kern_synchronize waits. No operator allocates: kern_reserve sizes the scratch memory
 * once.
 *  - Sizes that only a bug can get wrong are asserted; what comes from a file or a flag (an unsupported type or shape,
 * no memory) is refused with a sentence at kern_weight_new, kern_kv_cache_new, kern_reserve.
 *  - One thread at a time uses a device. */
#ifndef TROUPE_KERNELS_KERNELS_H
#define TROUPE_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- types of numbers
 * ------------------------------------------------------------------------------------------------ */

/* Block formats are those of GGUF: see kernels/dtype.h for the layouts. A backend may refuse some (kern_weight_new). */
typedef enum {
    KERN_F32,
    KERN_F16,
    KERN_BF16,
    KERN_Q4_0,
    KERN_Q4_1,
    KERN_Q5_0,
    KERN_Q5_1,
    KERN_Q8_0,
    KERN_Q2_K,
    KERN_Q3_K,
    KERN_Q4_K,
    KERN_Q5_K,
    KERN_Q6_K,
    KERN_IQ4_NL,
    KERN_IQ4_XS,
    KERN_N_DTYPES
} kern_dtype;

const char *kern_dtype_name(kern_dtype dtype);        /* "Q4_1" */
uint32_t    kern_dtype_block(kern_dtype dtype);       /* elements a block: 1 or 32 */
uint32_t    kern_dtype_block_bytes(kern_dtype dtype); /* bytes a block */

/* Bytes of n elements (a multiple of the block), 0 when n is not. */
size_t kern_dtype_bytes(kern_dtype dtype, uint64_t n);

/* Dequantises n elements (a multiple of the block) to float32, exactly as `gguf` for Python does. Unaligned source.
 * Host memory. */
void kern_dequantize(kern_dtype dtype, const void *source, float *out, uint64_t n);

/* ---- devices
 * --------------------------------------------------------------------------------------------------------- */

typedef struct kern_device   kern_device;
typedef struct kern_weight   kern_weight;
typedef struct kern_kv_cache kern_kv_cache;

enum { KERN_WHY_BYTES = 256 };

typedef struct {
    const char *backend; /* "cpu", "ref", "cuda"; NULL: cuda when its library and a GPU are there, else cpu */
    const char *variant; /* cpu: "portable", "avx2", "avx512", ...; NULL: the best that this CPU has */
    const char
            *library; /* cuda: path of the backend's shared library; NULL: beside the program, then the loader's path */
    uint32_t n_threads; /* cpu, ref: threads that compute, the caller's included; 0: one a core */
    uint32_t device_index;
} kern_device_options;

/* NULL with a sentence in why[KERN_WHY_BYTES] when there is no such backend, variant, or device here. */
kern_device *kern_device_open(const kern_device_options *options, char *why);
void         kern_device_close(kern_device **device);

const char *kern_device_name(const kern_device *device);    /* "cpu avx2, 2 threads" */
const char *kern_device_variant(const kern_device *device); /* "avx2" */

/* Devices that give the same bits have the same: all variants of the CPU "cpu"; "ref"; a GPU what it is called. */
const char *kern_device_arithmetic(const kern_device *device);

/* Fills names[] with the CPU variants that this machine can run, best first; returns how many. */
uint32_t kern_cpu_variants(const char **names, uint32_t n_max);

/* Zeroed memory of the device, aligned to 64 bytes; NULL when there is not enough. */
void *kern_alloc(kern_device *device, size_t bytes);
void  kern_free(kern_device *device, void *memory);

/* Copies between host and device memory. An upload has left the host's buffer when it returns; a download has arrived.
 */
void kern_upload(kern_device *device, void *to, const void *host_from, size_t bytes);
void kern_download(kern_device *device, void *host_to, const void *from, size_t bytes);
void kern_synchronize(kern_device *device);

/* True when device pointers may be read and written by the host directly (CPU). */
bool kern_is_host(const kern_device *device);

/* The largest shapes that will come; sizes the scratch memory. False with a sentence when there is not enough memory.
 */
typedef struct {
    uint32_t n_tokens; /* rows a step */
    uint32_t n_cols;   /* widest input of a gemm */
    uint32_t n_sequences;
    uint32_t n_heads, head_dim;
    uint32_t n_vocab;
    uint32_t n_sample_rows;
} kern_limits;

bool kern_reserve(kern_device *device, const kern_limits *limits, char *why);

/* ---- weights
 * --------------------------------------------------------------------------------------------------------- */

/* A matrix as a model file holds it: [n_rows][n_cols], n_cols a multiple of the dtype's block. Host memory, unaligned.
 */
typedef struct {
    kern_dtype  dtype;
    uint32_t    n_rows, n_cols;
    const void *host_data;
} kern_matrix;

/* Packs a matrix into the layout that this device's gemm and embed want. The source is not needed afterwards. */
kern_weight *kern_weight_new(kern_device *device, const kern_matrix *source, char *why);
void         kern_weight_free(kern_device *device, kern_weight **weight);
size_t       kern_weight_bytes(const kern_weight *weight);

/* Weights of the same shape and dtype in a layout of the same name and version are the same bytes, so they may be kept
 * in a file and mapped by several processes. */
typedef struct {
    const char *name; /* "quads"; NULL: this device's weights are not in the host's memory */
    uint32_t    version;
} kern_weight_layout;

enum { KERN_WEIGHT_ALIGNMENT = 64 };

kern_weight_layout kern_device_weight_layout(const kern_device *device);

/* The packed bytes, kern_weight_bytes of them; for devices with a layout. */
const void *kern_weight_packed(const kern_weight *weight);

/* A weight over `bytes` packed bytes at packed->host_data, which stay the caller's and must outlive it. NULL with a
 * sentence when the device has no layout, when they are not so many as this shape has, or not aligned. */
kern_weight *kern_weight_borrow(kern_device *device, const kern_matrix *packed, size_t bytes, char *why);

/* ---- paged KV cache
 * -------------------------------------------------------------------------------------------------- */

enum { KERN_KV_BLOCK_TOKENS = 16 };

/* Keys and values of all layers in blocks of KERN_KV_BLOCK_TOKENS positions. The layout inside is the backend's. In
 * Q8_0 and Q4_1 each head of a position is cut into blocks of 32 dimensions, keys rotated before
 * (kernels/kv/kv_quant.h) and the last block filled up. */
typedef struct {
    uint32_t   n_layers, n_blocks, n_kv_heads, head_dim;
    kern_dtype dtype; /* F32, F16, BF16, Q8_0 or Q4_1 */
} kern_kv_shape;

size_t         kern_kv_block_bytes(const kern_kv_shape *shape); /* one block, all layers, keys and values */
kern_kv_cache *kern_kv_cache_new(kern_device *device, const kern_kv_shape *shape, char *why);
void           kern_kv_cache_free(kern_device *device, kern_kv_cache **cache);

/* ---- operators
 * ------------------------------------------------------------------------------------------------------- */

/* out[t] (+)= row tokens[t] of the weight, dequantised, times `scale`.  Every tokens[t] < n_rows. */
typedef struct {
    const kern_weight *weight; /* [n_vocab][n_cols] */
    const uint32_t    *tokens; /* [n_tokens] */
    float             *out;    /* [n_tokens][n_cols] */
    float              scale;  /* 1, or sqrt(n_cols) for models that ask for it */
    uint32_t           n_tokens;
    bool               accumulate; /* add to what out holds (embeddings of positions and token types) */
} kern_embed_args;

/* out[t][c] = x[t][c] / sqrt(mean_c(x[t][c]^2) + epsilon) * weight[c]   (Zhang and Sennrich 2019, arXiv 1910.07467)
 * Rows are `row_stride` apart in x and out alike; out may be x unless `accumulate`. */
typedef struct {
    const float *x;
    const float *weight; /* [n_cols] */
    float       *out;
    float        epsilon;
    uint32_t     n_tokens, n_cols, row_stride;
    bool         accumulate; /* add to what out holds (a residual) */
} kern_rmsnorm_args;

/* out[t][c] = (x[t][c] - mean) / sqrt(variance + epsilon) * weight[c] + bias[c], both over the row; the variance is the
 * mean of squared distances (Ba et al. 2016, arXiv 1607.06450). out may be x. */
typedef struct {
    const float *x;             /* [n_tokens][n_cols] */
    const float *weight, *bias; /* [n_cols] */
    float       *out;           /* [n_tokens][n_cols] */
    float        epsilon;
    uint32_t     n_tokens, n_cols;
} kern_layernorm_args;

enum { KERN_GEMM_OUTPUTS_MAX = 3 };

/* For each output o: y_o[t][r] (+)= sum_c W_o[r][c] * x[t][c] + bias_o[r]. Several weights that read the same x share
 * the work on x (q, k, v; gate, up). Quantised weights: x is rounded to 16-bit integers in blocks of 32 columns with
 * one float scale each, so that the dot product of 32 columns (or of 16, where the weight's format has a scale for so
 * many) is an exact integer in every variant (the fidelity of two int8 planes: no measurable loss); a block of x with
 * nothing above 1e-30 counts as zeros; these results are added in float32 in column order. Float weights: float32
 * products, 16 partial sums by column modulo 16, added in a fixed tree. */
typedef struct {
    const float *x; /* [n_tokens][n_cols] */
    uint32_t     n_tokens, n_outputs;
    bool         accumulate; /* add to what y holds (a residual) */
    struct {
        const kern_weight *weight; /* [n_rows][n_cols] */
        const float       *bias;   /* [n_rows], or NULL */
        float             *y;      /* [n_tokens][n_rows] */
    } outputs[KERN_GEMM_OUTPUTS_MAX];
} kern_gemm_args;

typedef enum {
    KERN_ROPE_ADJACENT, /* pairs (2i, 2i+1): GGUF files of the llama architecture */
    KERN_ROPE_HALVES,   /* pairs (i, i + n/2): Hugging Face's rotate_half */
} kern_rope_pairs;

/* Rotates the first rope_dim elements of every head in place (Su et al. 2021, arXiv 2104.09864):
 * (a, b) -> (a cos - b sin, a sin + b cos). Angles are computed once a step on the host, for all layers and devices
 * alike. */
typedef struct {
    float          *x;       /* [n_tokens][n_heads][head_dim] */
    const float    *cos_sin; /* [n_tokens][rope_dim / 2][2] */
    uint32_t        n_tokens, n_heads, head_dim, rope_dim;
    kern_rope_pairs pairs;
} kern_rope_args;

/* Writes keys and values of n_tokens positions into the cache. slot = block * KERN_KV_BLOCK_TOKENS + place in the
 * block. */
typedef struct {
    kern_kv_cache  *cache;
    uint32_t        layer;
    const float    *k, *v; /* [n_tokens][n_kv_heads][head_dim] */
    const uint32_t *slots; /* [n_tokens] */
    uint32_t        n_tokens;
} kern_kv_write_args;

/* Copies whole blocks, all layers: from[i] -> to[i]. host pointers. Blocks are distinct. */
typedef struct {
    kern_kv_cache  *cache;
    const uint32_t *host_from, *host_to;
    uint32_t        n_blocks;
} kern_kv_copy_args;

/* The bytes of one block, all layers, kern_kv_block_bytes of them in the backend's own order: read into host memory, or
 * written from there. They mean the same in every cache of the same shape and dtype of the same kind of device. */
typedef struct {
    kern_kv_cache *cache;
    uint32_t       block;
    void          *host; /* not changed by a write */
    bool           into_cache;
} kern_kv_block_args;

/* The rows [q_start, q_start + n_q) of a batch belong to one sequence, at positions [position, position + n_q). */
typedef struct {
    uint32_t q_start, n_q;
    uint32_t position;    /* of row q_start; keys 0 .. position + i are visible to row q_start + i */
    uint32_t table_start; /* index into block_tables of this sequence's first block */
} kern_sequence;

/* Causal attention over the paged cache, or `bidirectional`: every row of a sequence sees keys 0 .. position + n_q - 1,
 * so that its rows must all be in one call. Keys of this step are included (kv_write runs first). Grouped-query: head h
 * reads KV head h / (n_heads / n_kv_heads). Online softmax over KV blocks in position order (Milakov and Gimelshein
 * 2018, arXiv 1805.02867; Dao 2022, arXiv 2205.14135): the order of sums depends on positions alone. score = scale *
 * q.k ; softcap > 0: softcap * tanh(score / softcap) ; window > 0: key j visible to position i iff i - j < window */
typedef struct {
    const kern_kv_cache *cache;
    uint32_t             layer;
    const float         *q;   /* [n_tokens][n_heads][head_dim] */
    float               *out; /* [n_tokens][n_heads][head_dim] */
    const kern_sequence *sequences;
    const uint32_t      *block_tables;
    uint32_t             n_sequences, n_tokens, n_heads;
    float                scale, softcap;
    uint32_t             window; /* 0 when bidirectional */
    bool                 bidirectional;
} kern_attention_args;

typedef enum { KERN_ACT_SILU, KERN_ACT_GELU_TANH, KERN_ACT_GELU_ERF } kern_activation;

/* out[t][c] = act(gate[t][c]) * up[t][c]  (Shazeer 2020, arXiv 2002.05202), or act(gate[t][c]) where up is NULL; out
 * may be gate. */
typedef struct {
    const float    *gate, *up;
    float          *out;
    uint32_t        n_tokens, n_cols;
    kern_activation activation;
} kern_glu_args;

/* out[i] = x[rows[i]]: the rows whose logits are wanted. */
typedef struct {
    const float    *x;    /* [.][n_cols] */
    const uint32_t *rows; /* [n_rows] */
    float          *out;  /* [n_rows][n_cols] */
    uint32_t        n_rows, n_cols;
} kern_gather_args;

/* out[i] = the mean of rows [first, first + n) of x, n >= 1: what stands for a text. Rows are added in order. */
typedef struct {
    uint32_t first, n;
} kern_rows;

typedef struct {
    const float     *x;    /* [.][n_cols] */
    const kern_rows *rows; /* [n_outputs] */
    float           *out;  /* [n_outputs][n_cols] */
    uint32_t         n_outputs, n_cols;
} kern_pool_args;

/* x[t][c] = cap * tanh(x[t][c] / cap), in place: logits bent into (-cap, cap). cap > 0. */
typedef struct {
    float   *x;
    float    cap;
    uint32_t n_tokens, n_cols;
} kern_softcap_args;

/* ---- sampling
 * -------------------------------------------------------------------------------------------------------- */

enum { KERN_TOP_MAX = 64 };

/* What a request's own history or its logit_bias does to one token's logit. */
typedef struct {
    uint32_t token;
    uint32_t n_output; /* times it stands in the output so far (frequency and presence penalty) */
    float    bias;
    bool     seen;   /* stands in prompt or output (repetition penalty) */
    bool     banned; /* logit becomes -inf */
} kern_logit_edit;

/* One row of logits and what to do with it. Neutral values: temperature 1, top_k 0, top_p 1, min_p 0, typical_p 1,
 * penalties 0, repetition_penalty 1. temperature 0 is greedy: the highest processed logit, the lowest id on a tie. */
typedef struct {
    float    temperature, top_p, min_p, typical_p;
    float    repetition_penalty, frequency_penalty, presence_penalty;
    uint32_t top_k;
    uint64_t seed;
    uint32_t position;             /* of the token to sample, counted from the sequence's first token */
    uint32_t edits_start, n_edits; /* into kern_sample_args.edits; each token at most once */
    uint32_t n_top;                /* how many of the most likely tokens to report, <= KERN_TOP_MAX */
    uint32_t target;               /* a token whose logprob and rank are wanted (prompt logprobs), or UINT32_MAX */
    bool     reports_edited;       /* penalties, bias and bans come before the reports (beam search follows those) */
} kern_sample_row;

/* Log probabilities are of the model's own distribution: log_softmax of the raw logits, before any processing; of the
 * edited ones in rows that ask for it. */
typedef struct {
    uint32_t token; /* sampled */
    float    logprob;
    uint32_t rank; /* of `token`, 0 = most likely */
    float    target_logprob;
    uint32_t target_rank;
    uint32_t n_top;
    uint32_t top_tokens[KERN_TOP_MAX]; /* by falling logprob, lower id first on a tie */
    float    top_logprobs[KERN_TOP_MAX];
    bool     no_finite; /* every logit was NaN or -inf, or is banned: `token` is meaningless */
} kern_sample_result;

/* Per row, in this order: report logprobs of the raw logits, unless that waits for the edits; repetition penalty on
 * `seen` tokens (logit / p when positive, * p when not; Keskar et al. 2019, arXiv 1909.05858), minus frequency_penalty
 * * n_output, minus presence_penalty when n_output > 0, plus bias, banned; divide by temperature; keep the top_k; then
 * typical_p (Meister et al. 2022, arXiv 2202.00666), then top_p (the smallest set of most likely tokens whose
 * probability reaches top_p), then min_p (at least min_p times the likeliest); each filter on the distribution
 * renormalised by the ones before and each keeping at least one token; then Gumbel-max: the token with the largest
 * logit[i] + g(seed, position, i),   g = -log(-log(u)),  u = (philox + 0.5) / 2^32, where philox is word i % 4 of
 * Philox4x32-10 (Salmon et al. 2011) with key (seed low, seed high), counter (i / 4, position, 0, 0). So a token is a
 * function of (distribution, seed, position), whoever asks and however often. */
typedef struct {
    float                 *logits; /* [n_rows][n_vocab], overwritten */
    const kern_sample_row *rows;
    const kern_logit_edit *edits;
    kern_sample_result    *results; /* [n_rows] */
    uint32_t               n_rows, n_vocab;
} kern_sample_args;

void kern_embed(kern_device *device, const kern_embed_args *args);
void kern_rmsnorm(kern_device *device, const kern_rmsnorm_args *args);
void kern_layernorm(kern_device *device, const kern_layernorm_args *args);
void kern_gemm(kern_device *device, const kern_gemm_args *args);
void kern_rope(kern_device *device, const kern_rope_args *args);
void kern_kv_write(kern_device *device, const kern_kv_write_args *args);
void kern_kv_copy(kern_device *device, const kern_kv_copy_args *args);
void kern_kv_block(kern_device *device, const kern_kv_block_args *args);
void kern_attention(kern_device *device, const kern_attention_args *args);
void kern_glu(kern_device *device, const kern_glu_args *args);
void kern_gather(kern_device *device, const kern_gather_args *args);
void kern_pool(kern_device *device, const kern_pool_args *args);
void kern_softcap(kern_device *device, const kern_softcap_args *args);
void kern_sample(kern_device *device, const kern_sample_args *args);

#ifdef __cplusplus
}
#endif

#endif
