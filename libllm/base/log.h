/* JSON lines on stderr: one object a line, so that a collector needs no parser of its own.
 *
 *   {"ts":"2026-11-23T20:50:01.123Z","level":"warn","service":"scheduler","msg":"lost executor","node":"executor-3f2a"}
 *
 * On a terminal (or with --log-format text) the same line is printed for people: "20:50:01.123 warn  scheduler  lost
 * executor  node=executor-3f2a". Never log a prompt, generated text, or a key. Every call site is limited to LOG_BURST
 * lines a second, or LOG_BURST_DEBUG where the line is for debugging; what is dropped is counted and said once the
 * burst is over (`dropped` in the call site's next line or, when none comes, in a line of log_say_dropped, and
 * troupe_log_lines_dropped_total). Thread-safe; a line is one write of at most LOG_LINE_BYTES: fields that do not fit
 * are left out and `cut` is true. */
#ifndef TROUPE_BASE_LOG_H
#define TROUPE_BASE_LOG_H

#include "base/clock.h"
#include "base/error.h"
#include "base/span.h"

typedef enum { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF } log_level;
typedef enum { LOG_FORMAT_AUTO, LOG_FORMAT_JSON, LOG_FORMAT_TEXT } log_format;

enum { LOG_BURST = 20, LOG_BURST_DEBUG = 2000, LOG_LINE_BYTES = 4096 };

void log_set_level(log_level level);
void log_set_format(log_format format);
bool log_level_from_name(const char *name, log_level *level); /* "debug".."error", "off" */

/* The clock for time stamps and limits; NULL is the system's. It must live as long as anything logs. */
void log_set_clock(const clock_source *clock);

/* The service that the calling thread's lines carry; `name` must live as long as the thread. */
void log_set_thread_service(const char *name);

/* A call site's state for the rate limit; made by the macro below. */
typedef struct log_site {
    int64_t          window_s;
    uint32_t         n_lines;
    uint32_t         n_dropped;
    bool             is_listed; /* among those that dropped something once */
    log_level        level;
    const char      *message;
    struct log_site *next;
} log_site;

/* `message` is a constant sentence; `fields_format` makes the key=value pairs (see the macros). */
void log_write(log_site *site, log_level level, const char *message, const char *fields_format, ...)
    __attribute__((format(printf, 4, 5)));

/* Says what call sites dropped whose burst is over and who have been silent since. To be called about once a second. */
void log_say_dropped(void);

/* Fields are written as `key=value` pairs separated by single spaces, values without spaces or in double quotes:
 *
 *   log_warn("lost executor", "node=%s missed_ms=%u", name, late);
 *   log_info("ready", " ");                       // no fields
 *
 * The JSON form turns each pair into a member; a value that reads as a number stays a number. */
#define LOG_AT(level, ...)                                                                                             \
    do {                                                                                                               \
        static log_site log_site_here;                                                                                 \
        log_write(&log_site_here, level, __VA_ARGS__);                                                                 \
    } while (0)
#define log_debug(...) LOG_AT(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_INFO, __VA_ARGS__)
#define log_warn(...) LOG_AT(LOG_WARN, __VA_ARGS__)
#define log_error(...) LOG_AT(LOG_ERROR, __VA_ARGS__)

#endif
