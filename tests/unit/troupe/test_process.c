/* A process of services: what can't start is named and leaves nothing behind; what runs ends when it is asked to. */
#include "troupe/process.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    process_options process;
    all_options     all;
} options;

static void set_defaults(options *o)
{
    option_group groups[N_SERVICES + 2];
    size_t       n = 0;
    error        err;
    *o = (options){0};
    for (int i = 0; i < N_SERVICES; i++)
        groups[n++] = (option_group){services[i].name, services[i].rows, *services[i].n_rows,
                                     (char *)&o->all + services[i].offset};
    groups[n++] = (option_group){"Bus", endpoint_option_rows, n_endpoint_option_rows, &o->process};
    groups[n++] = (option_group){"Process", process_option_rows, n_process_option_rows, &o->process};
    if (!option_parse(groups, n, 0, NULL, NULL, &err))
        fail_msg("%s", err.text);
    o->process.log_level = "off";
}

static void what_cannot_start_is_named(void **state)
{
    static const struct {
        const char *what;
        int         only;
        size_t      offset; /* of a text in process_options, and what it is set to */
        const char *value, *says;
    } cases[] = {
        {"a level of logs", SERVICE_DRAFTER, offsetof(process_options, log_level), "loud", "--log-level loud"},
        {"a file without a level", SERVICE_DRAFTER, offsetof(process_options, log_level_file), "/dev/null",
         "--log-level-file /dev/null, line 1: expected debug"},
        {"a listener that listens nowhere", SERVICE_SCHEDULER, offsetof(process_options, bind), ",",
         "--bus-bind: an endpoint is missing"},
        {"a caller that should listen", SERVICE_DRAFTER, offsetof(process_options, bind), "ipc:///tmp/x",
         "a drafter does not listen"},
        {"a caller without anybody to call", SERVICE_DRAFTER, offsetof(process_options, schedulers), "",
         "--scheduler: an endpoint is missing"},
        {"tcp without keys", SERVICE_SCHEDULER, offsetof(process_options, bind), "tcp://127.0.0.1:1", "--bus-insecure"},
        {"a key that is not there", SERVICE_DRAFTER, offsetof(process_options, secret_key_file), "/no/such/key",
         "/no/such/key"},
        {"a collector that is no address", SERVICE_DRAFTER, offsetof(process_options, otlp_endpoint), "localhost:4318",
         "--otlp-endpoint localhost:4318"},
        {"a service without its model", SERVICE_EXECUTOR, offsetof(process_options, schedulers), "ipc:///tmp/none",
         "executor: --model is missing"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        options o;
        error   err = {0};
        set_defaults(&o);
        memcpy((char *)&o.process + cases[i].offset, &cases[i].value, sizeof cases[i].value);
        process *p = process_new(&o.process, &o.all, cases[i].only, &err);
        if (p || !strstr(err.text, cases[i].says))
            fail_msg("%s: %s", cases[i].what, p ? "started" : err.text);
    }
}

static void a_process_without_work_ends_at_once_when_asked(void **state)
{
    static const struct {
        const char *what;
        int         signal; /* 0: process_quit */
    } cases[] = {{"its own wish", 0}, {"SIGTERM", SIGTERM}, {"SIGINT", SIGINT}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        options o;
        error   err;
        char    endpoint[64];
        set_defaults(&o);
        snprintf(endpoint, sizeof endpoint, "ipc:///tmp/troupe-test-process-%d", getpid());
        o.process.schedulers = endpoint; /* where nobody is */
        process *p           = process_new(&o.process, &o.all, SERVICE_DRAFTER, &err);
        if (!p)
            fail_msg("%s: %s", cases[i].what, err.text);
        if (cases[i].signal)
            kill(getpid(), cases[i].signal);
        else
            process_quit(p);
        if (process_wait(p) != 0)
            fail_msg("%s: stopped, not ended", cases[i].what);
        process_free(&p);
        assert_null(p);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_start_is_named),
        cmocka_unit_test(a_process_without_work_ends_at_once_when_asked),
    };
    return cmocka_run_group_tests_name("troupe/process", tests, NULL, NULL);
}
