/* A real redis-server for tests: its own port, socket and folder; killed and restarted at will. */
#ifndef TROUPE_STORE_SUPPORT_REDIS_H
#define TROUPE_STORE_SUPPORT_REDIS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct {
    pid_t       pid; /* 0 while it does not run */
    uint16_t    port;
    char        folder[64];
    char        socket_path[96];
    char        url[64];  /* redis://127.0.0.1:PORT */
    const char *password; /* NULL: none */
} redis_server;

/* Starts a server on a free port, or on the port it had before. Fails the test, with the server's log, when it does not
 * come up. */
void redis_server_start(redis_server *server);

/* kill -9, as a crash would. */
void redis_server_kill(redis_server *server);

/* Kills it and removes its folder. */
void redis_server_end(redis_server *server);

/* Runs a command of words separated by blanks and returns its reply as an integer, -1 for nil; `text`, when not NULL,
 * gets a string reply. Fails the test on an error. */
long long redis_server_command(redis_server *server, char *text, size_t text_bytes, const char *command);

uint16_t free_port(void);

#endif
