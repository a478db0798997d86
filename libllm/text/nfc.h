/* Unicode normalization forms (UAX #15), for tokenizers that ask for them. */
#ifndef TROUPE_TEXT_NFC_H
#define TROUPE_TEXT_NFC_H

#include "base/arena.h"
#include "base/error.h"
#include "base/span.h"

typedef enum { NORMAL_FORM_C, NORMAL_FORM_D, NORMAL_FORM_KC, NORMAL_FORM_KD } normal_form;

/* The most bytes that a byte of text becomes, and the scratch memory for a byte of it. */
size_t normal_form_growth(normal_form form);
size_t normal_form_scratch(normal_form form);

/* *normal is `text` in that form: `text` itself where nothing changes, else a copy in `memory`, which needs up to
 * normal_form_scratch bytes for each byte of `text`. Invalid bytes stay as they are, and nothing composes across them.
 * Linear time. ERR_NO_MEMORY. */
bool normal_form_of(span text, normal_form form, arena *memory, span *normal, error *err) MUST_CHECK;

#endif
