/* The output filter of a file that may change while the service runs: a text keeps the rules it began with, new ones
 * get the newest rules that could be read. */
#ifndef TROUPE_POSTPROCESSOR_LIVE_FILTER_H
#define TROUPE_POSTPROCESSOR_LIVE_FILTER_H

#include "postprocessor/output_filter.h"

typedef struct live_filter live_filter;

/* Reads the file. NULL with *err when it is bad. `path` is borrowed. */
live_filter *live_filter_new(const char *path, error *err);
void         live_filter_free(live_filter **l);

/* The newest rules; hold them (output_filter_hold) to keep them. */
output_filter *live_filter_rules(live_filter *l);

/* Looks whether the file changed (`force`: takes it for changed), and takes its rules when it did. A bad file is logged
 * once and changes nothing. True when there are new rules. */
bool live_filter_poll(live_filter *l, bool force);

#endif
