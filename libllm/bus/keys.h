/* CURVE keys of a process and of those it hears: three small text files.
 *
 * A key pair, as bus_write_keypair writes it (mode 0600), and its public half beside it in FILE.pub; # begins a
 * comment:
 *
 *   public-key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
 *   secret-key = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"
 *
 * The peers file has a line for each key that may connect: the public key, and the role it may take. */
#ifndef TROUPE_BUS_KEYS_H
#define TROUPE_BUS_KEYS_H

#include "base/error.h"
#include "base/span.h"
#include "bus/messages.h"

enum { BUS_KEY_BYTES = 41, BUS_PEER_KEYS_MAX = 1024 }; /* 40 characters of Z85 and a NUL */

typedef struct {
    char key[BUS_KEY_BYTES];
    role role;
} bus_peer_key;

typedef struct {
    char          public_key[BUS_KEY_BYTES], secret_key[BUS_KEY_BYTES]; /* ours; "" when there is none */
    char          server_key[BUS_KEY_BYTES]; /* of those we connect to; "" when there is none */
    bus_peer_key *peers;
    uint32_t      n_peers;
} bus_keys;

/* Reads the files whose names are not NULL. Fails on a missing or malformed file, naming file and line, and on a secret
 * key that others may read. bus_keys_clear frees what was read. */
bool bus_keys_read(bus_keys *keys, const char *secret_key_file, const char *server_key_file, const char *peers_file,
                   error *err) MUST_CHECK;
void bus_keys_clear(bus_keys *keys);

/* The role of a public key (Z85 text); ROLE_UNKNOWN for a stranger. */
role bus_keys_role(const bus_keys *keys, span public_key);

#endif
