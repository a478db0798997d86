/* A replay: where recorded and new tokens part, and the tiny model run by replay_run itself. */
#include "base/log.h"
#include "support_recording.h"
#include "troupe/replay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    uint32_t      index, n, tokens[4];
    finish_reason finish;
} said;

static void what_differs_is_found(void **state)
{
    enum { SAME = -1 };
    static const struct {
        said     said[3];
        uint32_t n_now, now[6];
        int      differs_at;
        bool     recorded_ends, now_ends;
        uint32_t n_compared;
    } cases[] = {
        {{{0, 3, {1, 2, 3}, FINISH_REASON_LENGTH}}, 3, {1, 2, 3}, SAME, false, false, 3},
        {{{0, 2, {1, 2}, 0}, {2, 1, {3}, FINISH_REASON_STOP}}, 3, {1, 2, 3}, SAME, false, false, 3},
        {{{0, 2, {1, 2}, 0}, {0, 2, {1, 2}, 0}}, 2, {1, 2}, SAME, false, false, 2}, /* sent, and taken in */
        {{{2, 1, {3}, FINISH_REASON_STOP}}, 3, {1, 2, 3}, SAME, false, false, 1},   /* the rest was deleted */
        {{{0, 1, {1}, 0}, {2, 1, {9}, 0}}, 3, {1, 2, 3}, 2, false, false, 2},       /* around a gap */
        {{{0, 3, {1, 8, 9}, 0}}, 3, {1, 2, 3}, 1, false, false, 3},
        {{{1, 1, {9}, 0}, {0, 1, {8}, 0}}, 3, {1, 2, 3}, 0, false, false, 2}, /* the first, not the last */
        {{{0, 3, {1, 2, 3}, 0}}, 2, {1, 2}, 2, false, true, 3},
        {{{0, 2, {1, 2}, FINISH_REASON_STOP}}, 3, {1, 2, 3}, 2, true, false, 2},
        {{{0, 2, {1, 2}, FINISH_REASON_CANCELLED}}, 3, {1, 2, 3}, SAME, false, false, 2},
        {{{0, 2, {1, 2}, 0}}, 3, {1, 2, 3}, SAME, false, false, 2}, /* killed meanwhile */
        {{{0, 0, {0}, FINISH_REASON_STOP}}, 1, {1}, 0, true, false, 0},
    };
    static recording file;
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        error            err;
        uint32_t         n, tokens[6];
        token_difference d;
        recording_begin(&file);
        for (size_t k = 0; k < 3; k++) {
            const said *s = &cases[i].said[k];
            if (s->n || s->finish)
                recording_say_tokens(&file, 1, 5, s->index, s->tokens, s->n, s->finish);
        }
        memcpy(tokens, cases[i].now, sizeof tokens);
        replayed_choice    now = {.tokens = tokens, .n_tokens = cases[i].n_now};
        recorded_requests *all = recorded_requests_of(recording_file(&file), &err);
        assert_non_null(all);
        bool same = replay_compare(recorded_requests_at(all, 0), 5, &now, &n, &d);
        if (same != (cases[i].differs_at == SAME) || n != cases[i].n_compared ||
            (!same && ((int)d.index != cases[i].differs_at || d.recorded_ends != cases[i].recorded_ends ||
                       d.now_ends != cases[i].now_ends)))
            fail_msg("case %zu: same %d, compared %u, index %u, ends %d %d", i, same, n, d.index, d.recorded_ends,
                     d.now_ends);
        recorded_requests_free(&all);
    }
}

static const uint32_t prompt[] = {5, 6, 7, 8};

static void fill_options(all_options *all)
{
    error        err;
    option_group groups[] = {{"s", scheduler_option_rows, n_scheduler_option_rows, &all->scheduler},
                             {"e", executor_option_rows, n_executor_option_rows, &all->executor}};
    char        *flags[]  = {"--model",           TESTS_DIR "/data/models/llama3.gguf",
                             "--threads",         "1",
                             "--kv-cache-memory", "4M",
                             "--max-num-seqs",    "4",
                             "--weight-cache",    "off"};
    if (!option_parse(groups, COUNT(groups), COUNT(flags), flags, NULL, &err))
        fail_msg("%s", err.text);
}

static bool run(const gen_request *request, replayed *out, arena *memory, error *err)
{
    all_options all   = {0};
    envelope    about = {.request.bytes = {1}};
    fill_options(&all);
    arena_reset(memory);
    return replay_run(&all.scheduler, &all.executor, &about, request, memory, out, err);
}

static gen_request request_of(uint32_t n, uint32_t max_tokens)
{
    gen_request request          = gen_request_defaults;
    request.prompt               = prompt;
    request.n_prompt             = COUNT(prompt);
    request.n                    = n;
    request.max_tokens           = max_tokens;
    request.sampling.temperature = 1;
    request.sampling.seed        = 11;
    return request;
}

static void a_run_gives_all_choices_and_resumes(void **state)
{
    (void)state;
    error           err;
    static replayed whole, rest;
    arena          *first = arena_new(1 << 20, &err), *second = arena_new(1 << 20, &err);
    gen_request     request = request_of(2, 12);
    if (!run(&request, &whole, first, &err))
        fail_msg("%s", err.text);
    assert_true(whole.fingerprint != 0 && whole.n_choices == 2);
    assert_int_equal(whole.choices[0].n_tokens, 12);
    assert_int_equal(whole.choices[1].n_tokens, 12);
    assert_memory_not_equal(whole.choices[0].tokens, whole.choices[1].tokens, 12 * sizeof(uint32_t));

    resume_point resume[] = {{.choice = 0, .tokens = whole.choices[0].tokens, .n_tokens = 5},
                             {.choice = 1, .tokens = whole.choices[1].tokens, .n_tokens = 12, .finished = true}};
    request.resume        = resume;
    request.n_resume      = COUNT(resume);
    if (!run(&request, &rest, second, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rest.choices[i].n_tokens, 12);
        assert_memory_equal(rest.choices[i].tokens, whole.choices[i].tokens, 12 * sizeof(uint32_t));
    }
    arena_free(&first);
    arena_free(&second);
}

/* Writes the recording into a folder of its own, replays request 1 of it, and returns the status and what was printed.
 */
static int replay_file(const recording *file, char *printed, size_t printed_bytes)
{
    char        folder[] = "/tmp/troupe-replay-XXXXXX", path[64];
    all_options all      = {0};
    FILE       *out      = fmemopen(printed, printed_bytes, "w");
    fill_options(&all);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/one.rec", folder);
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(file->bytes, 1, file->size, stream), file->size);
    fclose(stream);
    int status = replay_request(&all, folder, "01", out);
    fclose(out);
    unlink(path);
    rmdir(folder);
    return status;
}

/* The second attempt alone is in the recording: the first tokens of both choices came from an earlier one. */
static void a_resumed_request_is_replayed_from_where_it_resumed(void **state)
{
    (void)state;
    error            err;
    static recording file;
    static replayed  whole;
    char             printed[256] = "";
    arena           *memory       = arena_new(1 << 20, &err);
    gen_request      request      = request_of(2, 12);
    if (!run(&request, &whole, memory, &err))
        fail_msg("%s", err.text);
    const uint32_t *tokens[] = {whole.choices[0].tokens, whole.choices[1].tokens};
    resume_point    resume[] = {{.choice = 0, .tokens = tokens[0], .n_tokens = 5},
                                {.choice = 1, .tokens = tokens[1], .n_tokens = 3}};
    request.resume           = resume;
    request.n_resume         = COUNT(resume);
    request.reply_to         = SPAN("gateway-1");
    recording_begin(&file);
    recording_say(&file, 1, 1, MSG_GEN_REQUEST, &request);
    recording_say_tokens(&file, 1, 0, 5, tokens[0] + 5, 7, FINISH_REASON_LENGTH);
    size_t size = file.size;
    recording_say_tokens(&file, 1, 1, 3, tokens[1] + 3, 4, FINISH_REASON_NONE);
    assert_int_equal(replay_file(&file, printed, sizeof printed), REPLAY_SAME);
    assert_string_equal(printed, "same: 11 tokens of 2 choices\n");

    uint32_t wrong = tokens[1][3] ^ 1;
    char     expected[256];
    file.size = size;
    recording_say_tokens(&file, 1, 1, 3, &wrong, 1, FINISH_REASON_NONE);
    assert_int_equal(replay_file(&file, printed, sizeof printed), REPLAY_DIFFERS);
    snprintf(expected, sizeof expected, "differs: choice 1, token 3: recorded %u, now %u\n", wrong, tokens[1][3]);
    assert_string_equal(printed, expected); /* the tiny model has no tokenizer: ids alone */
    arena_free(&memory);
}

static void what_the_scheduler_refuses_is_said(void **state)
{
    (void)state;
    error           err;
    static replayed out;
    arena          *memory  = arena_new(64 << 20, &err);
    gen_request     request = request_of(1, 1 << 20);
    assert_false(run(&request, &out, memory, &err));
    assert_non_null(strstr(err.text, "fit"));
    request           = request_of(1, 4);
    resume_point done = {.choice = 0, .finished = true};
    request.resume    = &done;
    request.n_resume  = 1;
    assert_false(run(&request, &out, memory, &err));
    assert_non_null(strstr(err.text, "had ended"));
    arena_free(&memory);
}

static int be_quiet(void **state)
{
    (void)state;
    log_set_level(LOG_OFF);
    return 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_differs_is_found),
        cmocka_unit_test(a_run_gives_all_choices_and_resumes),
        cmocka_unit_test(a_resumed_request_is_replayed_from_where_it_resumed),
        cmocka_unit_test(what_the_scheduler_refuses_is_said),
    };
    return cmocka_run_group_tests_name("troupe/replay", tests, be_quiet, NULL);
}
