/* The files of a flight recorder: a ring of segments in a folder, of at most so many bytes together.
 *
 * Files are called <service>-<incarnation>-<segment>.rec. Each stays locked (flock) while its process lives; those that
 * dead processes of the same service left are taken into the ring as its oldest, so a service that crashes again and
 * again fills no disk. One thread uses it. */
#ifndef TROUPE_ACTOR_RECORD_FILES_H
#define TROUPE_ACTOR_RECORD_FILES_H

#include "actor/recording.h"

enum { RECORD_SEGMENTS_MAX = 320, RECORD_SEGMENT_BYTES_MAX = 64 << 20, RECORD_PINS_MAX = 16, RECORD_PIN_BYTES = 2048 };

typedef struct record_files record_files;

/* Makes the folder (mode 0700) if it isn't there; refuses one that others may write to. `service` has at most
 * RECORDING_SERVICE_BYTES - 1 bytes. */
record_files *record_files_new(const char *folder, const char *service, uint64_t incarnation, uint64_t bytes_max,
                               error *err);
void          record_files_free(record_files **files); /* the files stay */

/* Writes sealed records that stand one behind the other, RECORD_BYTES_MAX at most; begins a new segment where the
 * current one is full, and deletes the oldest. On failure none of them is in the log. */
bool record_files_append(record_files *files, const uint8_t *records, size_t bytes, error *err) MUST_CHECK;

/* Keeps a copy of a sealed record for the beginning of every later segment, in the place `pin`, below RECORD_PINS_MAX.
 * One of more than RECORD_PIN_BYTES is not kept. */
void record_files_pin(record_files *files, uint32_t pin, const uint8_t *sealed, size_t bytes);

uint64_t record_files_bytes(const record_files *files); /* of all its segments */

#endif
