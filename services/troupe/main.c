/* The one program of Troupe: everything in one process (serve, chat), or one service of it. */
#include "bus/keys.h"
#include "troupe/admin.h"
#include "troupe/chat.h"
#include "troupe/process.h"
#include "troupe/replay.h"

#include <stdio.h>
#include <stdlib.h>

enum { GROUPS_MAX = N_SERVICES + 5 };

typedef struct {
    process_options process;
    all_options     all;
    chat_options    chat;
} options;

static options given; /* actors borrow their part for the process's life */

static int fail(const error *err)
{
    fprintf(stderr, "troupe: %s\n", err->text);
    return 1;
}

static void print_usage(FILE *out)
{
    fprintf(out,
            "Troupe %s: serves open-weights language models.\n\n"
            "  troupe serve --model FILE        everything in one process; OpenAI's API on http://127.0.0.1:8080/v1\n"
            "  troupe chat --model FILE         a conversation in the terminal\n\n"
            "One service a process; each --help tells its flags:\n",
            TROUPE_VERSION);
    for (int i = 0; i < N_SERVICES; i++)
        fprintf(out, "  troupe %-14s            %s\n", services[i].name, services[i].summary);
    fprintf(
        out,
        "\n  troupe health [--admin-port N]   exit status 0 when the process behind that admin port is well\n"
        "  troupe keys FILE                 writes a CURVE key pair: FILE and FILE.pub\n"
        "  troupe replay DIR [REQUEST]      what --record wrote, and whether a request gives the same tokens again\n"
        "  troupe version\n\n"
        "Every flag is also an environment variable: --max-model-len is TROUPE_MAX_MODEL_LEN.\n");
}

static void print_help(const char *command, const char *summary, const option_group *groups, size_t n)
{
    printf("troupe %s: %s\n\n", command, summary);
    option_help(stdout, groups, n);
}

/* The groups of options of a command that runs services: only >= 0 is one service, else all. */
static size_t collect_groups(option_group *groups, int only, bool with_chat)
{
    size_t n = 0;
    if (with_chat)
        groups[n++] = (option_group){"Chat", chat_option_rows, n_chat_option_rows, &given.chat};
    for (int i = 0; i < N_SERVICES; i++)
        if (only < 0 || only == i)
            groups[n++] = (option_group){services[i].name, services[i].rows, *services[i].n_rows,
                                         (char *)&given.all + services[i].offset};
    if (only >= 0)
        groups[n++] = (option_group){"Bus", endpoint_option_rows, n_endpoint_option_rows, &given.process};
    else if (!with_chat)
        groups[n++] = (option_group){"Bus", client_endpoint_option_rows, n_client_endpoint_option_rows, &given.process};
    if (!with_chat)
        groups[n++] = (option_group){"Bus keys", key_option_rows, n_key_option_rows, &given.process};
    if (!with_chat)
        groups[n++] = (option_group){"Flight recorder", record_option_rows, n_record_option_rows, &given.process};
    groups[n++] = (option_group){"Process", process_option_rows, n_process_option_rows, &given.process};
    return n;
}

/* Without --served-model-name a process that holds everything calls the model by its file:
 * "SmolLM2-135M-Instruct-Q4_1". */
static void name_model(void)
{
    static char name[256];
    if (given.all.gateway.served_model_name || !given.all.executor.model)
        return;
    size_t length = strlen(given.all.executor.model);
    while (length > 1 && given.all.executor.model[length - 1] == '/')
        length--;
    const char *end   = given.all.executor.model + length;
    const char *begin = end;
    while (begin > given.all.executor.model && begin[-1] != '/')
        begin--;
    if (end - begin > 5 && memcmp(end - 5, ".gguf", 5) == 0)
        end -= 5;
    snprintf(name, sizeof name, "%.*s", (int)(end - begin), begin);
    given.all.gateway.served_model_name = given.all.executor.model_name = name;
}

static int run_process(process *p)
{
    int status = process_wait(p);
    process_free(&p);
    return status;
}

static int run_services(int only, int argc, char **argv)
{
    error        err;
    option_group groups[GROUPS_MAX];
    size_t       n       = collect_groups(groups, only, false);
    const char  *name    = only < 0 ? "serve" : services[only].name;
    const char  *summary = only < 0 ? "Everything in one process." : services[only].summary;
    if (option_wants_help(argc, argv)) {
        print_help(name, summary, groups, n);
        return 0;
    }
    if (!option_parse(groups, n, argc, argv, NULL, &err))
        return fail(&err);
    if (only < 0)
        name_model();
    process *p = process_new(&given.process, &given.all, only, &err);
    return p ? run_process(p) : fail(&err);
}

typedef struct {
    process *process;
    int      status;
} chat_end;

static void on_chat_end(void *arg, int status)
{
    chat_end *end = arg;
    end->status   = status;
    process_quit(end->process);
}

static int run_chat(int argc, char **argv)
{
    error        err;
    option_group groups[GROUPS_MAX];
    size_t       n = collect_groups(groups, -1, true);
    if (option_wants_help(argc, argv)) {
        print_help("chat", "A conversation in the terminal.", groups, n);
        return 0;
    }
    if (!option_parse(groups, n, argc, argv, NULL, &err))
        return fail(&err);
    if (!getenv("TROUPE_LOG_LEVEL") && strcmp(given.process.log_level, "info") == 0)
        given.process.log_level = "warn"; /* the terminal belongs to the conversation */
    given.all.gateway.port = 0;           /* HTTP is not what this is for: any free port */
    process *p             = process_new(&given.process, &given.all, -1, &err);
    if (!p)
        return fail(&err);
    chat_end end       = {.process = p, .status = 1};
    given.chat.on_end  = on_chat_end;
    given.chat.end_arg = &end;
    if (!process_add_client(p, &chat_class, &given.chat, &err)) {
        process_free(&p);
        return fail(&err);
    }
    int status = run_process(p);
    return status ? status : end.status;
}

/* Who listens on every address is asked on this machine's own. */
static const char *reachable(const char *listens)
{
    if (strcmp(listens, "0.0.0.0") == 0)
        return "127.0.0.1";
    return strcmp(listens, "::") == 0 ? "::1" : listens;
}

static int run_health(int argc, char **argv)
{
    error        err;
    option_group group = {"Process", process_option_rows, n_process_option_rows, &given.process};
    if (!option_parse(&group, 1, argc, argv, NULL, &err))
        return fail(&err);
    if (given.process.admin_port == 0) {
        error_set(&err, ERR_INVALID, "--admin-port (or TROUPE_ADMIN_PORT) says which process to ask");
        return fail(&err);
    }
    const char *host = reachable(given.process.admin_host);
    return admin_get(host, (uint16_t)given.process.admin_port, "/health", &err) ? 0 : fail(&err);
}

static int run_keys(int argc, char **argv)
{
    error err;
    if (argc != 1 || argv[0][0] == '-') {
        error_set(&err, ERR_INVALID, "keys: expected one argument, the file to write");
        return fail(&err);
    }
    if (!bus_write_keypair(argv[0], &err))
        return fail(&err);
    printf("wrote %s (keep it secret) and %s.pub\n", argv[0], argv[0]);
    return 0;
}

/* DIR and REQUEST stand before the flags. */
static int run_replay(int argc, char **argv)
{
    error        err;
    int          n_names  = 0;
    option_group groups[] = {
        {"Model", executor_option_rows, n_executor_option_rows, &given.all.executor},
        {"Tokenizer", tokenizer_option_rows, n_tokenizer_option_rows, &given.all.tokenizer},
        {"Scheduler", scheduler_option_rows, n_scheduler_option_rows, &given.all.scheduler},
    };
    while (n_names < argc && argv[n_names][0] != '-')
        n_names++;
    if (option_wants_help(argc, argv)) {
        print_help("replay",
                   "What --record wrote, and whether a request gives the same tokens again.\n\n"
                   "  troupe replay DIR                         lists the requests\n"
                   "  troupe replay DIR REQUEST --model FILE    runs one (the first digits of its id) again, and says\n"
                   "                                            the first token that differs\n\n"
                   "Exit status: 0 the same, 1 it differs, 2 it can't be run.",
                   groups, COUNT(groups));
        return 0;
    }
    if (!option_parse(groups, COUNT(groups), argc - n_names, argv + n_names, NULL, &err)) {
        fail(&err);
        return REPLAY_CANNOT;
    }
    if (n_names < 1 || n_names > 2) {
        error_set(&err, ERR_INVALID, "replay: expected a folder, and the id of a request or none, before the flags");
        fail(&err);
        return REPLAY_CANNOT;
    }
    log_set_level(LOG_WARN);
    return n_names == 1 ? replay_list(argv[0], stdout) : replay_request(&given.all, argv[0], argv[1], stdout);
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "help";
    argc -= 2;
    argv += 2;
    if (strcmp(command, "serve") == 0)
        return run_services(-1, argc, argv);
    if (strcmp(command, "chat") == 0)
        return run_chat(argc, argv);
    for (int i = 0; i < N_SERVICES; i++)
        if (strcmp(command, services[i].name) == 0)
            return run_services(i, argc, argv);
    if (strcmp(command, "health") == 0)
        return run_health(argc, argv);
    if (strcmp(command, "replay") == 0)
        return run_replay(argc, argv);
    if (strcmp(command, "keys") == 0)
        return run_keys(argc, argv);
    if (strcmp(command, "version") == 0 || strcmp(command, "--version") == 0) {
        puts("troupe " TROUPE_VERSION);
        return 0;
    }
    bool asked = strcmp(command, "help") == 0 || strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0;
    if (!asked)
        fprintf(stderr, "troupe: there is no command %s\n\n", command);
    print_usage(asked ? stdout : stderr);
    return asked ? 0 : 2;
}
