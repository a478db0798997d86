/* hiredis would resolve names with a blocking getaddrinfo, in the middle of an actor's turn. glibc's getaddrinfo_a does
 * it on a thread of its own, and hiredis gets a numeric address. */
#include "store/redis_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/un.h>

static bool copy_part(char *out, size_t out_bytes, span part, const char *what, error *err)
{
    if (part.size == 0 || part.size >= out_bytes || memchr(part.data, '\0', part.size))
        return error_set(err, ERR_INVALID, "store URL: the %s is empty or over %zu bytes", what, out_bytes - 1);
    memcpy(out, part.data, part.size);
    out[part.size] = '\0';
    return true;
}

static bool parse_number(span digits, uint32_t max, uint32_t *number, const char *what, error *err)
{
    *number = 0;
    for (size_t i = 0; i < digits.size; i++) {
        char c = digits.data[i];
        if (c < '0' || c > '9' || *number > max)
            return error_set(err, ERR_INVALID, "store URL: the %s \"%.*s\" is not a number up to %u", what,
                             SPAN_ARG(digits), max);
        *number = *number * 10 + (uint32_t)(c - '0');
    }
    return (digits.size && *number <= max) ||
           error_set(err, ERR_INVALID, "store URL: the %s \"%.*s\" is not a number up to %u", what, SPAN_ARG(digits),
                     max);
}

/* Cuts *rest at the first `mark`: returns what is before, leaves what is behind. Without a mark all of it is before. */
static span cut_at(span *rest, char mark)
{
    const char *found  = memchr(rest->data, mark, rest->size);
    span        before = *rest;
    if (found)
        before.size = (size_t)(found - rest->data);
    size_t past = before.size + (found != NULL);
    *rest       = (span){rest->data + past, rest->size - past};
    return before;
}

static bool parse_tcp(span rest, redis_address *address, error *err)
{
    uint32_t port = 6379;
    if (memchr(rest.data, '@', rest.size)) {
        span user = cut_at(&rest, '@');
        if (memchr(user.data, ':', user.size))
            return error_set(err, ERR_INVALID, "store URL: a password does not belong here, put it in a file");
        if (!copy_part(address->user, sizeof address->user, user, "user name", err))
            return false;
    }
    span authority = cut_at(&rest, '/'), host;
    if (rest.size && !parse_number(rest, 65535, &address->database, "database", err))
        return false;
    bool is_bracketed = authority.size && authority.data[0] == '[';
    if (is_bracketed) {
        authority = (span){authority.data + 1, authority.size - 1};
        host      = cut_at(&authority, ']');
        if (authority.size && authority.data[0] == ':')
            authority = (span){authority.data + 1, authority.size - 1};
    } else {
        host = cut_at(&authority, ':');
    }
    if (!copy_part(address->host, sizeof address->host, host, "host", err) ||
        (authority.size && !parse_number(authority, 65535, &port, "port", err)))
        return false;
    if (port == 0)
        return error_set(err, ERR_INVALID, "store URL: there is no port 0");
    unsigned char bytes[16];
    address->port = (uint16_t)port;
    address->is_numeric =
        inet_pton(AF_INET, address->host, bytes) == 1 || inet_pton(AF_INET6, address->host, bytes) == 1;
    if (is_bracketed && !address->is_numeric)
        return error_set(err, ERR_INVALID, "store URL: \"%s\" is not an IPv6 address", address->host);
    return true;
}

bool redis_address_parse(const char *url, redis_address *address, error *err)
{
    *address = (redis_address){0};
    if (strncmp(url, "unix:", 5) == 0) {
        address->is_unix = true;
        return copy_part(address->host, sizeof((struct sockaddr_un *)0)->sun_path, span_of(url + 5), "socket's path",
                         err);
    }
    if (strncmp(url, "redis://", 8) == 0)
        return parse_tcp(span_of(url + 8), address, err);
    return error_set(err, ERR_INVALID,
                     "store URL: \"%.100s\" is none of memory:, redis://host[:port][/database] and unix:/path", url);
}

struct redis_lookup {
    struct gaicb    request;
    struct addrinfo hints;
    char            host[REDIS_HOST_BYTES];
};

redis_lookup *redis_lookup_start(const char *host, error *err)
{
    redis_lookup *l = calloc(1, sizeof *l);
    if (!l) {
        error_set(err, ERR_NO_MEMORY, "no memory to look up %s", host);
        return NULL;
    }
    memcpy(l->host, host, strlen(host) + 1);
    l->hints.ai_socktype  = SOCK_STREAM;
    l->request.ar_name    = l->host;
    l->request.ar_request = &l->hints;
    int rc                = getaddrinfo_a(GAI_NOWAIT, (struct gaicb *[]){&l->request}, 1, NULL);
    if (rc != 0) {
        error_set(err, ERR_IO, "looking up %s: %s", host, gai_strerror(rc));
        free(l);
        return NULL;
    }
    return l;
}

redis_lookup_state redis_lookup_poll(redis_lookup *lookup, char ip[REDIS_HOST_BYTES], error *err)
{
    int rc = gai_error(&lookup->request);
    if (rc == EAI_INPROGRESS)
        return REDIS_LOOKUP_PENDING;
    const struct addrinfo *found = lookup->request.ar_result;
    if (rc == 0)
        rc = getnameinfo(found->ai_addr, found->ai_addrlen, ip, REDIS_HOST_BYTES, NULL, 0, NI_NUMERICHOST);
    if (rc == 0)
        return REDIS_LOOKUP_FOUND;
    error_set(err, ERR_IO, "looking up %s: %s", lookup->host, gai_strerror(rc));
    return REDIS_LOOKUP_FAILED;
}

void redis_lookup_free(redis_lookup **lookup)
{
    redis_lookup *l = *lookup;
    *lookup         = NULL;
    if (!l)
        return;
    /* A look-up that runs can't be stopped. It is left its few bytes rather than waited for; it ends within the
     * resolver's own timeout. */
    if (gai_error(&l->request) == EAI_INPROGRESS && gai_cancel(&l->request) != EAI_CANCELED &&
        gai_error(&l->request) == EAI_INPROGRESS)
        return;
    if (l->request.ar_result)
        freeaddrinfo(l->request.ar_result);
    free(l);
}
