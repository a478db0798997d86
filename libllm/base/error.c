/* The error table and the two functions that write into an error. */
#include "base/error.h"

#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    const char *sentence;
    int         http_status;
    bool        may_retry;
} table[N_ERRORS] = {
#define X(code, http, retry, text) [code] = {#code, text, http, retry},
    ERRORS(X)
#undef X
};

/* Formats into text[0..ERROR_TEXT_BYTES). A text that is cut is not cut inside a UTF-8 sequence. */
static void format_text(char *text, const char *format, va_list args)
{
    int length = vsnprintf(text, ERROR_TEXT_BYTES, format, args);
    if (length < ERROR_TEXT_BYTES)
        return;
    for (size_t cut = 1; cut < UTF8_BYTES_MAX; cut++) {
        bool may_continue;
        span tail = {text + ERROR_TEXT_BYTES - 1 - cut, cut};
        if (utf8_invalid_length(tail, &may_continue) == cut && may_continue)
            text[ERROR_TEXT_BYTES - 1 - cut] = '\0';
    }
}

bool error_set(error *err, error_code code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = code;
        format_text(err->text, format, args);
        va_end(args);
    }
    return false;
}

bool error_wrap(error *err, const char *format, ...)
{
    if (err) {
        char    context[ERROR_TEXT_BYTES];
        error   cause = *err;
        va_list args;
        va_start(args, format);
        format_text(context, format, args);
        va_end(args);
        error_set(err, cause.code, "%s: %s", context, cause.text);
    }
    return false;
}

void error_clear(error *err)
{
    if (err) {
        err->code    = ERR_NONE;
        err->text[0] = '\0';
    }
}

static error_code known(error_code code)
{
    return (unsigned)code < N_ERRORS ? code : ERR_INTERNAL;
}

const char *error_name(error_code code)
{
    return table[known(code)].name;
}

int error_http_status(error_code code)
{
    return table[known(code)].http_status;
}

bool error_may_retry(error_code code)
{
    return table[known(code)].may_retry;
}

const char *error_sentence(error_code code)
{
    return table[known(code)].sentence;
}
