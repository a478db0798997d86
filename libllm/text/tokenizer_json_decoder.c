/* The decoder of a tokenizer.json. Its steps run over a list of tokens; what they come to for each token is read off
 * them here, and an order in which that can't be said is refused. */
#include "text/tokenizer_json_steps.h"

#define BLANK "\xE2\x96\x81" /* U+2581 */

typedef struct {
    tokenizer_json_shape *shape;
    uint32_t              n_steps;
    bool                  fused; /* what follows sees one text, no tokens */
} decoding;

static bool refuse_order(span type, error *err)
{
    return error_set(err, ERR_UNSUPPORTED, "a decoder of type \"%.*s\" at this place or with these options",
                     SPAN_ARG(type));
}

static bool add_replace(decoding *d, const json_t *step, error *err)
{
    span pattern = tokenizer_json_span(json_object_get(json_object_get(step, "pattern"), "String"));
    span content = tokenizer_json_span(json_object_get(step, "content"));
    if (!span_is(pattern, BLANK) || !span_is(content, " ") || d->shape->printing.bytes)
        return refuse_order(SPAN("Replace"), err);
    d->shape->printing.blanks = true;
    return true;
}

static bool add_strip(decoding *d, const json_t *step, error *err)
{
    json_int_t start = json_integer_value(json_object_get(step, "start"));
    json_int_t stop  = json_integer_value(json_object_get(step, "stop"));
    bool       blank = span_is(tokenizer_json_span(json_object_get(step, "content")), " ");
    if (!d->fused || !blank || start < 0 || start > 1 || stop != 0 || d->shape->printing.start != START_AS_ELSEWHERE)
        return refuse_order(SPAN("Strip"), err);
    if (start == 1)
        d->shape->printing.start = START_WITHOUT_ONE_BLANK;
    return true;
}

static bool add_metaspace(decoding *d, const json_t *step, error *err)
{
    const json_t *scheme = json_object_get(step, "prepend_scheme");
    bool          never =
        scheme ? span_is(tokenizer_json_span(scheme), "never") : !tokenizer_json_flag(step, "add_prefix_space", true);
    if (!span_is(tokenizer_json_span(json_object_get(step, "replacement")), BLANK) || d->fused ||
        d->shape->printing.bytes || d->shape->printing.start != START_AS_ELSEWHERE)
        return refuse_order(SPAN("Metaspace"), err);
    d->shape->printing.blanks = true;
    d->shape->printing.start  = never ? START_AS_ELSEWHERE : START_WITHOUT_BLANKS;
    return true;
}

static bool add_word_piece(decoding *d, const json_t *step, error *err)
{
    if (d->n_steps > 0)
        return refuse_order(SPAN("WordPiece"), err);
    d->shape->printing = (token_printing){.start   = START_WITHOUT_JOINT,
                                          .prefix  = tokenizer_json_span(json_object_get(step, "prefix")),
                                          .cleanup = tokenizer_json_flag(step, "cleanup", true)};
    return true;
}

static bool add_step(decoding *d, const json_t *step, error *err)
{
    span type = tokenizer_json_type(step);
    if (d->shape->printing.start == START_WITHOUT_JOINT)
        return refuse_order(type, err);
    if (span_is(type, "Replace"))
        return add_replace(d, step, err);
    if (span_is(type, "Strip"))
        return add_strip(d, step, err);
    if (span_is(type, "Metaspace"))
        return add_metaspace(d, step, err);
    if (span_is(type, "WordPiece"))
        return add_word_piece(d, step, err);
    if (span_is(type, "ByteFallback"))
        return d->fused ? refuse_order(type, err) : (d->shape->printing.bytes = true);
    if (span_is(type, "Fuse"))
        return (d->fused = true);
    return tokenizer_json_refuse(
        "decoder", step, "ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip, WordPiece and Sequence", err);
}

static bool decoder_at(decoding *d, const json_t *decoder, uint32_t depth, error *err)
{
    const json_t *members;
    if (!span_is(tokenizer_json_type(decoder), "Sequence"))
        return add_step(d, decoder, err) && ++d->n_steps;
    if (!tokenizer_json_members(decoder, "decoders", depth, &members, err))
        return false;
    for (size_t i = 0; i < json_array_size(members); i++)
        if (!decoder_at(d, json_array_get(members, i), depth + 1, err))
            return false;
    return true;
}

/* A byte-level vocabulary prints its bytes, and its decoder says just that. */
static bool is_byte_level(const json_t *decoder)
{
    const json_t *only = json_array_get(json_object_get(decoder, "decoders"), 0);
    if (span_is(tokenizer_json_type(decoder), "ByteLevel"))
        return true;
    return span_is(tokenizer_json_type(decoder), "Sequence") &&
           json_array_size(json_object_get(decoder, "decoders")) == 1 &&
           span_is(tokenizer_json_type(only), "ByteLevel");
}

bool tokenizer_json_decoder(const json_t *decoder, tokenizer_json_shape *shape, error *err)
{
    decoding d = {.shape = shape};
    if (shape->byte_level != is_byte_level(decoder))
        return error_set(
            err, ERR_UNSUPPORTED,
            "the pre_tokenizer %s ByteLevel, and the decoder is of type \"%.*s\": supported is ByteLevel in "
            "both or in none",
            shape->byte_level ? "has" : "has no", SPAN_ARG(tokenizer_json_type(decoder)));
    return shape->byte_level || decoder_at(&d, decoder, 0, err);
}
