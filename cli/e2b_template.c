#include "cli/e2b_template.h"

#include "cli/ds.h"
#include "cli/format.h"
#include "cli/interrupt.h"
#include "common/base64.h"
#include "common/small_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE_IMAGE       "node:22-bookworm" /* Debian 12 with Node.js, git, curl and Python */
#define RUNNER_DIR       "/opt/agent-runner"
#define SDK_PACKAGE      "@anthropic-ai/claude-agent-sdk"
#define RUNNER_MAX_BYTES 65536 /* what one argument of a command may hold, encoded */
#define POLL_MS          1000

/* --- the steps ------------------------------------------------------------------------------------------------ */

/* Takes the reference to the command, which may be NULL for lack of memory. */
static bool add_step(json_t *steps, const char *type, char *argument, const char *user)
{
    json_t *step = argument == NULL ? NULL
                   : user != NULL   ? json_pack("{s:s, s:[s, s]}", "type", type, "args", argument, user)
                                    : json_pack("{s:s, s:[s]}", "type", type, "args", argument);

    free(argument);
    return step != NULL && json_array_append_new(steps, step) == 0;
}

static char *install_command(const char *sdk_version)
{
    char *command = NULL;

    if (asprintf(&command,
                 "mkdir -p " RUNNER_DIR " && npm install --prefix " RUNNER_DIR
                 " --omit=dev --no-audit --no-fund " SDK_PACKAGE "@%s",
                 sdk_version) < 0)
        return NULL;
    return command;
}

/* A command that writes the runner: the API has no simpler way to bring one small file. */
static char *runner_command(const struct endpoint *endpoint, const char *path)
{
    const char *reason;
    size_t length;
    char *text = small_file_read(path, RUNNER_MAX_BYTES, &length, &reason), *encoded, *command = NULL;

    if (text == NULL) {
        fprintf(stderr, "%s: %s: %s\n", endpoint->command, path, reason);
        return NULL;
    }
    encoded = malloc(BASE64_ENCODED_BYTES(length) + 1);
    if (encoded != NULL) {
        base64_encode(text, length, encoded);
        encoded[BASE64_ENCODED_BYTES(length)] = '\0';
        if (asprintf(&command, "echo %s | base64 -d >" RUNNER_DIR "/runner.mjs", encoded) < 0)
            command = NULL;
    }
    free(encoded);
    small_file_free(text, length);
    return command;
}

/* NULL after a message, or for lack of memory. */
static json_t *make_steps(const struct e2b_template *plan, const struct endpoint *endpoint)
{
    json_t *steps = json_array();

    if (steps == NULL || !add_step(steps, "RUN", install_command(plan->sdk_version), "root") ||
        !add_step(steps, "RUN", runner_command(endpoint, plan->runner), "root") ||
        !add_step(steps, "RUN",
                  strdup("id user >/dev/null 2>&1 || useradd -m -s /bin/bash user; chown -R user " RUNNER_DIR),
                  "root") ||
        !add_step(steps, "USER", strdup("user"), NULL) || !add_step(steps, "WORKDIR", strdup("/home/user"), NULL)) {
        json_decref(steps);
        return NULL;
    }
    return steps;
}

/* --- the build ------------------------------------------------------------------------------------------------ */

struct build {
    const struct endpoint *endpoint;
    struct terminal out;
    char *path; /* "/templates/<id>/builds/<id>" */
    long logs;  /* entries that were shown */
};

/* Says which template and build it is. The ids go into paths. */
static bool take_ids(struct build *build, const json_t *answer)
{
    const char *template_id = field_string(answer, "templateID"), *build_id = field_string(answer, "buildID");
    char *template_part = template_id != NULL ? curl_easy_escape(NULL, template_id, 0) : NULL;
    char *build_part = build_id != NULL ? curl_easy_escape(NULL, build_id, 0) : NULL;
    bool taken = template_part != NULL && build_part != NULL &&
                 asprintf(&build->path, "/templates/%s/builds/%s", template_part, build_part) >= 0;

    curl_free(template_part);
    curl_free(build_part);
    if (!taken) {
        build->path = NULL;
        fprintf(stderr, "%s: the answer of %s names no template and build\n", build->endpoint->command,
                build->endpoint->name);
    }
    return taken;
}

static int request_build(struct build *build, const struct e2b_template *plan)
{
    json_t *body = json_pack("{s:s, s:I, s:I}", "name", plan->name, "cpuCount", (json_int_t)plan->cpus, "memoryMB",
                             (json_int_t)plan->memory_mib);
    int code = DS_FAILED;
    json_t *answer = body != NULL ? http_json_body(build->endpoint, "POST", "/v3/templates", body, &code) : NULL;

    if (answer != NULL)
        code = take_ids(build, answer) ? DS_OK : DS_FAILED;
    json_decref(answer);
    json_decref(body);
    return code;
}

/* The 202 may have an empty body. */
static int send_start(const struct build *build, const char *path, const json_t *body)
{
    char *text = json_dumps(body, JSON_COMPACT);
    const struct http_request request = {
        .method = "POST", .path = path, .body = text, .body_length = text != NULL ? strlen(text) : 0, .timeout_s = 60};
    struct http_answer answer;
    enum http_result result;
    int code = DS_OK;

    if (text == NULL)
        return DS_FAILED;
    result = http_perform(build->endpoint, &request, &answer);
    if (result == HTTP_INTERRUPTED) {
        code = interrupt_exit();
    } else if (result != HTTP_ANSWERED || answer.status < 200 || answer.status > 299) {
        http_complain(build->endpoint, &answer);
        code = DS_FAILED;
    }
    http_answer_release(&answer);
    free(text);
    return code;
}

static int start_build(const struct build *build, const struct e2b_template *plan)
{
    json_t *steps = make_steps(plan, build->endpoint);
    json_t *body =
        steps != NULL ? json_pack("{s:s, s:O, s:b}", "fromImage", BASE_IMAGE, "steps", steps, "force", (int)plan->force)
                      : NULL;
    char *path = NULL;
    int code = DS_FAILED;

    if (body != NULL && asprintf(&path, "/v2%s", build->path) >= 0)
        code = send_start(build, path, body);
    free(path);
    json_decref(body);
    json_decref(steps);
    return code;
}

static void print_log(struct build *build, const json_t *entries)
{
    const json_t *entry;
    size_t i;

    json_array_foreach(entries, i, entry)
    {
        terminal_style(&build->out, STYLE_DIM);
        terminal_line(&build->out, format_text(json_object_get(entry, "message")));
        terminal_style(&build->out, STYLE_NONE);
        fputc('\n', stdout);
    }
    build->logs += (long)json_array_size(entries);
    fflush(stdout);
}

static void tell_failure(const struct build *build, const json_t *status)
{
    struct terminal err;

    terminal_open(&err, stderr);
    fprintf(stderr, "%s: the build failed: ", build->endpoint->command);
    terminal_line(&err, format_text(json_object_get(json_object_get(status, "reason"), "message")));
    fputc('\n', stderr);
}

/* One look at it. True when it has ended, with *code. */
static bool look(struct build *build, int *code)
{
    char *path = NULL;
    json_t *status;
    const char *word;
    bool has_ended = true;

    *code = DS_FAILED;
    if (asprintf(&path, "%s/status?logsOffset=%ld", build->path, build->logs) < 0)
        return true;
    status = http_json(build->endpoint, "GET", path, code);
    free(path);
    if (status == NULL)
        return true;
    print_log(build, json_object_get(status, "logEntries"));
    word = format_text(json_object_get(status, "status"));
    if (strcmp(word, "ready") == 0)
        *code = DS_OK;
    else if (strcmp(word, "error") == 0)
        tell_failure(build, status);
    else
        has_ended = false;
    json_decref(status);
    return has_ended;
}

static int follow_build(struct build *build, const struct e2b_template *plan)
{
    int code;

    while (!look(build, &code)) {
        if (interrupt_wait(POLL_MS)) {
            fprintf(stderr, "\n%s: interrupted; E2B goes on with the build\n", build->endpoint->command);
            return interrupt_exit();
        }
    }
    if (code == DS_OK)
        printf("the template %s is built\n", plan->name);
    return code;
}

int e2b_template_build(const struct e2b_template *plan, const struct endpoint *endpoint)
{
    struct build build = {.endpoint = endpoint};
    int code;

    terminal_open(&build.out, stdout);
    code = request_build(&build, plan);
    if (code == DS_OK)
        code = start_build(&build, plan);
    if (code == DS_OK)
        code = follow_build(&build, plan);
    free(build.path);
    return terminal_close(endpoint->command, stdout) ? code : DS_FAILED;
}
