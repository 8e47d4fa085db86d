/*
 * settings: one table drives argv, the environment, the file, --help, --check and (by a test) the manual.
 *
 * Precedence: argv (--workers 4), environment (SANDSTORM_WORKERS), `.env` in project_dir, file (workers = 4), default.
 * `.env` cannot say where project_dir or the file is. In argv and file `-` and `_` are the same. Durations are seconds
 * unless they carry a unit (ms, s, m, h); sizes are bytes unless they carry one (KiB, MiB, GiB). Lists are
 * comma-separated; naming a list again in the same source adds to it, a stronger source replaces it.
 *
 * An unknown key or a bad value is an error that names its source (file and line, variable, option). All errors are
 * reported, not only the first.
 */
#ifndef COMMON_SETTINGS_H
#define COMMON_SETTINGS_H

#include "common/environment.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A shorter SANDSTORM_API_KEY is an error, a shorter previous one is ignored (http-api.md 2.5). */
#define SETTINGS_API_KEY_MIN_BYTES 32

/* The longest value of a setting that names something. */
#define SETTINGS_NAME_MAX_BYTES 64

/* Values of access_log that are no files. */
#define SETTINGS_ACCESS_LOG_OFF    "off"
#define SETTINGS_ACCESS_LOG_STDERR "stderr"

/* The most that `workers` may be; TTIN does not go beyond it either. */
#define SETTINGS_WORKERS_MAX 256

enum runtime_choice {
    RUNTIME_AUTO,  /* e2b when an E2B key is in effect, else local */
    RUNTIME_E2B,   /* the E2B cloud, or what E2B_API_URL names */
    RUNTIME_LOCAL, /* sandboxd on this machine */
};

/* What local sandboxes reach besides network_allow. */
enum network_choice { NETWORK_CHOICE_NONE, NETWORK_CHOICE_INTERNET };

enum access_log_format {
    ACCESS_LOG_COMMON, /* Apache's combined, and more */
    ACCESS_LOG_JSON,
};

/* Every value that steers the server. Strings are never NULL; "" stands for not set. Times are milliseconds. */
struct settings {
    /* the process */
    int64_t workers;
    char *bind;       /* list of host:port, [v6]:port, unix:/path, each with ;proxy_protocol or not */
    char *unix_mode;  /* octal */
    char *unix_owner; /* user, user:group or :group; "": as the server */
    int64_t backlog;
    char *tls_cert;
    char *tls_key;
    char *tls_client_ca;
    char *api_key_file; /* files of keys, which the environment then has; "": none */
    char *api_key_previous_file;
    char *anthropic_api_key_file;
    char *openrouter_api_key_file;
    char *e2b_api_key_file;
    int64_t worker_timeout_ms;
    int64_t worker_max_requests; /* 0: no limit */
    int64_t worker_max_requests_jitter;
    int64_t graceful_timeout_ms;
    int64_t log_level;         /* enum log_level */
    char *log_file;            /* "": standard error */
    char *access_log;          /* a file, or one of the two names above */
    int64_t access_log_format; /* enum access_log_format */
    char *user;                /* of the workers, when the server is started as root; "": not told */
    char *group;               /* "": the user's */
    char *instance;
    char *project_dir; /* absolute */
    char *state_dir;   /* absolute */
    char *pid_file;
    int64_t run_history;
    int64_t store_prompts; /* bool */

    /* a run */
    char *ca_file;
    char *proxy;
    int64_t timeout_ms;
    int64_t max_runs;
    int64_t connect_timeout_ms;
    int64_t create_retry_timeout_ms;
    int64_t agent_start_timeout_ms;
    int64_t stream_idle_timeout_ms;
    int64_t extract_timeout_ms;
    int64_t extract_file_limit_bytes;
    int64_t line_limit_bytes;
    char *agent_command;
    char *agent_runner;
    char *template_name;
    char *agent_sdk_version;

    /* a client */
    int64_t header_timeout_ms;
    int64_t body_timeout_ms;
    int64_t keepalive_timeout_ms;
    int64_t body_limit_bytes;
    int64_t body_memory_bytes;
    char *trusted_proxies; /* list of addresses, or * */
    int64_t ping_interval_ms;
    int64_t output_buffer_bytes;
    int64_t client_stall_timeout_ms;

    /* the local runtime */
    int64_t runtime; /* enum runtime_choice */
    char *local_socket;
    char *sandboxd;
    char *template_dir;
    int64_t network;     /* enum network_choice */
    char *network_allow; /* list of host:port */
    int64_t sandbox_memory_bytes;
    int64_t sandbox_disk_bytes;
    int64_t sandbox_processes;
    int64_t sandbox_cpu_percent; /* of one core; 0: no limit */

    /*
     * From the environment, a file of its own or `.env` only: an argument or a settings file is no place for a key. ""
     * when unset.
     */
    char *api_key;          /* SANDSTORM_API_KEY: who may ask; "": everybody */
    char *api_key_previous; /* SANDSTORM_API_KEY_PREVIOUS: also accepted, while keys rotate */
    char *cors_origins;     /* CORS_ORIGINS: a list; * by default */
};

enum settings_action {
    SETTINGS_RUN,     /* start the server */
    SETTINGS_CHECK,   /* --check: print the effective values, exit */
    SETTINGS_HELP,    /* --help */
    SETTINGS_VERSION, /* --version */
    SETTINGS_STATUS,  /* status: tell how a running server is */
};

struct settings_load; /* the result of one load: values, their sources, errors; owned by the caller */

/*
 * Reads argv, environ, the file they name and `.env`. Never NULL but for lack of memory; check settings_load_errors().
 * May be called again with the same argv after a file changed (reload), then with the load in use: its values of `.env`
 * count again when that file cannot be read. NULL at start.
 */
struct settings_load *settings_load(int argc, char *const argv[], const struct settings_load *in_use);
void settings_load_free(struct settings_load *load);

/* What stands behind `status`, besides settings. */
struct settings_status {
    bool json;   /* --json */
    int64_t pid; /* --pid; 0: found by state_dir */
};

enum settings_action settings_load_action(const struct settings_load *load);
const struct settings_status *settings_load_status(const struct settings_load *load);
/* Errors, one a line, "" when there are none. Usage errors (argv) set *usage. */
const char *settings_load_errors(const struct settings_load *load, bool *usage);
/* Valid while the load lives. Only meaningful without errors. */
const struct settings *settings_load_values(const struct settings_load *load);
/* The environment as it was then: process, files of keys, `.env`. Valid while the load lives. */
struct environment *settings_load_environment(const struct settings_load *load);
/* The file that was read, "" if none. */
const char *settings_load_file(const struct settings_load *load);

/* `key = value  # source`, one a line, in the order of the table. */
void settings_print(const struct settings_load *load, FILE *out);
void settings_print_help(FILE *out);

/*
 * A reload can change only reloadable settings, which those of the local runtime are while there is none. Writes the
 * first key that differs and is not reloadable to *key and returns false, else true.
 */
bool settings_reload_allowed(const struct settings_load *old_load, const struct settings_load *new_load,
                             bool has_local_runtime, const char **key);

/* The settings that only a restart changes, as "key=value" lines, in the order of the table. To be freed; NULL for lack
 * of memory. */
char *settings_fixed_text(const struct settings_load *load) __attribute__((warn_unused_result));

/* The file of the access log; "": it is none. */
const char *settings_access_log_file(const struct settings *settings);

/* Is a text what a setting that names something may be, or empty? */
bool settings_is_name(const char *text);

/* Walks a list: copies the next item, trimmed, to item; false at the end. *cursor starts at the list. */
bool settings_list_next(const char **cursor, char *item, size_t size);

#endif
