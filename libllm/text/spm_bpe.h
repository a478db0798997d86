/* SentencePiece's byte-pair encoding (Kudo and Richardson, 2018): its models have no list of merges but a score for
 * each token. Any two neighbours that make a token may merge, and the token of the highest score goes first. */
#ifndef TROUPE_TEXT_SPM_BPE_H
#define TROUPE_TEXT_SPM_BPE_H

#include "text/bpe.h"

enum { SPM_TOKEN_BYTES_MAX = 512 };

/* The merges that scores imply, one score for each id of options->vocabulary; options->n_merges is found out here.
 * NULL with *err set: ERR_NO_MEMORY, ERR_INVALID (a score is no number), ERR_UNSUPPORTED past the limits. */
bpe *spm_bpe_new(const bpe_options *options, const float *scores, error *err);

#endif
