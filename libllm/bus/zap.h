/* The ZAP handler (rfc.zeromq.org/spec/27): decides for each CURVE handshake whether the client's key is known.
 *
 * ZeroMQ asks it over inproc://zeromq.zap.01. A known key's messages carry the key as User-Id, from which the runtime
 * above takes the role; an unknown key never gets a message through. */
#ifndef TROUPE_BUS_ZAP_H
#define TROUPE_BUS_ZAP_H

#include "bus/keys.h"

#include <pthread.h>

#define ZAP_DOMAIN "troupe"

/* Binds the handler and starts its thread, which ends when the context is shut down. The keys are borrowed until then.
 */
bool zap_start(void *zmq_context, const bus_keys *keys, pthread_t *thread, error *err) MUST_CHECK;

#endif
