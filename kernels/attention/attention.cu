/* Paged attention with splits of a fixed size (flash-decoding; Dao et al. 2023), grouped-query heads together.
 *
 * A row's visible keys are cut at multiples of SPLIT_KEYS positions. A split's result is (largest score, sum, weighted
 * values) by online softmax over KEYS_A_TILE keys at a time; splits are merged in ascending order. Both depend on
 * positions alone, so it does not matter who computes a split or which rows share its loads. Few rows: splits are
 * computed by different blocks of threads, their results written to scratch memory and merged by a second kernel. Many
 * rows, or a row with more splits than scratch has room for: one block of threads walks over the splits and merges as
 * it goes, by the same function.
 *
 * A block of threads loads a tile of keys and values once for QUERIES queries: the heads of a group, of neighbouring
 * rows of one sequence. Decoding is bound by the bytes of keys and values; prefill by float32 arithmetic, 4 * head_dim
 * operations a key. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/number.cuh"
#include "kernels/kv/kv_quant.cuh"

enum { WARPS = 4, QUERIES_A_WARP = 4, QUERIES = WARPS * QUERIES_A_WARP, THREADS = WARPS * WARP_LANES };
enum { KEYS_A_TILE = 32, SPLIT_KEYS = 128, PARTIALS_MAX = 4096, PARALLEL_MAX = 64, SHARED_UNASKED = 48 << 10 };

/* Shape of the launch and of the scratch memory. */
struct attention_job {
    kern_attention_args  args;
    kern_kv_shape        shape;
    const unsigned char *cache;
    size_t               matrix_bytes;   /* of one head's keys or values in a block */
    uint32_t             n_dims;         /* of a head in memory: head_dim, filled up in a quantised cache */
    float               *partials;       /* [n_tokens][n_row_partials][n_heads][2 + head_dim]: largest, sum, values */
    uint32_t             n_row_partials; /* 0: nothing is split between blocks of threads */
    uint32_t             group, n_tile_heads, n_head_tiles, n_tile_rows;
};

/* Neighbouring rows of one sequence and some heads of one group: what one block of threads works on. */
struct attention_tile {
    const uint32_t *table;
    uint32_t        row, n_rows, position; /* of the first row */
    uint32_t        end;                   /* behind the last position that any of its rows sees */
    uint32_t        kv_head, head, n_heads;
    uint32_t        split_first, split_end;
    bool            parallel;
};

/* A warp's share of the queries, each spread over the lanes: values d = lane + 32 k. */
template <int DIMS> struct attention_state {
    float largest[QUERIES_A_WARP], sum[QUERIES_A_WARP], values[QUERIES_A_WARP][DIMS];
};

/* ---- which rows, heads and keys ---------------------------------------------------------------------------------- */

/* The `index`-th tile of rows of the batch; false when there are fewer. Every warp finds it by itself, 32 sequences at
 * a time. */
static __device__ bool find_tile(const attention_job &job, uint32_t index, attention_tile *tile)
{
    uint32_t lane = threadIdx.x % WARP_LANES;
    for (uint32_t first = 0; first < job.args.n_sequences; first += WARP_LANES) {
        uint32_t n_q     = first + lane < job.args.n_sequences ? job.args.sequences[first + lane].n_q : 0;
        uint32_t n_tiles = (n_q + job.n_tile_rows - 1) / job.n_tile_rows, before = n_tiles;
        UNROLL for (uint32_t step = 1; step < WARP_LANES; step *= 2)
        {
            uint32_t left = __shfl_sync(0xffffffffu, before, (lane - step) % WARP_LANES);
            before += lane >= step ? left : 0;
        }
        uint32_t total = __shfl_sync(0xffffffffu, before, WARP_LANES - 1);
        if (index >= total) {
            index -= total;
            continue;
        }
        before -= n_tiles;
        uint32_t has = __ballot_sync(0xffffffffu, index >= before && index < before + n_tiles), owner = 0;
        while (!(has >> owner & 1u))
            owner++;
        kern_sequence s    = job.args.sequences[first + owner];
        uint32_t      skip = (index - __shfl_sync(0xffffffffu, before, owner)) * job.n_tile_rows;
        tile->table        = job.args.block_tables + s.table_start;
        tile->row          = s.q_start + skip;
        tile->n_rows       = s.n_q - skip < job.n_tile_rows ? s.n_q - skip : job.n_tile_rows;
        tile->position     = s.position + skip;
        tile->end          = job.args.bidirectional ? s.position + s.n_q : tile->position + tile->n_rows;
        return true;
    }
    return false;
}

static __device__ uint32_t first_visible(const attention_job &job, uint32_t position)
{
    return job.args.window > 0 && position >= job.args.window ? position + 1 - job.args.window : 0;
}

static __device__ uint32_t last_visible(const attention_job &job, const attention_tile &tile, uint32_t row)
{
    return job.args.bidirectional ? tile.end - 1 : tile.position + row;
}

static __device__ bool make_tile(const attention_job &job, attention_tile *tile)
{
    if (!find_tile(job, blockIdx.x, tile))
        return false;
    uint32_t skip     = blockIdx.y % job.n_head_tiles * job.n_tile_heads;
    tile->kv_head     = blockIdx.y / job.n_head_tiles;
    tile->head        = tile->kv_head * job.group + skip;
    tile->n_heads     = job.group - skip < job.n_tile_heads ? job.group - skip : job.n_tile_heads;
    tile->split_first = first_visible(job, tile->position) / SPLIT_KEYS;
    tile->split_end   = (tile->end - 1) / SPLIT_KEYS + 1;
    tile->parallel    = tile->split_end - tile->split_first <= job.n_row_partials;
    return true;
}

/* Query j of this warp: its row within the tile and its head; false past the tile's last query. */
static __device__ __forceinline__ bool query_of(const attention_tile &tile, int j, uint32_t *row, uint32_t *head)
{
    uint32_t query = threadIdx.x / WARP_LANES + j * WARPS;
    *row           = query / tile.n_heads;
    *head          = tile.head + query % tile.n_heads;
    return query < tile.n_rows * tile.n_heads;
}

static __device__ float *partial_of(const attention_job &job, const attention_tile &tile, uint32_t row, uint32_t head,
                                    uint32_t split)
{
    size_t item = (size_t)(tile.row + row) * job.n_row_partials + (split - tile.split_first);
    return job.partials + (item * job.args.n_heads + head) * (2 + job.shape.head_dim);
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

template <int DIMS> static __device__ __forceinline__ void state_clear(attention_state<DIMS> &state)
{
    UNROLL for (int j = 0; j < QUERIES_A_WARP; j++)
    {
        state.largest[j]                                         = -INFINITY;
        state.sum[j]                                             = 0;
        UNROLL for (int k = 0; k < DIMS; k++) state.values[j][k] = 0;
    }
}

/* Adds the later split (largest, sum, values) to query j of the state. */
template <int DIMS>
static __device__ __forceinline__ void state_merge(attention_state<DIMS> &state, int j, float largest, float sum,
                                                   const float (&values)[DIMS])
{
    float most = fmaxf(state.largest[j], largest), keep = expf(state.largest[j] - most), add = expf(largest - most);
    state.largest[j] = most;
    state.sum[j]     = __fmaf_rn(state.sum[j], keep, __fmul_rn(sum, add));
    UNROLL for (int k = 0; k < DIMS; k++) state.values[j][k] =
        __fmaf_rn(state.values[j][k], keep, __fmul_rn(values[k], add));
}

template <int DIMS>
static __device__ __forceinline__ void put_result(const attention_job &job, const attention_state<DIMS> &state, int j,
                                                  uint32_t token, uint32_t head)
{
    float *out = job.args.out + ((size_t)token * job.args.n_heads + head) * job.shape.head_dim;
    UNROLL for (int k = 0; k < DIMS; k++)
    {
        uint32_t d = threadIdx.x % WARP_LANES + k * WARP_LANES;
        if (d < job.shape.head_dim)
            out[d] = state.values[j][k] / state.sum[j];
    }
}

/* Keys and values [KEYS_A_TILE] from position `first` on, as floats in shared memory; zero past the last position. */
template <typename T>
static __device__ __forceinline__ void load_keys(const attention_job &job, const attention_tile &tile, uint32_t first,
                                                 float *keys, float *values)
{
    uint32_t n_dims = job.n_dims, n_fours = n_dims / 4, last = tile.end - 1;
    size_t   plane = job.shape.n_kv_heads * job.matrix_bytes; /* one layer's keys in one block */
    for (uint32_t i = threadIdx.x; i < KEYS_A_TILE * n_fours; i += THREADS) {
        uint32_t key = i / n_fours, d = i % n_fours * 4, position = first + key;
        float4   k = make_float4(0, 0, 0, 0), v = k;
        if (position <= last) {
            uint32_t block = tile.table[position / KERN_KV_BLOCK_TOKENS], place = position % KERN_KV_BLOCK_TOKENS;
            const unsigned char *from = job.cache + ((size_t)block * job.shape.n_layers + job.args.layer) * 2 * plane +
                                        tile.kv_head * job.matrix_bytes;
            k = kv_reader<T>::four(from, job.shape.head_dim, place, d);
            v = kv_reader<T>::four(from + plane, job.shape.head_dim, place, d);
        }
        *reinterpret_cast<float4 *>(keys + key * (n_dims + 4) + d) = k;
        *reinterpret_cast<float4 *>(values + key * n_dims + d)     = v;
    }
}

/* The queries as quantised keys are: kv_rotate by all threads. */
static __device__ void rotate_queries(const attention_job &job, float *queries)
{
    uint32_t n = QUERIES * job.n_dims, width = kv_rotation_width(job.shape.head_dim);
    for (uint32_t apart = 1; apart < width; apart *= 2) {
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < n / 2; i += THREADS) {
            uint32_t j = i / apart * 2 * apart + i % apart;
            float    a = queries[j], b = queries[j + apart];
            queries[j]         = a + b;
            queries[j + apart] = a - b;
        }
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        queries[i] *= kv_query_factor(width);
}

/* score[j] = the lane's key times query j, dimensions in order. */
static __device__ __forceinline__ void score_keys(const attention_job &job, const float *queries, const float *keys,
                                                  float (&score)[QUERIES_A_WARP])
{
    uint32_t     n_dims                                      = job.n_dims;
    const float *key                                         = keys + threadIdx.x % WARP_LANES * (n_dims + 4),
                *query                                       = queries + threadIdx.x / WARP_LANES * n_dims;
    UNROLL for (int j = 0; j < QUERIES_A_WARP; j++) score[j] = 0;
    for (uint32_t d = 0; d < n_dims; d += 4) {
        float4 k = *reinterpret_cast<const float4 *>(key + d);
        UNROLL for (int j = 0; j < QUERIES_A_WARP; j++)
        {
            float4 q = *reinterpret_cast<const float4 *>(query + j * WARPS * n_dims + d);
            score[j] = __fmaf_rn(q.w, k.w, __fmaf_rn(q.z, k.z, __fmaf_rn(q.y, k.y, __fmaf_rn(q.x, k.x, score[j]))));
        }
    }
    UNROLL for (int j = 0; j < QUERIES_A_WARP; j++)
    {
        score[j] *= job.args.scale;
        if (job.args.softcap > 0)
            score[j] = job.args.softcap * tanhf(score[j] / job.args.softcap);
    }
}

/* One tile of keys added to the state of the split. A query that sees none of them is left as it is, so that its sums
 * are the same whichever rows it shares the tile with. */
template <int DIMS>
static __device__ __forceinline__ void add_keys(const attention_job &job, const attention_tile &tile, uint32_t first,
                                                const float *queries, const float *keys, const float *values,
                                                attention_state<DIMS> &state)
{
    uint32_t lane      = threadIdx.x % WARP_LANES, begin[QUERIES_A_WARP], end[QUERIES_A_WARP];
    uint32_t any_begin = KEYS_A_TILE, any_end = 0; /* keys that any query of this warp sees, within the tile */
    float    weight[QUERIES_A_WARP];
    score_keys(job, queries, keys, weight);
    UNROLL for (int j = 0; j < QUERIES_A_WARP; j++)
    {
        uint32_t row, head;
        bool     is_query = query_of(tile, j, &row, &head);
        uint32_t position = last_visible(job, tile, row), from = first_visible(job, position);
        begin[j] = from > first ? from - first : 0;
        end[j]   = !is_query || position < first    ? 0
                   : position - first < KEYS_A_TILE ? position - first + 1
                                                    : (uint32_t)KEYS_A_TILE;
        if (begin[j] >= end[j]) {
            end[j] = 0;
            continue;
        }
        bool  visible    = lane >= begin[j] && lane < end[j];
        float most       = fmaxf(state.largest[j], warp_max(visible ? weight[j] : -INFINITY));
        float keep       = expf(state.largest[j] - most);
        weight[j]        = visible ? expf(weight[j] - most) : 0.0f;
        state.largest[j] = most;
        state.sum[j]     = __fmaf_rn(state.sum[j], keep, warp_sum(weight[j]));
        UNROLL for (int k = 0; k < DIMS; k++) state.values[j][k] = __fmul_rn(state.values[j][k], keep);
        any_begin                                                = begin[j] < any_begin ? begin[j] : any_begin;
        any_end                                                  = end[j] > any_end ? end[j] : any_end;
    }
    for (uint32_t key = any_begin; key < any_end; key++) {
        float value[DIMS];
        UNROLL for (int k = 0; k < DIMS; k++)
        {
            uint32_t d = lane + k * WARP_LANES;
            value[k]   = d < job.shape.head_dim ? values[key * job.n_dims + d] : 0.0f;
        }
        UNROLL for (int j = 0; j < QUERIES_A_WARP; j++)
        {
            float w = __shfl_sync(0xffffffffu, weight[j], key);
            if (key >= begin[j] && key < end[j])
                UNROLL for (int k = 0; k < DIMS; k++) state.values[j][k] = __fmaf_rn(w, value[k], state.values[j][k]);
        }
    }
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

template <int DIMS>
static __device__ void put_split(const attention_job &job, const attention_tile &tile, uint32_t split,
                                 const attention_state<DIMS> &state, attention_state<DIMS> &whole)
{
    UNROLL for (int j = 0; j < QUERIES_A_WARP; j++)
    {
        uint32_t row, head, lane = threadIdx.x % WARP_LANES;
        if (!query_of(tile, j, &row, &head))
            continue;
        uint32_t position = last_visible(job, tile, row); /* it may see no key of this split that another row sees */
        if (position / SPLIT_KEYS < split || first_visible(job, position) / SPLIT_KEYS > split)
            continue;
        if (!tile.parallel) {
            state_merge<DIMS>(whole, j, state.largest[j], state.sum[j], state.values[j]);
            continue;
        }
        float *to = partial_of(job, tile, row, head, split);
        if (lane == 0) {
            to[0] = state.largest[j];
            to[1] = state.sum[j];
        }
        UNROLL for (int k = 0; k < DIMS; k++) if (lane + k * WARP_LANES < job.shape.head_dim)
            to[2 + lane + k * WARP_LANES] = state.values[j][k];
    }
}

template <typename T, int DIMS> static __global__ void __launch_bounds__(THREADS) attend(attention_job job)
{
    SHARED_DYNAMIC(float, shared);
    attention_tile tile;
    if (!make_tile(job, &tile) || (!tile.parallel && blockIdx.z > 0))
        return;
    uint32_t head_dim = job.shape.head_dim, n_dims = job.n_dims;
    float   *queries = shared, *keys = queries + QUERIES * n_dims, *values = keys + KEYS_A_TILE * (n_dims + 4);
    for (uint32_t i = threadIdx.x; i < QUERIES * n_dims; i += THREADS) {
        uint32_t query = i / n_dims, row = tile.row + query / tile.n_heads, head = tile.head + query % tile.n_heads;
        queries[i] = query < tile.n_rows * tile.n_heads && i % n_dims < head_dim
                         ? job.args.q[((size_t)row * job.args.n_heads + head) * head_dim + i % n_dims]
                         : 0;
    }
    if (kv_is_quantized(job.shape.dtype))
        rotate_queries(job, queries);
    attention_state<DIMS> split_state, whole;
    state_clear(whole);
    uint32_t stride = tile.parallel ? gridDim.z : 1;
    for (uint32_t split = tile.split_first + blockIdx.z; split < tile.split_end; split += stride) {
        uint32_t begin = split * SPLIT_KEYS, end = tile.end, visible = first_visible(job, tile.position);
        begin = visible > begin ? visible / KEYS_A_TILE * KEYS_A_TILE : begin;
        end   = end < (split + 1) * SPLIT_KEYS ? end : (split + 1) * SPLIT_KEYS;
        state_clear(split_state);
        for (uint32_t first = begin; first < end; first += KEYS_A_TILE) {
            __syncthreads(); /* the tile before has been read */
            load_keys<T>(job, tile, first, keys, values);
            __syncthreads();
            add_keys<DIMS>(job, tile, first, queries, keys, values, split_state);
        }
        put_split<DIMS>(job, tile, split, split_state, whole);
    }
    UNROLL for (int j = 0; j < QUERIES_A_WARP; j++)
    {
        uint32_t row, head;
        if (!tile.parallel && query_of(tile, j, &row, &head))
            put_result<DIMS>(job, whole, j, tile.row + row, head);
    }
}

/* Merges what the blocks of threads of a tile wrote, in ascending order of splits. */
template <int DIMS> static __global__ void __launch_bounds__(THREADS) merge_splits(attention_job job)
{
    attention_tile        tile;
    attention_state<DIMS> whole;
    if (!make_tile(job, &tile) || !tile.parallel)
        return;
    state_clear(whole);
    UNROLL for (int j = 0; j < QUERIES_A_WARP; j++)
    {
        uint32_t row, head, lane = threadIdx.x % WARP_LANES;
        if (!query_of(tile, j, &row, &head))
            continue;
        uint32_t position = last_visible(job, tile, row);
        for (uint32_t split = first_visible(job, position) / SPLIT_KEYS; split <= position / SPLIT_KEYS; split++) {
            const float *from = partial_of(job, tile, row, head, split);
            float        values[DIMS];
            UNROLL for (int k = 0; k < DIMS; k++) values[k] =
                lane + k * WARP_LANES < job.shape.head_dim ? from[2 + lane + k * WARP_LANES] : 0.0f;
            state_merge<DIMS>(whole, j, from[0], from[1], values);
        }
        put_result<DIMS>(job, whole, j, tile.row + row, head);
    }
}

/* ---- the operator ------------------------------------------------------------------------------------------------ */

size_t attention_scratch_bytes(const kern_limits *limits)
{
    return (size_t)PARTIALS_MAX * limits->n_heads * (2 + limits->head_dim) * sizeof(float);
}

template <typename T, int DIMS> static void launch(kern_device *device, const attention_job &job, dim3 grid)
{
    auto  *kernel = attend<T, DIMS>;
    size_t shared = ((size_t)QUERIES * job.n_dims + KEYS_A_TILE * (2 * job.n_dims + 4)) * sizeof(float);
    if (shared > SHARED_UNASKED)
        CUDA_MUST(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared));
    LAUNCH(kernel, grid, THREADS, shared, device->stream, job);
    if (job.n_row_partials > 0)
        LAUNCH(merge_splits<DIMS>, dim3(grid.x, grid.y), THREADS, 0, device->stream, job);
}

template <typename T> static void launch_for_dimensions(kern_device *device, const attention_job &job, dim3 grid)
{
    if (job.shape.head_dim <= 2 * WARP_LANES)
        launch<T, 2>(device, job, grid);
    else if (job.shape.head_dim <= 4 * WARP_LANES)
        launch<T, 4>(device, job, grid);
    else
        launch<T, 8>(device, job, grid);
}

void cuda_attention(kern_device *device, const kern_attention_args *args)
{
    if (args->n_tokens == 0 || args->n_sequences == 0)
        return;
    attention_job job;
    job.args           = *args;
    job.shape          = args->cache->shape;
    job.cache          = args->cache->memory;
    job.matrix_bytes   = kv_matrix_bytes(job.shape.dtype, job.shape.head_dim);
    job.n_dims         = kv_is_quantized(job.shape.dtype) ? kv_filled(job.shape.head_dim) : job.shape.head_dim;
    job.partials       = NULL;
    job.n_row_partials = 0;
    job.group          = args->n_heads / job.shape.n_kv_heads;
    job.n_tile_heads   = job.group < QUERIES ? job.group : (uint32_t)QUERIES;
    job.n_head_tiles   = divide_up(job.group, job.n_tile_heads);
    job.n_tile_rows    = QUERIES / job.n_tile_heads;
    /* Tiles don't cross sequences, so there may be one more a sequence than rows ask for; the host does not know n_q.
     */
    uint32_t n_tiles = divide_up(args->n_tokens, job.n_tile_rows) + args->n_sequences,
             wanted  = device->n_multiprocessors * 8;
    n_tiles          = n_tiles < args->n_tokens ? n_tiles : args->n_tokens;
    dim3 grid(n_tiles, job.shape.n_kv_heads * job.n_head_tiles, 1);
    if (grid.x * grid.y < wanted) {
        job.partials       = reinterpret_cast<float *>(cuda_scratch(
                  device, (size_t)PARTIALS_MAX * args->n_heads * (2 + job.shape.head_dim) * sizeof(float), "attention"));
        job.n_row_partials = PARTIALS_MAX / args->n_tokens;
        grid.z             = divide_up(wanted, grid.x * grid.y);
        grid.z             = grid.z < PARALLEL_MAX ? grid.z : (unsigned)PARALLEL_MAX;
    }
    if (job.shape.dtype == KERN_F32)
        launch_for_dimensions<float>(device, job, grid);
    else if (job.shape.dtype == KERN_F16)
        launch_for_dimensions<f16>(device, job, grid);
    else if (job.shape.dtype == KERN_BF16)
        launch_for_dimensions<bf16>(device, job, grid);
    else if (job.shape.dtype == KERN_Q8_0)
        launch_for_dimensions<q8_0>(device, job, grid);
    else
        launch_for_dimensions<q4_1>(device, job, grid);
}
