/*
 * http_client: HTTP requests of one worker, over one CURLM on its event loop.
 *
 * One request is one struct http_transfer with one completion callback. HTTP/1.1 only: a paused HTTP/2 stream would
 * buffer 32 MiB in libcurl 7.88 (libs.md). Callbacks run from the loop; on_body runs inside libcurl, but every function
 * here may be called from it: what libcurl forbids there is put off until it has returned. So many names at most are
 * looked up at once (http_lookups.c); a request whose name has to wait does so within connect_timeout_ms.
 */
#ifndef WORKER_HTTP_CLIENT_H
#define WORKER_HTTP_CLIENT_H

#include <curl/curl.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_client;
struct http_transfer;

/* How a transfer ended. Only TRANSFER_ANSWERED has a status. */
enum transfer_outcome {
    TRANSFER_ANSWERED,         /* a whole answer, whatever its status */
    TRANSFER_NOT_CONNECTED,    /* nothing was sent: DNS, refused, no route, connect timeout */
    TRANSFER_TLS_FAILED,       /* nothing was sent: handshake broken */
    TRANSFER_TLS_UNTRUSTED,    /* nothing was sent: certificate refused */
    TRANSFER_TIMED_OUT,        /* after sending: no answer or no progress in time */
    TRANSFER_CUT,              /* after sending: reset, or the answer ended early */
    TRANSFER_ANSWER_TOO_LARGE, /* the answer passed answer_max_bytes or stream_max_bytes */
    TRANSFER_INTERNAL,         /* ours: memory, set-up */
};

/* Longer waits are cut to this: nothing of ours waits a year. */
#define HTTP_RETRY_AFTER_MAX_S 31536000

struct http_answer {
    enum transfer_outcome outcome;
    int status;               /* 0 unless a status line came */
    int64_t retry_after_s;    /* -1 without an integer Retry-After; at most HTTP_RETRY_AFTER_MAX_S */
    const char *content_type; /* "" if none */
    const char *body;         /* NUL-terminated; empty when on_body took it */
    size_t body_length;
    const char *error; /* what went wrong, for a person; never holds a header or a body */
    const struct http_transfer *transfer;
};

/* A header's value, NULL when the answer has none. Valid within on_done. */
const char *http_answer_header(const struct http_answer *answer, const char *name);

/* One file of a multipart upload; bytes stay with the caller until the transfer is over. */
struct http_part {
    const char *filename; /* sent verbatim: plain printable ASCII without quote and backslash */
    const char *bytes;
    size_t length;
};

struct http_request {
    const char *method;
    const char *url;
    const char *unix_socket;    /* NULL: TCP */
    struct curl_slist *headers; /* taken over in every case */
    const char *body;           /* stays with the caller until the transfer is over; NULL: none */
    size_t body_length;
    const struct http_part *parts; /* instead of body: multipart/form-data, each part named "file" */
    size_t part_count;
    int64_t total_timeout_ms; /* 0: none, for streams */
    int64_t stall_timeout_ms; /* 0: none; rounded up to seconds; no byte either way for this long */
    size_t answer_max_bytes;  /* of a collected body */
    size_t stream_max_bytes;  /* of a body that on_body gets; 0: none */
    bool lasts;               /* an answer of hours, of which there are thousands: less memory for it */
    bool send_once;           /* libcurl must not send it again by itself on a dead reused connection */
    /* Body of a 2xx answer as it comes; NULL: collected. Other statuses are always collected. */
    void (*on_body)(void *context, const char *bytes, size_t length);
    /* Outside of libcurl, after on_body and before on_done: all that had come was given. NULL: not wanted. */
    void (*on_body_end)(void *context);
    /* Once, unless cancelled. The transfer and the answer are gone after it returns. */
    void (*on_done)(void *context, const struct http_answer *answer);
    void *context;
};

/* What all requests of a client share, but for those over a unix socket. The texts stay with the caller. */
struct http_client_options {
    const char *ca_file;        /* PEM; whom servers and an https:// proxy are trusted by; "": the system's bundle */
    const char *proxy;          /* URL; "": as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say */
    int64_t connect_timeout_ms; /* until a request can be sent: lookup of the name, connection, TLS */
};

struct http_client *http_client_new(struct event_base *base, const struct http_client_options *options)
    __attribute__((warn_unused_result));
/* Cancels what is under way, without callbacks. */
void http_client_free(struct http_client *client);

/* Never calls back before it returned. NULL for lack of memory: then on_done will not be called. */
struct http_transfer *http_client_send(struct http_client *client, const struct http_request *request)
    __attribute__((warn_unused_result));

/* Ends a transfer without its callback; the connection is closed unless it was idle. NULL is allowed. */
void http_transfer_cancel(struct http_transfer *transfer);

/* Back-pressure: stops and resumes reading the answer. At most one read buffer still arrives after a pause. */
void http_transfer_pause(struct http_transfer *transfer);
void http_transfer_resume(struct http_transfer *transfer);

/* The HTTP status so far, 0 before the status line; for on_body. */
int http_transfer_status(const struct http_transfer *transfer);
const char *http_transfer_content_type(const struct http_transfer *transfer);

/* host[:port] of a URL, without credentials, for a person; NULL when it has none. The caller frees it. */
char *http_url_host(const char *url);

/* Appends "name: value"; false for lack of memory (the list is then unchanged). A value with a control byte is refused.
 */
bool http_add_header(struct curl_slist **headers, const char *name, const char *value)
    __attribute__((warn_unused_result));

#endif
