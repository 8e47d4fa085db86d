/*
 * Answers that last for hours, of which there are thousands: once their body has begun, they leave libcurl, which keeps
 * 12 KiB for each and works two microseconds on each piece of it. Only over a plain socket, and only in chunks: what is
 * left to do is to read them.
 */
#include "worker/http_client_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* Variables by which libcurl may come to a proxy, with whom TLS might be spoken. */
static bool environment_has_proxy(void)
{
    static const char *const names[] = {"http_proxy", "all_proxy", "ALL_PROXY"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);

        if (value != NULL && *value != '\0')
            return true;
    }
    return false;
}

bool http_lasting_fits(const struct http_client *client, const struct http_request *request)
{
    bool is_direct = request->unix_socket != NULL || (*client->options.proxy == '\0' && !environment_has_proxy());

    return request->lasts && request->total_timeout_ms == 0 && request->stall_timeout_ms == 0 && is_direct &&
           strncasecmp(request->url, "http://", 7) == 0;
}

/* Is this the connection that the answer comes from? libcurl watches other sockets too. */
static bool is_its_socket(const struct http_transfer *transfer, int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    long port = 0;

    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return false;
    curl_easy_getinfo(transfer->easy, CURLINFO_LOCAL_PORT, &port);
    switch (address.ss_family) {
    case AF_INET:
        return ntohs(((struct sockaddr_in *)&address)->sin_port) == port;
    case AF_INET6:
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port) == port;
    default:
        return address.ss_family == AF_UNIX;
    }
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    struct http_transfer *transfer = context;
    struct http_client *client = transfer->client;
    ssize_t got = recv(fd, client->lasting_buffer, sizeof client->lasting_buffer, 0);

    (void)what;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    client->depth++;
    if (got > 0 && !http_transfer_take(transfer, client->lasting_buffer, (size_t)got))
        http_transfer_is_over(transfer, CURLE_WRITE_ERROR);
    else if (got > 0 && transfer->chunks.state == CHUNK_WHOLE)
        http_transfer_is_over(transfer, CURLE_OK);
    else if (got <= 0)
        http_transfer_is_over(transfer, got == 0 ? CURLE_PARTIAL_FILE : CURLE_RECV_ERROR);
    client->depth--;
    http_client_reap(client);
}

/* What is asked of an answer later on. False for lack of memory. */
static bool keep_head(struct http_transfer *transfer)
{
    char *type = strdup(http_transfer_content_type(transfer));

    if (type == NULL)
        return false;
    transfer->status = http_transfer_status(transfer);
    transfer->content_type = type;
    return true;
}

void http_lasting_leave(struct http_transfer *transfer)
{
    struct http_client *client = transfer->client;
    int fd;

    if (!transfer->is_chunked || transfer->own_event != NULL || transfer->cancelled || transfer->paused ||
        transfer->resuming || transfer->chunks.state >= CHUNK_WHOLE || transfer->watched_fd < 0 ||
        !is_its_socket(transfer, transfer->watched_fd))
        return;
    /* libcurl closes its own descriptor; the connection goes on. */
    fd = fcntl(transfer->watched_fd, F_DUPFD_CLOEXEC, 0);
    transfer->own_event = fd >= 0 ? event_new(client->base, fd, EV_READ | EV_PERSIST, on_readable, transfer) : NULL;
    if (transfer->own_event == NULL && fd >= 0)
        close(fd);
    if (transfer->own_event == NULL || !keep_head(transfer)) {
        http_lasting_forget(transfer);
        return; /* it stays where it is */
    }
    curl_multi_remove_handle(client->multi, transfer->easy);
    curl_easy_cleanup(transfer->easy);
    transfer->easy = NULL;
    if (event_add(transfer->own_event, NULL) < 0)
        http_transfer_is_over(transfer, CURLE_OUT_OF_MEMORY);
}

void http_lasting_pause(struct http_transfer *transfer)
{
    event_del(transfer->own_event);
}

void http_lasting_resume(struct http_transfer *transfer)
{
    if (event_add(transfer->own_event, NULL) == 0)
        return;
    http_transfer_is_over(transfer, CURLE_OUT_OF_MEMORY);
    event_active(transfer->client->deferred, 0, 0);
}

void http_lasting_forget(struct http_transfer *transfer)
{
    free(transfer->content_type);
    transfer->content_type = NULL;
    if (transfer->own_event == NULL)
        return;
    event_del(transfer->own_event);
    close(event_get_fd(transfer->own_event));
    event_free(transfer->own_event);
    transfer->own_event = NULL;
}
