#include "common/settings_table.h"

#include "common/log.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HOUR_MS (3600 * 1000LL)
#define KIB     1024LL
#define MIB     (1024LL * KIB)
#define GIB     (1024LL * MIB)

static const struct choice runtime_choices[] = {
    {"auto", RUNTIME_AUTO}, {"e2b", RUNTIME_E2B}, {"local", RUNTIME_LOCAL}, {NULL, 0}};

static const struct choice network_choices[] = {
    {"internet", NETWORK_CHOICE_INTERNET}, {"none", NETWORK_CHOICE_NONE}, {NULL, 0}};

static const struct choice switch_choices[] = {{"on", true}, {"off", false}, {NULL, 0}};

static const struct choice log_level_choices[] = {{"error", LOG_LEVEL_ERROR},
                                                  {"warn", LOG_LEVEL_WARN},
                                                  {"info", LOG_LEVEL_INFO},
                                                  {"debug", LOG_LEVEL_DEBUG},
                                                  {NULL, 0}};

static const struct choice access_log_choices[] = {{"common", ACCESS_LOG_COMMON}, {"json", ACCESS_LOG_JSON}, {NULL, 0}};

#define AT(field) offsetof(struct settings, field)

const struct setting settings_table[] = {
    {"workers", TYPE_INTEGER, HOT, AT(workers), NULL, 1, SETTINGS_WORKERS_MAX, NULL, "WEB_CONCURRENCY",
     "worker processes; default 2 x cores"},
    {"bind", TYPE_LIST, HOT, AT(bind), "127.0.0.1:8000", 0, 0, NULL, NULL,
     "addresses to listen on: host:port, [v6]:port, unix:/path; behind each ;proxy_protocol or not"},
    {"unix_mode", TYPE_NAME, HOT, AT(unix_mode), "0660", 0, 0, NULL, NULL, "mode of unix sockets"},
    {"unix_owner", TYPE_STRING, HOT, AT(unix_owner), "", 0, 0, NULL, NULL,
     "owner of unix sockets: user, user:group, :group; default the server's own"},
    {"backlog", TYPE_INTEGER, FIXED, AT(backlog), "2048", 1, 65535, NULL, NULL,
     "queue of connections not yet accepted"},
    {"tls_cert", TYPE_STRING, HOT, AT(tls_cert), "", 0, 0, NULL, NULL,
     "PEM file of the certificate and its chain: all addresses speak HTTPS"},
    {"tls_key", TYPE_STRING, HOT, AT(tls_key), "", 0, 0, NULL, NULL, "PEM file of its private key; default tls_cert"},
    {"tls_client_ca", TYPE_STRING, HOT, AT(tls_client_ca), "", 0, 0, NULL, NULL,
     "PEM file of authorities: clients need a certificate of one of them"},
    {"api_key_file", TYPE_STRING, HOT, AT(api_key_file), NULL, 0, 0, NULL, NULL,
     "file with SANDSTORM_API_KEY, the key of clients; default the credential sandstorm.api_key"},
    {"api_key_previous_file", TYPE_STRING, HOT, AT(api_key_previous_file), NULL, 0, 0, NULL, NULL,
     "file with SANDSTORM_API_KEY_PREVIOUS; default the credential sandstorm.api_key_previous"},
    {"anthropic_api_key_file", TYPE_STRING, HOT, AT(anthropic_api_key_file), NULL, 0, 0, NULL, NULL,
     "file with ANTHROPIC_API_KEY; default the credential sandstorm.anthropic_api_key"},
    {"openrouter_api_key_file", TYPE_STRING, HOT, AT(openrouter_api_key_file), NULL, 0, 0, NULL, NULL,
     "file with OPENROUTER_API_KEY; default the credential sandstorm.openrouter_api_key"},
    {"e2b_api_key_file", TYPE_STRING, HOT, AT(e2b_api_key_file), NULL, 0, 0, NULL, NULL,
     "file with E2B_API_KEY; default the credential sandstorm.e2b_api_key"},
    {"timeout", TYPE_DURATION, HOT, AT(timeout_ms), "600", 5000, 24 * HOUR_MS, NULL, NULL, "longest a run may take"},
    {"graceful_timeout", TYPE_DURATION, HOT, AT(graceful_timeout_ms), NULL, 0, 24 * HOUR_MS, NULL, NULL,
     "longest drain on stop or reload; default = timeout"},
    {"worker_timeout", TYPE_DURATION, HOT, AT(worker_timeout_ms), "30", 1000, HOUR_MS, NULL, NULL,
     "a worker whose loop is silent this long is replaced"},
    {"worker_max_requests", TYPE_INTEGER, HOT, AT(worker_max_requests), "0", 0, 1000000000, NULL, NULL,
     "runs after which a worker is replaced by a fresh one; 0 = never"},
    {"worker_max_requests_jitter", TYPE_INTEGER, HOT, AT(worker_max_requests_jitter), "0", 0, 1000000000, NULL, NULL,
     "up to so many runs more, drawn for each worker, so that they are not replaced together"},
    {"max_runs", TYPE_INTEGER, FIXED, AT(max_runs), "1024", 1, 100000, NULL, NULL,
     "live runs of all workers together; more get 503"},
    {"runtime", TYPE_CHOICE, FIXED, AT(runtime), "auto", 0, 0, runtime_choices, NULL,
     "where sandboxes live: auto (e2b with a key, else local), e2b, local"},
    {"user", TYPE_NAME, FIXED, AT(user), "", 0, 0, NULL, NULL,
     "whom the workers of a server of root's run as; default none, which root must set"},
    {"group", TYPE_NAME, FIXED, AT(group), "", 0, 0, NULL, NULL, "their group; default that of user"},
    {"instance", TYPE_NAME, FIXED, AT(instance), "", 0, 0, NULL, NULL,
     "name in the metadata of our sandboxes; default random, kept in state_dir"},
    {"project_dir", TYPE_STRING, FIXED, AT(project_dir), NULL, 0, 0, NULL, NULL,
     "directory of sandstorm.json and .env; default the working directory"},
    {"state_dir", TYPE_STRING, FIXED, AT(state_dir), NULL, 0, 0, NULL, NULL,
     "history of runs, instance name, lock; default .sandstorm in project_dir"},
    {"pid_file", TYPE_STRING, FIXED, AT(pid_file), "", 0, 0, NULL, NULL,
     "file with the master's pid, while the server is ready; default none"},
    {"run_history", TYPE_INTEGER, FIXED, AT(run_history), "1000", 1, 100000, NULL, NULL,
     "ended runs that are remembered"},
    {"store_prompts", TYPE_CHOICE, HOT, AT(store_prompts), "on", 0, 0, switch_choices, NULL,
     "keep prompts in the records of runs: on, off"},
    {"log_level", TYPE_CHOICE, HOT, AT(log_level), "info", 0, 0, log_level_choices, NULL, "error, warn, info, debug"},
    {"log_file", TYPE_STRING, HOT, AT(log_file), "", 0, 0, NULL, NULL,
     "file the log is appended to; default standard error"},
    {"access_log", TYPE_STRING, HOT, AT(access_log), SETTINGS_ACCESS_LOG_OFF, 0, 0, NULL, NULL,
     "a line for each request that has ended: off, stderr, or a file"},
    {"access_log_format", TYPE_CHOICE, HOT, AT(access_log_format), "common", 0, 0, access_log_choices, NULL,
     "common, json"},

    {"ca_file", TYPE_STRING, HOT, AT(ca_file), "", 0, 0, NULL, NULL,
     "PEM file of the authorities the sandbox service is trusted by; default the system's"},
    {"proxy", TYPE_STRING, HOT, AT(proxy), "", 0, 0, NULL, NULL,
     "http:// or https:// proxy to the sandbox service; default HTTPS_PROXY, NO_PROXY"},
    {"connect_timeout", TYPE_DURATION, HOT, AT(connect_timeout_ms), "10", 100, HOUR_MS, NULL, NULL,
     "longest wait for a connection to the sandbox service, the lookup of its name included"},
    {"template", TYPE_STRING, HOT, AT(template_name), "sandstorm", 0, 0, NULL, NULL, "template of the sandboxes"},
    {"agent_sdk_version", TYPE_NAME, HOT, AT(agent_sdk_version), "0.3.330", 0, 0, NULL, NULL,
     "version of the Agent SDK installed where the template is missing"},
    {"agent_command", TYPE_STRING, HOT, AT(agent_command), "node /opt/agent-runner/runner.mjs", 0, 0, NULL, NULL,
     "command line that starts the agent in its sandbox"},
    {"agent_runner", TYPE_STRING, HOT, AT(agent_runner), NULL, 0, 0, NULL, NULL,
     "file put into each sandbox as /opt/agent-runner/runner.mjs"},
    {"create_retry_timeout", TYPE_DURATION, HOT, AT(create_retry_timeout_ms), "30", 0, HOUR_MS, NULL, NULL,
     "how long a create refused with 429, 503 or 504 is tried again"},
    {"agent_start_timeout", TYPE_DURATION, HOT, AT(agent_start_timeout_ms), "60", 1000, HOUR_MS, NULL, NULL,
     "longest wait for the agent's process to start"},
    {"stream_idle_timeout", TYPE_DURATION, HOT, AT(stream_idle_timeout_ms), "150", 1000, HOUR_MS, NULL, NULL,
     "a sandbox whose stream is silent this long is lost (keepalives come every 50 s)"},
    {"extract_timeout", TYPE_DURATION, HOT, AT(extract_timeout_ms), "30", 1000, HOUR_MS, NULL, NULL,
     "longest collection of the agent's files"},
    {"extract_file_limit", TYPE_SIZE, HOT, AT(extract_file_limit_bytes), "25MiB", 0, 50 * MIB, NULL, NULL,
     "largest file sent back"},
    {"line_limit", TYPE_SIZE, HOT, AT(line_limit_bytes), "32MiB", 4 * KIB, GIB, NULL, NULL,
     "longest line of an agent's output"},

    {"header_timeout", TYPE_DURATION, HOT, AT(header_timeout_ms), "10", 100, HOUR_MS, NULL, NULL,
     "from accept to complete request headers"},
    {"body_timeout", TYPE_DURATION, HOT, AT(body_timeout_ms), "120", 100, HOUR_MS, NULL, NULL,
     "from headers to complete request body"},
    {"keepalive_timeout", TYPE_DURATION, HOT, AT(keepalive_timeout_ms), "75", 100, HOUR_MS, NULL, NULL,
     "idle connections of health probes"},
    {"body_limit", TYPE_SIZE, HOT, AT(body_limit_bytes), "16MiB", KIB, GIB, NULL, NULL, "largest request body"},
    {"body_memory", TYPE_SIZE, HOT, AT(body_memory_bytes), "256MiB", KIB, 1024 * GIB, NULL, NULL,
     "request bodies held by one worker; more get 503"},
    {"trusted_proxies", TYPE_LIST, HOT, AT(trusted_proxies), "127.0.0.1", 0, 0, NULL, "FORWARDED_ALLOW_IPS",
     "peers whose X-Forwarded and PROXY headers count; unix = over unix sockets, * = all"},
    {"ping_interval", TYPE_DURATION, HOT, AT(ping_interval_ms), "15", 0, HOUR_MS, NULL, NULL,
     "keep-alive comment on a quiet stream; 0 = never"},
    {"output_buffer", TYPE_SIZE, HOT, AT(output_buffer_bytes), "256KiB", 4 * KIB, GIB, NULL, NULL,
     "output waiting for a client before its agent is paused"},
    {"client_stall_timeout", TYPE_DURATION, HOT, AT(client_stall_timeout_ms), "120", 1000, HOUR_MS, NULL, NULL,
     "a client that takes nothing this long is gone"},

    {"local_socket", TYPE_STRING, LOCAL, AT(local_socket), "", 0, 0, NULL, NULL,
     "unix socket of the local runtime; default in a private runtime directory"},
    {"sandboxd", TYPE_STRING, LOCAL, AT(sandboxd), NULL, 0, 0, NULL, NULL, "program of the local runtime"},
    {"template_dir", TYPE_STRING, LOCAL, AT(template_dir), NULL, 0, 0, NULL, NULL, "templates of the local runtime"},
    {"network", TYPE_CHOICE, LOCAL, AT(network), "internet", 0, 0, network_choices, NULL,
     "what local sandboxes reach: internet (public addresses only), none"},
    {"network_allow", TYPE_LIST, LOCAL, AT(network_allow), NULL, 0, 0, NULL, NULL,
     "host:port that local sandboxes may reach in either case; default the model's endpoint"},
    {"sandbox_memory", TYPE_SIZE, LOCAL, AT(sandbox_memory_bytes), "2GiB", 256 * MIB, 1024 * GIB, NULL, NULL,
     "memory of a local sandbox"},
    {"sandbox_disk", TYPE_SIZE, LOCAL, AT(sandbox_disk_bytes), "512MiB", MIB, 1024 * GIB, NULL, NULL,
     "size of /home/user in a local sandbox"},
    {"sandbox_processes", TYPE_INTEGER, LOCAL, AT(sandbox_processes), "512", 128, 65536, NULL, NULL,
     "processes of a local sandbox"},
    {"sandbox_cpu", TYPE_INTEGER, LOCAL, AT(sandbox_cpu_percent), "0", 0, 102400, NULL, NULL,
     "CPU time of a local sandbox in percent of one core; 0 = no limit"},
};

const size_t settings_count = sizeof settings_table / sizeof *settings_table;
_Static_assert(sizeof settings_table / sizeof *settings_table <= SETTINGS_TABLE_MAX,
               "struct settings_load has no room");

int64_t *setting_number_at(struct settings *values, const struct setting *setting)
{
    return (int64_t *)(void *)((char *)values + setting->offset);
}

char **setting_text_at(struct settings *values, const struct setting *setting)
{
    return (char **)(void *)((char *)values + setting->offset);
}

bool setting_is_text(const struct setting *setting)
{
    return setting->type == TYPE_STRING || setting->type == TYPE_NAME || setting->type == TYPE_LIST;
}

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit no_units[] = {{"", 1}, {NULL, 0}};
static const struct unit duration_units[] = {{"", 1000},   {"ms", 1},      {"s", 1000},
                                             {"m", 60000}, {"h", HOUR_MS}, {NULL, 0}};
static const struct unit size_units[] = {{"", 1},      {"k", KIB}, {"KiB", KIB}, {"m", MIB},
                                         {"MiB", MIB}, {"g", GIB}, {"GiB", GIB}, {NULL, 0}};

static const struct unit *units_of(const struct setting *setting)
{
    switch (setting->type) {
    case TYPE_DURATION:
        return duration_units;
    case TYPE_SIZE:
        return size_units;
    default:
        return no_units;
    }
}

const char *setting_parse_number(const struct setting *setting, const char *text, int64_t *value)
{
    const struct unit *units = units_of(setting);
    char *end;
    long long number;

    if (!isdigit((unsigned char)*text))
        return "is not a whole number";
    errno = 0;
    number = strtoll(text, &end, 10);
    if (errno == ERANGE)
        return "is too large";
    while (*end == ' ')
        end++;
    for (const struct unit *u = units; u->name != NULL; u++) {
        if (strcasecmp(u->name, end) == 0) {
            if (__builtin_mul_overflow(number, u->factor, value))
                return "is too large";
            return NULL;
        }
    }
    return units == no_units ? "is not a whole number" : "has an unknown unit";
}

void setting_format_number(const struct setting *setting, int64_t value, char *out, size_t size)
{
    if (setting->type == TYPE_CHOICE) {
        for (const struct choice *c = setting->choices; c->name != NULL; c++) {
            if (c->value == value)
                snprintf(out, size, "%s", c->name);
        }
    } else if (setting->type == TYPE_DURATION) {
        snprintf(out, size, value % 1000 == 0 ? "%lld" : "%lldms",
                 (long long)(value % 1000 == 0 ? value / 1000 : value));
    } else if (setting->type == TYPE_SIZE && value >= MIB && value % MIB == 0) {
        snprintf(out, size, "%lldMiB", (long long)(value / MIB));
    } else if (setting->type == TYPE_SIZE && value >= KIB && value % KIB == 0) {
        snprintf(out, size, "%lldKiB", (long long)(value / KIB));
    } else {
        snprintf(out, size, "%lld", (long long)value);
    }
}

bool settings_is_name(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    return strlen(text) <= SETTINGS_NAME_MAX_BYTES && text[strspn(text, allowed)] == '\0';
}

size_t settings_find(const char *name, size_t length)
{
    char key[SETTING_KEY_MAX_BYTES];

    if (length == 0 || length >= sizeof key)
        return settings_count;
    for (size_t i = 0; i < length; i++)
        key[i] = name[i] == '-' ? '_' : name[i];
    key[length] = '\0';
    for (size_t i = 0; i < settings_count; i++) {
        if (strcmp(settings_table[i].key, key) == 0)
            return i;
    }
    return settings_count;
}

void setting_environment_name(const struct setting *setting, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "SANDSTORM_");

    for (const char *c = setting->key; *c != '\0' && used < size - 1; c++)
        out[used++] = (char)toupper((unsigned char)*c);
    out[used] = '\0';
}
