/* A postprocessor between a scheduler and a gateway that the test plays, in a simulation. The gateway keeps what it is
 * told as a real one would, and fails the test on a delta that does not follow the one before. */
#ifndef TROUPE_TESTS_UNIT_POSTPROCESSOR_SUPPORT_SCENE_H
#define TROUPE_TESTS_UNIT_POSTPROCESSOR_SUPPORT_SCENE_H

#include "actor/simulation.h"
#include "services/postprocessor/postprocessor.h"
#include "text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SCENE_CHOICES = 4, SCENE_TEXT = 4096, SCENE_TOKENS = 1024, SCENE_CREDITS = 4 };

/* What the gateway heard of one choice. */
typedef struct {
    char          text[SCENE_TEXT], prompt[SCENE_TEXT], stop_reason[257], error[401];
    uint32_t      tokens[SCENE_TOKENS], n_tokens, n_deltas, n_prompt_deltas, n_finishes;
    finish_reason finish;
    usage         usage;
    text_logprob  logprobs[SCENE_TOKENS]; /* without bytes and top: those are in names and n_top */
    char          names[SCENE_TOKENS][32];
    uint32_t      n_logprobs;
} heard;

typedef struct {
    simulation           *sim;
    postprocessor_options options;
    actor                *postprocessor, *scheduler, *gateway;
    peer                 *reader; /* the postprocessor, as the scheduler sees it */
    tokenizer            *tokenizer;
    heard                 choices[SCENE_CHOICES];
    uint32_t              n_refused, n_cancels;
    error                 refused;
    char                  refused_field[65];
    gen_cancel            cancels[16];
    envelope              about; /* of the request that is played */
    uint32_t              n_said[SCENE_CHOICES];
    bool                  is_scored; /* tokens come with log probabilities, and one alternative each */
} scene;

/* Opens the curtain: all are connected. options->model is set here. */
void scene_open(scene *s, const postprocessor_options *options);
void scene_close(scene *s);

/* Lets messages arrive: 200 ms. */
void scene_settle(scene *s);

/* A new request (or its next attempt), for which the gateway has heard nothing. */
void scene_new_request(scene *s);

/* The scheduler says; open.reply_to and n_prompt_tokens are set here. */
void scene_say_open(scene *s, gen_open open);
void scene_say_tokens(scene *s, uint32_t choice, const uint32_t *tokens, uint32_t n, finish_reason finish);

/* Tokens of a text: cut at random, or one a byte where `random` is NULL. Returns how many. */
uint32_t scene_tokens(const scene *s, const char *text, random_seeded *random, uint32_t *tokens);

/* Says a text as one choice's tokens, some at a time. */
void scene_say_text(scene *s, uint32_t choice, const char *text, random_seeded *random, finish_reason finish);

#endif
