#include "support_scene.h"

#include <stdio.h>

/* ---- the gateway ---- */

static void append(char *to, span text)
{
    size_t n = strlen(to);
    assert_true(n + text.size < SCENE_TEXT);
    if (text.size)
        memcpy(to + n, text.data, text.size);
    to[n + text.size] = 0;
}

static void keep_logprobs(heard *h, const text_delta *d)
{
    for (uint32_t i = 0; i < d->n_logprobs; i++) {
        assert_true(h->n_logprobs < SCENE_TOKENS);
        snprintf(h->names[h->n_logprobs], sizeof h->names[0], "%.*s", SPAN_ARG(d->logprobs[i].bytes));
        h->logprobs[h->n_logprobs++] = d->logprobs[i];
    }
}

static void on_delta(void *self, const message *m)
{
    scene            *s = self;
    const text_delta *d = m->body;
    if (!request_id_equal(&m->envelope->request, &s->about.request) || m->envelope->attempt != s->about.attempt)
        return;
    assert_true(d->choice < SCENE_CHOICES);
    heard *h = &s->choices[d->choice];
    assert_int_equal(h->n_finishes, 0);
    h->n_deltas++;
    keep_logprobs(h, d);
    if (d->prompt) {
        h->n_prompt_deltas++;
        assert_int_equal(h->n_tokens, 0);
        append(h->prompt, d->text);
        return;
    }
    assert_int_equal(d->index, h->n_tokens);
    assert_true(d->n_tokens > 0 || d->finish != FINISH_REASON_NONE);
    if (d->n_tokens > 0)
        memcpy(h->tokens + h->n_tokens, d->tokens, d->n_tokens * sizeof *d->tokens);
    h->n_tokens += d->n_tokens;
    append(h->text, d->text);
    h->n_finishes += d->finish != FINISH_REASON_NONE;
    h->finish = d->finish;
    h->usage  = d->usage;
    snprintf(h->stop_reason, sizeof h->stop_reason, "%.*s", SPAN_ARG(d->stop_reason));
    snprintf(h->error, sizeof h->error, "%.*s", SPAN_ARG(d->error));
}

static void on_text_refused(void *self, const message *m)
{
    scene              *s    = self;
    const text_refused *body = m->body;
    s->n_refused++;
    error_set(&s->refused, (error_code)body->code, "%.*s", SPAN_ARG(body->text));
    snprintf(s->refused_field, sizeof s->refused_field, "%.*s", SPAN_ARG(body->field));
}

/* ---- the scheduler ---- */

static void on_cancel(void *self, const message *m)
{
    scene *s = self;
    assert_true(s->n_cancels < COUNT(s->cancels));
    s->cancels[s->n_cancels++] = *(const gen_cancel *)m->body;
}

static void scheduler_peer_up(void *self, peer *p)
{
    ((scene *)self)->reader = p;
}

static void scheduler_peer_down(void *self, peer *p)
{
    scene *s  = self;
    s->reader = s->reader == p ? NULL : s->reader;
}

/* ---- the stage ---- */

static void *create(actor *a, const void *options, error *err)
{
    (void)a, (void)err;
    return *(scene *const *)options;
}

static void destroy(void *self)
{
    (void)self;
}

static const actor_route gateway_routes[] = {
    {MSG_TEXT_DELTA, on_delta},        {MSG_TEXT_REFUSED, on_text_refused}, {MSG_TEXT_REQUEST, actor_ignore},
    {MSG_TEXT_CANCEL, actor_ignore},   {MSG_TEXT_ENCODE, actor_ignore},     {MSG_TEXT_ENCODED, actor_ignore},
    {MSG_TEXT_DECODE, actor_ignore},   {MSG_TEXT_DECODED, actor_ignore},    {MSG_GEN_FOUND, actor_ignore},
    {MSG_STATUS_REPORT, actor_ignore},
};

static const actor_route scheduler_routes[] = {
    {MSG_GEN_REQUEST, actor_ignore},    {MSG_GEN_CANCEL, on_cancel},        {MSG_GEN_FIND, actor_ignore},
    {MSG_EXECUTOR_READY, actor_ignore}, {MSG_EXECUTOR_LEAVE, actor_ignore}, {MSG_STEP_RESULT, actor_ignore},
    {MSG_KV_LOADED, actor_ignore},      {MSG_DRAFT_REPLY, actor_ignore},    {MSG_STATUS_GET, actor_ignore},
};

static const actor_class gateway = {.name     = "gateway",
                                    .role     = ROLE_GATEWAY,
                                    .routes   = gateway_routes,
                                    .n_routes = COUNT(gateway_routes),
                                    .create   = create,
                                    .destroy  = destroy};

static const actor_class scheduler = {.name         = "scheduler",
                                      .role         = ROLE_SCHEDULER,
                                      .routes       = scheduler_routes,
                                      .n_routes     = COUNT(scheduler_routes),
                                      .create       = create,
                                      .destroy      = destroy,
                                      .on_peer_up   = scheduler_peer_up,
                                      .on_peer_down = scheduler_peer_down};

static bool all_are_up(void *arg)
{
    scene *s = arg;
    return s->reader && actor_find_peer(s->gateway, span_of(actor_name(s->postprocessor))) &&
           actor_find_peer(s->postprocessor, span_of(actor_name(s->gateway))) &&
           actor_find_peer(s->postprocessor, span_of(actor_name(s->scheduler)));
}

static actor *add(scene *s, const actor_class *class, const void *options, const actor_options *how)
{
    error  err;
    actor *a = simulation_add(s->sim, class, options, how, &err);
    if (!a)
        fail_msg("%s", err.text);
    return a;
}

void scene_open(scene *s, const postprocessor_options *options)
{
    error err;
    *s                         = (scene){.sim = simulation_new(5, &err), .options = *options};
    s->options.model           = TESTS_DIR "/data/tokenizer/gpt2";
    s->options.max_num_streams = options->max_num_streams ? options->max_num_streams : 4;
    s->tokenizer               = tokenizer_open(s->options.model, &err);
    if (!s->sim || !s->tokenizer)
        fail_msg("%s", err.text);
    s->scheduler = add(s, &scheduler, &s, &(actor_options){.bind = {"tcp://scheduler:1"}});
    s->gateway   = add(s, &gateway, &s, &(actor_options){.bind = {"tcp://gateway:1"}});
    s->postprocessor =
        add(s, &postprocessor_class, &s->options,
            &(actor_options){.connect = {"tcp://scheduler:1", "tcp://gateway:1"}, .credits = SCENE_CREDITS});
    assert_true(simulation_run_until(s->sim, all_are_up, s, 10 * NS_PER_S));
    scene_new_request(s);
}

void scene_close(scene *s)
{
    simulation_free(&s->sim);
    tokenizer_free(&s->tokenizer);
}

void scene_settle(scene *s)
{
    simulation_run_until(s->sim, NULL, NULL, 200 * NS_PER_MS);
    if (s->postprocessor)
        postprocessor_class.check(actor_self(s->postprocessor));
}

void scene_new_request(scene *s)
{
    s->about.request.bytes[0]++;
    s->about.attempt = 0;
    memset(s->choices, 0, sizeof s->choices);
    memset(s->n_said, 0, sizeof s->n_said);
    s->n_refused = s->n_cancels = 0;
}

static void say(scene *s, uint16_t type, const void *body)
{
    error err;
    assert_non_null(s->reader);
    if (!actor_send(s->scheduler, s->reader, type, body, &s->about, &err))
        fail_msg("%s", err.text);
}

void scene_say_open(scene *s, gen_open open)
{
    open.reply_to        = span_of(actor_name(s->gateway));
    open.n_prompt_tokens = 5;
    say(s, MSG_GEN_OPEN, &open);
}

void scene_say_tokens(scene *s, uint32_t choice, const uint32_t *tokens, uint32_t n, finish_reason finish)
{
    gen_tokens           body = {.choice          = choice,
                                 .index           = s->n_said[choice],
                                 .tokens          = tokens,
                                 .n_tokens        = n,
                                 .finish          = finish,
                                 .cached_tokens   = 3,
                                 .drafted_tokens  = 2,
                                 .accepted_tokens = 1};
    static token_logprob scores[SCENE_TOKENS];
    static const float   top = -0.5f;
    for (uint32_t i = 0; i < n; i++)
        scores[i] = (token_logprob){.token          = tokens[i],
                                    .logprob        = -1.0f,
                                    .top_tokens     = &tokens[i],
                                    .n_top_tokens   = 1,
                                    .top_logprobs   = &top,
                                    .n_top_logprobs = 1};
    body.logprobs   = scores;
    body.n_logprobs = s->is_scored ? n : 0;
    s->n_said[choice] += n;
    say(s, MSG_GEN_TOKENS, &body);
}

uint32_t scene_tokens(const scene *s, const char *text, random_seeded *random, uint32_t *tokens)
{
    uint32_t n = 0;
    for (size_t left = strlen(text), used; left > 0; text += used, left -= used) {
        used = random ? 1 + random_below(random, left < 6 ? left : 6) : 1;
        while ((tokens[n] = tokenizer_find(s->tokenizer, (span){text, used})) == UINT32_MAX && used > 1)
            used--;
        assert_true(tokens[n] != UINT32_MAX && n + 1 < SCENE_TOKENS);
        n++;
    }
    return n;
}

void scene_say_text(scene *s, uint32_t choice, const char *text, random_seeded *random, finish_reason finish)
{
    uint32_t tokens[SCENE_TOKENS], n = scene_tokens(s, text, random, tokens), at = 0;
    do {
        uint32_t some = random ? 1 + (uint32_t)random_below(random, 4) : 1;
        some          = some < n - at ? some : n - at;
        scene_say_tokens(s, choice, tokens + at, some, at + some == n ? finish : FINISH_REASON_NONE);
        at += some;
    } while (at < n);
}
