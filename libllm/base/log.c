/* One log line: gather it in a buffer on the stack, write it with one system call.
 *
 * Fields arrive as text (`key=value key="some value"`) and are cut into pairs here. A value runs to the next ` key=`,
 * so a value with spaces or quotes in it (an error's sentence, say) does no harm. The line is always valid JSON: a
 * field that does not fit is left out, and `"cut":true` says so. */
#include "base/log.h"

#include "base/json_out.h"
#include "base/metric.h"
#include "base/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};

static atomic_int                    least_level     = LOG_INFO;
static atomic_int                    format_in_force = LOG_FORMAT_AUTO;
static _Atomic(const clock_source *) log_clock;
static _Thread_local const char     *thread_service = "troupe";
static metric                       *dropped_lines;
static pthread_once_t                dropped_lines_once = PTHREAD_ONCE_INIT;

void log_set_level(log_level level)
{
    atomic_store(&least_level, level);
}

void log_set_format(log_format format)
{
    atomic_store(&format_in_force, format);
}

void log_set_clock(const clock_source *clock)
{
    atomic_store(&log_clock, clock);
}

void log_set_thread_service(const char *name)
{
    thread_service = name;
}

bool log_level_from_name(const char *name, log_level *level)
{
    for (size_t i = 0; i < COUNT(level_names); i++) {
        if (strcasecmp(name, level_names[i]) == 0) {
            *level = (log_level)i;
            return true;
        }
    }
    return false;
}

/* ---------------------------------------------------------------------------------------------------- fields */

typedef struct {
    span key, value;
    bool is_quoted;
} log_field;

static bool is_key_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
}

/* The length of a `key` with a '=' behind it at the start of `text`, or 0. */
static size_t key_length(span text)
{
    size_t n = 0;
    while (n < text.size && is_key_byte(text.data[n]))
        n++;
    return n > 0 && n < text.size && text.data[n] == '=' ? n : 0;
}

static bool ends_field(span rest)
{
    return rest.size == 0 ||
           (rest.data[0] == ' ' && (rest.size == 1 || key_length((span){rest.data + 1, rest.size - 1})));
}

static span skip_spaces(span text)
{
    while (text.size > 0 && text.data[0] == ' ')
        text = (span){text.data + 1, text.size - 1};
    return text;
}

/* Takes the first field off *rest. Text that is no `key=` becomes the value of "detail". */
static bool next_field(span *rest, log_field *field)
{
    span text = skip_spaces(*rest);
    if (text.size == 0)
        return false;
    size_t n_key     = key_length(text);
    field->key       = n_key ? (span){text.data, n_key} : SPAN("detail");
    size_t start     = n_key ? n_key + 1 : 0;
    field->is_quoted = start < text.size && text.data[start] == '"';
    if (field->is_quoted)
        start++;
    size_t end = start;
    while (end < text.size) {
        size_t past = field->is_quoted && text.data[end] == '"' ? end + 1 : end;
        if (past - end == field->is_quoted && ends_field((span){text.data + past, text.size - past}))
            break;
        end++;
    }
    field->value = (span){text.data + start, end - start};
    size_t past  = end + (field->is_quoted && end < text.size);
    *rest        = (span){text.data + past, text.size - past};
    return true;
}

static size_t count_digits(span text, size_t at)
{
    size_t n = 0;
    while (at + n < text.size && isdigit((unsigned char)text.data[at + n]))
        n++;
    return n;
}

/* A number as printf writes one. An exponent needs its sign, as in 1e-05, so that an id like 12e4567 stays a text. */
static bool is_number(span text)
{
    size_t at     = text.size > 0 && text.data[0] == '-';
    size_t digits = count_digits(text, at);
    if (digits == 0 || digits > 20 || (digits > 1 && text.data[at] == '0'))
        return false;
    at += digits;
    if (at < text.size && text.data[at] == '.') {
        size_t fraction = count_digits(text, at + 1);
        if (fraction == 0)
            return false;
        at += 1 + fraction;
    }
    if (at + 1 < text.size && text.data[at] == 'e' && (text.data[at + 1] == '-' || text.data[at + 1] == '+')) {
        size_t exponent = count_digits(text, at + 2);
        if (exponent == 0 || exponent > 3)
            return false;
        at += 2 + exponent;
    }
    return at == text.size;
}

/* ----------------------------------------------------------------------------------------------------- lines */

typedef struct {
    int64_t     unix_ms;
    log_level   level;
    const char *message;
    span        fields;
    uint32_t    n_dropped; /* lines of this call site since its last line */
} log_line;

/* "2026-11-23T20:50:01.123Z". */
static void print_time(int64_t unix_ms, char text[32])
{
    time_t    seconds = (time_t)(unix_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t n = strftime(text, 32, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, 32 - n, ".%03dZ", (int)(unix_ms % 1000));
}

static size_t print_json(const log_line *line, char *out, size_t out_bytes)
{
    static const char cut_mark[] = ",\"cut\":true}\n";
    char              time_text[32];
    bool              is_cut  = false;
    span              message = span_of(line->message);
    print_time(line->unix_ms, time_text);
    /* A byte can take six in JSON; the first four members always fit. */
    if (message.size > out_bytes / 12)
        message.size = out_bytes / 12;

    json_out j = json_out_into(out, out_bytes - sizeof cut_mark);
    json_out_object(&j);
    json_out_member_string(&j, "ts", span_of(time_text));
    json_out_member_string(&j, "level", span_of(level_names[line->level]));
    json_out_member_string(&j, "service", span_of(thread_service));
    json_out_member_string(&j, "msg", message);
    if (line->n_dropped)
        json_out_member_u64(&j, "dropped", line->n_dropped);
    span      rest = line->fields;
    log_field field;
    while (next_field(&rest, &field)) {
        json_out before = j;
        json_out_key(&j, field.key);
        if (!field.is_quoted && is_number(field.value))
            json_out_raw(&j, field.value);
        else
            json_out_string(&j, field.value);
        if (j.overflowed) {
            j      = before;
            is_cut = true;
        }
    }
    const char *end = is_cut ? cut_mark : "}\n";
    memcpy(out + j.used, end, strlen(end));
    return j.used + strlen(end);
}

/* Appends `text` as a person may safely see it on a terminal: control characters and broken UTF-8 as \xNN. */
static size_t append_visible(char *out, size_t used, size_t out_bytes, span text)
{
    for (size_t at = 0; at < text.size;) {
        uint32_t code_point;
        size_t   n          = utf8_decode((span){text.data + at, text.size - at}, &code_point);
        bool     is_visible = n > 0 && code_point >= 0x20 && !(code_point >= 0x7F && code_point < 0xA0);
        if (used + UTF8_BYTES_MAX >= out_bytes)
            break;
        if (is_visible) {
            memcpy(out + used, text.data + at, n);
            used += n;
            at += n;
        } else {
            used += (size_t)snprintf(out + used, out_bytes - used, "\\x%02x", (unsigned char)text.data[at]);
            at++;
        }
    }
    return used;
}

static size_t print_text(const log_line *line, char *out, size_t out_bytes)
{
    char time_text[32];
    print_time(line->unix_ms, time_text);
    size_t used = (size_t)snprintf(out, out_bytes, "%.12s %-5s %.64s  ", time_text + sizeof "2026-11-23T" - 1,
                                   level_names[line->level], thread_service);
    used        = append_visible(out, used, out_bytes - 1, span_of(line->message));
    span rest   = skip_spaces(line->fields);
    while (rest.size > 0 && rest.data[rest.size - 1] == ' ')
        rest.size--;
    if (rest.size)
        used = append_visible(out, used, out_bytes - 1, SPAN("  "));
    used = append_visible(out, used, out_bytes - 1, rest);
    if (line->n_dropped) {
        char dropped[40];
        snprintf(dropped, sizeof dropped, "  dropped=%u", line->n_dropped);
        used = append_visible(out, used, out_bytes - 1, span_of(dropped));
    }
    out[used] = '\n';
    return used + 1;
}

/* ------------------------------------------------------------------------------------------------ rate limit */

static void register_dropped_lines(void)
{
    dropped_lines =
        metric_counter("troupe_log_lines_dropped_total", "", "Log lines over the limit of their call site.");
}

static log_site *_Atomic dropping_sites;

static void list_site(log_site *site, log_level level, const char *message)
{
    if (__atomic_exchange_n(&site->is_listed, true, __ATOMIC_RELAXED))
        return;
    site->level   = level;
    site->message = message;
    site->next    = atomic_load(&dropping_sites);
    while (!atomic_compare_exchange_weak(&dropping_sites, &site->next, site))
        ;
}

/* Counts a line against its site's second. True when it may be written; *n_dropped is then what to confess. */
static bool may_write(log_site *site, log_level level, const char *message, int64_t now_s, uint32_t *n_dropped)
{
    *n_dropped       = 0;
    int64_t window_s = __atomic_load_n(&site->window_s, __ATOMIC_RELAXED);
    if (window_s != now_s &&
        __atomic_compare_exchange_n(&site->window_s, &window_s, now_s, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        __atomic_store_n(&site->n_lines, 0, __ATOMIC_RELAXED);
        *n_dropped = __atomic_exchange_n(&site->n_dropped, 0, __ATOMIC_RELAXED);
    }
    uint32_t burst = level == LOG_DEBUG ? LOG_BURST_DEBUG : LOG_BURST;
    if (__atomic_fetch_add(&site->n_lines, 1, __ATOMIC_RELAXED) < burst)
        return true;
    __atomic_fetch_add(&site->n_dropped, 1, __ATOMIC_RELAXED);
    list_site(site, level, message);
    pthread_once(&dropped_lines_once, register_dropped_lines);
    metric_add(dropped_lines, 1);
    return false;
}

static bool writes_json(void)
{
    int format = atomic_load(&format_in_force);
    return format == LOG_FORMAT_JSON || (format == LOG_FORMAT_AUTO && !isatty(STDERR_FILENO));
}

static const clock_source *clock_in_use(void)
{
    const clock_source *clock = atomic_load(&log_clock);
    return clock ? clock : clock_system();
}

static int64_t second_of(const clock_source *clock)
{
    return clock_now_ns(clock) / NS_PER_S + 1;
}

void log_say_dropped(void)
{
    int64_t now_s = second_of(clock_in_use());
    for (log_site *site = atomic_load(&dropping_sites); site; site = site->next) {
        log_site here = {0}; /* used once: no limit on what is said of limits */
        if (__atomic_load_n(&site->window_s, __ATOMIC_RELAXED) == now_s)
            continue;
        uint32_t n_dropped = __atomic_exchange_n(&site->n_dropped, 0, __ATOMIC_RELAXED);
        if (n_dropped > 0)
            log_write(&here, site->level, "lines were dropped", "lines=%u of=\"%s\"", n_dropped, site->message);
    }
}

void log_write(log_site *site, log_level level, const char *message, const char *fields_format, ...)
{
    if ((int)level < atomic_load_explicit(&least_level, memory_order_relaxed) || level >= LOG_OFF)
        return;
    int                 saved_errno = errno;
    const clock_source *clock       = clock_in_use();
    log_line            line        = {.unix_ms = clock_unix_ms(clock), .level = level, .message = message};
    if (may_write(site, level, message, second_of(clock), &line.n_dropped)) {
        char    fields[LOG_LINE_BYTES], out[LOG_LINE_BYTES];
        va_list args;
        va_start(args, fields_format);
        int n = vsnprintf(fields, sizeof fields, fields_format, args);
        va_end(args);
        line.fields    = (span){fields, n < 0 ? 0 : (size_t)n < sizeof fields ? (size_t)n : sizeof fields - 1};
        size_t  length = writes_json() ? print_json(&line, out, sizeof out) : print_text(&line, out, sizeof out);
        ssize_t written;
        do
            written = write(STDERR_FILENO, out, length);
        while (written < 0 && errno == EINTR);
    }
    errno = saved_errno;
}
