/* Starting, asking and killing a redis-server. */
#include "support_redis.h"

#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          length  = sizeof address;
    int                fd      = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static redisContext *connected(redis_server *server)
{
    redisContext *c = redisConnectUnix(server->socket_path);
    if (c && !c->err && server->password)
        freeReplyObject(redisCommand(c, "AUTH %s", server->password));
    return c;
}

static bool answers(redis_server *server)
{
    redisContext *c  = connected(server);
    redisReply   *r  = c && !c->err ? redisCommand(c, "PING") : NULL;
    bool          is = r && r->type == REDIS_REPLY_STATUS;
    if (r)
        freeReplyObject(r);
    if (c)
        redisFree(c);
    return is;
}

static void run_server(redis_server *server)
{
    char port[16], config[128];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(port, sizeof port, "%u", server->port);
    snprintf(config, sizeof config, "%s/log", server->folder);
    execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", server->folder, "--save", "",
           "--appendonly", "no", "--unixsocket", server->socket_path, "--logfile", config, "--requirepass",
           server->password ? server->password : "", NULL);
    _exit(127);
}

void redis_server_start(redis_server *server)
{
    if (!server->port) {
        server->port = free_port();
        strcpy(server->folder, "/tmp/troupe-redis-XXXXXX");
        assert_non_null(mkdtemp(server->folder));
        snprintf(server->socket_path, sizeof server->socket_path, "%s/socket", server->folder);
        snprintf(server->url, sizeof server->url, "redis://127.0.0.1:%u", server->port);
    }
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0)
        run_server(server);
    for (int i = 0; i < 500; i++) {
        int status;
        if (answers(server))
            return;
        if (waitpid(server->pid, &status, WNOHANG) == server->pid) {
            server->pid = 0;
            fail_msg("redis-server ended with status %d; is the package redis-server installed? Its log is %s/log",
                     WEXITSTATUS(status), server->folder);
        }
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    fail_msg("redis-server gives no answer within 5 s; its log is %s/log", server->folder);
}

void redis_server_kill(redis_server *server)
{
    if (server->pid > 0) {
        kill(server->pid, SIGKILL);
        waitpid(server->pid, NULL, 0);
    }
    server->pid = 0;
}

void redis_server_end(redis_server *server)
{
    static const char *const files[] = {"log", "socket", "dump.rdb"};
    char                     path[160];
    redis_server_kill(server);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", server->folder, files[i]);
        unlink(path);
    }
    rmdir(server->folder);
    server->port = 0;
}

long long redis_server_command(redis_server *server, char *text, size_t text_bytes, const char *command)
{
    redisContext *c = connected(server);
    assert_non_null(c);
    assert_int_equal(c->err, 0);
    redisReply *r = redisCommand(c, command);
    assert_non_null(r);
    if (r->type == REDIS_REPLY_ERROR)
        fail_msg("%s: %s", command, r->str);
    if (text)
        snprintf(text, text_bytes, "%s", r->str ? r->str : "");
    long long number = r->type == REDIS_REPLY_INTEGER ? r->integer
                       : r->type == REDIS_REPLY_NIL   ? -1
                                                      : (long long)r->elements;
    freeReplyObject(r);
    redisFree(c);
    return number;
}
