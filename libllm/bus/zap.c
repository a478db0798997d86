/* One thread with one REP socket; a handshake is rare, so it answers one at a time. */
#include "bus/zap.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <zmq.h>

/* version, request id, domain, address, identity, mechanism, credentials: CURVE has one credential, the client's key.
 */
enum { N_ZAP_FRAMES = 7, ZAP_FRAME_BYTES = 256, RAW_KEY_BYTES = 32 };

typedef struct {
    void           *socket;
    const bus_keys *keys;
} handler;

typedef struct {
    char   data[N_ZAP_FRAMES][ZAP_FRAME_BYTES];
    size_t size[N_ZAP_FRAMES];
} zap_request;

/* Reads all frames of one request. 1: a request of the right shape; 0: another shape; -1: the context is gone. */
static int receive_request(void *socket, zap_request *request)
{
    bool fits = true;
    int  more = 1, n = 0;
    for (size_t more_bytes = sizeof more; more; n++) {
        char spare[ZAP_FRAME_BYTES];
        bool wanted = n < N_ZAP_FRAMES;
        int  bytes  = zmq_recv(socket, wanted ? request->data[n] : spare, ZAP_FRAME_BYTES, 0);
        if (bytes < 0 && zmq_errno() == EINTR) {
            n--;
            continue;
        }
        if (bytes < 0)
            return -1;
        fits = fits && wanted && bytes <= ZAP_FRAME_BYTES;
        if (fits)
            request->size[n] = (size_t)bytes;
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_bytes);
    }
    return fits && n == N_ZAP_FRAMES;
}

static bool frame_is(const zap_request *request, int frame, const char *text)
{
    return span_is((span){request->data[frame], request->size[frame]}, text);
}

static void reply(const handler *h, const zap_request *request, bool allowed, const char *key)
{
    zmq_send(h->socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(h->socket, request->data[1], request->size[1], ZMQ_SNDMORE);
    zmq_send(h->socket, allowed ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(h->socket, allowed ? "OK" : "unknown key", allowed ? 2 : 11, ZMQ_SNDMORE);
    zmq_send(h->socket, key, allowed ? strlen(key) : 0, ZMQ_SNDMORE);
    zmq_send(h->socket, "", 0, 0);
}

static void *handle_requests(void *arg)
{
    handler     *h       = arg;
    zap_request *request = calloc(1, sizeof *request);
    int          shape;
    log_set_thread_service("bus");
    while (request && (shape = receive_request(h->socket, request)) >= 0) {
        char key[BUS_KEY_BYTES] = "";
        bool allowed            = shape == 1 && frame_is(request, 0, "1.0") && frame_is(request, 2, ZAP_DOMAIN) &&
                       frame_is(request, 5, "CURVE") && request->size[6] == RAW_KEY_BYTES &&
                       zmq_z85_encode(key, (const uint8_t *)request->data[6], RAW_KEY_BYTES) &&
                       bus_keys_role(h->keys, span_of(key)) != ROLE_UNKNOWN;
        if (!allowed)
            log_warn("refused a connection: its key is not in the peers file", "public_key=\"%s\"", key);
        reply(h, request, allowed, key);
    }
    free(request);
    zmq_close(h->socket);
    free(h);
    return NULL;
}

bool zap_start(void *zmq_context, const bus_keys *keys, pthread_t *thread, error *err)
{
    handler *h = calloc(1, sizeof *h);
    if (!h)
        return error_set(err, ERR_NO_MEMORY, "no memory for the ZAP handler");
    h->keys    = keys;
    h->socket  = zmq_socket(zmq_context, ZMQ_REP);
    int linger = 0;
    if (!h->socket || zmq_setsockopt(h->socket, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_bind(h->socket, "inproc://zeromq.zap.01") != 0) {
        error_set(err, ERR_IO, "the ZAP handler cannot be bound: %s", zmq_strerror(zmq_errno()));
        goto failed;
    }
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the process's own threads */
    int failure = pthread_create(thread, NULL, handle_requests, h);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure == 0)
        return true;
    error_set(err, ERR_IO, "the ZAP handler's thread cannot be started: %s", strerror(failure));
failed:
    if (h->socket)
        zmq_close(h->socket);
    free(h);
    return false;
}
