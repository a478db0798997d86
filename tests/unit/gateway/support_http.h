/* What the tests of the HTTP server share: a layer above that answers by path, and a client on a socket.
 *
 * One thread: pump_until turns the server's event loop and reads the client's socket until what is waited for has come.
 */
#ifndef TROUPE_GATEWAY_SUPPORT_HTTP_H
#define TROUPE_GATEWAY_SUPPORT_HTTP_H

#include "base/clock.h"
#include "base/metric.h"
#include "services/gateway/http_server.h"

#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
// cmocka needs the headers above
#include <cmocka.h>

/* The server under test and what its layer above saw. Its paths: /wait (answered by the test), /stream (begun at once,
 * then the test's), /unclean (a response that can't be sent); any other is told back as "METHOD path?query [X-Tell]
 * body". */
typedef struct {
    struct event_base  *base;
    http_server_options options;
    http_server        *server;
    uint32_t            n_requests, n_gone, n_writable, n_drained;
    http_handle         last; /* of a request to /wait or /stream */
    http_handle         gone_handle;
    void               *gone_owner;
    http_gone           gone_why;
    int64_t             gone_at_ns;
    char                body[128 * 1024];
    size_t              body_size;
} fixture;

extern int owner_of_all; /* attached to requests to /wait and /stream */

typedef struct {
    int    fd;
    SSL   *ssl;
    char   in[512 * 1024];
    size_t in_size;
    bool   closed; /* the server closed */
    bool   reset;  /* not in an orderly way */
} client;

int          prepare(void **state); /* a fixture with default options, port 0, linger 100 ms; not started */
int          clean_up(void **state);
void         start(fixture *f);
http_handler handler_of(fixture *f);
#define TEST(name) cmocka_unit_test_setup_teardown(name, prepare, clean_up)

int     connect_to(fixture *f);
client *client_new(fixture *f);
void    client_free(client *c);
void    send_bytes(client *c, const char *bytes, size_t size);
void    send_text(client *c, const char *text);

void     turn(fixture *f, client *c); /* of the loop; c may be NULL */
void     pump_for(fixture *f, client *c, int64_t ms);
int64_t  ms_since(int64_t ns);
bool     has(const client *c, const char *text);
uint32_t count_of(const client *c, const char *text);

/* Turns the loop and reads until `condition` or the time is over; then the condition must hold. */
#define pump_until(f, c, ms, condition)                                                                                \
    do {                                                                                                               \
        int64_t until_ns = clock_now_ns(clock_system()) + (ms)*NS_PER_MS;                                              \
        while (turn(f, c), !(condition) && clock_now_ns(clock_system()) < until_ns)                                    \
            usleep(200);                                                                                               \
        assert_true(condition);                                                                                        \
    } while (0)

#endif
