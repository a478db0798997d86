/* Unicode normalization forms C and D (UAX #15), for tokenizers that ask for them. */
#ifndef TROUPE_TEXT_NFC_H
#define TROUPE_TEXT_NFC_H

#include "base/arena.h"
#include "base/error.h"
#include "base/span.h"

/* *normal is `text` in form C: `text` itself where nothing changes, else a copy in `memory`, which needs up to 36 bytes
 * for each byte of `text`. Invalid bytes stay as they are, and nothing composes across them. Linear time.
 * ERR_NO_MEMORY. */
bool nfc_normalize(span text, arena *memory, span *normal, error *err) MUST_CHECK;

/* The same for form D. */
bool nfd_normalize(span text, arena *memory, span *normal, error *err) MUST_CHECK;

#endif
