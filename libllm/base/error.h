/* Errors are values: a code for the program, one sentence for a person.
 *
 * A function that can fail returns false (or NULL) and fills an error that its caller owns. The sentence names
 * the thing at fault and what was expected of it ("model.gguf: tensor blk.0.attn_q.weight ends at byte 98362500,
 * past the end of the file (98362432)"). What only a bug can cause is an assert, never an error. */
#ifndef TROUPE_BASE_ERROR_H
#define TROUPE_BASE_ERROR_H

#include <stdbool.h>

// clang-format off
/*    code                http  retry  what a person reads when there is nothing better to say */
#define ERRORS(X)                                                              \
    X(ERR_NONE,           200, false, "no error")                              \
    X(ERR_INVALID,        400, false, "the request is malformed")              \
    X(ERR_UNAUTHORIZED,   401, false, "the API key is missing or unknown")     \
    X(ERR_NOT_FOUND,      404, false, "there is no such thing here")           \
    X(ERR_METHOD,         405, false, "this path does not take that method")   \
    X(ERR_TIMEOUT,        408, true,  "the deadline passed")                   \
    X(ERR_TOO_LARGE,      413, false, "the input is over a limit")             \
    X(ERR_UNSUPPORTED,    400, false, "this is not supported")                 \
    X(ERR_OVERLOADED,     429, true,  "no capacity now; try again later")      \
    X(ERR_CANCELLED,      499, false, "the client left")                       \
    X(ERR_INTERNAL,       500, true,  "an internal error")                     \
    X(ERR_GONE,           503, true,  "the peer left")                         \
    X(ERR_NOT_READY,      503, true,  "the service is still starting")         \
    X(ERR_NO_MEMORY,      503, true,  "a buffer sized at start-up is full")    \
    X(ERR_IO,             500, true,  "reading or writing failed")             \
    X(ERR_MISMATCH,       422, false, "it does not match what went before")    \
    X(ERR_RATE_LIMITED,   429, true,  "this key has used what it may")         \
    X(ERR_MEDIA_TYPE,     415, false, "the body is of another media type")

typedef enum {
#define X(code, http, retry, text) code,
    ERRORS(X)
#undef X
    N_ERRORS
} error_code;
// clang-format on

enum { ERROR_TEXT_BYTES = 400 };

typedef struct {
    error_code code;
    char       text[ERROR_TEXT_BYTES]; /* one sentence, NUL-terminated, always valid UTF-8 when its inputs were */
} error;

/* Fills *err (which may be NULL) and returns false, so that `return error_set(err, ...)` reads as one step.
 * A text over ERROR_TEXT_BYTES is cut. */
bool error_set(error *err, error_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the text of an error already set, and returns false. */
bool error_wrap(error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

void error_clear(error *err);

/* The name ("ERR_INVALID"), HTTP status, retry advice and standard sentence of a code. */
const char *error_name(error_code code);
int         error_http_status(error_code code);
bool        error_may_retry(error_code code);
const char *error_sentence(error_code code);

#define MUST_CHECK __attribute__((warn_unused_result))
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
