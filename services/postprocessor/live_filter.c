/* One stat a poll; see live_filter.h. */
#include "postprocessor/live_filter.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* Series are for ever, names of rules come and go: rules beyond so many names share one series. */
enum { SERIES_MAX = 64, LABEL_BYTES = FILTER_NAME_BYTES_MAX + 16 };

struct live_filter {
    const char    *path;
    output_filter *rules;
    struct stat    seen; /* zero: it could not be looked at */
    uint32_t       n_series;
};

static struct stat look_at(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? st : (struct stat){0};
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_size == b->st_size && a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

static void count_matches(live_filter *l)
{
    static const char name[] = "troupe_output_filter_matches_total", help[] = "Keywords found by rules of the filter.";
    for (uint32_t i = 0; i < output_filter_n_rules(l->rules); i++) {
        char labels[LABEL_BYTES];
        snprintf(labels, sizeof labels, "rule=\"%s\"", output_filter_rule_name(l->rules, i));
        metric *counter = metric_find(name, labels);
        char   *kept    = counter || l->n_series == SERIES_MAX ? NULL : strdup(labels);
        if (kept) {
            counter = metric_counter(name, kept, help);
            l->n_series++;
        }
        output_filter_count_in(l->rules, i, counter ? counter : metric_counter(name, "rule=\"(others)\"", help));
    }
}

live_filter *live_filter_new(const char *path, error *err)
{
    live_filter *l = calloc(1, sizeof *l);
    if (!l) {
        error_set(err, ERR_NO_MEMORY, "no memory for the output filter");
        return NULL;
    }
    l->path  = path;
    l->seen  = look_at(path); /* before reading: what is written meanwhile is seen as a change */
    l->rules = output_filter_load(path, err);
    if (!l->rules) {
        live_filter_free(&l);
        return NULL;
    }
    count_matches(l);
    return l;
}

void live_filter_free(live_filter **l)
{
    if (*l)
        output_filter_release(&(*l)->rules);
    free(*l);
    *l = NULL;
}

output_filter *live_filter_rules(live_filter *l)
{
    return l->rules;
}

bool live_filter_poll(live_filter *l, bool force)
{
    error       err;
    struct stat now = look_at(l->path);
    if (!force && is_same(&now, &l->seen))
        return false;
    l->seen              = now;
    output_filter *rules = output_filter_load(l->path, &err);
    if (!rules) {
        log_error("the output filter keeps its old rules", "why=\"%s\"", err.text);
        return false;
    }
    output_filter_release(&l->rules);
    l->rules = rules;
    count_matches(l);
    log_info("the output filter has new rules", "file=\"%s\" rules=%u", l->path, output_filter_n_rules(rules));
    return true;
}
