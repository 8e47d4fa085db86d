#include "cli/http.h"

#include "cli/ds.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONNECT_TIMEOUT_MS 15000L
#define ANSWER_MAX_BYTES   (256u << 20)
#define ANSWER_TIMEOUT_S   60
#define POLL_MS            1000
#define RECEIVE_BYTES      65536L

/* One request on its way. */
struct transfer {
    const struct http_request *request;
    struct http_answer *answer;
    CURL *easy;
    struct curl_slist *headers;
    bool stopped; /* by on_bytes() */
};

static bool gather(struct http_answer *answer, const char *bytes, size_t length)
{
    char *longer;

    if (length > ANSWER_MAX_BYTES - answer->length)
        return false;
    longer = realloc(answer->body, answer->length + length + 1);
    if (longer == NULL)
        return false;
    memcpy(longer + answer->length, bytes, length);
    answer->body = longer;
    answer->length += length;
    longer[answer->length] = '\0';
    return true;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    const struct http_request *request = transfer->request;

    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &transfer->answer->status);
    if (request->on_bytes == NULL || transfer->answer->status != 200)
        return gather(transfer->answer, bytes, size * count) ? size * count : 0;
    if (request->on_bytes(request->context, bytes, size * count))
        return size * count;
    transfer->stopped = true;
    return 0;
}

/* When the line is the header with this name: its value, trimmed, in out. */
static bool take_header(const char *line, size_t length, const char *name, char *out, size_t size)
{
    size_t name_length = strlen(name), used = 0;

    if (length <= name_length || strncasecmp(line, name, name_length) != 0 || line[name_length] != ':')
        return false;
    for (size_t i = name_length + 1; i < length && used + 1 < size; i++) {
        if (line[i] > ' ' && line[i] <= '~')
            out[used++] = line[i];
    }
    out[used] = '\0';
    return true;
}

static size_t on_header(char *line, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    char seconds[24];

    (void)take_header(line, size * count, "X-Sandstorm-Run-Id", transfer->answer->run_id, HTTP_RUN_ID_BYTES);
    if (take_header(line, size * count, "Retry-After", seconds, sizeof seconds))
        transfer->answer->retry_after_s = strtol(seconds, NULL, 10);
    return size * count;
}

/* The endpoint's, and the request's own. False for lack of memory. */
static bool set_headers(struct transfer *transfer, const struct endpoint *endpoint)
{
    const struct curl_slist own = {.data = (char *)transfer->request->header, .next = NULL};
    const struct curl_slist *lists[] = {endpoint->headers, own.data != NULL ? &own : NULL};

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        for (const struct curl_slist *header = lists[i]; header != NULL; header = header->next) {
            struct curl_slist *longer = curl_slist_append(transfer->headers, header->data);

            if (longer == NULL)
                return false;
            transfer->headers = longer;
        }
    }
    curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers);
    return true;
}

static bool set_up(struct transfer *transfer, const struct endpoint *endpoint)
{
    const struct http_request *request = transfer->request;
    CURL *easy = transfer->easy;
    char *url = NULL;

    if (!set_headers(transfer, endpoint) || asprintf(&url, "%s%s", endpoint->base, request->path) < 0)
        return false;
    curl_easy_setopt(easy, CURLOPT_URL, url);
    free(url);
    if (endpoint->unix_socket != NULL) {
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, endpoint->unix_socket);
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    }
    if (endpoint->ca_file != NULL) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, endpoint->ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (endpoint->cert != NULL)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, endpoint->cert);
    if (endpoint->key != NULL)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, endpoint->key);
    if (endpoint->proxy != NULL)
        curl_easy_setopt(easy, CURLOPT_PROXY, endpoint->proxy);
    if (request->body != NULL) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_length);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
    } else if (strcmp(request->method, "POST") == 0) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, 0L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
    } else if (strcmp(request->method, "DELETE") == 0) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
    }
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "ds/" SANDSTORM_VERSION);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, request->timeout_s);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->answer->error);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    return true;
}

/* What curl says of a transfer that has ended. */
static enum http_result finish(struct transfer *transfer, CURLM *multi)
{
    struct http_answer *answer = transfer->answer;
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(multi, &left)) != NULL) {
        CURLcode code = message->data.result;

        curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &answer->status);
        if (code == CURLE_OK)
            return HTTP_ANSWERED;
        if (transfer->stopped)
            return HTTP_STOPPED;
        if (*answer->error == '\0')
            snprintf(answer->error, sizeof answer->error, "%s", curl_easy_strerror(code));
    }
    return HTTP_FAILED;
}

static enum http_result drive(struct transfer *transfer, CURLM *multi)
{
    const struct http_request *request = transfer->request;
    int running = 1;

    while (running > 0) {
        struct curl_waitfd signals = {.fd = interrupt_fd(), .events = CURL_WAIT_POLLIN};

        if (interrupt_signal() != 0 && !request->goes_on) {
            if (request->on_interrupt != NULL)
                request->on_interrupt(request->context, transfer->answer);
            return HTTP_INTERRUPTED;
        }
        if (curl_multi_perform(multi, &running) != CURLM_OK)
            return HTTP_FAILED;
        if (running > 0 && curl_multi_poll(multi, &signals, request->goes_on ? 0 : 1, POLL_MS, NULL) != CURLM_OK)
            return HTTP_FAILED;
    }
    return finish(transfer, multi);
}

enum http_result http_perform(const struct endpoint *endpoint, const struct http_request *request,
                              struct http_answer *answer)
{
    struct transfer transfer = {.request = request, .answer = answer, .easy = curl_easy_init()};
    CURLM *multi = curl_multi_init();
    enum http_result result = HTTP_FAILED;

    *answer = (struct http_answer){.retry_after_s = -1};
    if (gather(answer, "", 0) && multi != NULL && transfer.easy != NULL && set_up(&transfer, endpoint) &&
        curl_multi_add_handle(multi, transfer.easy) == CURLM_OK) {
        result = drive(&transfer, multi);
        curl_multi_remove_handle(multi, transfer.easy);
    } else {
        snprintf(answer->error, sizeof answer->error, "out of memory");
    }
    curl_easy_cleanup(transfer.easy);
    curl_slist_free_all(transfer.headers);
    curl_multi_cleanup(multi);
    return result;
}

void http_answer_release(struct http_answer *answer)
{
    free(answer->body);
    answer->body = NULL;
}

/* --- what is said of it ----------------------------------------------------------------------------------- */

/* "prompt" of ["body","prompt"]; what a client names a field. */
static void print_place(struct terminal *err, const json_t *place)
{
    const json_t *part;
    size_t i;

    json_array_foreach(place, i, part)
    {
        if (i == 0 && json_array_size(place) > 1)
            continue;
        if (i > 1)
            fputc('.', stderr);
        if (json_is_string(part))
            terminal_line(err, json_string_value(part));
        else
            fprintf(stderr, "%lld", (long long)json_integer_value(part));
    }
    if (json_array_size(place) > 0)
        fputs(": ", stderr);
}

static void print_fault(struct terminal *err, const struct endpoint *endpoint, const char *text)
{
    fprintf(stderr, "%s: ", endpoint->command);
    terminal_line(err, text);
    fputc('\n', stderr);
}

/* The list of a 422. */
static void print_faults(struct terminal *err, const struct endpoint *endpoint, const json_t *faults)
{
    const json_t *fault;
    size_t i;

    json_array_foreach(faults, i, fault)
    {
        const char *text = json_string_value(json_object_get(fault, "msg"));

        fprintf(stderr, "%s: ", endpoint->command);
        print_place(err, json_object_get(fault, "loc"));
        terminal_line(err, text != NULL ? text : "is refused");
        fputc('\n', stderr);
    }
}

/* The text in which a server says what is wrong: ours, or the sandbox service's. NULL: it says nothing. */
static const char *text_of(const json_t *body)
{
    static const char *const keys[] = {"detail", "error", "message"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *text = json_string_value(json_object_get(body, keys[i]));

        if (text != NULL)
            return text;
    }
    return NULL;
}

/* What one can do about it. */
static void print_advice(const struct endpoint *endpoint, const struct http_answer *answer)
{
    if (answer->status == 401 && endpoint->is_server)
        fprintf(stderr, "%s: the server wants its key: set SANDSTORM_API_KEY, or say --api-key KEY\n",
                endpoint->command);
    if (answer->status == 503 && answer->retry_after_s >= 0)
        fprintf(stderr, "%s: it says to try again in %ld s\n", endpoint->command, answer->retry_after_s);
}

void http_complain(const struct endpoint *endpoint, const struct http_answer *answer)
{
    struct terminal err;
    json_t *body;
    const char *text;

    terminal_open(&err, stderr);
    fflush(stdout); /* what was said before stands above */
    if (answer->status == 0) {
        fprintf(stderr, "%s: cannot reach %s: %s\n", endpoint->command, endpoint->name, answer->error);
        return;
    }
    body = json_loadb(answer->body, answer->length, JSON_ALLOW_NUL, NULL);
    text = text_of(body);
    if (json_is_array(json_object_get(body, "detail")))
        print_faults(&err, endpoint, json_object_get(body, "detail"));
    else if (text != NULL)
        print_fault(&err, endpoint, text);
    else
        fprintf(stderr, "%s: %s answered with status %ld\n", endpoint->command, endpoint->name, answer->status);
    print_advice(endpoint, answer);
    json_decref(body);
}

/* --- JSON --------------------------------------------------------------------------------------------------- */

/* The JSON of a success; NULL after a message. */
static json_t *parse(const struct endpoint *endpoint, const struct http_answer *answer)
{
    json_t *parsed;

    if (answer->status < 200 || answer->status > 299) {
        http_complain(endpoint, answer);
        return NULL;
    }
    parsed = json_loadb(answer->body, answer->length, JSON_ALLOW_NUL, NULL);
    if (parsed == NULL)
        fprintf(stderr, "%s: %s gave an answer that is no JSON; is it a Sandstorm server?\n", endpoint->command,
                endpoint->name);
    return parsed;
}

json_t *http_json_body(const struct endpoint *endpoint, const char *method, const char *path, const json_t *body,
                       int *code)
{
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    struct http_request request = {.method = method,
                                   .path = path,
                                   .body = text,
                                   .body_length = text != NULL ? strlen(text) : 0,
                                   .timeout_s = ANSWER_TIMEOUT_S};
    struct http_answer answer;
    json_t *parsed = NULL;

    switch (http_perform(endpoint, &request, &answer)) {
    case HTTP_ANSWERED:
        parsed = parse(endpoint, &answer);
        *code = DS_FAILED;
        break;
    case HTTP_INTERRUPTED:
        *code = interrupt_exit();
        break;
    case HTTP_FAILED:
    case HTTP_STOPPED:
    default:
        answer.status = 0;
        http_complain(endpoint, &answer);
        *code = DS_FAILED;
        break;
    }
    http_answer_release(&answer);
    free(text);
    return parsed;
}

json_t *http_json(const struct endpoint *endpoint, const char *method, const char *path, int *code)
{
    return http_json_body(endpoint, method, path, NULL, code);
}

char *http_run_path(const char *id, const char *rest)
{
    char *escaped = curl_easy_escape(NULL, id, 0);
    char *path = NULL;

    if (escaped == NULL || asprintf(&path, "/runs/%s%s", escaped, rest) < 0)
        path = NULL;
    curl_free(escaped);
    return path;
}
