#include "cli/stream.h"

#include "cli/ds.h"
#include "cli/interrupt.h"
#include "cli/sse.h"
#include "common/clock.h"

#include <stdlib.h>
#include <string.h>

#define CANCEL_TIMEOUT_S 10
#define MS_PER_SECOND    1000.0

/* A run that is followed. */
struct follow {
    const struct endpoint *endpoint;
    struct render render;
    struct sse sse;
    bool is_cancelled;
};

static bool on_event(void *context, const char *payload, size_t length)
{
    struct follow *follow = context;

    return render_event(&follow->render, payload, length);
}

static bool on_bytes(void *context, const char *bytes, size_t length)
{
    struct follow *follow = context;

    return sse_read(&follow->sse, bytes, length, on_event, follow);
}

/* While the connection is open: without it the run would end as one whose client is gone. */
static void on_interrupt(void *context, const struct http_answer *answer)
{
    struct follow *follow = context;
    char *path = *answer->run_id != '\0' ? http_run_path(answer->run_id, "/cancel") : NULL;
    const struct http_request request = {
        .method = "POST", .path = path, .timeout_s = CANCEL_TIMEOUT_S, .goes_on = true};
    struct http_answer cancelled;

    if (path == NULL)
        return;
    follow->is_cancelled =
        http_perform(follow->endpoint, &request, &cancelled) == HTTP_ANSWERED && cancelled.status == 200;
    http_answer_release(&cancelled);
    free(path);
}

/* The end of an answer that was one: did the run have an end too? */
static int judge(const struct follow *follow, const struct http_answer *answer)
{
    if (answer->status != 200) {
        http_complain(follow->endpoint, answer);
        return DS_FAILED;
    }
    if (*answer->run_id == '\0' && !follow->render.has_ended) {
        fprintf(stderr, "%s: %s started no run; is it a Sandstorm server?\n", follow->endpoint->command,
                follow->endpoint->name);
        return DS_FAILED;
    }
    if (!follow->render.has_ended) {
        fprintf(stderr, "%s: the stream ended without a result (run %s)\n", follow->endpoint->command, answer->run_id);
        return DS_FAILED;
    }
    return follow->render.has_failed || follow->render.file_failed ? DS_FAILED : DS_OK;
}

/* The connection broke, before an answer or in it. */
static int judge_broken(const struct follow *follow, struct http_answer *answer)
{
    const char *command = follow->endpoint->command;

    if (answer->status == 0) {
        http_complain(follow->endpoint, answer);
        return DS_FAILED;
    }
    fprintf(stderr, "%s: the connection to %s was cut: %s\n", command, follow->endpoint->name, answer->error);
    if (*answer->run_id != '\0')
        fprintf(stderr, "%s: what became of the run: ds show %s\n", command, answer->run_id);
    return DS_FAILED;
}

static int judge_interrupted(const struct follow *follow, const struct http_answer *answer)
{
    const char *command = follow->endpoint->command;

    fflush(stdout);
    if (follow->is_cancelled)
        fprintf(stderr, "\n%s: cancelled run %s\n", command, answer->run_id);
    else if (*answer->run_id != '\0')
        fprintf(stderr, "\n%s: interrupted; the run may go on: ds cancel %s\n", command, answer->run_id);
    return interrupt_exit();
}

/* We ended it: standard output takes no more, or the stream is none we can read. */
static int judge_stopped(const struct follow *follow)
{
    if (!ferror(stdout))
        fprintf(stderr, "%s: an event is longer than %u MiB\n", follow->endpoint->command, SSE_EVENT_MAX_BYTES >> 20);
    return DS_FAILED;
}

static int follow_run(struct follow *follow, const struct http_request *request, struct http_answer *answer)
{
    int64_t began_ms = monotonic_ms();
    int code;

    switch (http_perform(follow->endpoint, request, answer)) {
    case HTTP_ANSWERED:
        code = judge(follow, answer);
        break;
    case HTTP_INTERRUPTED:
        return judge_interrupted(follow, answer);
    case HTTP_STOPPED:
        return judge_stopped(follow);
    case HTTP_FAILED:
    default:
        code = judge_broken(follow, answer);
        break;
    }
    render_summary(&follow->render, (double)(monotonic_ms() - began_ms) / MS_PER_SECOND, answer->run_id);
    return code;
}

int stream_run(const struct endpoint *endpoint, const json_t *body, const struct render_options *options,
               char run_id[HTTP_RUN_ID_BYTES])
{
    struct follow follow = {.endpoint = endpoint};
    char *text = json_dumps(body, JSON_COMPACT);
    const struct http_request request = {.method = "POST",
                                         .path = "/query",
                                         .body = text,
                                         .body_length = text != NULL ? strlen(text) : 0,
                                         .on_bytes = on_bytes,
                                         .on_interrupt = on_interrupt,
                                         .context = &follow};
    struct http_answer answer = {.length = 0};
    int code = DS_FAILED;

    if (text != NULL && render_open(&follow.render, endpoint->command, options)) {
        code = follow_run(&follow, &request, &answer);
        if (run_id != NULL)
            memcpy(run_id, answer.run_id, HTTP_RUN_ID_BYTES);
        render_close(&follow.render);
        sse_release(&follow.sse);
        http_answer_release(&answer);
        if (!terminal_close(endpoint->command, stdout) && code == DS_OK)
            code = DS_FAILED;
    }
    free(text);
    return code;
}
