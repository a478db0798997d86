/* See chat.h. Sends text.request to a gateway and prints the deltas; a line of input is a turn. */
#include "troupe/chat.h"

#include "base/random.h"
#include "base/utf8.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { TURNS_MAX = 256, TEXT_BYTES_MAX = 4 << 20, LINE_BYTES_MAX = 64 << 10, RETRY_MS = 100, RETRIES_MAX = 300 };

typedef struct {
    actor              *actor;
    const chat_options *options;
    peer               *gateway;
    arena              *memory; /* of the conversation */
    chat_message        messages[TURNS_MAX];
    uint32_t            n_messages, n_tokens, n_retries;
    envelope            request; /* of the turn in hand; zero id: none */
    char               *answer;
    size_t              answer_bytes;
    char                line[LINE_BYTES_MAX];
    size_t              line_bytes;
    int64_t             begin_ns;
    bool                ended, input_ended;
    actor_timer         retry;
} chat;

const option_row chat_option_rows[] = {
    OPTION_STRING(chat_options, once, "--once", "TEXT", NULL, "Answer this and end."),
    OPTION_STRING(chat_options, system, "--system", "TEXT", NULL, "System message."),
    OPTION_DOUBLE(chat_options, temperature, "--temperature", "T", 0, 0, 100, "0 is greedy."),
    OPTION_UINT(chat_options, max_tokens, "--max-tokens", "N", 512, 1, 1 << 20, "Tokens of an answer."),
    OPTION_UINT(chat_options, seed, "--seed", "N", 0, 0, 9007199254740992.0, "Seed of the sampling."),
};
const size_t n_chat_option_rows = COUNT(chat_option_rows);

static void end(chat *c, int status)
{
    if (!c->ended)
        c->options->on_end(c->options->end_arg, status);
    c->ended = true;
}

static bool add_message(chat *c, const char *who, span content)
{
    span kept = arena_copy(c->memory, content);
    if (c->n_messages == TURNS_MAX || !kept.data) {
        fprintf(stderr, "The conversation is full; start a new one.\n");
        end(c, 1);
        return false;
    }
    c->messages[c->n_messages++] = (chat_message){.role = span_of(who), .content = kept};
    return true;
}

static void prompt(const chat *c)
{
    if (!c->options->once && isatty(STDIN_FILENO))
        fputs("\n> ", stderr);
}

static void ask(chat *c);

static void on_retry(void *self, actor_timer *timer)
{
    (void)timer;
    ask(self);
}

static text_request request_of(const chat *c)
{
    text_request request         = text_request_defaults;
    request.messages             = c->messages;
    request.n_messages           = c->n_messages;
    request.max_tokens           = (uint32_t)c->options->max_tokens;
    request.sampling.temperature = (float)c->options->temperature;
    request.sampling.seed        = c->options->seed;
    return request;
}

/* Sends the conversation; tries again for a while when nobody can take it yet. */
static void ask(chat *c)
{
    text_request request = request_of(c);
    error        err     = {0};
    c->request           = (envelope){0};
    if (!random_bytes(c->request.request.bytes, sizeof c->request.request.bytes, &err)) {
        fprintf(stderr, "%s\n", err.text);
        end(c, 1);
        return;
    }
    c->n_tokens     = 0;
    c->answer_bytes = 0;
    c->begin_ns     = actor_now_ns(c->actor);
    error_set(&err, ERR_NOT_READY, "there is none yet");
    if (c->gateway && actor_send(c->actor, c->gateway, MSG_TEXT_REQUEST, &request, &c->request, &err))
        return;
    if (!error_may_retry(err.code)) {
        fprintf(stderr, "the message can't be sent: %s\n", err.text);
        end(c, 1);
        return;
    }
    if (++c->n_retries > RETRIES_MAX) {
        fprintf(stderr, "no gateway takes requests: %s\n", err.text);
        end(c, 1);
        return;
    }
    actor_timer_set(c->actor, &c->retry, RETRY_MS * NS_PER_MS, on_retry);
}

static void take_line(chat *c, span line)
{
    if (span_is(line, "/quit")) {
        end(c, 0);
    } else if (!utf8_is_valid(line)) {
        fputs("That line is not UTF-8, and was left out.\n", stderr);
        prompt(c);
    } else if (line.size > 0 && add_message(c, "user", line)) {
        c->n_retries = 0;
        ask(c);
    }
}

static void on_input(void *arg, short events);

/* How much of the input is a turn: a line, or what there is room for, but no half character. */
static size_t turn_length(const chat *c, const char *newline)
{
    if (newline)
        return (size_t)(newline - c->line);
    size_t whole = utf8_valid_prefix((span){c->line, c->line_bytes});
    return c->line_bytes == sizeof c->line && c->line_bytes - whole < UTF8_BYTES_MAX ? whole : c->line_bytes;
}

/* True when there was something to read, be it the end. Files are always readable, and cannot be watched. */
static bool read_input(chat *c)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&input, 1, 0) != 1)
        return false;
    ssize_t got = read(STDIN_FILENO, c->line + c->line_bytes, sizeof c->line - c->line_bytes);
    if (got > 0)
        c->line_bytes += (size_t)got;
    else
        c->input_ended = true;
    return true;
}

/* Asks the next line; without one, waits for input. One turn at a time. */
static void next_turn(chat *c)
{
    actor_watch(c->actor, STDIN_FILENO, 0, NULL, NULL);
    while (!c->ended && request_id_is_zero(&c->request.request)) {
        char  *newline = memchr(c->line, '\n', c->line_bytes);
        size_t length  = turn_length(c, newline);
        if (newline || c->line_bytes == sizeof c->line || (c->input_ended && length > 0)) {
            take_line(c, (span){c->line, length});
            c->line_bytes -= length + (newline != NULL);
            memmove(c->line, c->line + length + (newline != NULL), c->line_bytes);
        } else if (c->input_ended) {
            end(c, 0);
        } else if (!read_input(c)) {
            actor_watch(c->actor, STDIN_FILENO, POLLIN, on_input, c);
            return;
        }
    }
}

static void on_input(void *arg, short events)
{
    (void)events;
    next_turn(arg);
}

static void finish_turn(chat *c)
{
    double seconds = (double)(actor_now_ns(c->actor) - c->begin_ns) / 1e9;
    putchar('\n');
    fflush(stdout);
    c->request = (envelope){0};
    if (c->options->once) {
        end(c, 0);
        return;
    }
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "[%u tokens, %.1f tokens/s]\n", c->n_tokens, seconds > 0 ? c->n_tokens / seconds : 0);
    if (!add_message(c, "assistant", (span){c->answer, c->answer_bytes}))
        return;
    prompt(c);
    next_turn(c);
}

static bool is_current(const chat *c, const message *m)
{
    return !request_id_is_zero(&c->request.request) && request_id_equal(&c->request.request, &m->envelope->request);
}

static void on_text_delta(void *self, const message *m)
{
    chat             *c    = self;
    const text_delta *body = m->body;
    if (!is_current(c, m))
        return;
    if (body->text.size > 0) /* data may be NULL otherwise */
        fwrite(body->text.data, 1, body->text.size, stdout);
    fflush(stdout);
    if (c->answer_bytes + body->text.size <= TEXT_BYTES_MAX && body->text.size > 0) {
        memcpy(c->answer + c->answer_bytes, body->text.data, body->text.size);
        c->answer_bytes += body->text.size;
    }
    c->n_tokens += body->n_tokens;
    if (body->finish == FINISH_REASON_ERROR || body->finish == FINISH_REASON_TIMEOUT) {
        fprintf(stderr, "\nthe answer ended: %.*s\n", SPAN_ARG(body->error));
        end(c, 1);
    } else if (body->finish != FINISH_REASON_NONE) {
        finish_turn(c);
    }
}

static void on_text_refused(void *self, const message *m)
{
    chat               *c    = self;
    const text_refused *body = m->body;
    if (!is_current(c, m))
        return;
    if (error_may_retry(body->code) && ++c->n_retries < RETRIES_MAX) {
        actor_timer_set(c->actor, &c->retry, RETRY_MS * NS_PER_MS, on_retry);
        return;
    }
    fprintf(stderr, "refused: %.*s\n", SPAN_ARG(body->text));
    end(c, 1);
}

static void on_peer_up(void *self, peer *p)
{
    chat *c    = self;
    c->gateway = p;
    if (c->n_messages > (c->options->system != NULL))
        return; /* the gateway came back: the retry timer asks again */
    if (c->options->once) {
        if (!utf8_is_valid(span_of(c->options->once))) {
            fputs("--once: the text is not UTF-8\n", stderr);
            end(c, 1);
        } else if (add_message(c, "user", span_of(c->options->once))) {
            ask(c);
        }
        return;
    }
    if (isatty(STDIN_FILENO))
        fputs("Type a message; /quit or Ctrl-D ends.\n", stderr);
    prompt(c);
    next_turn(c);
}

static void on_peer_down(void *self, peer *p)
{
    chat *c = self;
    if (c->gateway == p)
        c->gateway = NULL;
    if (!c->ended && !request_id_is_zero(&c->request.request)) {
        fprintf(stderr, "\nthe gateway left\n");
        end(c, 1);
    }
}

static void on_drain(void *self)
{
    actor_finish(((chat *)self)->actor);
}

static void destroy(void *self)
{
    chat *c = self;
    arena_free(&c->memory);
    free(c->answer);
    free(c);
}

static void *create(actor *a, const void *options, error *err)
{
    chat *c = calloc(1, sizeof *c);
    if (!c) {
        error_set(err, ERR_NO_MEMORY, "no memory for the chat");
        return NULL;
    }
    c->actor   = a;
    c->options = options;
    c->memory  = arena_new(TEXT_BYTES_MAX, err);
    c->answer  = malloc(TEXT_BYTES_MAX);
    if (c->options->system && !utf8_is_valid(span_of(c->options->system))) {
        error_set(err, ERR_INVALID, "--system: the text is not UTF-8");
        destroy(c);
        return NULL;
    }
    if (!c->memory || !c->answer || (c->options->system && !add_message(c, "system", span_of(c->options->system)))) {
        error_set(err, ERR_NO_MEMORY, "no memory for the chat");
        destroy(c);
        return NULL;
    }
    return c;
}

static const actor_route routes[] = {
    {MSG_TEXT_DELTA, on_text_delta},     /* the next piece of the answer */
    {MSG_TEXT_REFUSED, on_text_refused}, /* there will be none */
    {MSG_TEXT_ENCODED, actor_ignore},
    {MSG_TEXT_DECODED, actor_ignore},
};

const actor_class chat_class = {
    .name         = "client",
    .role         = ROLE_CLIENT,
    .routes       = routes,
    .n_routes     = COUNT(routes),
    .create       = create,
    .destroy      = destroy,
    .on_peer_up   = on_peer_up,
    .on_peer_down = on_peer_down,
    .on_drain     = on_drain,
};
