#include "cli/ask.h"
#include "cli/ds.h"
#include "cli/format.h"
#include "cli/interrupt.h"
#include "cli/request.h"
#include "cli/stream.h"
#include "cli/surroundings.h"
#include "cli/terminal.h"
#include "cli/trigger.h"
#include "cli/triggers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_TIMEOUT_S 60
#define POLL_MS          300
#define STATUS_REFUSED   401
#define TEAM             "__trigger__"

enum { OPTION_DIR = OPTION_ASK_OWN };

static const struct option longs[] = {{"data", required_argument, NULL, 'd'},
                                      {"json", no_argument, NULL, OPTION_ASK_JSON},
                                      {"project-dir", required_argument, NULL, OPTION_DIR},
                                      OPTIONS_SERVER,
                                      {0}};

struct test {
    struct ask ask;
    const char *command;
    const char *project_dir;
    const char *data; /* NULL: not said */
    struct surroundings at;
};

static bool take(void *context, int code, char *value)
{
    struct test *test = context;

    if (code == 'd')
        test->data = value;
    else
        test->project_dir = value;
    return true;
}

/* --- a schedule: no request fires it, so its prompt is run ------------------------------------------------------ */

static int test_schedule(const struct test *test, const json_t *trigger)
{
    const struct render_options options = {.json = test->ask.json};
    json_t *prompt = trigger_scheduled_prompt(trigger);
    const char *name = format_text(json_object_get(trigger, "name"));
    json_t *body = prompt != NULL ? json_pack("{s:O, s:{}, s:s, s:s}", "prompt", prompt, "output_format", "team_id",
                                              TEAM, "user_id", name)
                                  : NULL;
    int code = DS_FAILED;

    if (body != NULL)
        code = stream_run(&test->ask.endpoint, body, &options, NULL);
    else
        fprintf(stderr, "%s: %s has no prompt that can be sent\n", test->command, name);
    json_decref(body);
    json_decref(prompt);
    return code;
}

/* --- a webhook -------------------------------------------------------------------------------------------------- */

/* "completed, 4 turns, $0.5000, 3.2 s", or with what went wrong. */
static void print_end(const json_t *record)
{
    const char *error = field_string(record, "error"), *error_code = field_string(record, "error_code");
    char turns[FORMAT_BYTES], cost[FORMAT_BYTES], time[FORMAT_BYTES];
    struct terminal out;

    terminal_open(&out, stdout);
    terminal_line(&out, format_text(json_object_get(record, "status")));
    if (error != NULL) {
        fputs(": ", stdout);
        terminal_line(&out, error);
    }
    if (error_code != NULL) {
        fputs(" (", stdout);
        terminal_line(&out, error_code);
        fputc(')', stdout);
    }
    printf(", turns %s, cost %s, %s\n", format_count(json_object_get(record, "num_turns"), turns),
           format_cost(json_object_get(record, "cost_usd"), cost),
           format_seconds(json_object_get(record, "duration_secs"), time));
}

/* Looks at the run until it has ended. */
static int follow(const struct test *test, const char *id)
{
    char *path = http_run_path(id, "");
    int code = DS_FAILED;
    json_t *record = path != NULL ? http_json(&test->ask.endpoint, "GET", path, &code) : NULL;

    while (record != NULL && strcmp(format_text(json_object_get(record, "status")), "running") == 0) {
        json_decref(record);
        record = NULL;
        if (interrupt_wait(POLL_MS))
            code = interrupt_exit();
        else
            record = http_json(&test->ask.endpoint, "GET", path, &code);
    }
    free(path);
    if (interrupt_signal() != 0)
        fprintf(stderr, "\n%s: interrupted; the run goes on: ds cancel %s\n", test->command, id);
    if (record == NULL)
        return code;
    code = strcmp(format_text(json_object_get(record, "status")), "completed") == 0 ? DS_OK : DS_FAILED;
    if (test->ask.json)
        ask_print_json(&test->ask, record);
    else
        print_end(record);
    json_decref(record);
    return code;
}

/* What the server said to the POST. */
static int judge(const struct test *test, const struct http_answer *answer)
{
    if (answer->status == STATUS_REFUSED) {
        fprintf(stderr, "%s: the server refuses the secret: has it another one, in its environment or .env?\n",
                test->command);
        return DS_FAILED;
    }
    if (answer->status != 202) {
        http_complain(&test->ask.endpoint, answer);
        return DS_FAILED;
    }
    fprintf(test->ask.json ? stderr : stdout, "accepted as run %s\n", answer->run_id);
    fflush(stdout);
    return follow(test, answer->run_id);
}

static int post(const struct test *test, const char *path, const char *secret, const char *body, size_t length)
{
    char *header = NULL;
    struct http_answer answer;
    struct http_request request = {
        .method = "POST", .path = path, .body = body, .body_length = length, .timeout_s = ANSWER_TIMEOUT_S};
    enum http_result result;
    int code = DS_FAILED;

    if (secret != NULL && asprintf(&header, "X-Sandstorm-Trigger-Secret: %s", secret) < 0)
        return DS_FAILED;
    request.header = header;
    result = http_perform(&test->ask.endpoint, &request, &answer);
    if (result == HTTP_INTERRUPTED) {
        code = interrupt_exit();
    } else if (result != HTTP_ANSWERED) {
        answer.status = 0;
        http_complain(&test->ask.endpoint, &answer);
    } else {
        code = judge(test, &answer);
    }
    if (header != NULL)
        explicit_bzero(header, strlen(header));
    free(header);
    http_answer_release(&answer);
    return code;
}

/* Goes into a header. */
static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text > '~')
            return false;
    }
    return true;
}

static int post_data(const struct test *test, const char *path, const char *secret)
{
    const char *data = test->data != NULL ? test->data : "{}";
    size_t length = strlen(data);
    char *input = NULL;
    int code;

    if (strcmp(data, "-") == 0) {
        input = request_read_input(test->command, &length);
        if (input == NULL)
            return interrupt_signal() != 0 ? interrupt_exit() : DS_FAILED;
        data = input;
    }
    code = post(test, path, secret, data, length);
    free(input);
    return code;
}

static int test_webhook(const struct test *test, const json_t *trigger)
{
    const char *path = field_string(trigger, "path");
    char *secret;
    enum trigger_secret kind = trigger_secret(trigger, test->at.environment, &secret);
    int code = DS_FAILED;

    if (path == NULL || *path != '/')
        fprintf(stderr, "%s: it has no path\n", test->command);
    else if (kind == TRIGGER_SECRET_MISSING)
        fprintf(stderr, "%s: its secret is missing: set its variable in the environment or .env\n", test->command);
    else if (secret != NULL && !is_printable(secret))
        fprintf(stderr, "%s: its secret is not printable ASCII\n", test->command);
    else
        code = post_data(test, path, secret);
    if (secret != NULL)
        explicit_bzero(secret, strlen(secret));
    free(secret);
    return code;
}

/* --- either ----------------------------------------------------------------------------------------------------- */

static int test_named(struct test *test, const char *name)
{
    json_t *project = surroundings_read_project(&test->at, test->command);
    const json_t *trigger = triggers_find(project, name);
    int code = DS_FAILED;

    if (project == NULL)
        return DS_FAILED;
    if (trigger == NULL)
        fprintf(stderr, "%s: sandstorm.json has no trigger %s; `ds trigger list` shows those it has\n", test->command,
                name);
    else if (trigger_is(trigger, "webhook"))
        code = test_webhook(test, trigger);
    else if (trigger_is(trigger, "cron") && test->data != NULL)
        code = options_reject(test->command, "a schedule takes no --data");
    else if (trigger_is(trigger, "cron"))
        code = test_schedule(test, trigger);
    else
        fprintf(stderr, "%s: %s is neither a webhook nor a schedule: it never fires\n", test->command, name);
    json_decref(project);
    return code;
}

int trigger_test(int argc, char *argv[], const char *usage)
{
    struct test test = {.ask = {.usage = usage, .shorts = "d:"}, .command = argv[0]};
    int code;

    if (!ask_open(&test.ask, argc, argv, longs, take, &test, &code))
        return code;
    if (argc - optind != 1) {
        code = options_reject(test.command, "which trigger?");
    } else if (!surroundings_open_dir(&test.at, test.command, test.project_dir)) {
        code = DS_FAILED;
    } else {
        code = test_named(&test, argv[optind]);
        surroundings_close(&test.at);
    }
    ask_close(&test.ask);
    return terminal_close(test.command, stdout) ? code : DS_FAILED;
}
