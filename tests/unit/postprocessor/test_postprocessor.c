/* The actor between a scheduler and a gateway: texts, ends, attempts, losses. */
#include "support_scene.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const postprocessor_options plain = {0};

static gen_open open_of(uint32_t n)
{
    gen_open open = gen_open_defaults;
    open.n        = n;
    open.output   = output_params_defaults;
    return open;
}

static const char *write_rules(char path[32])
{
    static const char rules[] = "rules:\n"
                                "  - {name: bird, action: block, keywords: [bluebird]}\n"
                                "  - {name: rude, action: mask, keywords: [darn]}\n"
                                "  - {name: names, action: replace, keywords: [Ann], whole_words: true, "
                                "replacement: Somebody}\n";
    strcpy(path, "/tmp/test_rules_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, rules, sizeof rules - 1) == (ssize_t)sizeof rules - 1);
    close(fd);
    return path;
}

static const span stops[] = {{"STOP", 4}, {"\n\n", 2}, {"\xc3\xa9\xc3\xa9", 4}};

static const struct {
    const char   *says, *text, *stop_reason;
    finish_reason finish;
    bool          include_stop;
    uint32_t      repetition_limit;
} texts[] = {
    {"Hello, w\xc3\xb6rld \xf0\x9f\x8e\xb2!", "Hello, w\xc3\xb6rld \xf0\x9f\x8e\xb2!", "", FINISH_REASON_LENGTH, false,
     0},
    {"one two STOP three", "one two ", "STOP", FINISH_REASON_STOP, false, 0},
    {"one two STOP three", "one two STOP", "STOP", FINISH_REASON_STOP, true, 0},
    {"one STO two \xc3\xa9 \xc3\xa9\xc3\xa9 x", "one STO two \xc3\xa9 ", "\xc3\xa9\xc3\xa9", FINISH_REASON_STOP, false,
     0},
    {"ends in STO", "ends in STO", "", FINISH_REASON_LENGTH, false, 0},
    {"ends in half \xf0\x9f\x8e", "ends in half \xef\xbf\xbd", "", FINISH_REASON_LENGTH, false, 0},
    {"Ann said darn, Anna", "Somebody said ****, Anna", "", FINISH_REASON_LENGTH, false, 0},
    {"well, Ann", "well, Somebody", "", FINISH_REASON_LENGTH, false, 0},
    {"the blue BlueBird flies", "the blue ", "bird", FINISH_REASON_CONTENT_FILTER, false, 0},
    {"a darnSTOP", "a ****", "STOP", FINISH_REASON_STOP, false, 0},
    {"blueSTOPbird", "blue", "STOP", FINISH_REASON_STOP, false, 0},
};

static void every_cut_of_a_text_into_tokens_and_messages_says_the_same(void **state)
{
    (void)state;
    char                  path[32];
    scene                *s       = calloc(1, sizeof *s);
    postprocessor_options options = {.output_filter_file = write_rules(path)};
    random_seeded         random  = random_from_seed(11);
    scene_open(s, &options);
    for (size_t i = 0; i < COUNT(texts); i++)
        for (uint32_t round = 0; round < 12; round++) {
            gen_open open            = open_of(1);
            open.output.stop         = stops;
            open.output.n_stop       = COUNT(stops);
            open.output.include_stop = texts[i].include_stop;
            scene_new_request(s);
            scene_say_open(s, open);
            scene_say_text(s, 0, texts[i].says, round ? &random : NULL, FINISH_REASON_LENGTH);
            scene_settle(s);
            const heard *h = &s->choices[0];
            assert_string_equal(h->text, texts[i].text);
            assert_string_equal(h->stop_reason, texts[i].stop_reason);
            assert_int_equal(h->finish, texts[i].finish);
            assert_int_equal(h->n_finishes, 1);
            assert_int_equal(h->usage.completion_tokens, h->n_tokens);
            assert_int_equal(h->usage.prompt_tokens, 5);
            assert_int_equal(h->usage.cached_tokens, 3);
            assert_int_equal(s->reader->credits, SCENE_CREDITS);
        }
    scene_close(s);
    unlink(path);
    free(s);
}

/* One-byte tokens: the names of those with a log probability are the text that left as it is. */
static const struct {
    const char *says, *text, *names;
    bool        include_stop, is_filtered;
} scored_texts[] = {
    {"one STO two STOP three", "one STO two ", "one STO two ", false, false},
    {"one two STOP three", "one two STOP", "one two STOP", true, false},
    {"ends in STO", "ends in STO", "ends in STO", false, false},
    {"a half \xf0\x9f\x8e", "a half \xef\xbf\xbd", "a half \xf0\x9f\x8e", false, false},
    {"\xc3\xa9 \xc3\xa9\xc3\xa9", "\xc3\xa9 ", "\xc3\xa9 ", false, false},
    {"Ann said darn, Anna", "Somebody said ****, Anna", " said , Anna", false, true},
    {"dar\xc3\xa9 dar", "dar\xc3\xa9 dar", "dar\xc3\xa9 dar", false, true},
    {"the blue BlueBird flies", "the blue ", "the blue ", false, true},
    {"a darnSTOP", "a ****", "a ", false, true},
};

static void check_scored_names(const heard *h, const char *names, bool is_filtered)
{
    char said[SCENE_TEXT] = "";
    for (uint32_t i = 0; i < h->n_logprobs; i++) {
        strcat(said, h->names[i]);
        assert_int_equal(h->logprobs[i].n_top, !is_filtered);
    }
    assert_string_equal(said, names);
}

static void log_probabilities_say_no_more_than_the_text(void **state)
{
    (void)state;
    char                  path[32];
    scene                *s       = calloc(1, sizeof *s);
    postprocessor_options options = {.output_filter_file = write_rules(path)};
    random_seeded         random  = random_from_seed(12);
    uint32_t              tokens[SCENE_TOKENS];
    scene_open(s, &options);
    s->is_scored = true;
    for (size_t i = 0; i < COUNT(scored_texts); i++)
        for (uint32_t round = 0; round < 4; round++) {
            gen_open open            = open_of(1);
            open.logprobs            = true;
            open.output.filter       = scored_texts[i].is_filtered;
            open.output.stop         = stops;
            open.output.n_stop       = COUNT(stops);
            open.output.include_stop = scored_texts[i].include_stop;
            scene_new_request(s);
            scene_say_open(s, open);
            uint32_t n = scene_tokens(s, scored_texts[i].says, NULL, tokens);
            for (uint32_t at = 0, some; at < n; at += some) {
                some = round ? 1 + (uint32_t)random_below(&random, n - at) : 1;
                scene_say_tokens(s, 0, tokens + at, some, at + some == n ? FINISH_REASON_LENGTH : FINISH_REASON_NONE);
            }
            scene_settle(s);
            assert_string_equal(s->choices[0].text, scored_texts[i].text);
            assert_int_equal(s->choices[0].n_finishes, 1);
            check_scored_names(&s->choices[0], scored_texts[i].names, scored_texts[i].is_filtered);
        }
    scene_close(s);
    unlink(path);
    free(s);
}

static void log_probabilities_wait_with_their_text(void **state)
{
    (void)state;
    char                  path[32];
    scene                *s       = calloc(1, sizeof *s);
    postprocessor_options options = {.output_filter_file = write_rules(path)};
    scene_open(s, &options);
    s->is_scored = true;
    scene_say_open(s, open_of(1));
    scene_say_text(s, 0, "a dar", NULL, FINISH_REASON_NONE);
    scene_settle(s);
    check_scored_names(&s->choices[0], "a ", true);
    scene_say_text(s, 0, "e", NULL, FINISH_REASON_NONE);
    scene_settle(s);
    check_scored_names(&s->choices[0], "a dare", true);
    assert_int_equal(s->choices[0].logprobs[5].text_offset, 5);
    scene_close(s);
    unlink(path);
    free(s);
}

static void new_rules_are_for_new_requests(void **state)
{
    (void)state;
    char                  path[32];
    scene                *s       = calloc(1, sizeof *s);
    postprocessor_options options = {.output_filter_file = write_rules(path)};
    scene_open(s, &options);
    scene_say_open(s, open_of(1));
    scene_say_text(s, 0, "darn cat, ", NULL, FINISH_REASON_NONE);
    scene_settle(s);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("rules:\n  - {name: pets, action: mask, keywords: [cat]}\n", f);
    fclose(f);
    simulation_run_until(s->sim, NULL, NULL, 2 * NS_PER_S);
    scene_say_text(s, 0, "darn cat", NULL, FINISH_REASON_LENGTH);
    scene_settle(s);
    assert_string_equal(s->choices[0].text, "**** cat, **** cat");
    for (uint32_t filtered = 0; filtered < 2; filtered++) {
        gen_open open      = open_of(1);
        open.output.filter = filtered;
        scene_new_request(s);
        scene_say_open(s, open);
        scene_say_text(s, 0, "darn cat", NULL, FINISH_REASON_LENGTH);
        scene_settle(s);
        assert_string_equal(s->choices[0].text, filtered ? "darn ***" : "darn cat");
    }
    scene_close(s);
    unlink(path);
    free(s);
}

static void a_stop_string_tells_the_scheduler_to_end_that_choice_alone(void **state)
{
    (void)state;
    scene *s = calloc(1, sizeof *s);
    scene_open(s, &plain);
    gen_open open      = open_of(2);
    open.output.stop   = stops;
    open.output.n_stop = 1;
    scene_say_open(s, open);
    scene_settle(s);
    assert_int_equal(s->reader->credits, SCENE_CREDITS - 1);
    scene_say_text(s, 1, "a STOP and more", NULL, FINISH_REASON_NONE);
    scene_say_text(s, 0, "it goes on", NULL, FINISH_REASON_NONE);
    scene_settle(s);
    assert_int_equal(s->n_cancels, 1);
    assert_int_equal(s->cancels[0].choice, 1);
    assert_false(s->cancels[0].all);
    assert_int_equal(s->cancels[0].reason, CANCEL_REASON_STOP_STRING);
    assert_int_equal(s->choices[1].n_finishes, 1);
    assert_int_equal(s->choices[1].n_tokens, strlen("a STOP")); /* what came behind is not accounted for */
    assert_int_equal(s->choices[0].n_finishes, 0);
    assert_int_equal(s->reader->credits, SCENE_CREDITS - 1);
    scene_say_text(s, 0, ", and ends", NULL, FINISH_REASON_LENGTH);
    scene_settle(s);
    assert_string_equal(s->choices[0].text, "it goes on, and ends");
    assert_int_equal(s->choices[0].n_finishes, 1);
    assert_int_equal(s->n_cancels, 1);
    assert_int_equal(s->reader->credits, SCENE_CREDITS);
    scene_close(s);
    free(s);
}

static void stop_tokens_are_never_printed_and_control_tokens_when_asked_for(void **state)
{
    (void)state;
    scene *s = calloc(1, sizeof *s);
    scene_open(s, &plain);
    uint32_t tokens[4] = {0, tokenizer_find(s->tokenizer, SPAN("<|im_start|>")), 0,
                          tokenizer_find(s->tokenizer, SPAN("<|im_end|>"))};
    assert_int_equal(scene_tokens(s, "a", NULL, &tokens[0]), 1);
    assert_int_equal(scene_tokens(s, "b", NULL, &tokens[2]), 1);
    for (uint32_t specials = 0; specials < 2; specials++) {
        gen_open open              = open_of(1);
        open.output.special_tokens = specials;
        scene_new_request(s);
        scene_say_open(s, open);
        scene_say_tokens(s, 0, tokens, 4, FINISH_REASON_STOP);
        scene_settle(s);
        assert_string_equal(s->choices[0].text, specials ? "a<|im_start|>b" : "ab");
        assert_int_equal(s->choices[0].n_tokens, 4);
        assert_int_equal(s->choices[0].usage.completion_tokens, 4);
        assert_int_equal(s->choices[0].finish, FINISH_REASON_STOP);
        assert_string_equal(s->choices[0].stop_reason, "");
    }
    scene_close(s);
    free(s);
}

static void endless_repetition_ends_the_choice(void **state)
{
    (void)state;
    scene *s = calloc(1, sizeof *s);
    scene_open(s, &plain);
    gen_open open                = open_of(1);
    open.output.repetition_limit = 3;
    scene_say_open(s, open);
    scene_say_text(s, 0, "so: abababab", NULL, FINISH_REASON_NONE);
    scene_settle(s);
    assert_string_equal(s->choices[0].text, "so: ababab");
    assert_int_equal(s->choices[0].finish, FINISH_REASON_REPETITION);
    assert_int_equal(s->cancels[0].reason, CANCEL_REASON_REPETITION);
    scene_new_request(s);
    open.output.repetition_limit = 1;
    scene_say_open(s, open);
    scene_settle(s);
    assert_int_equal(s->refused.code, ERR_INVALID);
    assert_string_equal(s->refused_field, "repetition_limit");
    assert_int_equal(s->reader->credits, SCENE_CREDITS);
    scene_close(s);
    free(s);
}

/* Attempt 0 is cut off wherever it was; attempt 1 gets what the gateway heard, and says the rest. */
static void a_resumed_request_says_what_the_first_attempt_would_have_said(void **state)
{
    (void)state;
    static const char     says[] = "Ann said dar\xc3\xa9 dar STO, darn \xf0\x9f\x8e\xb2 Ann STOP tail";
    static const char     text[] = "Somebody said dar\xc3\xa9 dar STO, **** \xf0\x9f\x8e\xb2 Somebody ";
    char                  path[32];
    scene                *s       = calloc(1, sizeof *s);
    postprocessor_options options = {.output_filter_file = write_rules(path)};
    uint32_t              tokens[SCENE_TOKENS], n;
    scene_open(s, &options);
    n                  = scene_tokens(s, says, NULL, tokens);
    gen_open open      = open_of(1);
    open.output.stop   = stops;
    open.output.n_stop = 1;
    for (uint32_t cut = 0; cut < n - strlen("P tail"); cut++) {
        scene_new_request(s);
        scene_say_open(s, open);
        for (uint32_t i = 0; i < cut; i++)
            scene_say_tokens(s, 0, &tokens[i], 1, FINISH_REASON_NONE);
        scene_settle(s);
        static uint32_t had[SCENE_TOKENS];
        heard          *h     = &s->choices[0];
        resume_point    point = {.tokens = had, .n_tokens = h->n_tokens, .text_bytes = (uint32_t)strlen(h->text)};
        gen_open        again = open;
        assert_true(h->n_tokens <= cut);
        memcpy(had, h->tokens, sizeof had);
        s->about.attempt = 1;
        again.resume     = &point;
        again.n_resume   = 1;
        scene_say_open(s, again);
        s->n_said[0] = point.n_tokens;
        scene_say_tokens(s, 0, tokens + point.n_tokens, n - point.n_tokens, FINISH_REASON_NONE);
        scene_settle(s);
        assert_string_equal(h->text, text);
        assert_int_equal(h->finish, FINISH_REASON_STOP);
        assert_int_equal(s->reader->credits, SCENE_CREDITS); /* of both attempts */
    }
    scene_close(s);
    unlink(path);
    free(s);
}

/* Those that wait for their text at the cut come again. */
static void a_resumed_request_loses_no_log_probability(void **state)
{
    (void)state;
    static const char     says[] = "Ann said ddar\xc3\xa9 SSTO SSTSTO, darn STOP";
    char                  path[32];
    scene                *s       = calloc(1, sizeof *s);
    postprocessor_options options = {.output_filter_file = write_rules(path)};
    uint32_t              tokens[SCENE_TOKENS];
    scene_open(s, &options);
    s->is_scored         = true;
    random_seeded random = random_from_seed(5);
    for (uint32_t round = 0; round < 8; round++) {
        bool     is_filtered = round % 2;
        uint32_t n           = scene_tokens(s, says, round < 2 ? NULL : &random, tokens);
        gen_open open        = open_of(1);
        heard    whole = {0}, *h = &s->choices[0];
        open.logprobs      = true;
        open.output.stop   = stops;
        open.output.n_stop = 1;
        open.output.filter = is_filtered;
        for (uint32_t cut = 0; cut < n; cut++) { /* at 0 nothing is cut */
            static uint32_t had[SCENE_TOKENS];
            scene_new_request(s);
            scene_say_open(s, open);
            for (uint32_t i = 0; i < cut; i++)
                scene_say_tokens(s, 0, &tokens[i], 1, FINISH_REASON_NONE);
            scene_settle(s);
            resume_point point = {.tokens = had, .n_tokens = h->n_tokens, .text_bytes = (uint32_t)strlen(h->text)};
            gen_open     again = open;
            memcpy(had, h->tokens, sizeof had);
            s->about.attempt = 1;
            again.resume     = &point;
            again.n_resume   = 1;
            scene_say_open(s, again);
            s->n_said[0] = point.n_tokens;
            scene_say_tokens(s, 0, tokens + point.n_tokens, n - point.n_tokens, FINISH_REASON_NONE);
            scene_settle(s);
            if (cut == 0)
                whole = *h;
            assert_string_equal(h->text, whole.text);
            assert_int_equal(h->n_logprobs, whole.n_logprobs);
            for (uint32_t i = 0; i < h->n_logprobs; i++) {
                assert_string_equal(h->names[i], whole.names[i]);
                assert_int_equal(h->logprobs[i].text_offset, whole.logprobs[i].text_offset);
            }
        }
        assert_true(whole.n_logprobs > 5);
    }
    scene_close(s);
    unlink(path);
    free(s);
}

static void what_is_known_is_dropped_and_what_is_lost_is_asked_for_again(void **state)
{
    (void)state;
    scene   *s = calloc(1, sizeof *s);
    uint32_t tokens[16];
    scene_open(s, &plain);
    assert_int_equal(scene_tokens(s, "abcdefgh", NULL, tokens), 8);
    scene_say_open(s, open_of(1));
    scene_say_open(s, open_of(1)); /* twice: its credit comes back */
    scene_say_tokens(s, 0, tokens, 4, FINISH_REASON_NONE);
    s->n_said[0] = 2;
    scene_say_tokens(s, 0, tokens + 2, 4, FINISH_REASON_NONE);
    s->n_said[0] = 0;
    scene_say_tokens(s, 0, tokens, 3, FINISH_REASON_NONE);
    scene_settle(s);
    assert_string_equal(s->choices[0].text, "abcdef");
    assert_int_equal(s->reader->credits, SCENE_CREDITS - 1);
    s->n_said[0] = 7;
    scene_say_tokens(s, 0, tokens + 7, 1, FINISH_REASON_NONE);
    scene_settle(s);
    assert_int_equal(s->refused.code, ERR_GONE); /* the gateway sends the request again */
    assert_true(s->n_cancels == 1 && s->cancels[0].all);
    assert_int_equal(s->reader->credits, SCENE_CREDITS);
    scene_close(s);
    free(s);
}

static void a_newer_attempt_replaces_an_older_one(void **state)
{
    (void)state;
    scene *s = calloc(1, sizeof *s);
    scene_open(s, &plain);
    s->about.attempt = 1;
    scene_say_open(s, open_of(1));
    scene_say_text(s, 0, "new", NULL, FINISH_REASON_NONE);
    s->about.attempt = 0;
    scene_say_open(s, open_of(1));
    s->n_said[0] = 0;
    scene_say_text(s, 0, "old", NULL, FINISH_REASON_LENGTH);
    s->about.attempt = 1;
    scene_settle(s);
    assert_string_equal(s->choices[0].text, "new");
    assert_int_equal(s->reader->credits, SCENE_CREDITS - 1);
    s->about.attempt = 2;
    memset(&s->choices[0], 0, sizeof s->choices[0]);
    s->n_said[0] = 0;
    scene_say_open(s, open_of(1));
    scene_say_text(s, 0, "newest", NULL, FINISH_REASON_LENGTH);
    scene_settle(s);
    assert_string_equal(s->choices[0].text, "newest");
    assert_int_equal(s->reader->credits, SCENE_CREDITS);
    scene_close(s);
    free(s);
}

static void an_echoed_prompt_comes_first_and_offsets_count_over_it(void **state)
{
    (void)state;
    scene *s = calloc(1, sizeof *s);
    scene_open(s, &plain);
    uint32_t prompt[16], tokens[16], n_prompt = scene_tokens(s, "\xc3\xa9 x", NULL, prompt);
    uint32_t n = scene_tokens(s, "\xc3\xb6k", NULL, tokens);
    assert_true(n_prompt == 4 && n == 3);
    gen_open open    = open_of(2);
    open.output.echo = true;
    open.logprobs    = true;
    open.prompt      = prompt;
    open.n_prompt    = n_prompt;
    scene_say_open(s, open);
    float         top   = -0.25f;
    token_logprob of[4] = {{0}};
    for (uint32_t i = 0; i < 4; i++)
        of[i] = (token_logprob){.logprob        = -1.0f - (float)i,
                                .top_tokens     = tokens,
                                .n_top_tokens   = 1,
                                .top_logprobs   = &top,
                                .n_top_logprobs = 1};
    for (uint32_t i = 1; i < n_prompt; i++)
        of[i - 1].token = prompt[i];
    error err;
    assert_true(actor_send(s->scheduler, s->reader, MSG_GEN_PROMPT,
                           &(gen_prompt){.index = 1, .logprobs = of, .n_logprobs = 2}, &s->about, &err));
    assert_true(actor_send(s->scheduler, s->reader, MSG_GEN_PROMPT,
                           &(gen_prompt){.index = 2, .logprobs = of + 1, .n_logprobs = 2}, &s->about, &err));
    for (uint32_t choice = 0; choice < 2; choice++) {
        for (uint32_t i = 0; i < n; i++)
            of[i].token = tokens[i];
        gen_tokens body = {.choice     = choice,
                           .tokens     = tokens,
                           .n_tokens   = n,
                           .finish     = FINISH_REASON_LENGTH,
                           .logprobs   = of,
                           .n_logprobs = n};
        assert_true(actor_send(s->scheduler, s->reader, MSG_GEN_TOKENS, &body, &s->about, &err));
    }
    scene_settle(s);
    for (uint32_t choice = 0; choice < 2; choice++) {
        static const uint32_t offsets[] = {0, 0, 1, 2, 3, 3, 4};
        static const char    *names[]   = {"\xc3", "\xa9", " ", "x", "\xc3", "\xb6", "k"};
        const heard          *h         = &s->choices[choice];
        assert_string_equal(h->prompt, "\xc3\xa9 x");
        assert_string_equal(h->text, "\xc3\xb6k");
        assert_int_equal(h->n_logprobs, COUNT(offsets));
        for (uint32_t i = 0; i < COUNT(offsets); i++) {
            assert_int_equal(h->logprobs[i].text_offset, offsets[i]);
            assert_string_equal(h->names[i], names[i]);
            assert_int_equal(h->logprobs[i].no_logprob, i == 0);
            assert_int_equal(h->logprobs[i].n_top, i > 0);
        }
        assert_true(h->logprobs[3].logprob == -3.0f && h->logprobs[4].logprob == -1.0f);
        assert_int_equal(h->n_finishes, 1);
    }
    scene_close(s);
    free(s);
}

static void more_requests_than_there_is_room_for_are_refused(void **state)
{
    (void)state;
    scene                *s       = calloc(1, sizeof *s);
    postprocessor_options options = {.max_num_streams = 1};
    scene_open(s, &options);
    scene_say_open(s, open_of(1));
    scene_settle(s);
    envelope first = s->about;
    scene_new_request(s);
    scene_say_open(s, open_of(1));
    scene_settle(s);
    assert_int_equal(s->n_refused, 1);
    assert_int_equal(s->refused.code, ERR_OVERLOADED);
    assert_true(s->n_cancels == 1 && s->cancels[0].all);
    assert_int_equal(s->reader->credits, SCENE_CREDITS - 1);
    s->about = first;
    scene_say_text(s, 0, "done", NULL, FINISH_REASON_LENGTH);
    scene_settle(s);
    assert_string_equal(s->choices[0].text, "done");
    scene_new_request(s);
    scene_say_open(s, open_of(1));
    scene_say_text(s, 0, "next", NULL, FINISH_REASON_LENGTH);
    scene_settle(s);
    assert_string_equal(s->choices[0].text, "next");
    scene_close(s);
    free(s);
}

static void without_its_gateway_a_request_is_cancelled_and_without_its_scheduler_forgotten(void **state)
{
    (void)state;
    scene *s = calloc(1, sizeof *s);
    scene_open(s, &plain);
    scene_say_open(s, open_of(1));
    scene_settle(s);
    gen_open lost = open_of(1);
    lost.reply_to = SPAN("gateway-of-yesterday");
    scene_new_request(s);
    error err;
    assert_true(actor_send(s->scheduler, s->reader, MSG_GEN_OPEN, &lost, &s->about, &err));
    scene_say_text(s, 0, "x", NULL, FINISH_REASON_NONE);
    scene_settle(s);
    assert_true(s->n_cancels == 1 && s->cancels[0].all);
    assert_int_equal(s->cancels[0].reason, CANCEL_REASON_CLIENT_LEFT);
    assert_int_equal(s->reader->credits, SCENE_CREDITS - 1);
    assert_int_equal(postprocessor_class.load(actor_self(s->postprocessor)), 1);
    simulation_kill(s->sim, s->scheduler);
    simulation_run_until(s->sim, NULL, NULL, 10 * NS_PER_S);
    assert_int_equal(postprocessor_class.load(actor_self(s->postprocessor)), 0);
    scene_close(s);
    free(s);
}

static void a_cancelled_stream_is_forgotten(void **state)
{
    (void)state;
    scene *s = calloc(1, sizeof *s);
    scene_open(s, &plain);
    scene_say_open(s, open_of(2));
    scene_settle(s);
    error err;
    peer *to = actor_find_peer(s->gateway, span_of(actor_name(s->postprocessor)));
    assert_non_null(to);
    envelope other = s->about;
    other.attempt  = 7;
    assert_true(actor_send(s->gateway, to, MSG_GEN_CANCEL, &(gen_cancel){.all = true}, &other, &err));
    assert_true(actor_send(s->gateway, to, MSG_GEN_CANCEL, &(gen_cancel){.choice = 1}, &s->about, &err));
    scene_settle(s);
    assert_int_equal(s->reader->credits, SCENE_CREDITS - 1);
    assert_true(actor_send(s->gateway, to, MSG_GEN_CANCEL, &(gen_cancel){.all = true}, &s->about, &err));
    scene_settle(s);
    assert_int_equal(s->reader->credits, SCENE_CREDITS);
    scene_say_text(s, 0, "too late", NULL, FINISH_REASON_LENGTH);
    scene_settle(s);
    assert_int_equal(s->choices[0].n_deltas, 0);
    scene_close(s);
    free(s);
}

static bool reader_left(void *arg)
{
    return ((scene *)arg)->reader == NULL;
}

static void draining_ends_with_the_last_stream(void **state)
{
    (void)state;
    scene *s = calloc(1, sizeof *s);
    scene_open(s, &plain);
    scene_say_open(s, open_of(1));
    scene_settle(s);
    envelope first = s->about;
    actor_drain(s->postprocessor);
    scene_settle(s);
    assert_non_null(s->reader);
    scene_new_request(s);
    scene_say_open(s, open_of(1));
    scene_settle(s);
    assert_int_equal(s->refused.code, ERR_GONE);
    s->about = first;
    scene_say_text(s, 0, "last words", NULL, FINISH_REASON_LENGTH);
    assert_true(simulation_run_until(s->sim, reader_left, s, 10 * NS_PER_S));
    s->postprocessor = NULL;
    scene_settle(s);
    assert_string_equal(s->choices[0].text, "last words");
    assert_int_equal(s->choices[0].finish, FINISH_REASON_LENGTH);
    scene_close(s);
    free(s);
}

/* More tokens than one delta takes, and an error at the end. */
static void long_messages_become_several_deltas(void **state)
{
    (void)state;
    scene *s = calloc(1, sizeof *s);
    scene_open(s, &plain);
    char text[1000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 26);
    text[sizeof text - 1] = 0;
    uint32_t tokens[SCENE_TOKENS], n = scene_tokens(s, text, NULL, tokens);
    scene_say_open(s, open_of(1));
    scene_say_tokens(s, 0, tokens, n, FINISH_REASON_NONE);
    error      err;
    gen_tokens last = {.index = n, .finish = FINISH_REASON_ERROR, .error = SPAN("no finite logit")};
    assert_true(actor_send(s->scheduler, s->reader, MSG_GEN_TOKENS, &last, &s->about, &err));
    scene_settle(s);
    assert_string_equal(s->choices[0].text, text);
    assert_int_equal(s->choices[0].n_tokens, n);
    assert_true(s->choices[0].n_deltas >= 4);
    assert_int_equal(s->choices[0].finish, FINISH_REASON_ERROR);
    assert_string_equal(s->choices[0].error, "no finite logit");
    scene_close(s);
    free(s);
}

static void bad_options_are_refused_at_the_start(void **state)
{
    (void)state;
    static const struct {
        postprocessor_options options;
        const char           *text;
    } bad[] = {
        {{.max_num_streams = 1}, "--model is missing"},
        {{.model = "/nowhere.gguf", .max_num_streams = 1}, "/nowhere.gguf"},
        {{.model = TESTS_DIR "/data/tokenizer/gpt2", .max_num_streams = 1, .output_filter_file = "/nowhere.yaml"},
         "/nowhere.yaml"},
        {{.model = TESTS_DIR "/data/tokenizer/gpt2", .max_num_streams = 1, .repetition_limit = 1},
         "--repetition-limit 1"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        error       err;
        simulation *sim = simulation_new(1, &err);
        assert_null(simulation_add(sim, &postprocessor_class, &bad[i].options,
                                   &(actor_options){.connect = {"tcp://scheduler:1"}}, &err));
        if (!strstr(err.text, bad[i].text))
            fail_msg("expected \"%s\" in \"%s\"", bad[i].text, err.text);
        simulation_free(&sim);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_of_a_text_into_tokens_and_messages_says_the_same),
        cmocka_unit_test(log_probabilities_say_no_more_than_the_text),
        cmocka_unit_test(log_probabilities_wait_with_their_text),
        cmocka_unit_test(new_rules_are_for_new_requests),
        cmocka_unit_test(a_stop_string_tells_the_scheduler_to_end_that_choice_alone),
        cmocka_unit_test(stop_tokens_are_never_printed_and_control_tokens_when_asked_for),
        cmocka_unit_test(endless_repetition_ends_the_choice),
        cmocka_unit_test(a_resumed_request_says_what_the_first_attempt_would_have_said),
        cmocka_unit_test(a_resumed_request_loses_no_log_probability),
        cmocka_unit_test(what_is_known_is_dropped_and_what_is_lost_is_asked_for_again),
        cmocka_unit_test(a_newer_attempt_replaces_an_older_one),
        cmocka_unit_test(an_echoed_prompt_comes_first_and_offsets_count_over_it),
        cmocka_unit_test(more_requests_than_there_is_room_for_are_refused),
        cmocka_unit_test(without_its_gateway_a_request_is_cancelled_and_without_its_scheduler_forgotten),
        cmocka_unit_test(a_cancelled_stream_is_forgotten),
        cmocka_unit_test(draining_ends_with_the_last_stream),
        cmocka_unit_test(long_messages_become_several_deltas),
        cmocka_unit_test(bad_options_are_refused_at_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
