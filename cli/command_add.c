/*
 * ds add: an MCP server for the agents of a project, put into its sandstorm.json.
 */
#include "cli/ds.h"
#include "cli/json_edit.h"
#include "cli/mcp_catalog.h"
#include "cli/options.h"
#include "cli/write_file.h"
#include "common/small_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROJECT_FILE      "sandstorm.json"
#define PROJECT_MAX_BYTES (1 << 20) /* http-api.md 15.1 */
#define SECTION           "mcp_servers"
#define NEW_FILE_MODE     0644

enum { OPTION_CUSTOM = OPTION_OWN, OPTION_URL, OPTION_TRANSPORT, OPTION_HEADER, OPTION_ENV, OPTION_FORCE, OPTION_DIR };

static const char usage_head[] =
    "usage: ds add NAME [--force] [--project-dir DIR]\n"
    "       ds add --custom NAME [--env NAME=VALUE]... [OPTION]... -- COMMAND [ARGUMENT]...\n"
    "       ds add --custom NAME --url URL [--header 'NAME: VALUE']... [OPTION]...\n"
    "Adds an MCP server to sandstorm.json, which keeps its order and layout.\n"
    "\n";
static const char usage_options[] =
    "\n"
    "  --custom NAME       another server\n"
    "  --url URL           where it is; without it, COMMAND is run in the sandbox\n"
    "  --transport KIND    of a URL: http (the default) or sse\n"
    "  --header TEXT       sent to the URL; may be repeated\n"
    "  --env NAME=VALUE    in the command's environment; may be repeated\n"
    "  --force             replace a server of this name\n"
    "  --project-dir DIR   where sandstorm.json is (default: here)\n"
    "\n"
    "In values ${NAME} and ${NAME:-default} stand for variables of the server's environment or .env:\n"
    "write keys so.\n";

static const struct option longs[] = {{"custom", required_argument, NULL, OPTION_CUSTOM},
                                      {"url", required_argument, NULL, OPTION_URL},
                                      {"transport", required_argument, NULL, OPTION_TRANSPORT},
                                      {"header", required_argument, NULL, OPTION_HEADER},
                                      {"env", required_argument, NULL, OPTION_ENV},
                                      {"force", no_argument, NULL, OPTION_FORCE},
                                      {"project-dir", required_argument, NULL, OPTION_DIR},
                                      OPTIONS_HELP,
                                      {0}};

struct add {
    const char *command;
    const char *name;
    bool is_custom;
    const char *url;
    const char *transport;
    json_t *headers;
    json_t *env;
    const char *dir;
    bool force;
    bool wants_help;
    json_t *server; /* what is put there */
};

/* --- the command line --------------------------------------------------------------------------------------- */

static bool reject(const struct add *add, const char *what, const char *value)
{
    (void)options_reject(add->command, "%s%s%s", what, *value != '\0' ? ": " : "", value);
    return false;
}

/* Puts `NAME<separator>VALUE` into an object. */
static bool take_pair(const struct add *add, json_t *pairs, const char *option, char separator, const char *text)
{
    const char *end = strchr(text, separator);
    char *name = end != NULL && end != text ? strndup(text, (size_t)(end - text)) : NULL;
    bool taken =
        name != NULL &&
        json_object_set_new(pairs, name, json_string(end + 1 + strspn(end + 1, separator == ':' ? " " : ""))) == 0;

    free(name);
    return taken || reject(add, option, text);
}

static bool take(struct add *add, int code, char *value)
{
    switch (code) {
    case OPTION_CUSTOM:
        add->is_custom = true;
        add->name = value;
        return true;
    case OPTION_URL:
        add->url = value;
        return strncmp(value, "https://", 8) == 0 || strncmp(value, "http://", 7) == 0 ||
               reject(add, "--url wants http:// or https://", value);
    case OPTION_TRANSPORT:
        add->transport = value;
        return strcmp(value, "http") == 0 || strcmp(value, "sse") == 0 ||
               reject(add, "--transport wants http or sse", value);
    case OPTION_HEADER:
        return take_pair(add, add->headers, "--header wants 'NAME: VALUE'", ':', value);
    case OPTION_ENV:
        return take_pair(add, add->env, "--env wants NAME=VALUE", '=', value);
    case OPTION_FORCE:
        return add->force = true;
    case OPTION_DIR:
        add->dir = value;
        return true;
    case OPTION_HELP:
        return add->wants_help = true;
    default:
        (void)options_unknown(add->command);
        return false;
    }
}

static bool is_name(const char *name)
{
    return *name != '\0' &&
           name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")] == '\0';
}

/* {"command", "args", "env"} of words. */
static json_t *command_server(const struct add *add, int count, char *words[])
{
    json_t *args = json_array();
    json_t *server;

    for (int i = 1; i < count; i++)
        json_array_append_new(args, json_string(words[i]));
    server = json_pack("{s:s, s:o}", "command", words[0], "args", args);
    if (server != NULL && json_object_size(add->env) > 0)
        json_object_set(server, "env", add->env);
    return server;
}

/* {"type", "url", "headers"}. */
static json_t *url_server(const struct add *add)
{
    json_t *server = json_pack("{s:s, s:s}", "type", add->transport != NULL ? add->transport : "http", "url", add->url);

    if (server != NULL && json_object_size(add->headers) > 0)
        json_object_set(server, "headers", add->headers);
    return server;
}

static bool make_custom(struct add *add, int count, char *words[])
{
    if (!is_name(add->name))
        return reject(add, "a name has letters, digits, _ and - only", add->name);
    if ((add->url != NULL) == (count > 0))
        return reject(add, "a custom server wants either --url or, after --, a command", "");
    if (add->url == NULL && (add->transport != NULL || json_object_size(add->headers) > 0))
        return reject(add, "--transport and --header go with --url", "");
    if (add->url != NULL && json_object_size(add->env) > 0)
        return reject(add, "--env goes with a command", "");
    add->server = add->url != NULL ? url_server(add) : command_server(add, count, words);
    return add->server != NULL || reject(add, "the command line is not UTF-8 text", "");
}

static bool make_known(struct add *add, int count, char *words[])
{
    if (count != 1)
        return reject(add, count == 0 ? "which server? ds add --help lists them" : "one server at a time", "");
    if (add->url != NULL || add->transport != NULL || json_object_size(add->headers) + json_object_size(add->env) > 0)
        return reject(add, "--url, --transport, --header and --env go with --custom", "");
    add->name = words[0];
    add->server = mcp_catalog_get(add->name);
    return add->server != NULL || reject(add, "no such server (ds add --help lists them)", add->name);
}

/* --- the file ----------------------------------------------------------------------------------------------- */

/* The text of sandstorm.json, "{}" for one that is not there. NULL after a message. To be freed. */
static char *read_project(const struct add *add, const char *path, size_t *length)
{
    const char *reason = NULL;
    char *text = NULL;

    if (access(path, F_OK) < 0 && errno == ENOENT) {
        text = strdup("{}\n");
        *length = text != NULL ? strlen(text) : 0;
    } else {
        text = small_file_read(path, PROJECT_MAX_BYTES, length, &reason);
    }
    if (text == NULL)
        fprintf(stderr, "%s: %s: %s\n", add->command, path, reason != NULL ? reason : strerror(ENOMEM));
    return text;
}

/* The variables that a value names without a default. */
static void tell_variables(const struct add *add)
{
    char *text = json_dumps(add->server, JSON_COMPACT);

    for (char *at = text; at != NULL && (at = strstr(at, "${")) != NULL;) {
        size_t length = strcspn(at + 2, "}:");

        if (at[2 + length] == '}')
            printf("it needs %.*s in the server's environment or .env\n", (int)length, at + 2);
        at += 2 + length;
    }
    free(text);
}

/* With a list of allowed tools, those of the server must be in it. */
static void tell_allowed_tools(const struct add *add, const char *text)
{
    json_t *root = json_loads(text, JSON_ALLOW_NUL, NULL);
    const json_t *allowed = json_object_get(root, "allowed_tools"), *tool;
    char *prefix = NULL;
    bool named = !json_is_array(allowed);
    size_t i;

    if (asprintf(&prefix, "mcp__%s", add->name) < 0)
        prefix = NULL;
    json_array_foreach(allowed, i, tool)
    {
        named = named || prefix == NULL ||
                (json_is_string(tool) && strncmp(json_string_value(tool), prefix, strlen(prefix)) == 0);
    }
    if (!named)
        printf("allowed_tools names none of its tools: put \"%s\" there\n", prefix);
    free(prefix);
    json_decref(root);
}

static int save(const struct add *add, const char *path, const char *text)
{
    if (!write_file(path, text, strlen(text), NEW_FILE_MODE)) {
        fprintf(stderr, "%s: %s: %s\n", add->command, path, strerror(errno));
        return DS_FAILED;
    }
    printf("added %s to %s\n", add->name, path);
    tell_variables(add);
    tell_allowed_tools(add, text);
    return DS_OK;
}

static int edit(const struct add *add, const char *path)
{
    char reason[JSON_EDIT_REASON_BYTES];
    size_t length;
    char *text = read_project(add, path, &length), *edited = NULL;
    int code = DS_FAILED;

    if (text == NULL)
        return DS_FAILED;
    switch (json_edit_put(text, length, SECTION, add->name, add->server, add->force, &edited, reason)) {
    case JSON_EDIT_DONE:
        code = save(add, path, edited);
        break;
    case JSON_EDIT_EXISTS:
        fprintf(stderr, "%s: %s has a server %s already; --force replaces it\n", add->command, path, add->name);
        break;
    case JSON_EDIT_FAILED:
    default:
        fprintf(stderr, "%s: %s: %s\n", add->command, path, reason);
        break;
    }
    free(edited);
    free(text);
    return code;
}

static int add_server(const struct add *add)
{
    char *path = NULL;
    int code = DS_FAILED;

    if (asprintf(&path, "%s%s" PROJECT_FILE, add->dir != NULL ? add->dir : "", add->dir != NULL ? "/" : "") < 0)
        return DS_FAILED;
    code = edit(add, path);
    free(path);
    return code;
}

static int print_help(void)
{
    fputs(usage_head, stdout);
    mcp_catalog_list(stdout);
    fputs(usage_options, stdout);
    return DS_OK;
}

int command_add(int argc, char *argv[])
{
    struct add add = {.command = argv[0], .headers = json_object(), .env = json_object()};
    bool good = add.headers != NULL && add.env != NULL;
    int option, code = DS_USAGE;

    while (good && (option = getopt_long(argc, argv, "", longs, NULL)) != -1)
        good = take(&add, option, optarg);
    if (good && add.wants_help)
        code = print_help();
    else if (good && (add.is_custom ? make_custom : make_known)(&add, argc - optind, argv + optind))
        code = add_server(&add);
    json_decref(add.server);
    json_decref(add.headers);
    json_decref(add.env);
    return code;
}
