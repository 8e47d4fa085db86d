/*
 * http_client_internal: what http_client.c, http_options.c, http_lookups.c and http_lasting.c share.
 */
#ifndef WORKER_HTTP_CLIENT_INTERNAL_H
#define WORKER_HTTP_CLIENT_INTERNAL_H

#include "worker/chunk_reader.h"
#include "worker/http_client.h"

#include <sys/queue.h>
#include <sys/types.h>

struct http_transfer {
    struct http_client *client;
    CURL *easy; /* NULL: it has left libcurl */
    curl_mime *mime;
    struct curl_slist *headers;
    struct http_cursor *cursors; /* one per part */
    char *body;
    size_t body_length;
    size_t answer_max_bytes;
    size_t stream_max_bytes;
    size_t streamed_bytes;
    bool sent; /* the request left, or may have left */
    bool send_once;
    bool cancelled; /* on the cancelled list: to be freed as soon as libcurl has returned */
    bool too_large;
    bool is_raw;       /* libcurl leaves chunks as they are */
    bool has_begun;    /* the first piece of the body came: is_chunked is known */
    bool is_chunked;   /* and we take the body out of them */
    bool is_over;      /* on the list of those whose end is to be told */
    bool streams;      /* the body goes to on_body */
    bool fed;          /* on the fed list: on_body_end is owed */
    bool paused;       /* as the caller wants it */
    bool resuming;     /* on the resuming list */
    bool is_postponed; /* libcurl gave it up because its name could not be looked up now */
    bool is_waiting;   /* on the list of those whose name waits to be looked up */
    CURLcode code;     /* its end */
    struct chunk_reader chunks;
    int watched_fd;          /* the socket that libcurl watches for it; -1: none */
    struct event *own_event; /* of our own descriptor, once it has left; NULL */
    int status;              /* of its answer, then */
    char *content_type;
    int64_t connect_by_ms; /* monotonic; holds for a name that waits */
    void (*on_body)(void *context, const char *bytes, size_t length);
    void (*on_body_end)(void *context);
    void (*on_done)(void *context, const struct http_answer *answer);
    void *context;
    TAILQ_ENTRY(http_transfer) link;
    TAILQ_ENTRY(http_transfer) cancelled_link;
    TAILQ_ENTRY(http_transfer) resuming_link;
    TAILQ_ENTRY(http_transfer) waiting_link;
    TAILQ_ENTRY(http_transfer) fed_link;
    TAILQ_ENTRY(http_transfer) over_link;
    char error[CURL_ERROR_SIZE]; /* last: what each piece of a body needs stands together */
};

TAILQ_HEAD(transfer_list, http_transfer);

/* Names that wait to be looked up, because enough others are. */
struct http_lookups {
    struct transfer_list waiting;
    struct event *timer;
    nlink_t idle_tasks; /* links of /proc/self/task while nothing is looked up; 0: it cannot be read */
};

struct http_client {
    struct event_base *base;
    CURLM *multi;
    struct http_client_options options;
    struct event *timer;    /* libcurl's own */
    struct event *deferred; /* runs what must not run inside libcurl */
    struct transfer_list transfers;
    struct transfer_list cancelled; /* these four wait until libcurl has returned */
    struct transfer_list resuming;
    struct transfer_list fed;
    struct transfer_list over;
    struct http_lookups lookups;
    int depth;                  /* > 0: libcurl is on the stack, or a body is handed on */
    char lasting_buffer[16384]; /* what is read of answers that have left libcurl */
};

/* A piece of the body, as it came. False: it cannot go on, and CURLE_WRITE_ERROR with its flags says why. */
bool http_transfer_take(struct http_transfer *transfer, const char *bytes, size_t length)
    __attribute__((warn_unused_result));
/* Its end is told by the next http_client_reap(). */
void http_transfer_is_over(struct http_transfer *transfer, CURLcode code);
/* Does all that had to wait for libcurl, or for a handler of a body. */
void http_client_reap(struct http_client *client);

/* Tells the end of a transfer, outside libcurl; it is gone afterwards. */
void http_transfer_finish(struct http_transfer *transfer, CURLcode code);

/*
 * http_lookups: how many names are looked up at once. libcurl starts a thread for each, which holds three descriptors
 * and lives as long as the resolver is patient, even when its request was given up long ago.
 */
bool http_lookups_init(struct http_client *client) __attribute__((warn_unused_result));
void http_lookups_free(struct http_client *client);

/* CURLOPT_RESOLVER_START_FUNCTION: libcurl needs a name that it does not know. Refuses when there is no room for it. */
int http_lookup_begins(void *resolver, void *reserved, void *transfer);

/* A transfer that was refused is sent again when there is room, or ends when it is too late to connect. */
void http_lookups_wait(struct http_transfer *transfer);
void http_lookups_forget(struct http_transfer *transfer);

/* http_options: all that does not call back. */
bool http_options_set(struct http_transfer *transfer, const struct http_request *request)
    __attribute__((warn_unused_result));

/* http_lasting: answers that leave libcurl. May this one, if it turns out to be in chunks? */
bool http_lasting_fits(const struct http_client *client, const struct http_request *request);
/* A body has begun; outside libcurl. Leaves it, or stays where it is. */
void http_lasting_leave(struct http_transfer *transfer);
/* Of one that has left. */
void http_lasting_pause(struct http_transfer *transfer);
void http_lasting_resume(struct http_transfer *transfer);
void http_lasting_forget(struct http_transfer *transfer);

#endif
