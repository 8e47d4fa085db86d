#include "common/settings.h"

#include "common/log.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define FILE_LINE_MAX_BYTES 4096
#define NAME_MAX_BYTES      64
#define KEY_MAX_BYTES       64
#define HOUR_MS             (3600 * 1000LL)
#define KIB                 1024LL
#define MIB                 (1024LL * KIB)
#define GIB                 (1024LL * MIB)
#define STATE_DIR_NAME      ".sandstorm"

enum setting_type {
    TYPE_INTEGER,
    TYPE_DURATION, /* stored in milliseconds */
    TYPE_SIZE,     /* stored in bytes */
    TYPE_STRING,
    TYPE_NAME, /* a string of [A-Za-z0-9._-], at most NAME_MAX_BYTES */
    TYPE_LIST,
    TYPE_CHOICE,
};

enum setting_source {
    SOURCE_DEFAULT,
    SOURCE_FILE,
    SOURCE_DOTENV,
    SOURCE_ENVIRONMENT,
    SOURCE_ARGV,
};

struct choice {
    const char *name;
    int64_t value;
};

static const struct choice runtime_choices[] = {
    {"auto", RUNTIME_AUTO}, {"e2b", RUNTIME_E2B}, {"local", RUNTIME_LOCAL}, {NULL, 0}};

static const struct choice switch_choices[] = {{"on", true}, {"off", false}, {NULL, 0}};

static const struct choice log_level_choices[] = {{"error", LOG_LEVEL_ERROR},
                                                  {"warn", LOG_LEVEL_WARN},
                                                  {"info", LOG_LEVEL_INFO},
                                                  {"debug", LOG_LEVEL_DEBUG},
                                                  {NULL, 0}};

static const struct choice access_log_choices[] = {{"common", ACCESS_LOG_COMMON}, {"json", ACCESS_LOG_JSON}, {NULL, 0}};

/* May a reload change it? */
enum reload_rule {
    HOT,
    FIXED,
    LOCAL, /* unless there is a local runtime: it was started with the old value */
};

struct setting {
    const char *key;
    enum setting_type type;
    enum reload_rule reload;
    size_t offset;
    const char *default_text; /* NULL: worked out by complete_defaults() */
    int64_t min;              /* in the stored unit */
    int64_t max;
    const struct choice *choices;
    const char *environment_alias; /* a variable other programs of this kind read too; weaker than SANDSTORM_<KEY> */
    const char *help;
};

#define AT(field) offsetof(struct settings, field)

static const struct setting table[] = {
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
    {"network_allow", TYPE_LIST, LOCAL, AT(network_allow), NULL, 0, 0, NULL, NULL,
     "host:port that local sandboxes may reach; default the model's endpoint"},
    {"sandbox_memory", TYPE_SIZE, LOCAL, AT(sandbox_memory_bytes), "2GiB", 256 * MIB, 1024 * GIB, NULL, NULL,
     "memory of a local sandbox"},
    {"sandbox_disk", TYPE_SIZE, LOCAL, AT(sandbox_disk_bytes), "512MiB", MIB, 1024 * GIB, NULL, NULL,
     "size of /home/user in a local sandbox"},
    {"sandbox_processes", TYPE_INTEGER, LOCAL, AT(sandbox_processes), "512", 128, 65536, NULL, NULL,
     "processes of a local sandbox"},
};

#define SETTING_COUNT (sizeof table / sizeof *table)

struct settings_load {
    struct settings values;
    enum setting_source source[SETTING_COUNT];
    int line[SETTING_COUNT]; /* in the file, for SOURCE_FILE */
    char *file;
    struct environment *environment; /* NULL before `.env` was read */
    enum settings_action action;
    struct settings_status status; /* for SETTINGS_STATUS */
    char *errors;
    size_t errors_size;
    FILE *errors_out;
    bool usage_error;
};

/* --- values ------------------------------------------------------------------------------------ */

static int64_t *number_at(struct settings *values, const struct setting *setting)
{
    return (int64_t *)(void *)((char *)values + setting->offset);
}

static char **string_at(struct settings *values, const struct setting *setting)
{
    return (char **)(void *)((char *)values + setting->offset);
}

static bool is_text(const struct setting *setting)
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

/* Reads a whole number with an optional unit; the reason of a failure, or NULL. */
static const char *parse_number(const char *text, const struct unit *units, int64_t *value)
{
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

/* A number as the table's text would give it: seconds and bytes with the largest unit that divides them. */
static void format_number(const struct setting *setting, int64_t value, char *out, size_t size)
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

static bool set_text(struct settings_load *load, size_t index, const char *text, enum setting_source source)
{
    char **field = string_at(&load->values, &table[index]);
    char *joined;

    if (table[index].type == TYPE_LIST && load->source[index] == source && *field != NULL && **field != '\0') {
        if (asprintf(&joined, "%s,%s", *field, text) < 0)
            return false;
    } else if ((joined = strdup(text)) == NULL) {
        return false;
    }
    free(*field);
    *field = joined;
    return true;
}

static bool is_name(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    return strlen(text) <= NAME_MAX_BYTES && text[strspn(text, allowed)] == '\0';
}

/* Gives a setting its value from one source; the reason of a failure goes to reason, "" is success. */
static void set_value(struct settings_load *load, size_t index, const char *text, enum setting_source source,
                      char *reason, size_t reason_size)
{
    const struct setting *setting = &table[index];
    const char *fault = NULL;
    int64_t value = 0;
    char low[32], high[32];

    *reason = '\0';
    if (setting->type == TYPE_NAME && !is_name(text)) {
        snprintf(reason, reason_size, "\"%.80s\" is not 1 to %d of A-Z a-z 0-9 . _ -", text, NAME_MAX_BYTES);
        return;
    }
    if (is_text(setting)) {
        if (!set_text(load, index, text, source))
            snprintf(reason, reason_size, "out of memory");
        load->source[index] = source;
        return;
    }
    if (setting->type == TYPE_CHOICE) {
        fault = "is not one of the choices";
        for (const struct choice *c = setting->choices; c->name != NULL; c++) {
            if (strcmp(c->name, text) == 0) {
                value = c->value;
                fault = NULL;
            }
        }
        if (fault != NULL) {
            snprintf(reason, reason_size, "\"%.80s\" %s (%s)", text, fault, setting->help);
            return;
        }
    } else if ((fault = parse_number(text, units_of(setting), &value)) != NULL) {
        snprintf(reason, reason_size, "\"%.80s\" %s", text, fault);
        return;
    } else if (value < setting->min || value > setting->max) {
        format_number(setting, setting->min, low, sizeof low);
        format_number(setting, setting->max, high, sizeof high);
        snprintf(reason, reason_size, "\"%.80s\" is out of range (%s to %s)", text, low, high);
        return;
    }
    *number_at(&load->values, setting) = value;
    load->source[index] = source;
}

/* --- keys --------------------------------------------------------------------------------------- */

/* The index of a key written with - or _; SETTING_COUNT if there is none. */
static size_t find_key(const char *name, size_t length)
{
    char key[KEY_MAX_BYTES];

    if (length == 0 || length >= sizeof key)
        return SETTING_COUNT;
    for (size_t i = 0; i < length; i++)
        key[i] = name[i] == '-' ? '_' : name[i];
    key[length] = '\0';
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        if (strcmp(table[i].key, key) == 0)
            return i;
    }
    return SETTING_COUNT;
}

static void environment_name(const struct setting *setting, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "SANDSTORM_");

    for (const char *c = setting->key; *c != '\0' && used < size - 1; c++)
        out[used++] = (char)toupper((unsigned char)*c);
    out[used] = '\0';
}

/* --- sources ------------------------------------------------------------------------------------ */

static void __attribute__((format(printf, 2, 3))) add_error(struct settings_load *load, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(load->errors_out, format, args);
    va_end(args);
    fputc('\n', load->errors_out);
}

static char *trim(char *text)
{
    size_t length;

    while (isspace((unsigned char)*text))
        text++;
    length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        text[--length] = '\0';
    return text;
}

/* One line of the file: blank, `# comment`, or `key = value`. The value may be in double quotes. */
static void read_line(struct settings_load *load, char *line, int number)
{
    char *text = trim(line);
    char *equals = strchr(text, '=');
    char *key, *value;
    char reason[256];
    size_t index, length;

    if (*text == '\0' || *text == '#')
        return;
    if (equals == NULL) {
        add_error(load, "%s:%d: expected `key = value`", load->file, number);
        return;
    }
    *equals = '\0';
    key = trim(text);
    value = trim(equals + 1);
    length = strlen(value);
    if (length >= 2 && value[0] == '"' && value[length - 1] == '"') {
        value[length - 1] = '\0';
        value++;
    }
    index = find_key(key, strlen(key));
    if (index == SETTING_COUNT) {
        add_error(load, "%s:%d: unknown setting \"%.60s\"", load->file, number, key);
        return;
    }
    if (load->source[index] > SOURCE_FILE)
        return; /* a stronger source has spoken */
    set_value(load, index, value, SOURCE_FILE, reason, sizeof reason);
    load->line[index] = number;
    if (*reason != '\0')
        add_error(load, "%s:%d: %s: %s", load->file, number, table[index].key, reason);
}

static void read_file(struct settings_load *load)
{
    char line[FILE_LINE_MAX_BYTES];
    int number = 0;
    FILE *in;

    if (*load->file == '\0')
        return;
    in = fopen(load->file, "re");
    if (in == NULL) {
        add_error(load, "cannot read %s: %s", load->file, strerror(errno));
        return;
    }
    while (fgets(line, sizeof line, in) != NULL) {
        number++;
        if (strchr(line, '\n') == NULL && !feof(in)) {
            add_error(load, "%s:%d: line is longer than %d bytes", load->file, number, FILE_LINE_MAX_BYTES - 2);
            break;
        }
        read_line(load, line, number);
    }
    if (ferror(in))
        add_error(load, "cannot read %s: %s", load->file, strerror(errno));
    fclose(in);
}

/* What one of the two sources says; NULL when it says nothing, and empty is nothing. */
static const char *variable(const struct settings_load *load, enum setting_source source, const char *name)
{
    const char *value = getenv(name);

    if (source == SOURCE_ENVIRONMENT)
        return value != NULL && *value != '\0' ? value : NULL;
    return value == NULL ? environment_value(load->environment, name) : NULL;
}

/* SANDSTORM_<KEY>, else the alias, from the process or from `.env`. */
static void read_variables(struct settings_load *load, enum setting_source source)
{
    const char *where = source == SOURCE_DOTENV ? ".env" : "environment variable";

    for (size_t i = 0; i < SETTING_COUNT; i++) {
        char name[KEY_MAX_BYTES + 16], reason[256];
        const char *from = name;
        const char *value;

        if (load->source[i] > source || (source == SOURCE_DOTENV && table[i].offset == AT(project_dir)))
            continue;
        environment_name(&table[i], name, sizeof name);
        value = variable(load, source, name);
        if (value == NULL && table[i].environment_alias != NULL) {
            from = table[i].environment_alias;
            value = variable(load, source, from);
        }
        if (value == NULL)
            continue;
        set_value(load, i, value, source, reason, sizeof reason);
        if (*reason != '\0')
            add_error(load, "%s %s: %s", where, from, reason);
    }
}

static void usage_error(struct settings_load *load, const char *what, const char *option)
{
    add_error(load, "%s: %.80s (see --help)", what, option);
    load->usage_error = true;
}

static const struct {
    const char *option;
    enum settings_action action;
} actions[] = {
    {"--check", SETTINGS_CHECK}, {"--help", SETTINGS_HELP}, {"-h", SETTINGS_HELP}, {"--version", SETTINGS_VERSION}};

/* True if the option was one of the actions. */
static bool read_action(struct settings_load *load, const char *option)
{
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(actions[i].option, option) == 0) {
            load->action = actions[i].action;
            return true;
        }
    }
    return false;
}

/* One option with its value; returns how many words of argv it took. */
static int read_option(struct settings_load *load, const char *option, const char *next)
{
    const char *name = option + 2;
    const char *equals = strchr(name, '=');
    size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const char *value = equals != NULL ? equals + 1 : next;
    int words = equals != NULL ? 1 : 2;
    size_t index = find_key(name, length);
    char reason[256];
    bool is_config = length == strlen("config") && strncmp(name, "config", length) == 0;

    if (index == SETTING_COUNT && !is_config) {
        usage_error(load, "unknown option", option);
        return 1;
    }
    if (value == NULL) {
        usage_error(load, "option needs a value", option);
        return 1;
    }
    if (is_config) {
        free(load->file);
        load->file = strdup(value);
        return words;
    }
    set_value(load, index, value, SOURCE_ARGV, reason, sizeof reason);
    if (*reason != '\0') {
        add_error(load, "option --%s: %s", table[index].key, reason);
        load->usage_error = true;
    }
    return words;
}

/* An option of `status` that is no setting; how many words of argv it took, 0 when it is none. */
static int read_status_option(struct settings_load *load, const char *option, const char *next)
{
    const char *value = strncmp(option, "--pid=", 6) == 0 ? option + 6 : next;
    int words = value != next ? 1 : 2;
    char *end = NULL;

    if (strcmp(option, "--json") == 0) {
        load->status.json = true;
        return 1;
    }
    if (words == 2 && strcmp(option, "--pid") != 0)
        return 0;
    load->status.pid = value != NULL ? strtoll(value, &end, 10) : 0;
    if (value == NULL || end == value || *end != '\0' || load->status.pid < 1 || load->status.pid > INT_MAX)
        usage_error(load, "option needs the pid of a server", option);
    return words;
}

static void read_argv(struct settings_load *load, int argc, char *const argv[])
{
    bool is_status = argc > 1 && strcmp(argv[1], "status") == 0;
    int i = is_status ? 2 : 1;

    if (is_status)
        load->action = SETTINGS_STATUS;
    while (i < argc) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        int words = is_status ? read_status_option(load, argv[i], next) : 0;

        if (words > 0) {
            i += words;
        } else if (read_action(load, argv[i])) {
            i++;
        } else if (strncmp(argv[i], "--", 2) == 0 && argv[i][2] != '\0') {
            i += read_option(load, argv[i], next);
        } else {
            usage_error(load, "unexpected argument", argv[i]);
            i++;
        }
    }
}

/* --- defaults ----------------------------------------------------------------------------------- */

/* Where a file of ours stands: beside the program in a build tree, else where `make install` puts it. */
static char *path_near_program(const char *const *candidates)
{
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    char *path = NULL;

    if (n <= 0)
        return strdup("");
    program[n] = '\0';
    *strrchr(program, '/') = '\0';
    for (; *candidates != NULL; candidates++) {
        char *real;

        if (asprintf(&path, "%s/%s", program, *candidates) < 0)
            return NULL;
        real = realpath(path, NULL);
        free(path);
        if (real != NULL)
            return real;
    }
    return strdup("");
}

static const char *const runner_places[] = {"../agent/runner.mjs", "../../agent/runner.mjs",
                                            "../share/sandstorm/agent/runner.mjs", NULL};
static const char *const sandboxd_places[] = {"sandboxd", "../libexec/sandstorm/sandboxd", NULL};
static const char *const template_places[] = {"templates", "../templates", "../share/sandstorm/templates",
                                              "/var/lib/sandstorm/templates", NULL};

/* host:port of a model endpoint's URL; NULL when the URL has neither. */
static char *endpoint_of_url(const char *url)
{
    const char *host = strstr(url, "://");
    const char *port = strncasecmp(url, "http://", 7) == 0 ? "80" : "443";
    char *endpoint = NULL;
    size_t length;

    if (host == NULL)
        return NULL;
    host += 3;
    length = strcspn(host, "/?#");
    if (length == 0 || memchr(host, '@', length) != NULL)
        return NULL;
    if (memchr(host, ':', length) != NULL && host[length - 1] != ']')
        return strndup(host, length);
    if (asprintf(&endpoint, "%.*s:%s", (int)length, host, port) < 0)
        return NULL;
    return endpoint;
}

/* The model's endpoint and nothing else: what ANTHROPIC_BASE_URL names, else Anthropic's own. */
static char *default_network_allow(const struct environment *environment)
{
    const char *base_url = environment_value(environment, "ANTHROPIC_BASE_URL");
    char *endpoint = base_url != NULL ? endpoint_of_url(base_url) : NULL;

    return endpoint != NULL ? endpoint : strdup("api.anthropic.com:443");
}

/* Twice the cores: the rule of thumb people know from gunicorn, without its +1. */
static int64_t default_workers(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t workers = cores > 0 ? 2 * (int64_t)cores : 2;

    return workers < SETTINGS_WORKERS_MAX ? workers : SETTINGS_WORKERS_MAX;
}

/* The directory by its absolute name: workers and later readings do not depend on where the server stands. */
static void resolve_project_dir(struct settings_load *load)
{
    char **field = &load->values.project_dir;
    const char *given = *field != NULL && **field != '\0' ? *field : ".";
    char *real = realpath(given, NULL);

    if (real == NULL) {
        add_error(load, "setting project_dir: %s: %s", given, strerror(errno));
        return;
    }
    free(*field);
    *field = real;
}

/* Likewise; it need not exist yet. */
static void resolve_state_dir(struct settings_load *load)
{
    char **field = &load->values.state_dir;
    const char *given = *field != NULL && **field != '\0' ? *field : NULL;
    char *directory = NULL, *path = NULL;

    if (given != NULL && *given == '/')
        return;
    directory = given != NULL ? getcwd(NULL, 0) : NULL;
    if (given != NULL && directory == NULL) {
        add_error(load, "setting state_dir: %s: %s", given, strerror(errno));
        return;
    }
    if (asprintf(&path, "%s/%s", directory != NULL ? directory : load->values.project_dir,
                 given != NULL ? given : STATE_DIR_NAME) < 0)
        log_panic("settings: no memory for state_dir");
    free(directory);
    free(*field);
    *field = path;
}

/* False for lack of memory. */
static bool read_dotenv(struct settings_load *load, const struct settings_load *in_use)
{
    const char *directory = load->values.project_dir != NULL ? load->values.project_dir : ".";
    struct environment_file *file =
        in_use != NULL ? environment_file_resume(directory, in_use->environment) : environment_file_new(directory);

    if (file == NULL)
        return false;
    load->environment = environment_current(file);
    environment_file_free(file);
    read_variables(load, SOURCE_DOTENV);
    return true;
}

/* Keys and lists that only the environment gives. */
static void read_environment_only(struct settings_load *load)
{
    const struct {
        char **field;
        const char *name, *otherwise;
    } texts[] = {{&load->values.api_key, "SANDSTORM_API_KEY", ""},
                 {&load->values.api_key_previous, "SANDSTORM_API_KEY_PREVIOUS", ""},
                 {&load->values.cors_origins, "CORS_ORIGINS", "*"}};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *value = environment_value(load->environment, texts[i].name);

        *texts[i].field = strdup(value != NULL ? value : texts[i].otherwise);
        if (*texts[i].field == NULL)
            log_panic("settings: no memory for %s", texts[i].name);
    }
}

static bool is_short_key(const char *key)
{
    return *key != '\0' && strlen(key) < SETTINGS_API_KEY_MIN_BYTES;
}

/* Both keys guard the same door: a previous one that can be guessed is none. */
static void check_keys(struct settings_load *load)
{
    char *previous = load->values.api_key_previous;

    if (is_short_key(load->values.api_key))
        add_error(load, "SANDSTORM_API_KEY is shorter than %d bytes", SETTINGS_API_KEY_MIN_BYTES);
    if (is_short_key(previous)) {
        log_warn("SANDSTORM_API_KEY_PREVIOUS is shorter than %d bytes: ignored", SETTINGS_API_KEY_MIN_BYTES);
        explicit_bzero(previous, strlen(previous));
    }
}

/* Defaults that depend on the machine or on another setting. */
static void complete_defaults(struct settings_load *load)
{
    struct settings *v = &load->values;
    const struct {
        char **field;
        const char *const *places;
    } paths[] = {
        {&v->agent_runner, runner_places}, {&v->sandboxd, sandboxd_places}, {&v->template_dir, template_places}};

    if (v->workers == 0)
        v->workers = default_workers();
    if (load->source[find_key("graceful_timeout", strlen("graceful_timeout"))] == SOURCE_DEFAULT)
        v->graceful_timeout_ms = v->timeout_ms;
    if (v->network_allow == NULL)
        v->network_allow = default_network_allow(load->environment);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (*paths[i].field == NULL)
            *paths[i].field = path_near_program(paths[i].places);
    }
    if (v->project_dir == NULL)
        v->project_dir = strdup("");
    resolve_state_dir(load);
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        if (is_text(&table[i]) && *string_at(v, &table[i]) == NULL)
            log_panic("settings: no memory for the default of %s", table[i].key);
    }
}

static void set_defaults(struct settings_load *load)
{
    char reason[256];

    for (size_t i = 0; i < SETTING_COUNT; i++) {
        if (table[i].default_text == NULL)
            continue;
        set_value(load, i, table[i].default_text, SOURCE_DEFAULT, reason, sizeof reason);
        if (*reason != '\0')
            log_panic("settings: default of %s: %s", table[i].key, reason);
    }
}

/* --- the public side ---------------------------------------------------------------------------- */

struct settings_load *settings_load(int argc, char *const argv[], const struct settings_load *in_use)
{
    struct settings_load *load = calloc(1, sizeof *load);
    const char *file = getenv("SANDSTORM_CONFIG");

    if (load == NULL)
        return NULL;
    load->action = SETTINGS_RUN;
    load->file = strdup(file != NULL ? file : "");
    load->errors_out = open_memstream(&load->errors, &load->errors_size);
    if (load->file == NULL || load->errors_out == NULL) {
        settings_load_free(load);
        return NULL;
    }
    set_defaults(load);
    read_argv(load, argc, argv);
    if (load->file == NULL) { /* no memory for --config */
        settings_load_free(load);
        return NULL;
    }
    read_variables(load, SOURCE_ENVIRONMENT);
    read_file(load);
    resolve_project_dir(load);
    if (!read_dotenv(load, in_use)) {
        settings_load_free(load);
        return NULL;
    }
    read_environment_only(load);
    check_keys(load);
    complete_defaults(load);
    fflush(load->errors_out);
    return load;
}

static void free_secret(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

void settings_load_free(struct settings_load *load)
{
    if (load == NULL)
        return;
    if (load->errors_out != NULL)
        fclose(load->errors_out);
    free(load->errors);
    free(load->file);
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        if (is_text(&table[i]))
            free(*string_at(&load->values, &table[i]));
    }
    free_secret(load->values.api_key);
    free_secret(load->values.api_key_previous);
    free(load->values.cors_origins);
    environment_unref(load->environment);
    free(load);
}

enum settings_action settings_load_action(const struct settings_load *load)
{
    return load->action;
}

const struct settings_status *settings_load_status(const struct settings_load *load)
{
    return &load->status;
}

const char *settings_load_errors(const struct settings_load *load, bool *usage)
{
    *usage = load->usage_error;
    return load->errors;
}

const struct settings *settings_load_values(const struct settings_load *load)
{
    return &load->values;
}

struct environment *settings_load_environment(const struct settings_load *load)
{
    return load->environment;
}

const char *settings_load_file(const struct settings_load *load)
{
    return load->file;
}

/* A value as text: a setting's own, or its number written into room[]. */
static const char *value_text(const struct settings_load *load, size_t index, char *room, size_t size)
{
    struct settings values = load->values;

    if (is_text(&table[index]))
        return *string_at(&values, &table[index]);
    format_number(&table[index], *number_at(&values, &table[index]), room, size);
    return room;
}

/* Writes a value without the password that a URL may hold. */
static void print_value(const char *text, int width, FILE *out)
{
    const char *user = strstr(text, "://");
    const char *end = user != NULL ? strchr(user, '@') : NULL;

    if (end == NULL)
        fprintf(out, "%-*s", width, text);
    else
        fprintf(out, "%.*s***%-*s", (int)(user + 3 - text), text, width, end);
}

static void format_source(const struct settings_load *load, size_t index, char *out, size_t size)
{
    switch (load->source[index]) {
    case SOURCE_DEFAULT:
        snprintf(out, size, "default");
        break;
    case SOURCE_FILE:
        snprintf(out, size, "%s:%d", load->file, load->line[index]);
        break;
    case SOURCE_DOTENV:
        snprintf(out, size, ".env");
        break;
    case SOURCE_ENVIRONMENT:
        snprintf(out, size, "environment");
        break;
    case SOURCE_ARGV:
        snprintf(out, size, "command line");
        break;
    default:
        log_panic("settings: source %d", (int)load->source[index]);
    }
}

void settings_print(const struct settings_load *load, FILE *out)
{
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        char room[64], source[PATH_MAX + 16];

        format_source(load, i, source, sizeof source);
        fprintf(out, "%s = ", table[i].key);
        print_value(value_text(load, i, room, sizeof room), (int)(34 - strlen(table[i].key)), out);
        fprintf(out, " # %s\n", source);
    }
}

void settings_print_help(FILE *out)
{
    fputs("usage: sandstorm [--config FILE] [--SETTING VALUE]...\n"
          "       sandstorm status [--json] [--pid PID] [--SETTING VALUE]...\n"
          "       sandstorm --check | --version | --help\n\n"
          "Runs AI agents for clients of POST /query, each in a fresh sandbox.\n\n"
          "  --config FILE                 settings file (also SANDSTORM_CONFIG)\n"
          "  --check                       print every effective setting and its source; exit 0 or 1\n"
          "  status                        tell how the server of this state_dir is, or that of --pid, even when it "
          "does not\n"
          "                                answer; exit 0, or 3 when it does not run, or 1 when it cannot be seen\n\n"
          "Settings (also SANDSTORM_<NAME> in the environment or `.env`, `name = value` in the file):\n",
          out);
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const char *shown = table[i].default_text != NULL ? table[i].default_text : "";
        char option[KEY_MAX_BYTES];

        snprintf(option, sizeof option, "%s", table[i].key);
        for (char *c = option; *c != '\0'; c++)
            *c = *c == '_' ? '-' : *c;
        fprintf(out, "  --%-27s %s%s%s%s\n", option, table[i].help, *shown != '\0' ? " [" : "", shown,
                *shown != '\0' ? "]" : "");
    }
}

/* Texts are compared whole, whatever their length. */
static bool is_same_value(const struct settings_load *left, const struct settings_load *right, size_t index)
{
    struct settings one = left->values, other = right->values;

    if (is_text(&table[index]))
        return strcmp(*string_at(&one, &table[index]), *string_at(&other, &table[index])) == 0;
    return *number_at(&one, &table[index]) == *number_at(&other, &table[index]);
}

bool settings_reload_allowed(const struct settings_load *old_load, const struct settings_load *new_load,
                             bool has_local_runtime, const char **key)
{
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        bool is_fixed = table[i].reload == FIXED || (table[i].reload == LOCAL && has_local_runtime);

        if (!is_fixed || is_same_value(old_load, new_load, i))
            continue;
        *key = table[i].key;
        return false;
    }
    return true;
}

char *settings_fixed_text(const struct settings_load *load)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        char room[64];

        if (table[i].reload == FIXED)
            fprintf(out, "%s=%s\n", table[i].key, value_text(load, i, room, sizeof room));
    }
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

const char *settings_access_log_file(const struct settings *settings)
{
    bool is_file = strcmp(settings->access_log, SETTINGS_ACCESS_LOG_OFF) != 0 &&
                   strcmp(settings->access_log, SETTINGS_ACCESS_LOG_STDERR) != 0;

    return is_file ? settings->access_log : "";
}

bool settings_list_next(const char **cursor, char *item, size_t size)
{
    const char *text = *cursor;

    for (;;) {
        size_t length;

        text += strspn(text, ", \t");
        if (*text == '\0') {
            *cursor = text;
            return false;
        }
        length = strcspn(text, ",");
        *cursor = text + length;
        while (length > 0 && isspace((unsigned char)text[length - 1]))
            length--;
        snprintf(item, size, "%.*s", (int)length, text);
        return true;
    }
}
