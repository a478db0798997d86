#include "support_reference.h"

#include "text/piece_cache.h"

enum { TEXT_BYTES = 1 << 20 };

static void keep(const piece_cache *cache, span piece, const uint32_t *tokens, size_t n)
{
    bool found;
    piece_cache_keep(piece_cache_find(cache, piece, &found), piece, tokens, n);
}

/* Whether the cache has these tokens for the piece. */
static bool has(const piece_cache *cache, span piece, const uint32_t *tokens, size_t n)
{
    bool              found;
    const piece_slot *slot = piece_cache_find(cache, piece, &found);
    return found && slot->n_tokens == n && memcmp(slot->tokens, tokens, n * sizeof *tokens) == 0;
}

static void what_was_kept_is_found_by_all_its_bytes(void **state)
{
    (void)state;
    static const uint32_t tokens[] = {7, 8, 9};
    arena                *scratch  = arena_new(piece_cache_bytes(TEXT_BYTES), NULL);
    piece_cache           cache    = piece_cache_new(TEXT_BYTES, scratch);
    assert_int_equal(arena_used(scratch), piece_cache_bytes(TEXT_BYTES));
    assert_false(has(&cache, SPAN("word"), tokens, 3));
    keep(&cache, SPAN("word"), tokens, 3);
    assert_true(has(&cache, SPAN("word"), tokens, 3));
    bool found;
    (void)piece_cache_find(&cache, SPAN("wore"), &found);
    assert_false(found);
    (void)piece_cache_find(&cache, SPAN("word\0"), &found); /* zeros at the end are bytes too */
    assert_false(found);
    keep(&cache, SPAN("nothing"), tokens, 0); /* a piece may have no tokens */
    assert_true(has(&cache, SPAN("nothing"), tokens, 0));
    arena_free(&scratch);
}

static void long_pieces_and_those_of_many_tokens_are_not_kept(void **state)
{
    (void)state;
    static const char     text[PIECE_CACHE_PIECE_BYTES_MAX + 1] = "0123456789012345678901234567890";
    static const uint32_t tokens[PIECE_CACHE_TOKENS_MAX + 1]    = {1, 2, 3};
    arena                *scratch                               = arena_new(piece_cache_bytes(TEXT_BYTES), NULL);
    piece_cache           cache                                 = piece_cache_new(TEXT_BYTES, scratch);
    span                  longest = {text, PIECE_CACHE_PIECE_BYTES_MAX}, longer = {text, sizeof text};
    keep(&cache, longest, tokens, PIECE_CACHE_TOKENS_MAX + 1);
    assert_false(has(&cache, longest, tokens, PIECE_CACHE_TOKENS_MAX + 1));
    keep(&cache, longest, tokens, PIECE_CACHE_TOKENS_MAX);
    assert_true(has(&cache, longest, tokens, PIECE_CACHE_TOKENS_MAX));
    keep(&cache, longer, tokens, 1);
    assert_false(has(&cache, longer, tokens, 1));
    arena_free(&scratch);
}

/* A slot holds what came last. */
static void another_piece_takes_the_slot(void **state)
{
    (void)state;
    static const uint32_t first[] = {1}, second[] = {2};
    arena                *scratch = arena_new(piece_cache_bytes(1), NULL);
    piece_cache           cache   = piece_cache_new(1, scratch); /* one slot */
    keep(&cache, SPAN("a"), first, 1);
    keep(&cache, SPAN("b"), second, 1);
    assert_true(has(&cache, SPAN("b"), second, 1));
    assert_false(has(&cache, SPAN("a"), first, 1));
    arena_free(&scratch);
}

static void without_memory_nothing_is_kept(void **state)
{
    (void)state;
    arena      *little = arena_new(16, NULL);
    piece_cache cache  = piece_cache_new(TEXT_BYTES, little);
    assert_null(cache.slots);
    keep(&cache, SPAN("a"), &(uint32_t){1}, 1);
    assert_false(has(&cache, SPAN("a"), &(uint32_t){1}, 1));
    arena_free(&little);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_kept_is_found_by_all_its_bytes),
        cmocka_unit_test(long_pieces_and_those_of_many_tokens_are_not_kept),
        cmocka_unit_test(another_piece_takes_the_slot),
        cmocka_unit_test(without_memory_nothing_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
