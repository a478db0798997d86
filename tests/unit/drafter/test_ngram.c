/* Prompt lookup: proposes what followed last time, and never reads beyond what it was told. */
#include "drafter/ngram.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *does;
    const char *text; /* a character a token */
    uint32_t    n_max;
    const char *proposes;
} cases[] = {
    {"nothing is known of an empty sequence", "", 4, ""},
    {"nothing follows what never stood before", "abcdef", 4, ""},
    {"what followed the last two tokens", "abcdXYab", 4, "cdXY"},
    {"no more than asked for", "abcdXYab", 2, "cd"},
    {"no more than there is", "abXab", 8, "Xab"},
    {"the longest n-gram wins", "zabc1 yabc2 zabc", 1, "1"},
    {"the latest of equals wins", "ab1 ab2 ab", 1, "2"},
    {"a run of one token goes on", "aaaaaa", 3, "a"},
    {"one token alone is too short a match", "xaya", 2, ""},
};

static void it_proposes_what_followed_last_time(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        ngram_index *index = ngram_new(64, NULL);
        uint32_t     tokens[64], drafts[8], n = (uint32_t)strlen(cases[i].text);
        char         got[9] = "";
        for (uint32_t k = 0; k < n; k++)
            tokens[k] = (uint32_t)cases[i].text[k];
        assert_true(ngram_extend(index, 0, tokens, n));
        uint32_t n_drafts = ngram_propose(index, drafts, cases[i].n_max);
        for (uint32_t k = 0; k < n_drafts; k++)
            got[k] = (char)drafts[k];
        if (strcmp(cases[i].proposes, got) != 0)
            fail_msg("%s: expected \"%s\", got \"%s\"", cases[i].does, cases[i].proposes, got);
        ngram_free(&index);
    }
}

static void a_full_index_adds_nothing(void **state)
{
    (void)state;
    ngram_index *index     = ngram_new(4, NULL);
    uint32_t     tokens[5] = {1, 2, 3, 4, 5};
    assert_false(ngram_extend(index, 0, tokens, 5));
    assert_true(ngram_extend(index, 0, tokens, 4));
    assert_false(ngram_extend(index, 4, tokens, 1));
    assert_int_equal(4, ngram_n_tokens(index));
    ngram_free(&index);
}

/* After any sequence of cuts and additions a proposal is a piece of the text that follows an occurrence of its last
 * tokens. */
static void proposals_always_stand_in_the_text(void **state)
{
    (void)state;
    enum { N_MAX = 300 };
    ngram_index  *index = ngram_new(N_MAX, NULL);
    random_seeded rng   = random_from_seed(5);
    uint32_t      text[N_MAX], n = 0, n_hits = 0;
    for (int step = 0; step < 5000; step++) {
        uint32_t keep = (uint32_t)random_below(&rng, n + 1), added[8], n_added = (uint32_t)random_below(&rng, 9);
        keep = n - keep < 10 ? keep : n; /* mostly grow */
        keep = keep + n_added > N_MAX ? 0 : keep;
        for (uint32_t i = 0; i < n_added; i++)
            added[i] = text[keep + i] = (uint32_t)random_below(&rng, 3);
        assert_true(ngram_extend(index, keep, added, n_added));
        n = keep + n_added;
        uint32_t drafts[8], n_drafts = ngram_propose(index, drafts, 8);
        bool     found = n_drafts == 0;
        for (uint32_t at = NGRAM_SHORTEST; !found && at + n_drafts <= n; at++)
            found = memcmp(text + at, drafts, n_drafts * 4) == 0 &&
                    memcmp(text + at - NGRAM_SHORTEST, text + n - NGRAM_SHORTEST, NGRAM_SHORTEST * 4) == 0;
        assert_true(found);
        n_hits += n_drafts > 0;
    }
    assert_true(n_hits > 1000);
    ngram_free(&index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_proposes_what_followed_last_time),
        cmocka_unit_test(a_full_index_adds_nothing),
        cmocka_unit_test(proposals_always_stand_in_the_text),
    };
    return cmocka_run_group_tests_name("drafter/ngram", tests, NULL, NULL);
}
