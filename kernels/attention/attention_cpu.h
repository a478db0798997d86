/* How the CPU backend cuts attention into tasks: the part that does not depend on the instruction set. */
#ifndef TROUPE_KERNELS_ATTENTION_ATTENTION_CPU_H
#define TROUPE_KERNELS_ATTENTION_ATTENTION_CPU_H

#include "kernels/cpu_device.h"
#include "kernels/kv/kv_cache.h"

/* A sequence's positions in segments of this many: the sums of each stand alone and are merged in order, so that the
 * segments of a few long sequences can be computed side by side. */
enum { ATTENTION_SEGMENT = 512 };

/* A query row against a quantised cache: rotated, as integers times `scale`. */
typedef struct {
    int32_t sums[KV_GROUPS_MAX]; /* of quants, a group */
    float   scale, padding[15];
    int16_t quants[]; /* [n_groups][KV_GROUP], in the order of store_quants */
} attention_query;

typedef struct {
    const kern_attention_args *args;
    const host_kv_cache       *cache;
    cpu_device                *device;
    uint32_t                   head_dim, group; /* heads that share a KV head */
    uint32_t                   n_groups;        /* of a quantised cache, else 0 */
    uint32_t                   task_tokens;     /* the most tokens of a task */
    uint32_t                   sum_floats;      /* head_dim rounded up to 16, or to 32 with a quantised cache */
    uint32_t                   row_floats;      /* state of a row: attention_head, sums, attention_query */
    uint32_t                   state_floats;    /* state of the most rows of a task */
    uint32_t                   n_tasks;
    uint32_t n_parts; /* tasks times the segments of their sequences; 0: each task goes through its own */
    uint64_t work;
} attention_job;

/* Tokens [token, token + n_tokens) of a sequence's rows, for the heads of one KV head. */
typedef struct {
    const kern_sequence *sequence;
    uint32_t             token, n_tokens, kv_head;
    uint32_t             first_segment;          /* the first that any of its rows sees */
    uint32_t             first_part, n_segments; /* its place among the parts */
} attention_task;

attention_job  attention_job_of(cpu_device *device, const kern_attention_args *args);
attention_task attention_task_of(const attention_job *job, uint32_t index);

/* One behind the last position that any of the rows up to `token` of a sequence sees. */
static inline uint32_t attention_end_visible(const kern_attention_args *args, const kern_sequence *sequence,
                                             uint32_t token)
{
    return sequence->position + (args->bidirectional ? sequence->n_q : token + 1);
}

/* The first position that the row at `position` sees. */
static inline uint32_t attention_first_visible(const kern_attention_args *args, uint32_t position)
{
    return args->window && position + 1 > args->window ? position + 1 - args->window : 0;
}

/* The task that part `part` belongs to. */
attention_task attention_task_of_part(const attention_job *job, uint32_t part);

/* Scratch of a worker, and of all parts, for heads of head_dim, n_heads of them in the model. */
size_t attention_scratch_bytes(uint32_t n_heads, uint32_t head_dim);
size_t attention_parts_bytes(uint32_t n_heads, uint32_t head_dim, uint32_t n_threads);

#if defined(__x86_64__)
/* Of variants that differ from another in their dot products alone. */
void cpu_attention_avx2_vnni(kern_device *device, const kern_attention_args *args);
void cpu_attention_avx512_vnni(kern_device *device, const kern_attention_args *args);
#endif

#endif
