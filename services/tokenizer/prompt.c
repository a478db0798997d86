/* Rendering, encoding and the checks of length. See prompt.h. */
#include "tokenizer/prompt.h"

#include "base/arena.h"
#include "model/model.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    STOP_TOKENS_MAX      = 64,
    PROMPT_BYTES_MAX     = BUS_MESSAGE_BYTES_MAX,
    RENDER_BYTES_FIXED   = 16 << 20,
    AFTER_LAST_BYTES_MAX = 1024
};

struct prompt_maker {
    tokenizer     *tokenizer;
    chat_template *chat_template; /* NULL: chats are refused */
    uint32_t       max_model_len;
    bool           encoder, scores; /* what the model is for: see model_config */
    size_t         text_bytes_max;  /* no prompt of more bytes can have few enough tokens */
    arena         *render, *scratch;
    uint32_t      *tokens; /* [max_model_len] */
    uint32_t       stop_tokens[STOP_TOKENS_MAX];
    uint32_t       n_stop_tokens;
};

/* ---- start-up ---- */

static bool open_template(prompt_maker *p, const tokenizer_options *options, error *err)
{
    static char file_text[CHAT_TEMPLATE_BYTES_MAX + 1];
    const char *path   = options->chat_template;
    span        source = tokenizer_chat_template(p->tokenizer);
    if (path) {
        FILE *file = fopen(path, "rb");
        if (!file)
            return error_set(err, ERR_IO, "--chat-template %s: %s", path, strerror(errno));
        source    = (span){file_text, fread(file_text, 1, sizeof file_text, file)};
        int fault = ferror(file) ? errno : 0; /* a folder opens, and can't be read */
        fclose(file);
        if (fault)
            return error_set(err, ERR_IO, "--chat-template %s: %s", path, strerror(fault));
        if (source.size == 0)
            return error_set(err, ERR_INVALID, "--chat-template %s: the file is empty", path);
    }
    if (source.size == 0)
        return true;
    p->chat_template = chat_template_new(source, err);
    return p->chat_template || error_wrap(err, "%s", path ? path : options->model);
}

static bool read_length(prompt_maker *p, const tokenizer_options *options, error *err)
{
    model_config config;
    if (!model_read_config(options->model, &config, err))
        return false;
    if (options->max_model_len > config.n_ctx_train)
        return error_set(err, ERR_INVALID, "--max-model-len %llu is over the %u positions that %s was trained for",
                         (unsigned long long)options->max_model_len, config.n_ctx_train, options->model);
    p->encoder       = config.encoder;
    p->scores        = config.n_labels > 0;
    p->max_model_len = options->max_model_len ? (uint32_t)options->max_model_len : config.n_ctx_train;
    return true;
}

static bool take_memory(prompt_maker *p, error *err)
{
    size_t longest    = tokenizer_longest_token(p->tokenizer);
    size_t bytes      = (size_t)p->max_model_len * (longest ? longest : 1);
    p->text_bytes_max = bytes < PROMPT_BYTES_MAX ? bytes : PROMPT_BYTES_MAX;
    p->render         = arena_new(6 * p->text_bytes_max + RENDER_BYTES_FIXED, err);
    p->scratch        = p->render ? arena_new(tokenizer_scratch_bytes(p->tokenizer, p->text_bytes_max), err) : NULL;
    p->tokens         = p->scratch ? calloc(p->max_model_len, sizeof *p->tokens) : NULL;
    return p->tokens || error_set(err, ERR_NO_MEMORY, "no memory for prompts of %u tokens", p->max_model_len);
}

prompt_maker *prompt_maker_new(const tokenizer_options *options, error *err)
{
    prompt_maker *p = calloc(1, sizeof *p);
    if (!p) {
        error_set(err, ERR_NO_MEMORY, "no memory for the tokenizer");
        return NULL;
    }
    if (!options->model)
        error_set(err, ERR_INVALID, "--model is missing: the tokenizer is read from the model's files");
    else if ((p->tokenizer = tokenizer_open(options->model, err)) && read_length(p, options, err) &&
             open_template(p, options, err) && take_memory(p, err)) {
        p->n_stop_tokens = tokenizer_stop_tokens(p->tokenizer, p->stop_tokens, STOP_TOKENS_MAX);
        return p;
    }
    prompt_maker_free(&p);
    return NULL;
}

void prompt_maker_free(prompt_maker **p)
{
    if (!*p)
        return;
    tokenizer_free(&(*p)->tokenizer);
    chat_template_free(&(*p)->chat_template);
    arena_free(&(*p)->render);
    arena_free(&(*p)->scratch);
    free((*p)->tokens);
    free(*p);
    *p = NULL;
}

const tokenizer *prompt_tokenizer(const prompt_maker *p)
{
    return p->tokenizer;
}

uint32_t prompt_max_model_len(const prompt_maker *p)
{
    return p->max_model_len;
}

/* ---- prompts ---- */

static bool refuse_length(const prompt_maker *p, const char *name, request_field *field, error *err)
{
    return refuse(field, name, err, ERR_INVALID, /* as OpenAI has it: 413 is for bodies */
                  "the prompt leaves no room for an answer: this model's maximum context length is %u tokens",
                  p->max_model_len);
}

/* Encodes parts behind the tokens that are there already. */
static bool encode(prompt_maker *p, const text_part *parts, uint32_t n_parts, prompt *out, const char *name,
                   request_field *field, error *err)
{
    uint32_t n;
    arena_reset(p->scratch);
    if (!tokenizer_encode(p->tokenizer, parts, n_parts, p->scratch, p->tokens + out->n_tokens,
                          p->max_model_len - out->n_tokens, &n, err))
        return err->code == ERR_TOO_LARGE ? refuse_length(p, name, field, err)
                                          : refuse(field, name, err, err->code, "%s", err->text);
    out->n_tokens += n;
    return true;
}

static span trimmed(span text)
{
    while (text.size > 0 && strchr(" \t\r\n", text.data[text.size - 1]) && text.data[text.size - 1])
        text.size--;
    while (text.size > 0 && strchr(" \t\r\n", text.data[0]) && text.data[0])
        text = (span){text.data + 1, text.size - 1};
    return text;
}

/* Where `last` ends inside this part, at most `reach` bytes before the part's end; NULL: nowhere. */
static const char *find_end(const text_part *part, const char *begin, span last, size_t reach)
{
    const char *part_end = part->text.data + part->text.size;
    for (const char *end = part_end; end > part->text.data && (size_t)(end - begin) >= last.size; end--) {
        if ((size_t)(part_end - end) > reach)
            break;
        if (memcmp(end - last.size, last.data, last.size) == 0)
            return end;
    }
    return NULL;
}

/* Cuts the rendered parts behind the last message's text, as transformers does, so that the model goes on with it. That
 * text is a value: what the template itself wrote behind it ("<|im_end|>") may look like it, and is not meant. The
 * parts lie behind one another in memory. What a template writes after a message is short; looking no further back
 * keeps a hostile message from costing the square of its length. */
static bool cut_after(text_part *parts, uint32_t *n_parts, span last)
{
    size_t n_behind = 0;
    last            = trimmed(last);
    for (uint32_t i = *n_parts; i > 0 && last.size > 0 && n_behind <= AFTER_LAST_BYTES_MAX; i--) {
        text_part  *part = &parts[i - 1];
        const char *end  = NULL;
        if (!part->trusted)
            end = find_end(part, parts[0].text.data, last, AFTER_LAST_BYTES_MAX - n_behind);
        if (end) {
            part->text.size = (size_t)(end - part->text.data);
            *n_parts        = i;
            return true;
        }
        n_behind += part->text.size;
    }
    return false;
}

static bool encode_chat(prompt_maker *p, const text_request *r, int64_t now_unix_s, prompt *out, request_field *field,
                        error *err)
{
    uint32_t     bos = tokenizer_bos(p->tokenizer), eos = tokenizer_eos(p->tokenizer), n_parts;
    text_part   *parts;
    conversation c = {.messages              = r->messages,
                      .n_messages            = r->n_messages,
                      .tools_json            = r->tools_json,
                      .template_json         = r->template_json,
                      .add_generation_prompt = r->add_generation_prompt && !r->continue_final_message,
                      .bos_token             = tokenizer_spelling(p->tokenizer, bos),
                      .eos_token             = tokenizer_spelling(p->tokenizer, eos)};
    if (!p->chat_template)
        return refuse(field, "messages", err, ERR_UNSUPPORTED,
                      "this model has no chat template; send a text prompt, or start with --chat-template");
    json_t *variables = conversation_variables(&c, field, err);
    if (!variables)
        return false;
    arena_reset(p->render);
    bool ok = chat_template_render(p->chat_template, variables, now_unix_s, p->text_bytes_max, p->render, &parts,
                                   &n_parts, err);
    json_decref(variables);
    if (!ok)
        return err->code == ERR_TOO_LARGE ? refuse_length(p, "messages", field, err)
                                          : refuse(field, "messages", err, err->code, "%s", err->text);
    if (r->continue_final_message && !cut_after(parts, &n_parts, r->messages[r->n_messages - 1].content))
        return refuse(field, "continue_final_message", err, ERR_INVALID,
                      "the chat template does not print the last message, so it can't be continued");
    return encode(p, parts, n_parts, out, "messages", field, err);
}

static bool encode_text(prompt_maker *p, span text, bool trusted, prompt *out, request_field *field, error *err)
{
    text_part part = {text, trusted};
    if (tokenizer_adds_bos(p->tokenizer))
        p->tokens[out->n_tokens++] = tokenizer_bos(p->tokenizer);
    if (text.size > p->text_bytes_max)
        return refuse_length(p, "prompt", field, err);
    if (!encode(p, &part, 1, out, "prompt", field, err))
        return false;
    if (!tokenizer_adds_eos(p->tokenizer))
        return true;
    if (out->n_tokens == p->max_model_len)
        return refuse_length(p, "prompt", field, err);
    p->tokens[out->n_tokens++] = tokenizer_eos(p->tokenizer);
    return true;
}

static bool check_tokens(const prompt_maker *p, const uint32_t *tokens, uint32_t n, const char *name,
                         request_field *field, error *err)
{
    uint32_t n_vocab = tokenizer_n_vocab(p->tokenizer);
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] >= n_vocab)
            return refuse(field, name, err, ERR_INVALID, "%s: token %u at place %u is not one of the model's %u", name,
                          tokens[i], i, n_vocab);
    return true;
}

static bool copy_tokens(prompt_maker *p, const text_request *r, prompt *out, request_field *field, error *err)
{
    if (r->n_prompt_tokens > p->max_model_len)
        return refuse_length(p, "prompt", field, err);
    if (!check_tokens(p, r->prompt_tokens, r->n_prompt_tokens, "prompt", field, err))
        return false;
    if (r->n_prompt_tokens > 0)
        memcpy(p->tokens, r->prompt_tokens, r->n_prompt_tokens * sizeof *p->tokens);
    out->n_tokens = r->n_prompt_tokens;
    return true;
}

bool prompt_encode(prompt_maker *p, const text_request *r, bool trusted, int64_t now_unix_s, prompt *out,
                   request_field *field, error *err)
{
    *out = (prompt){.tokens = p->tokens};
    switch (r->kind) {
    case PROMPT_KIND_CHAT:
        return encode_chat(p, r, now_unix_s, out, field, err);
    case PROMPT_KIND_TEXT:
        return encode_text(p, r->prompt, trusted, out, field, err);
    case PROMPT_KIND_TOKENS:
        return copy_tokens(p, r, out, field, err);
    }
    return refuse(field, "prompt", err, ERR_UNSUPPORTED, "there is no prompt of kind %d", (int)r->kind);
}

static bool make(prompt_maker *p, const text_request *r, int64_t now_unix_s, prompt *out, request_field *field,
                 error *err)
{
    const char *name = r->kind == PROMPT_KIND_CHAT ? "messages" : "prompt";
    if (!prompt_encode(p, r, true, now_unix_s, out, field, err))
        return false;
    if (out->n_tokens == 0)
        return refuse(field, name, err, ERR_INVALID, "the prompt is empty: it has no token");
    return out->n_tokens < p->max_model_len || refuse_length(p, name, field, err);
}

static bool check_parameters(const prompt_maker *p, const text_request *r, request_field *field, error *err)
{
    uint32_t n_vocab = tokenizer_n_vocab(p->tokenizer);
    for (uint32_t i = 0; i < r->sampling.n_logit_bias; i++)
        if (r->sampling.logit_bias[i].token >= n_vocab)
            return refuse(field, "logit_bias", err, ERR_INVALID, "logit_bias: token %u is not one of the model's %u",
                          r->sampling.logit_bias[i].token, n_vocab);
    for (uint32_t i = 0; i < r->n_resume; i++)
        if (!check_tokens(p, r->resume[i].tokens, r->resume[i].n_tokens, "resume", field, err))
            return false;
    return true;
}

/* ---- embeddings and scores ---- */

static bool check_task(const prompt_maker *p, const text_request *r, request_field *field, error *err)
{
    if (r->task == REQUEST_TASK_GENERATE && p->scores)
        return refuse(field, "model", err, ERR_INVALID,
                      "this model scores pairs of texts (/v1/rerank) and generates no text");
    if (r->task == REQUEST_TASK_GENERATE && p->encoder)
        return refuse(field, "model", err, ERR_INVALID,
                      "this model is an encoder for embeddings (/v1/embeddings) and generates no text");
    if (r->task == REQUEST_TASK_EMBED && p->scores)
        return refuse(field, "model", err, ERR_INVALID,
                      "this model scores pairs of texts (/v1/rerank) and gives no embeddings");
    if (r->task == REQUEST_TASK_SCORE && !p->scores)
        return refuse(field, "model", err, ERR_INVALID,
                      "this model gives no scores: reranking needs a cross-encoder, a classifier with one label");
    return true;
}

static bool refuse_long(const prompt_maker *p, const char *name, request_field *field, error *err)
{
    return refuse(field, name, err, ERR_INVALID, "the text is longer than the %u tokens that this model takes",
                  p->max_model_len);
}

static bool put_token(prompt_maker *p, uint32_t token, prompt *out, const char *name, request_field *field, error *err)
{
    if (out->n_tokens == p->max_model_len)
        return refuse_long(p, name, field, err);
    p->tokens[out->n_tokens++] = token;
    return true;
}

/* What users wrote, where no control token is meant, and the token that ends a text. */
static bool put_text(prompt_maker *p, span text, prompt *out, const char *name, request_field *field, error *err)
{
    text_part part = {text, false};
    uint32_t  n;
    arena_reset(p->scratch);
    if (text.size > p->text_bytes_max)
        return refuse_long(p, name, field, err);
    if (!tokenizer_encode(p->tokenizer, &part, 1, p->scratch, p->tokens + out->n_tokens,
                          p->max_model_len - out->n_tokens, &n, err))
        return err->code == ERR_TOO_LARGE ? refuse_long(p, name, field, err)
                                          : refuse(field, name, err, err->code, "%s", err->text);
    out->n_tokens += n;
    return !tokenizer_adds_eos(p->tokenizer) || put_token(p, tokenizer_eos(p->tokenizer), out, name, field, err);
}

/* [CLS] text [SEP], or [CLS] query [SEP] document [SEP], in a BERT. */
static bool encode_pooled(prompt_maker *p, const text_request *r, prompt *out, uint32_t *second_start,
                          request_field *field, error *err)
{
    bool        scores = r->task == REQUEST_TASK_SCORE;
    const char *name   = scores ? "query" : "input";
    *out               = (prompt){.tokens = p->tokens};
    *second_start      = 0;
    if (r->kind == PROMPT_KIND_CHAT || (scores && r->kind == PROMPT_KIND_TOKENS))
        return refuse(field, name, err, ERR_UNSUPPORTED, "must be a text");
    if (r->kind == PROMPT_KIND_TOKENS && r->n_prompt_tokens > p->max_model_len)
        return refuse_long(p, name, field, err);
    if (r->kind == PROMPT_KIND_TOKENS)
        return check_tokens(p, r->prompt_tokens, r->n_prompt_tokens, name, field, err) &&
               copy_tokens(p, r, out, field, err);
    if (tokenizer_adds_bos(p->tokenizer) && !put_token(p, tokenizer_bos(p->tokenizer), out, name, field, err))
        return false;
    if (!put_text(p, r->prompt, out, name, field, err))
        return false;
    *second_start = scores ? out->n_tokens : 0;
    return !scores || put_text(p, r->document, out, "documents", field, err);
}

static bool make_pooled(prompt_maker *p, const text_request *r, gen_request *out, request_field *field, error *err)
{
    prompt   made;
    uint32_t second_start;
    if (!encode_pooled(p, r, &made, &second_start, field, err))
        return false;
    if (made.n_tokens == 0 || r->n != 1)
        return refuse(field, made.n_tokens ? "n" : "input", err, ERR_INVALID,
                      made.n_tokens ? "a text has one embedding" : "the text is empty: it has no token");
    *out              = gen_request_defaults;
    out->prompt       = made.tokens;
    out->n_prompt     = made.n_tokens;
    out->pooled       = true;
    out->second_start = second_start;
    out->priority     = r->priority;
    out->session      = r->session;
    out->reply_to     = r->reply_to;
    out->tenant       = r->tenant;
    return true;
}

/* ---- requests ---- */

bool prompt_make_request(prompt_maker *p, const text_request *r, int64_t now_unix_s, gen_request *out,
                         request_field *field, error *err)
{
    prompt made;
    if (!check_task(p, r, field, err))
        return false;
    if (r->task != REQUEST_TASK_GENERATE)
        return make_pooled(p, r, out, field, err);
    if (!check_parameters(p, r, field, err) || !make(p, r, now_unix_s, &made, field, err))
        return false;
    uint32_t room = p->max_model_len - made.n_tokens;
    if (r->max_tokens > room)
        return refuse(field, "max_tokens", err, ERR_INVALID,
                      "this model's maximum context length is %u tokens; the prompt has %u, which leaves %u, and "
                      "max_tokens is %u",
                      p->max_model_len, made.n_tokens, room, r->max_tokens);
    *out = (gen_request){
        .prompt          = made.tokens,
        .n_prompt        = made.n_tokens,
        .max_tokens      = r->max_tokens ? r->max_tokens : room,
        .n               = r->n,
        .sampling        = r->sampling,
        .output          = r->output,
        .stop_tokens     = p->stop_tokens,
        .n_stop_tokens   = p->n_stop_tokens,
        .priority        = r->priority,
        .session         = r->session,
        .prompt_logprobs = r->prompt_logprobs,
        .draft_tokens    = r->draft_tokens,
        .reply_to        = r->reply_to,
        .resume          = r->resume,
        .n_resume        = r->n_resume,
        .tenant          = r->tenant,
    };
    return true;
}

/* ---- back ---- */

static bool add_text(char *text, size_t *size, size_t max, span piece)
{
    if (piece.size > max - *size)
        return false;
    if (piece.size > 0)
        memcpy(text + *size, piece.data, piece.size);
    *size += piece.size;
    return true;
}

bool prompt_decode(prompt_maker *p, const uint32_t *tokens, uint32_t n_tokens, span *text, request_field *field,
                   error *err)
{
    enum { TEXT_BYTES_MAX = 8 << 20 }; /* what text.decoded holds */
    if (!check_tokens(p, tokens, n_tokens, "tokens", field, err))
        return false;
    arena_reset(p->render);
    detokenizer_options options = {.tokenizer = p->tokenizer, .specials = true};
    detokenizer        *d       = detokenizer_new(p->render, &options, err);
    size_t              size = 0, room = arena_capacity(p->render) - arena_used(p->render);
    size_t              max = room < TEXT_BYTES_MAX ? room : TEXT_BYTES_MAX;
    char               *out = d ? arena_take(p->render, max) : NULL;
    span                piece;
    uint32_t            stop;
    bool                fits = out != NULL;
    for (uint32_t i = 0; i < n_tokens && fits; i++) {
        (void)detokenizer_push(d, tokens[i], &piece, &stop);
        fits = add_text(out, &size, max, piece);
    }
    if (!fits || !add_text(out, &size, max, detokenizer_finish(d)))
        return refuse(field, "tokens", err, ERR_TOO_LARGE, "the text of the tokens is over %zu bytes", max);
    *text = (span){out, size};
    return true;
}
