/* How many connections each peer has: an IPv4 address, or the /64 of an IPv6 address, which one host can fill. */
#ifndef TROUPE_GATEWAY_HTTP_PEERS_H
#define TROUPE_GATEWAY_HTTP_PEERS_H

#include "base/error.h"
#include <stdint.h>

struct sockaddr;
typedef struct http_peers http_peers;
enum { HTTP_NO_PEER = UINT32_MAX };

/* Room for `n_max` peers at once; NULL with ERR_NO_MEMORY. */
http_peers *http_peers_new(uint32_t n_max, error *err);
void        http_peers_free(http_peers **peers);

/* Counts one more connection of the peer and returns its number for http_peers_drop; HTTP_NO_PEER, counting nothing,
 * when it has `limit` already (0: no limit). Asserts when n_max connections are counted. */
uint32_t http_peers_add(http_peers *peers, const struct sockaddr *address, uint32_t limit);
void     http_peers_drop(http_peers *peers, uint32_t peer);

#endif
