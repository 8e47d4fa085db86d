#include "worker/sandbox_list.h"

#include "common/log.h"
#include "worker/e2b_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LIST_TIMEOUT_MS  30000
#define ANSWER_MAX_BYTES (1u << 20)
#define PAGES_MAX        1000 /* of a hundred: a service that never ends is not followed for ever */

struct sandbox_list {
    struct http_client *http;
    struct e2b_service *service; /* with a reference of its own */
    struct http_transfer *transfer;
    struct sandbox_list_handlers handlers;
    char *instance;
    char *run_id; /* NULL: all */
    int pages;
};

static void list_free(struct sandbox_list *list)
{
    http_transfer_cancel(list->transfer);
    e2b_service_unref(list->service);
    free(list->instance);
    free(list->run_id);
    free(list);
}

void sandbox_list_cancel(struct sandbox_list *list)
{
    if (list != NULL)
        list_free(list);
}

static void end(struct sandbox_list *list, const char *error)
{
    struct sandbox_list_handlers handlers = list->handlers;

    list_free(list);
    handlers.on_end(handlers.context, error);
}

/* RFC 3339 in UTC; a fraction of a second does not matter here. */
static int64_t parse_time(const char *text)
{
    struct tm parts = {0};

    if (text == NULL || strptime(text, "%Y-%m-%dT%H:%M:%S", &parts) == NULL)
        return 0;
    return (int64_t)timegm(&parts) * 1000000;
}

static void tell(struct sandbox_list *list, json_t *sandbox)
{
    json_t *metadata = json_object_get(sandbox, "metadata");
    const char *instance = json_string_value(json_object_get(metadata, "sandstorm_instance"));
    const char *run_id = json_string_value(json_object_get(metadata, "request_id"));
    const struct listed_sandbox listed = {.id = json_string_value(json_object_get(sandbox, "sandboxID")),
                                          .run_id = run_id != NULL ? run_id : "",
                                          .started_us =
                                              parse_time(json_string_value(json_object_get(sandbox, "startedAt")))};

    if (listed.id == NULL || !e2b_valid_sandbox_id(listed.id) || instance == NULL ||
        strcmp(instance, list->instance) != 0 || (list->run_id != NULL && strcmp(listed.run_id, list->run_id) != 0))
        return;
    list->handlers.on_sandbox(list->handlers.context, &listed);
}

static bool send_page(struct sandbox_list *list, const char *next_token);

static void on_page(void *context, const struct http_answer *answer)
{
    struct sandbox_list *list = context;
    const char *next = http_answer_header(answer, "X-Next-Token");
    char text[E2B_MESSAGE_MAX_BYTES], clean[LOG_CLEAN_BUFFER];
    json_t *sandboxes, *sandbox;
    size_t index;

    list->transfer = NULL;
    e2b_count_answer(METRIC_OPERATION_LIST, answer);
    if (e2b_classify(answer) != E2B_SUCCESS) {
        e2b_message(answer, list->service->api_key, text);
        end(list, log_clean(text, strlen(text), clean));
        return;
    }
    sandboxes = json_loadb(answer->body, answer->body_length, 0, NULL);
    json_array_foreach(sandboxes, index, sandbox) tell(list, sandbox);
    if (!json_is_array(sandboxes))
        end(list, "the answer is no list");
    else if (next == NULL || *next == '\0')
        end(list, NULL);
    else if (++list->pages >= PAGES_MAX || !send_page(list, next))
        end(list, "there are too many pages");
    json_decref(sandboxes);
}

/*
 * Ids and instance names are [A-Za-z0-9._-]: the triple encoding of e2b.md 0.5 leaves only = and & to encode.
 */
static bool send_page(struct sandbox_list *list, const char *next_token)
{
    struct http_request request = {
        .method = "GET",
        .total_timeout_ms = LIST_TIMEOUT_MS,
        .answer_max_bytes = ANSWER_MAX_BYTES,
        .on_done = on_page,
        .context = list,
    };
    char *token = next_token != NULL ? curl_easy_escape(NULL, next_token, 0) : NULL;
    char *path = NULL;

    if (asprintf(&path, "/v2/sandboxes?metadata=%s%s%ssandstorm_instance%%3D%s&state=running,paused&limit=100%s%s",
                 list->run_id != NULL ? "request_id%3D" : "", list->run_id != NULL ? list->run_id : "",
                 list->run_id != NULL ? "%26" : "", list->instance, token != NULL ? "&nextToken=" : "",
                 token != NULL ? token : "") >= 0)
        list->transfer = e2b_api_send(list->http, list->service, path, &request);
    curl_free(token);
    free(path);
    return list->transfer != NULL;
}

struct sandbox_list *sandbox_list_start(struct http_client *http, struct e2b_service *service, const char *instance,
                                        const char *run_id, const struct sandbox_list_handlers *handlers)
{
    struct sandbox_list *list = calloc(1, sizeof *list);

    if (list == NULL)
        return NULL;
    list->http = http;
    list->service = e2b_service_ref(service);
    list->handlers = *handlers;
    list->instance = strdup(instance);
    list->run_id = run_id != NULL ? strdup(run_id) : NULL;
    if (list->instance != NULL && (run_id == NULL || list->run_id != NULL) && send_page(list, NULL))
        return list;
    list_free(list);
    return NULL;
}
