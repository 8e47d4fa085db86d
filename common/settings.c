#include "common/log.h"
#include "common/near_program.h"
#include "common/settings_internal.h"

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
#define STATE_DIR_NAME      ".sandstorm"

/* --- values ------------------------------------------------------------------------------------ */

static bool set_text(struct settings_load *load, size_t index, const char *text, enum setting_source source)
{
    char **field = setting_text_at(&load->values, &settings_table[index]);
    char *joined;

    if (settings_table[index].type == TYPE_LIST && load->source[index] == source && *field != NULL && **field != '\0') {
        if (asprintf(&joined, "%s,%s", *field, text) < 0)
            return false;
    } else if ((joined = strdup(text)) == NULL) {
        return false;
    }
    free(*field);
    *field = joined;
    return true;
}

/* Gives a setting its value from one source; the reason of a failure goes to reason, "" is success. */
static void set_value(struct settings_load *load, size_t index, const char *text, enum setting_source source,
                      char *reason, size_t reason_size)
{
    const struct setting *setting = &settings_table[index];
    const char *fault = NULL;
    int64_t value = 0;
    char low[32], high[32];

    *reason = '\0';
    if (setting->type == TYPE_NAME && !settings_is_name(text)) {
        snprintf(reason, reason_size, "\"%.80s\" is not 1 to %d of A-Z a-z 0-9 . _ -", text, SETTINGS_NAME_MAX_BYTES);
        return;
    }
    if (setting_is_text(setting)) {
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
    } else if ((fault = setting_parse_number(setting, text, &value)) != NULL) {
        snprintf(reason, reason_size, "\"%.80s\" %s", text, fault);
        return;
    } else if (value < setting->min || value > setting->max) {
        setting_format_number(setting, setting->min, low, sizeof low);
        setting_format_number(setting, setting->max, high, sizeof high);
        snprintf(reason, reason_size, "\"%.80s\" is out of range (%s to %s)", text, low, high);
        return;
    }
    *setting_number_at(&load->values, setting) = value;
    load->source[index] = source;
}

/* --- sources ------------------------------------------------------------------------------------ */

/* What an error quotes stays in its line, and does nothing to a terminal. */
void settings_add_error(struct settings_load *load, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    int length;

    va_start(args, format);
    length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0) {
        fputs("out of memory\n", load->errors_out);
        return;
    }
    for (char *c = text; *c != '\0'; c++)
        fputc(iscntrl((unsigned char)*c) ? '?' : *c, load->errors_out);
    fputc('\n', load->errors_out);
    free(text);
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
        settings_add_error(load, "%s:%d: expected `key = value`", load->file, number);
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
    index = settings_find(key, strlen(key));
    if (index == settings_count) {
        settings_add_error(load, "%s:%d: unknown setting \"%.60s\"", load->file, number, key);
        return;
    }
    if (load->source[index] > SOURCE_FILE)
        return; /* a stronger source has spoken */
    set_value(load, index, value, SOURCE_FILE, reason, sizeof reason);
    load->line[index] = number;
    if (*reason != '\0')
        settings_add_error(load, "%s:%d: %s: %s", load->file, number, settings_table[index].key, reason);
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
        settings_add_error(load, "cannot read %s: %s", load->file, strerror(errno));
        return;
    }
    while (fgets(line, sizeof line, in) != NULL) {
        number++;
        if (strchr(line, '\n') == NULL && !feof(in)) {
            settings_add_error(load, "%s:%d: line is longer than %d bytes", load->file, number,
                               FILE_LINE_MAX_BYTES - 2);
            break;
        }
        read_line(load, line, number);
    }
    if (ferror(in))
        settings_add_error(load, "cannot read %s: %s", load->file, strerror(errno));
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

    for (size_t i = 0; i < settings_count; i++) {
        char name[SETTING_KEY_MAX_BYTES + 16], reason[256];
        const char *from = name;
        const char *value;

        if (load->source[i] > source ||
            (source == SOURCE_DOTENV && settings_table[i].offset == offsetof(struct settings, project_dir)))
            continue;
        setting_environment_name(&settings_table[i], name, sizeof name);
        value = variable(load, source, name);
        if (value == NULL && settings_table[i].environment_alias != NULL) {
            from = settings_table[i].environment_alias;
            value = variable(load, source, from);
        }
        if (value == NULL)
            continue;
        set_value(load, i, value, source, reason, sizeof reason);
        if (*reason != '\0')
            settings_add_error(load, "%s %s: %s", where, from, reason);
    }
}

static void usage_error(struct settings_load *load, const char *what, const char *option)
{
    settings_add_error(load, "%s: %.80s (see --help)", what, option);
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
    size_t index = settings_find(name, length);
    char reason[256];
    bool is_config = length == strlen("config") && strncmp(name, "config", length) == 0;

    if (index == settings_count && !is_config) {
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
        settings_add_error(load, "option --%s: %s", settings_table[index].key, reason);
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
        settings_add_error(load, "setting project_dir: %s: %s", given, strerror(errno));
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
        settings_add_error(load, "setting state_dir: %s: %s", given, strerror(errno));
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
    if (load->source[settings_find("graceful_timeout", strlen("graceful_timeout"))] == SOURCE_DEFAULT)
        v->graceful_timeout_ms = v->timeout_ms;
    if (v->network_allow == NULL)
        v->network_allow = default_network_allow(load->environment);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (*paths[i].field == NULL)
            *paths[i].field = near_program(paths[i].places);
    }
    if (v->project_dir == NULL)
        v->project_dir = strdup("");
    resolve_state_dir(load);
    for (size_t i = 0; i < settings_count; i++) {
        if (setting_is_text(&settings_table[i]) && *setting_text_at(v, &settings_table[i]) == NULL)
            log_panic("settings: no memory for the default of %s", settings_table[i].key);
    }
}

static void set_defaults(struct settings_load *load)
{
    char reason[256];

    for (size_t i = 0; i < settings_count; i++) {
        if (settings_table[i].default_text == NULL)
            continue;
        set_value(load, i, settings_table[i].default_text, SOURCE_DEFAULT, reason, sizeof reason);
        if (*reason != '\0')
            log_panic("settings: default of %s: %s", settings_table[i].key, reason);
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
    if (!settings_read_keys(load)) {
        settings_load_free(load);
        return NULL;
    }
    complete_defaults(load);
    fflush(load->errors_out);
    return load;
}

void settings_load_free(struct settings_load *load)
{
    if (load == NULL)
        return;
    if (load->errors_out != NULL)
        fclose(load->errors_out);
    free(load->errors);
    free(load->file);
    for (size_t i = 0; i < settings_count; i++) {
        if (setting_is_text(&settings_table[i]))
            free(*setting_text_at(&load->values, &settings_table[i]));
    }
    settings_free_keys(load);
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

/* Texts are compared whole, whatever their length. */
static bool is_same_value(const struct settings_load *left, const struct settings_load *right, size_t index)
{
    struct settings one = left->values, other = right->values;

    if (setting_is_text(&settings_table[index]))
        return strcmp(*setting_text_at(&one, &settings_table[index]),
                      *setting_text_at(&other, &settings_table[index])) == 0;
    return *setting_number_at(&one, &settings_table[index]) == *setting_number_at(&other, &settings_table[index]);
}

bool settings_reload_allowed(const struct settings_load *old_load, const struct settings_load *new_load,
                             bool has_local_runtime, const char **key)
{
    for (size_t i = 0; i < settings_count; i++) {
        bool is_fixed = settings_table[i].reload == FIXED || (settings_table[i].reload == LOCAL && has_local_runtime);

        if (!is_fixed || is_same_value(old_load, new_load, i))
            continue;
        *key = settings_table[i].key;
        return false;
    }
    return true;
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
