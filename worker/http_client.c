#include "worker/http_client_internal.h"

#include "common/clock.h"
#include "worker/timer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define IDLE_CONNECTIONS_MAX 64L

/* A socket libcurl wants watched. */
struct http_socket {
    struct event *event;
};

/* Where libcurl stands in a part it reads. */
struct http_cursor {
    const char *bytes;
    size_t length;
    size_t offset;
};

/* --- inside libcurl ------------------------------------------------------------------------------ */

/* libcurl repeats a POST by itself when a reused connection dies: a second call means just that (e2b.md A.1). */
static int before_request(void *context, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
    struct http_transfer *transfer = context;

    (void)remote_ip;
    (void)local_ip;
    (void)remote_port;
    (void)local_port;
    if (transfer->sent && transfer->send_once)
        return CURL_PREREQFUNC_ABORT;
    transfer->sent = true;
    return CURL_PREREQFUNC_OK;
}

static bool collect(struct http_transfer *transfer, const char *bytes, size_t length)
{
    char *grown;

    if (length > transfer->answer_max_bytes - transfer->body_length) {
        transfer->too_large = true;
        return false;
    }
    grown = realloc(transfer->body, transfer->body_length + length + 1);
    if (grown == NULL)
        return false;
    memcpy(grown + transfer->body_length, bytes, length);
    transfer->body = grown;
    transfer->body_length += length;
    transfer->body[transfer->body_length] = '\0';
    return true;
}

static void note_fed(struct http_transfer *transfer)
{
    if (transfer->fed || transfer->on_body_end == NULL)
        return;
    transfer->fed = true;
    TAILQ_INSERT_TAIL(&transfer->client->fed, transfer, fed_link);
}

/* A piece of the body itself. */
static bool hand_on(void *context, const char *bytes, size_t length)
{
    struct http_transfer *transfer = context;

    if (transfer->cancelled)
        return true;
    if (!transfer->streams)
        return collect(transfer, bytes, length);
    transfer->streamed_bytes += length;
    if (transfer->stream_max_bytes > 0 && transfer->streamed_bytes > transfer->stream_max_bytes) {
        transfer->too_large = true;
        return false;
    }
    note_fed(transfer);
    transfer->on_body(transfer->context, bytes, length);
    return true;
}

/* The head is complete. */
static void begin_body(struct http_transfer *transfer)
{
    struct curl_header *header;

    transfer->has_begun = true;
    transfer->streams = transfer->on_body != NULL && http_transfer_status(transfer) / 100 == 2;
    transfer->is_chunked =
        transfer->is_raw &&
        curl_easy_header(transfer->easy, "Transfer-Encoding", 0, CURLH_HEADER, -1, &header) == CURLHE_OK &&
        strcasecmp(header->value, "chunked") == 0;
}

bool http_transfer_take(struct http_transfer *transfer, const char *bytes, size_t length)
{
    if (transfer->cancelled)
        return true;
    if (!transfer->has_begun)
        begin_body(transfer);
    if (!transfer->is_chunked)
        return hand_on(transfer, bytes, length);
    return chunk_reader_feed(&transfer->chunks, bytes, length, hand_on, transfer) &&
           transfer->chunks.state != CHUNK_BROKEN;
}

static size_t on_bytes(char *bytes, size_t unit, size_t count, void *context)
{
    return http_transfer_take(context, bytes, unit * count) ? unit * count : CURL_WRITEFUNC_ERROR;
}

static size_t read_part(char *out, size_t unit, size_t count, void *context)
{
    struct http_cursor *cursor = context;
    size_t left = cursor->length - cursor->offset;
    size_t taken = unit * count < left ? unit * count : left;

    memcpy(out, cursor->bytes + cursor->offset, taken);
    cursor->offset += taken;
    return taken;
}

static int seek_part(void *context, curl_off_t offset, int origin)
{
    struct http_cursor *cursor = context;

    if (origin != SEEK_SET || offset < 0 || (size_t)offset > cursor->length)
        return CURL_SEEKFUNC_CANTSEEK;
    cursor->offset = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* --- the end of a transfer ------------------------------------------------------------------------ */

static void transfer_free(struct http_transfer *transfer)
{
    TAILQ_REMOVE(&transfer->client->transfers, transfer, link);
    if (transfer->cancelled)
        TAILQ_REMOVE(&transfer->client->cancelled, transfer, cancelled_link);
    if (transfer->resuming)
        TAILQ_REMOVE(&transfer->client->resuming, transfer, resuming_link);
    if (transfer->fed)
        TAILQ_REMOVE(&transfer->client->fed, transfer, fed_link);
    if (transfer->is_over)
        TAILQ_REMOVE(&transfer->client->over, transfer, over_link);
    http_lasting_forget(transfer);
    http_lookups_forget(transfer);
    if (transfer->easy != NULL) {
        curl_multi_remove_handle(transfer->client->multi, transfer->easy);
        curl_easy_cleanup(transfer->easy);
    }
    curl_mime_free(transfer->mime);
    curl_slist_free_all(transfer->headers);
    free(transfer->cursors);
    free(transfer->body);
    free(transfer);
}

static enum transfer_outcome outcome_of(const struct http_transfer *transfer, CURLcode code)
{
    if (transfer->too_large)
        return TRANSFER_ANSWER_TOO_LARGE;
    if (transfer->chunks.state == CHUNK_BROKEN)
        return TRANSFER_CUT;
    switch (code) {
    case CURLE_OK:
        return TRANSFER_ANSWERED;
    case CURLE_OUT_OF_MEMORY:
    case CURLE_FAILED_INIT:
    case CURLE_URL_MALFORMAT:
    case CURLE_WRITE_ERROR:
        return TRANSFER_INTERNAL;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return TRANSFER_TLS_UNTRUSTED;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CIPHER:
        return transfer->sent ? TRANSFER_CUT : TRANSFER_TLS_FAILED;
    case CURLE_OPERATION_TIMEDOUT:
        return transfer->sent ? TRANSFER_TIMED_OUT : TRANSFER_NOT_CONNECTED;
    default:
        return transfer->sent ? TRANSFER_CUT : TRANSFER_NOT_CONNECTED;
    }
}

const char *http_answer_header(const struct http_answer *answer, const char *name)
{
    struct curl_header *header;

    if (answer->transfer == NULL || answer->transfer->easy == NULL ||
        curl_easy_header(answer->transfer->easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
        return NULL;
    return header->value;
}

/* -1: not told, or not in seconds. */
static int64_t retry_after_s(const struct http_answer *answer)
{
    const char *text = http_answer_header(answer, "Retry-After");
    char *end;
    long long seconds = text != NULL ? strtoll(text, &end, 10) : -1;

    if (text == NULL || end == text || *end != '\0' || seconds < 0)
        return -1;
    return seconds < HTTP_RETRY_AFTER_MAX_S ? seconds : HTTP_RETRY_AFTER_MAX_S;
}

void http_transfer_finish(struct http_transfer *transfer, CURLcode code)
{
    struct http_answer answer = {.outcome = outcome_of(transfer, code), .transfer = transfer};

    answer.retry_after_s = retry_after_s(&answer);
    answer.status = http_transfer_status(transfer);
    answer.content_type = http_transfer_content_type(transfer);
    answer.body = transfer->body != NULL ? transfer->body : "";
    answer.body_length = transfer->body_length;
    answer.error = transfer->error[0] != '\0' ? transfer->error : curl_easy_strerror(code);
    transfer->on_done(transfer->context, &answer);
    transfer_free(transfer);
}

/* The answer has begun: libcurl will not send the request again, and the answer may last for hours. */
static void forget_headers(struct http_transfer *transfer)
{
    if (transfer->headers == NULL)
        return;
    curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, (struct curl_slist *)NULL);
    curl_slist_free_all(transfer->headers);
    transfer->headers = NULL;
}

/* Many small pieces of a body are one occasion to do something with them. */
static void tell_body_ends(struct http_client *client)
{
    struct http_transfer *transfer;

    while ((transfer = TAILQ_FIRST(&client->fed)) != NULL) {
        TAILQ_REMOVE(&client->fed, transfer, fed_link);
        transfer->fed = false;
        forget_headers(transfer);
        http_lasting_leave(transfer);
        transfer->on_body_end(transfer->context);
    }
}

void http_transfer_is_over(struct http_transfer *transfer, CURLcode code)
{
    if (transfer->is_over)
        return;
    transfer->is_over = true;
    transfer->code = code;
    TAILQ_INSERT_TAIL(&transfer->client->over, transfer, over_link);
}

/* Completions are looked at only when libcurl has returned: then everything is allowed. */
void http_client_reap(struct http_client *client)
{
    struct http_transfer *transfer;
    CURLMsg *message;
    int left;

    while ((transfer = TAILQ_FIRST(&client->cancelled)) != NULL)
        transfer_free(transfer);
    tell_body_ends(client);
    while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
        CURLcode code = message->data.result;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
        if (transfer->is_postponed)
            http_lookups_wait(transfer);
        else
            http_transfer_finish(transfer, code);
    }
    while ((transfer = TAILQ_FIRST(&client->over)) != NULL)
        http_transfer_finish(transfer, transfer->code);
}

/* --- libcurl on libevent -------------------------------------------------------------------------- */

static void act(struct http_client *client, curl_socket_t fd, int actions)
{
    int running;

    client->depth++;
    curl_multi_socket_action(client->multi, fd, actions, &running);
    client->depth--;
    if (client->depth == 0)
        http_client_reap(client);
}

static void on_socket_ready(evutil_socket_t fd, short what, void *context)
{
    act(context, fd, ((what & EV_READ) ? CURL_CSELECT_IN : 0) | ((what & EV_WRITE) ? CURL_CSELECT_OUT : 0));
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    act(context, CURL_SOCKET_TIMEOUT, 0);
}

/* Resumes paused transfers and frees cancelled ones: both call into libcurl. */
static void on_deferred(evutil_socket_t fd, short what, void *context)
{
    struct http_client *client = context;
    struct http_transfer *transfer;

    (void)fd;
    (void)what;
    client->depth++;
    while ((transfer = TAILQ_FIRST(&client->resuming)) != NULL) {
        TAILQ_REMOVE(&client->resuming, transfer, resuming_link);
        transfer->resuming = false;
        if (!transfer->paused && !transfer->cancelled)
            curl_easy_pause(transfer->easy, CURLPAUSE_CONT);
    }
    client->depth--;
    http_client_reap(client);
}

/* Whose it is, for http_lasting. libcurl has handles of its own, too. */
static void note_socket(CURL *easy, curl_socket_t fd, int what)
{
    struct http_transfer *transfer = NULL;

    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&transfer);
    if (transfer == NULL)
        return;
    if (what != CURL_POLL_REMOVE)
        transfer->watched_fd = fd;
    else if (transfer->watched_fd == fd)
        transfer->watched_fd = -1;
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *socket_context)
{
    struct http_client *client = context;
    struct http_socket *watched = socket_context;
    short events =
        (short)(EV_PERSIST | ((what & CURL_POLL_IN) ? EV_READ : 0) | ((what & CURL_POLL_OUT) ? EV_WRITE : 0));

    note_socket(easy, fd, what);
    if (watched != NULL && watched->event != NULL) {
        event_free(watched->event);
        watched->event = NULL;
    }
    if (what == CURL_POLL_REMOVE) {
        free(watched);
        curl_multi_assign(client->multi, fd, NULL);
        return 0;
    }
    if (watched == NULL && (watched = calloc(1, sizeof *watched)) == NULL)
        return -1;
    curl_multi_assign(client->multi, fd, watched);
    watched->event = event_new(client->base, fd, events, on_socket_ready, client);
    return watched->event != NULL && event_add(watched->event, NULL) == 0 ? 0 : -1;
}

/* 0 means "soon", never "inside this callback" (libs.md). */
static int set_timer(CURLM *multi, long timeout_ms, void *context)
{
    struct http_client *client = context;

    (void)multi;
    if (timeout_ms < 0)
        event_del(client->timer);
    else
        timer_start(client->timer, timeout_ms);
    return 0;
}

struct http_client *http_client_new(struct event_base *base, const struct http_client_options *options)
{
    struct http_client *client = calloc(1, sizeof *client);

    if (client == NULL)
        return NULL;
    TAILQ_INIT(&client->transfers);
    TAILQ_INIT(&client->cancelled);
    TAILQ_INIT(&client->resuming);
    TAILQ_INIT(&client->fed);
    TAILQ_INIT(&client->over);
    client->base = base;
    client->options = *options;
    client->multi = curl_multi_init();
    client->timer = evtimer_new(base, on_timer, client);
    client->deferred = event_new(base, -1, 0, on_deferred, client);
    if (!http_lookups_init(client) || client->multi == NULL || client->timer == NULL || client->deferred == NULL) {
        http_client_free(client);
        return NULL;
    }
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, IDLE_CONNECTIONS_MAX);
    return client;
}

void http_client_free(struct http_client *client)
{
    struct http_transfer *transfer;

    if (client == NULL)
        return;
    while ((transfer = TAILQ_FIRST(&client->transfers)) != NULL)
        transfer_free(transfer);
    if (client->multi != NULL)
        curl_multi_cleanup(client->multi);
    http_lookups_free(client);
    if (client->timer != NULL)
        event_free(client->timer);
    if (client->deferred != NULL)
        event_free(client->deferred);
    free(client);
}

/* --- sending -------------------------------------------------------------------------------------- */

static bool add_parts(struct http_transfer *transfer, const struct http_request *request)
{
    transfer->mime = curl_mime_init(transfer->easy);
    transfer->cursors = calloc(request->part_count, sizeof *transfer->cursors);
    if (transfer->mime == NULL || transfer->cursors == NULL)
        return false;
    for (size_t i = 0; i < request->part_count; i++) {
        struct http_cursor *cursor = &transfer->cursors[i];
        curl_mimepart *part = curl_mime_addpart(transfer->mime);

        *cursor = (struct http_cursor){.bytes = request->parts[i].bytes, .length = request->parts[i].length};
        if (part == NULL || curl_mime_name(part, "file") != CURLE_OK ||
            curl_mime_filename(part, request->parts[i].filename) != CURLE_OK ||
            curl_mime_type(part, "application/octet-stream") != CURLE_OK ||
            curl_mime_data_cb(part, (curl_off_t)cursor->length, read_part, seek_part, NULL, cursor) != CURLE_OK)
            return false;
    }
    return curl_easy_setopt(transfer->easy, CURLOPT_MIMEPOST, transfer->mime) == CURLE_OK;
}

static bool set_body(struct http_transfer *transfer, const struct http_request *request)
{
    if (request->part_count > 0)
        return add_parts(transfer, request);
    if (request->body == NULL)
        return true;
    return curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_length) ==
               CURLE_OK &&
           curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, request->body) == CURLE_OK;
}

/* What is told from inside libcurl. */
static bool set_callbacks(struct http_transfer *transfer)
{
    CURL *easy = transfer->easy;

    return curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, before_request) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_RESOLVER_START_FUNCTION, http_lookup_begins) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_RESOLVER_START_DATA, transfer) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer) == CURLE_OK;
}

struct http_transfer *http_client_send(struct http_client *client, const struct http_request *request)
{
    struct http_transfer *transfer = calloc(1, sizeof *transfer);

    if (transfer == NULL) {
        curl_slist_free_all(request->headers);
        return NULL;
    }
    transfer->client = client;
    transfer->headers = request->headers;
    transfer->answer_max_bytes = request->answer_max_bytes;
    transfer->stream_max_bytes = request->stream_max_bytes;
    transfer->send_once = request->send_once;
    transfer->is_raw = http_lasting_fits(client, request);
    transfer->watched_fd = -1;
    transfer->on_body = request->on_body;
    transfer->on_body_end = request->on_body_end;
    transfer->on_done = request->on_done;
    transfer->context = request->context;
    transfer->connect_by_ms = monotonic_ms() + client->options.connect_timeout_ms;
    TAILQ_INSERT_TAIL(&client->transfers, transfer, link);
    transfer->easy = curl_easy_init();
    /* curl_multi_add_handle never calls back but for the timer. */
    if (transfer->easy == NULL || !http_add_header(&transfer->headers, "Expect", "") || !set_body(transfer, request) ||
        !set_callbacks(transfer) || !http_options_set(transfer, request) ||
        curl_multi_add_handle(client->multi, transfer->easy) != CURLM_OK) {
        transfer_free(transfer);
        return NULL;
    }
    return transfer;
}

void http_transfer_cancel(struct http_transfer *transfer)
{
    if (transfer == NULL || transfer->cancelled)
        return;
    if (transfer->client->depth == 0) {
        transfer_free(transfer);
        return;
    }
    transfer->cancelled = true;
    TAILQ_INSERT_TAIL(&transfer->client->cancelled, transfer, cancelled_link);
    event_active(transfer->client->deferred, 0, 0);
}

void http_transfer_pause(struct http_transfer *transfer)
{
    if (transfer->paused)
        return;
    transfer->paused = true;
    if (transfer->easy == NULL)
        http_lasting_pause(transfer);
    else
        curl_easy_pause(transfer->easy, CURLPAUSE_RECV);
}

/* Put off: libcurl delivers what it kept from inside curl_easy_pause. */
void http_transfer_resume(struct http_transfer *transfer)
{
    if (!transfer->paused)
        return;
    transfer->paused = false;
    if (transfer->easy == NULL)
        http_lasting_resume(transfer);
    if (transfer->easy == NULL || transfer->resuming)
        return;
    transfer->resuming = true;
    TAILQ_INSERT_TAIL(&transfer->client->resuming, transfer, resuming_link);
    event_active(transfer->client->deferred, 0, 0);
}

int http_transfer_status(const struct http_transfer *transfer)
{
    long status = 0;

    if (transfer->easy == NULL)
        return transfer->status;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

const char *http_transfer_content_type(const struct http_transfer *transfer)
{
    char *type = NULL;

    if (transfer->easy == NULL)
        return transfer->content_type;
    curl_easy_getinfo(transfer->easy, CURLINFO_CONTENT_TYPE, &type);
    return type != NULL ? type : "";
}
