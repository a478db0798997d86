#include "services/gateway/openai_pooled.h"

#include <math.h>
#include <stdlib.h>

enum { TEXT_BYTES_MAX = 4 << 20, DIMENSIONS_MAX = 131072 };

/* ---- requests ---- */

static bool take_encoding(openai_parser *p, const json_t *root, openai_pooled *out)
{
    const json_t *value = openai_get(root, "encoding_format");
    const char   *name  = json_string_value(value);
    if (!value)
        return true;
    out->base64 = name && strcmp(name, "base64") == 0;
    return out->base64 || (name && strcmp(name, "float") == 0) ||
           openai_refuse(p, ERR_INVALID, "encoding_format", "must be \"float\" or \"base64\"");
}

static bool take_embeddings(openai_parser *p, const json_t *root, openai_pooled *out)
{
    const json_t *input = openai_get(root, "input");
    if (!input)
        return openai_refuse(p, ERR_INVALID, "input", "is missing");
    if (!take_encoding(p, root, out) || !openai_whole(p, root, "dimensions", 1, DIMENSIONS_MAX, &out->n_dimensions) ||
        !openai_prompts(p, input, "input", OPENAI_INPUTS_MAX, &out->n_inputs, &out->inputs))
        return false;
    for (uint32_t i = 0; i < out->n_inputs; i++)
        if (!out->inputs[i].is_tokens && out->inputs[i].text.size == 0)
            return openai_refuse(p, ERR_INVALID, "input", "text %u is empty", i);
    return true;
}

/* A text, or an object with one, as Jina and Cohere take them. */
static bool take_document(openai_parser *p, const json_t *value, size_t index, openai_prompt *out)
{
    char field[40];
    snprintf(field, sizeof field, "documents[%zu]", index);
    if (json_is_object(value))
        value = json_object_get(value, "text");
    return value ? openai_string(p, value, field, TEXT_BYTES_MAX, &out->text)
                 : openai_refuse(p, ERR_INVALID, field, "must be a text, or an object with one as \"text\"");
}

static bool take_rerank(openai_parser *p, const json_t *root, openai_pooled *out)
{
    const json_t *documents = json_object_get(root, "documents");
    size_t        n         = json_array_size(documents);
    if (!openai_string(p, json_object_get(root, "query"), "query", TEXT_BYTES_MAX, &out->query))
        return false;
    if (!json_is_array(documents) || n == 0 || n > OPENAI_INPUTS_MAX)
        return openai_refuse(p, ERR_INVALID, "documents", "must be a list of 1 to %d texts", OPENAI_INPUTS_MAX);
    openai_prompt *inputs = arena_take_array(p->memory, n, sizeof *inputs);
    if (!inputs)
        return openai_refuse(p, ERR_TOO_LARGE, "documents", "the list needs more memory than this server gives");
    for (size_t i = 0; i < n; i++)
        if (!take_document(p, json_array_get(documents, i), i, &inputs[i]))
            return false;
    out->inputs   = inputs;
    out->n_inputs = out->top_n = (uint32_t)n;
    out->return_documents      = true; /* as Jina and vLLM have it */
    if (!openai_whole(p, root, "top_n", 0, UINT32_MAX, &out->top_n) ||
        !openai_bool(p, root, "return_documents", &out->return_documents))
        return false;
    if (out->top_n == 0 || out->top_n > out->n_inputs)
        out->top_n = out->n_inputs;
    return true;
}

/* Known elsewhere and not done here: it would change the numbers. */
static bool refuse_unsupported(openai_parser *p, const json_t *root)
{
    static const char *const names[] = {"truncate_prompt_tokens", "messages", "rank_fields"};
    for (size_t i = 0; i < COUNT(names); i++) {
        if (openai_get(root, names[i]))
            return openai_refuse(p, ERR_UNSUPPORTED, names[i], "is not supported by this endpoint");
    }
    return true;
}

static bool take_all(openai_parser *p, const json_t *root, openai_pooled *out)
{
    const json_t *model = openai_get(root, "model");
    if (model && !openai_string(p, model, "model", 256, &out->model))
        return false;
    return refuse_unsupported(p, root) && openai_timeout(p, root, &out->timeout_s) &&
           openai_priority(p, root, &out->priority) &&
           (out->task == REQUEST_TASK_SCORE ? take_rerank(p, root, out) : take_embeddings(p, root, out));
}

bool openai_pooled_parse(request_task task, span body, arena *memory, openai_pooled *out, openai_fault *fault)
{
    openai_parser p    = {memory, fault};
    json_t       *root = openai_json(&p, body);
    *out               = (openai_pooled){.task = task};
    bool ok            = root && take_all(&p, root, out);
    json_decref(root);
    return ok;
}

/* ---- answers ---- */

static void write_usage(json_out *j, const usage *cost)
{
    json_out_key(j, SPAN("usage"));
    json_out_object(j);
    json_out_member_u64(j, "prompt_tokens", cost->prompt_tokens);
    json_out_member_u64(j, "total_tokens", cost->prompt_tokens);
    json_out_end(j);
}

/* The first numbers, of length 1 again: models that are trained for it keep their meaning there (Kusupati et al. 2022,
 * arXiv 2205.13147). */
static void shorten(const openai_vector *vector, uint32_t n, float *out)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)vector->numbers[i] * vector->numbers[i];
    for (uint32_t i = 0; i < n; i++)
        out[i] = n == vector->n || !(sum > 0) ? vector->numbers[i] : (float)(vector->numbers[i] / sqrt(sum));
}

/* RFC 4648. `text` holds 4 bytes for every 3, or part of 3. */
static span base64_of(const unsigned char *bytes, size_t n, char *text)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t            size      = 0;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t left = (uint32_t)(n - i);
        uint32_t group =
            (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0u);
        text[size++] = letters[group >> 18];
        text[size++] = letters[group >> 12 & 63];
        text[size++] = left > 1 ? letters[group >> 6 & 63] : '=';
        text[size++] = left > 2 ? letters[group & 63] : '=';
    }
    return (span){text, size};
}

static void write_numbers(json_out *j, const float *numbers, uint32_t n)
{
    json_out_array(j);
    for (uint32_t i = 0; i < n; i++)
        json_out_float(j, numbers[i]);
    json_out_end(j);
}

static bool write_embeddings(json_out *j, const openai_pooled *r, const openai_vector *vectors, arena *memory,
                             error *err)
{
    uint32_t n       = r->n_dimensions ? r->n_dimensions : vectors[0].n;
    float   *numbers = arena_take_array(memory, n, sizeof *numbers);
    char    *text    = arena_take(memory, ((size_t)n * sizeof *numbers + 2) / 3 * 4);
    if (!numbers || !text)
        return error_set(err, ERR_NO_MEMORY, "the answer outgrew the memory of one request");
    json_out_member_string(j, "object", SPAN("list"));
    json_out_key(j, SPAN("data"));
    json_out_array(j);
    for (uint32_t i = 0; i < r->n_inputs; i++) {
        shorten(&vectors[i], n, numbers);
        json_out_object(j);
        json_out_member_string(j, "object", SPAN("embedding"));
        json_out_member_u64(j, "index", i);
        json_out_key(j, SPAN("embedding"));
        if (r->base64) /* little-endian machines alone run this program */
            json_out_string(j, base64_of((const unsigned char *)numbers, n * sizeof *numbers, text));
        else
            write_numbers(j, numbers, n);
        json_out_end(j);
    }
    json_out_end(j);
    return true;
}

typedef struct {
    uint32_t index;
    float    score;
} ranked;

/* The highest score first, the earlier document on a tie. */
static int compare_ranked(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->index < y->index ? -1 : 1;
}

static bool write_ranking(json_out *j, const openai_pooled *r, const openai_vector *vectors, arena *memory, error *err)
{
    ranked *all = arena_take_array(memory, r->n_inputs, sizeof *all);
    if (!all)
        return error_set(err, ERR_NO_MEMORY, "the answer outgrew the memory of one request");
    for (uint32_t i = 0; i < r->n_inputs; i++)
        all[i] = (ranked){i, vectors[i].numbers[0]};
    qsort(all, r->n_inputs, sizeof *all, compare_ranked);
    json_out_key(j, SPAN("results"));
    json_out_array(j);
    for (uint32_t i = 0; i < r->top_n; i++) {
        json_out_object(j);
        json_out_member_u64(j, "index", all[i].index);
        if (r->return_documents) {
            json_out_key(j, SPAN("document"));
            json_out_object(j);
            json_out_member_string(j, "text", r->inputs[all[i].index].text);
            json_out_end(j);
        }
        json_out_member_double(j, "relevance_score", 1 / (1 + exp(-(double)all[i].score)));
        json_out_end(j);
    }
    json_out_end(j);
    return true;
}

bool openai_pooled_accepts(const openai_pooled *request, uint32_t n, error *err)
{
    bool scores = request->task == REQUEST_TASK_SCORE;
    if (n == 0 || (scores && n != 1))
        return error_set(err, ERR_INTERNAL, "%u numbers came in place of %s", n, scores ? "a score" : "an embedding");
    return request->n_dimensions <= n ||
           error_set(err, ERR_INVALID, "dimensions: this model's embeddings have %u, not %u", n, request->n_dimensions);
}

bool openai_pooled_body(json_out *j, const openai_pooled *request, span id, span model, const openai_vector *vectors,
                        const usage *cost, arena *memory, error *err)
{
    for (uint32_t i = 0; i < request->n_inputs; i++)
        if (vectors[i].n != vectors[0].n || !openai_pooled_accepts(request, vectors[i].n, err))
            return error_set(err, ERR_INTERNAL, "input %u was answered with %u numbers", i, vectors[i].n);
    json_out_object(j);
    json_out_member_string(j, "id", id);
    json_out_member_string(j, "model", model);
    bool ok = request->task == REQUEST_TASK_SCORE ? write_ranking(j, request, vectors, memory, err)
                                                  : write_embeddings(j, request, vectors, memory, err);
    write_usage(j, cost);
    json_out_end(j);
    return ok;
}
