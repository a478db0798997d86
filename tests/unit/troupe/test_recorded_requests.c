/* What a recording says of requests: each once, with the tokens of all its messages. */
#include "support_recording.h"
#include "troupe/recorded_requests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static recording file;

static recorded_requests *read_file(void)
{
    error              err;
    recorded_requests *all = recorded_requests_of(recording_file(&file), &err);
    if (!all)
        fail_msg("%s", err.text);
    return all;
}

static void say_request(uint8_t id, uint32_t attempt, uint32_t max_tokens)
{
    gen_request body = gen_request_defaults;
    body.prompt      = (const uint32_t[]){1, 2, 3};
    body.n_prompt    = 3;
    body.max_tokens  = max_tokens;
    body.reply_to    = SPAN("gateway-1");
    recording_say(&file, id, attempt, MSG_GEN_REQUEST, &body);
}

static void requests_come_in_the_order_of_their_time(void **state)
{
    (void)state;
    recording_begin(&file);
    say_request(9, 0, 5);
    say_request(4, 0, 5);
    recording_gap(&file, 12);
    recording_say_tokens(&file, 4, 1, 2, (const uint32_t[]){7, 8}, 2, FINISH_REASON_LENGTH);
    recorded_requests      *all = read_file();
    const recorded_request *r   = recorded_requests_at(all, 0);
    assert_int_equal(recorded_requests_n(all), 2);
    assert_int_equal(r->id.bytes[0], 4);
    assert_true(r->ends[0] == 0 && r->ends[1] == 4 && r->whole[1] && r->finish[1] == FINISH_REASON_LENGTH);
    assert_true(r->tokens && r->tokens->index == 2 && r->tokens->tokens[1] == 8 && !r->tokens->next);
    assert_int_equal(recorded_requests_n_lost(all), 12);
    recorded_requests_free(&all);
}

static void the_earliest_attempt_is_the_one_to_run(void **state)
{
    (void)state;
    const void *body;
    error       err;
    arena      *memory = arena_new(1 << 20, &err);
    recording_begin(&file);
    say_request(4, 2, 30);
    say_request(4, 1, 20);
    say_request(4, 3, 40);
    recorded_requests      *all = read_file();
    const recorded_request *r   = recorded_requests_at(all, 0);
    assert_true(message_decode(MSG_GEN_REQUEST, r->gen, memory, &body, &err));
    assert_int_equal(((const gen_request *)body)->max_tokens, 20);
    recorded_requests_free(&all);
    arena_free(&memory);
}

static void say_delta(uint32_t index, uint32_t token, finish_reason finish, span stop, bool prompt)
{
    text_delta body  = text_delta_defaults;
    body.index       = index;
    body.tokens      = &token;
    body.n_tokens    = 1;
    body.finish      = finish;
    body.prompt      = prompt;
    body.stop_reason = stop;
    recording_say(&file, 4, 0, MSG_TEXT_DELTA, &body);
}

static void deltas_count_where_there_is_nothing_else(void **state)
{
    (void)state;
    recording_begin(&file);
    say_delta(0, 99, FINISH_REASON_NONE, (span){0}, true); /* the echo of the prompt */
    say_delta(0, 5, FINISH_REASON_STOP, (span){0}, false);
    recorded_requests      *all = read_file();
    const recorded_request *r   = recorded_requests_at(all, 0);
    assert_true(r->tokens && r->tokens->tokens[0] == 5 && !r->tokens->next && r->whole[0]);
    recorded_requests_free(&all);

    recording_begin(&file);
    say_delta(0, 5, FINISH_REASON_STOP, SPAN("."), false);
    all = read_file();
    assert_false(recorded_requests_at(all, 0)->whole[0]); /* a stop string: the tokens would have gone on */
    recorded_requests_free(&all);

    recording_say_tokens(&file, 4, 0, 0, (const uint32_t[]){6}, 1, FINISH_REASON_NONE);
    all = read_file();
    assert_int_equal(recorded_requests_at(all, 0)->tokens->tokens[0], 6);
    recorded_requests_free(&all);
}

static void what_no_answer_can_have_is_left_out(void **state)
{
    (void)state;
    uint32_t token = 1;
    recording_begin(&file);
    recording_say_tokens(&file, 4, RECORDED_CHOICES_MAX, 0, &token, 1, FINISH_REASON_STOP);
    recording_say_tokens(&file, 4, 0, UINT32_MAX, &token, 1, FINISH_REASON_NONE);
    recording_say_tokens(&file, 4, 0, RECORDED_INDEX_MAX, &token, 1, FINISH_REASON_NONE);
    recorded_requests *all = read_file();
    assert_null(recorded_requests_at(all, 0)->tokens);
    recorded_requests_free(&all);
}

static void a_model_is_known_by_what_its_executor_said(void **state)
{
    (void)state;
    executor_ready about = {.fingerprint      = 77,
                            .n_kv_blocks      = 1,
                            .kv_block_tokens  = 1,
                            .n_slots          = 1,
                            .n_tokens_max     = 1,
                            .n_vocab          = 1,
                            .max_model_len    = 1,
                            .n_logit_rows_max = 1};
    recording_begin(&file);
    say_request(3, 0, 5);
    recording_say(&file, 0, 0, MSG_EXECUTOR_READY, &about);
    say_request(4, 0, 5);
    recorded_requests *all = read_file();
    assert_int_equal(recorded_requests_n(all), 2);
    assert_int_equal(recorded_requests_at(all, 0)->fingerprint, 0);
    assert_int_equal(recorded_requests_at(all, 1)->fingerprint, 77);
    recorded_requests_free(&all);
}

static void a_request_is_found_by_the_first_digits_of_its_id(void **state)
{
    (void)state;
    error err;
    recording_begin(&file);
    say_request(0x41, 0, 5);
    say_request(0x42, 0, 5);
    recorded_requests *all = read_file();
    assert_ptr_equal(recorded_requests_find(all, "42", &err), recorded_requests_at(all, 1));
    assert_null(recorded_requests_find(all, "4", &err));
    assert_non_null(strstr(err.text, "several"));
    assert_null(recorded_requests_find(all, "43", &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    recorded_requests_free(&all);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_come_in_the_order_of_their_time),
        cmocka_unit_test(the_earliest_attempt_is_the_one_to_run),
        cmocka_unit_test(deltas_count_where_there_is_nothing_else),
        cmocka_unit_test(what_no_answer_can_have_is_left_out),
        cmocka_unit_test(a_model_is_known_by_what_its_executor_said),
        cmocka_unit_test(a_request_is_found_by_the_first_digits_of_its_id),
    };
    return cmocka_run_group_tests_name("troupe/recorded_requests", tests, NULL, NULL);
}
