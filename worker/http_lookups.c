#include "worker/http_client_internal.h"

#include "common/clock.h"
#include "common/log_limit.h"
#include "worker/timer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/stat.h>

/* Names at once, of one worker: more than a burst of runs needs, and few beside its descriptors. */
#define LOOKUPS_MAX 16
/* The end of a lookup that nobody waits for any more is not told: it is looked for. */
#define LOOK_MS  50
#define AGAIN_MS 1

/* A directory has two links and one for each of its directories: here, for each thread. 0: cannot be told. */
static nlink_t tasks_links(void)
{
    struct stat seen;

    return stat("/proc/self/task", &seen) == 0 ? seen.st_nlink : 0;
}

/* Lookups that may begin now. The worker has no other threads. */
static size_t room(const struct http_lookups *lookups)
{
    nlink_t links = lookups->idle_tasks > 0 ? tasks_links() : 0;
    size_t running = links > lookups->idle_tasks ? links - lookups->idle_tasks : 0;

    return running < LOOKUPS_MAX ? LOOKUPS_MAX - running : 0;
}

/* An address is no name, though libcurl asks all the same. */
static bool has_address(CURL *easy)
{
    struct in6_addr address;
    CURLU *parsed = curl_url();
    char *url = NULL, *host = NULL;
    bool is_address = false;

    if (parsed != NULL && curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url) == CURLE_OK && url != NULL &&
        curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK)
        is_address = *host == '[' || inet_pton(AF_INET, host, &address) == 1;
    curl_free(host);
    curl_url_cleanup(parsed);
    return is_address;
}

int http_lookup_begins(void *resolver, void *reserved, void *context)
{
    struct http_transfer *transfer = context;

    (void)resolver;
    (void)reserved;
    if (room(&transfer->client->lookups) > 0 || has_address(transfer->easy))
        return 0;
    transfer->is_postponed = true;
    return 1;
}

void http_lookups_wait(struct http_transfer *transfer)
{
    struct http_lookups *lookups = &transfer->client->lookups;

    curl_multi_remove_handle(transfer->client->multi, transfer->easy);
    transfer->is_postponed = false;
    transfer->is_waiting = true;
    TAILQ_INSERT_TAIL(&lookups->waiting, transfer, waiting_link);
    if (!evtimer_pending(lookups->timer, NULL))
        timer_start(lookups->timer, LOOK_MS);
}

void http_lookups_forget(struct http_transfer *transfer)
{
    if (transfer->is_waiting)
        TAILQ_REMOVE(&transfer->client->lookups.waiting, transfer, waiting_link);
    transfer->is_waiting = false;
}

static struct http_transfer *first_too_late(const struct http_lookups *lookups)
{
    struct http_transfer *transfer;
    int64_t now_ms = monotonic_ms();

    TAILQ_FOREACH(transfer, &lookups->waiting, waiting_link)
    {
        if (transfer->connect_by_ms <= now_ms)
            break;
    }
    return transfer;
}

/* It has the rest of its time to connect. */
static void send_again(struct http_transfer *transfer)
{
    int64_t left_ms = transfer->connect_by_ms - monotonic_ms();

    http_lookups_forget(transfer);
    if (curl_easy_setopt(transfer->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(left_ms > 0 ? left_ms : 1)) != CURLE_OK ||
        curl_multi_add_handle(transfer->client->multi, transfer->easy) != CURLM_OK)
        http_transfer_finish(transfer, CURLE_OUT_OF_MEMORY);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct http_client *client = context;
    struct http_lookups *lookups = &client->lookups;
    struct http_transfer *transfer;
    size_t free_places = room(lookups);
    bool has_sent = false;

    (void)fd;
    (void)what;
    while ((transfer = first_too_late(lookups)) != NULL) {
        log_warn_limited("sandbox service: names are not looked up in time: %d lookups have no answer", LOOKUPS_MAX);
        snprintf(transfer->error, sizeof transfer->error, "too many lookups of names have no answer");
        http_transfer_finish(transfer, CURLE_OPERATION_TIMEDOUT);
    }
    for (; free_places > 0 && (transfer = TAILQ_FIRST(&lookups->waiting)) != NULL; free_places--) {
        send_again(transfer);
        has_sent = true; /* one whose name is known by now leaves its place to another */
    }
    if (!TAILQ_EMPTY(&lookups->waiting))
        timer_start(lookups->timer, has_sent ? AGAIN_MS : LOOK_MS);
}

bool http_lookups_init(struct http_client *client)
{
    TAILQ_INIT(&client->lookups.waiting);
    client->lookups.idle_tasks = tasks_links();
    client->lookups.timer = evtimer_new(client->base, on_timer, client);
    return client->lookups.timer != NULL;
}

void http_lookups_free(struct http_client *client)
{
    if (client->lookups.timer != NULL)
        event_free(client->lookups.timer);
}
