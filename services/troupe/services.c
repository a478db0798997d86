/* The table of services; see services.h. */
#include "troupe/services.h"

const service services[N_SERVICES] = {
    [SERVICE_SCHEDULER]     = {"scheduler", "Owns the queue and the executors; plans every step.", &scheduler_class,
                               scheduler_option_rows, &n_scheduler_option_rows, offsetof(all_options, scheduler), false,
                               false, "tcp://127.0.0.1:5571", 1024},
    [SERVICE_GATEWAY]       = {"gateway", "Speaks HTTP and the bus to clients; owns each request.", &gateway_class,
                               gateway_option_rows, &n_gateway_option_rows, offsetof(all_options, gateway), false, true,
                               "tcp://127.0.0.1:5570", 256},
    [SERVICE_EXECUTOR]      = {"executor", "Holds a model; runs step plans and samples.", &executor_class,
                               executor_option_rows, &n_executor_option_rows, offsetof(all_options, executor), false, true,
                               NULL, 2},
    [SERVICE_TOKENIZER]     = {"tokenizer", "Chat templates and text to token ids.", &tokenizer_class,
                               tokenizer_option_rows, &n_tokenizer_option_rows, offsetof(all_options, tokenizer), true,
                               true, NULL, 64},
    [SERVICE_POSTPROCESSOR] = {"postprocessor", "Token ids to text, stop strings, output filters.",
                               &postprocessor_class, postprocessor_option_rows, &n_postprocessor_option_rows,
                               offsetof(all_options, postprocessor), true, true, NULL, 1024},
    [SERVICE_DRAFTER] = {"drafter", "Guesses tokens for the executor to verify.", &drafter_class, drafter_option_rows,
                         &n_drafter_option_rows, offsetof(all_options, drafter), false, true, NULL, 256},
};

const option_row process_option_rows[] = {
    OPTION_CHOICE(
        process_options, transport, "--bus-transport", "inproc|queue", 0,
        "Between the services of one process: ZeroMQ, or plain mutex queues (which thread checkers understand)."),
    OPTION_STRING(process_options, log_level, "--log-level", "LEVEL", "info", "debug, info, warn, error or off."),
    OPTION_STRING(process_options, log_level_file, "--log-level-file", "FILE", NULL,
                  "File with one such word, in place of --log-level. Read again on SIGHUP."),
    OPTION_CHOICE(process_options, log_format, "--log-format", "auto|json|text", 0,
                  "auto: text on a terminal, JSON lines elsewhere."),
    OPTION_STRING(process_options, admin_host, "--admin-host", "ADDRESS", "127.0.0.1", "Address of the admin port."),
    OPTION_UINT(process_options, admin_port, "--admin-port", "N", 0, 0, 65535,
                "HTTP port for /health and /metrics of this process; 0: none."),
    OPTION_UINT(process_options, drain_timeout_s, "--drain-timeout", "S", 30, 0, 3600,
                "Seconds that requests in hand may take after SIGTERM."),
    OPTION_STRING(process_options, otlp_endpoint, "--otlp-endpoint", "URL", NULL,
                  "OpenTelemetry collector that takes spans over HTTP: http://host:4318. Without it none are made."),
    OPTION_DOUBLE(process_options, otlp_sample_ratio, "--otlp-sample-ratio", "N", 1, 0, 1,
                  "How many of the traces that begin here are recorded; those of clients say so themselves."),
};
const size_t n_process_option_rows = COUNT(process_option_rows);

const option_row record_option_rows[] = {
    OPTION_STRING(process_options, record, "--record", "DIR", NULL,
                  "Write every message of the bus that this process takes in or sends to files in DIR, for `troupe "
                  "replay`. PROMPTS AND ANSWERS ARE IN THEM, not encrypted: protect that folder as you would "
                  "protect them."),
    OPTION_BYTES(process_options, record_bytes, "--record-bytes", 256 << 20, RECORDER_BYTES_MIN, 16.0 * (1 << 30),
                 "Bytes of those files at most; the oldest are deleted."),
};
const size_t n_record_option_rows = COUNT(record_option_rows);

const option_row endpoint_option_rows[] = {
    OPTION_STRING(process_options, bind, "--bus-bind", "ENDPOINTS", NULL,
                  "Where gateway and scheduler listen: tcp://host:port or ipc://path, separated by commas."),
    OPTION_STRING(process_options, gateways, "--gateway", "ENDPOINTS", "tcp://127.0.0.1:5570",
                  "Gateways to connect to."),
    OPTION_STRING(process_options, schedulers, "--scheduler", "ENDPOINTS", "tcp://127.0.0.1:5571",
                  "Schedulers to connect to."),
    OPTION_STRING(process_options, server_key_file, "--bus-server-key", "FILE", NULL,
                  "Public key of the servers to connect to."),
};
const size_t n_endpoint_option_rows = COUNT(endpoint_option_rows);

const option_row client_endpoint_option_rows[] = {
    OPTION_STRING(process_options, bind, "--bus-bind", "ENDPOINTS", NULL,
                  "Where the gateway listens for clients on the bus, beside HTTP: tcp://host:port or ipc://path, "
                  "separated by commas. Without it nowhere."),
};
const size_t n_client_endpoint_option_rows = COUNT(client_endpoint_option_rows);

const option_row key_option_rows[] = {
    OPTION_STRING(process_options, secret_key_file, "--bus-secret-key", "FILE", NULL,
                  "CURVE key pair of this process, as `troupe keys` writes it."),
    OPTION_STRING(process_options, peers_file, "--bus-peers", "FILE", NULL,
                  "Lines of public key and role: who may connect, as what."),
    OPTION_BOOL(process_options, insecure, "--bus-insecure", false,
                "Allow tcp endpoints without CURVE: for loopback and closed networks only."),
};
const size_t n_key_option_rows = COUNT(key_option_rows);
