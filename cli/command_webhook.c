/*
 * ds webhook: where E2B is told to send its events, and whether a server takes them (http-api.md section 13).
 */
#include "cli/ds.h"
#include "cli/format.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/surroundings.h"
#include "cli/table.h"
#include "cli/webhook.h"
#include "common/e2b_webhook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_NAME     "sandstorm"
#define ANSWER_TIMEOUT_S 30

enum { OPTION_JSON = OPTION_OWN, OPTION_NAME, OPTION_DIR };

static const char usage[] =
    "usage: ds webhook register [URL] [--name NAME]\n"
    "       ds webhook list [--json]\n"
    "       ds webhook delete ID...\n"
    "       ds webhook test\n"
    "register tells E2B to send the events of sandboxes to the server at URL (default:\n"
    "webhook_url of sandstorm.json), signed with SANDSTORM_WEBHOOK_SECRET; list and delete\n"
    "show and end registrations. These three want E2B_API_KEY. test sends an event of no run\n"
    "to the server itself, signed likewise, and tells what it answers.\n"
    "\n"
    "      --name NAME     of the registration (default " DEFAULT_NAME ")\n"
    "      --json          print what E2B answers\n"
    "      --project-dir DIR  where sandstorm.json and .env are (default: here)\n" OPTIONS_SERVER_TEXT;

static const struct option longs[] = {{"json", no_argument, NULL, OPTION_JSON},
                                      {"name", required_argument, NULL, OPTION_NAME},
                                      {"project-dir", required_argument, NULL, OPTION_DIR},
                                      {0}};

static const struct table_column columns[] = {
    {"ID", false, 0}, {"NAME", false, 30}, {"ENABLED", false, 0}, {"URL", false, 0}};

struct webhook {
    const char *command;
    const char *name;
    const char *project_dir;
    bool json;
    struct surroundings at;
    struct endpoint e2b;
};

/* --- register --------------------------------------------------------------------------------------------------- */

/* The receiver's URL, to be freed; NULL after a message. */
static char *receiver(const struct webhook *webhook, const char *given)
{
    json_t *project = given == NULL ? surroundings_read_project(&webhook->at, webhook->command) : NULL;
    const char *url = given != NULL ? given : field_string(project, "webhook_url");
    char *whole = NULL;

    if (url == NULL && (given != NULL || project != NULL))
        (void)options_reject(webhook->command, "say the server's URL: sandstorm.json has no webhook_url");
    else if (url != NULL && strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0)
        (void)options_reject(webhook->command, "no http:// or https:// URL: %s", url);
    else if (url != NULL)
        whole = e2b_webhook_receiver(url);
    json_decref(project);
    return whole;
}

static int register_url(const struct webhook *webhook, const char *url, const char *secret)
{
    json_t *body =
        json_pack("{s:s, s:s, s:b, s:s, s:[s, s, s]}", "name", webhook->name, "url", url, "enabled", 1,
                  "signatureSecret", secret, "events", E2B_EVENT_CREATED, E2B_EVENT_UPDATED, E2B_EVENT_KILLED);
    struct terminal out;
    int code = DS_FAILED;
    json_t *answer = body != NULL ? http_json_body(&webhook->e2b, "POST", E2B_WEBHOOK_PATH, body, &code) : NULL;

    if (body == NULL)
        fprintf(stderr, "%s: the name, the URL or the secret is not UTF-8 text\n", webhook->command);
    json_decref(body);
    if (answer == NULL)
        return code;
    terminal_open(&out, stdout);
    fputs("registered ", stdout);
    terminal_line(&out, format_text(json_object_get(answer, "id")));
    printf(" for %s\n", url);
    json_decref(answer);
    return DS_OK;
}

static int register_receiver(const struct webhook *webhook, int count, char *words[])
{
    const char *secret = environment_value(webhook->at.environment, "SANDSTORM_WEBHOOK_SECRET");
    char *url;
    int code = DS_USAGE;

    if (count > 1)
        return options_reject(webhook->command, "one URL is enough: %s", words[1]);
    if (secret == NULL)
        return options_reject(webhook->command, "SANDSTORM_WEBHOOK_SECRET is not set, neither in the environment nor "
                                                "in .env; the server needs the same");
    url = receiver(webhook, count > 0 ? words[0] : NULL);
    if (url != NULL)
        code = register_url(webhook, url, secret);
    free(url);
    return code;
}

/* --- list, delete ----------------------------------------------------------------------------------------------- */

static bool print_table(const json_t *hooks)
{
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    struct terminal out;
    const json_t *hook;
    bool good = table != NULL;
    size_t i;

    terminal_open(&out, stdout);
    json_array_foreach(hooks, i, hook)
    {
        const char *const cells[] = {
            format_text(json_object_get(hook, "id")), format_text(json_object_get(hook, "name")),
            json_is_true(json_object_get(hook, "enabled")) ? "yes" : "no", format_text(json_object_get(hook, "url"))};

        good = good && table_add(table, cells);
    }
    if (good)
        table_print(table, &out);
    table_free(table);
    return good;
}

static int list_hooks(const struct webhook *webhook, int count, char *words[])
{
    json_t *hooks;
    bool good;
    int code;

    if (count > 0)
        return options_reject(webhook->command, "list takes no words: %s", words[0]);
    hooks = http_json(&webhook->e2b, "GET", E2B_WEBHOOK_PATH, &code);
    if (hooks == NULL)
        return code;
    if (!json_is_array(hooks)) {
        fprintf(stderr, "%s: %s gave no list of registrations\n", webhook->command, webhook->e2b.name);
        good = false;
    } else if (webhook->json) {
        good = json_dumpf(hooks, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) == 0;
        fputc('\n', stdout);
    } else {
        good = print_table(hooks);
    }
    json_decref(hooks);
    return good ? DS_OK : DS_FAILED;
}

static int delete_hook(const struct webhook *webhook, const char *id)
{
    char *escaped = curl_easy_escape(NULL, id, 0), *path = NULL;
    struct http_request request = {.method = "DELETE", .timeout_s = ANSWER_TIMEOUT_S};
    struct http_answer answer;
    enum http_result result;
    int code = DS_OK;

    if (escaped == NULL || asprintf(&path, E2B_WEBHOOK_PATH "/%s", escaped) < 0) {
        curl_free(escaped);
        return DS_FAILED;
    }
    curl_free(escaped);
    request.path = path;
    result = http_perform(&webhook->e2b, &request, &answer);
    if (result == HTTP_INTERRUPTED) {
        code = interrupt_exit();
    } else if (result != HTTP_ANSWERED || answer.status < 200 || answer.status > 299) {
        http_complain(&webhook->e2b, &answer);
        fprintf(stderr, "%s: not deleted: %s\n", webhook->command, id);
        code = DS_FAILED;
    } else {
        printf("%s deleted\n", id);
    }
    http_answer_release(&answer);
    free(path);
    return code;
}

static int delete_hooks(const struct webhook *webhook, int count, char *words[])
{
    int code = count > 0 ? DS_OK : options_reject(webhook->command, "which registration?");

    for (int i = 0; i < count && interrupt_signal() == 0; i++) {
        int result = delete_hook(webhook, words[i]);

        if (result != DS_OK)
            code = result;
    }
    return code;
}

/* --- which of them ---------------------------------------------------------------------------------------------- */

/* False after a message. */
static bool take(struct webhook *webhook, int code, const char *value)
{
    switch (code) {
    case OPTION_JSON:
        return webhook->json = true;
    case OPTION_NAME:
        webhook->name = value;
        return true;
    case OPTION_DIR:
        webhook->project_dir = value;
        return true;
    default:
        return options_unknown(webhook->command) == DS_OK;
    }
}

static int ask_e2b(int argc, char *argv[], int (*run)(const struct webhook *webhook, int count, char *words[]))
{
    struct webhook webhook = {.command = argv[0], .name = DEFAULT_NAME};
    const char *key;
    int option, code = DS_FAILED;

    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (!take(&webhook, option, optarg))
            return DS_USAGE;
    }
    if (!surroundings_open_dir(&webhook.at, webhook.command, webhook.project_dir))
        return DS_FAILED;
    key = environment_value(webhook.at.environment, "E2B_API_KEY");
    if (key == NULL)
        code = options_reject(webhook.command, "E2B_API_KEY is not set, neither in the environment nor in .env");
    else if (surroundings_open_e2b(&webhook.at, webhook.command, key, &webhook.e2b))
        code = run(&webhook, argc - optind, argv + optind);
    endpoint_close(&webhook.e2b);
    surroundings_close(&webhook.at);
    return terminal_close(webhook.command, stdout) ? code : DS_FAILED;
}

int command_webhook(int argc, char *argv[])
{
    static const struct {
        const char *verb;
        int (*run)(const struct webhook *webhook, int count, char *words[]);
    } verbs[] = {{"register", register_receiver}, {"list", list_hooks}, {"delete", delete_hooks}};
    const char *verb = argc > 1 ? argv[1] : "";

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return DS_OK;
        }
    }
    if (argc > 1)
        argv[1] = argv[0]; /* for messages */
    if (strcmp(verb, "test") == 0)
        return webhook_test(argc - 1, argv + 1, usage);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(verb, verbs[i].verb) == 0)
            return ask_e2b(argc - 1, argv + 1, verbs[i].run);
    }
    return options_reject(argv[0], "register, list, delete or test?");
}
