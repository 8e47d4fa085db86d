/*
 * http: requests to a server (the one that runs agents, or another API with a key) and their answers, one at a time.
 *
 * An answer is gathered in memory, or given on piece by piece as it comes. A request ends early when a signal comes
 * (interrupt.h). Certificates are always checked. Redirects are not followed.
 */
#ifndef CLI_HTTP_H
#define CLI_HTTP_H

#include "cli/options.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define HTTP_RUN_ID_BYTES 65
#define HTTP_ERROR_BYTES  (CURL_ERROR_SIZE + 64)

/* Where requests go. */
struct endpoint {
    const char *command; /* "ds NAME", for messages */
    bool is_server;      /* one of ours */
    char *name;          /* as the user wrote it, without a password */
    char *base;          /* scheme and authority and prefix, without a slash behind them */
    char *unix_socket;   /* or NULL */
    char *ca_file;       /* or NULL: the system's */
    char *cert;          /* or NULL: none is shown */
    char *key;           /* or NULL: in the same file */
    char *proxy;         /* or NULL: the environment's */
    struct curl_slist *headers;
};

/* The server of the options, of the environment, or the default one. False with a message: a usage error. */
bool endpoint_open(struct endpoint *endpoint, const char *command, const struct server_options *options)
    __attribute__((warn_unused_result));
/* Another API: header is "Name: value", or NULL. False for lack of memory, which is told. */
bool endpoint_open_url(struct endpoint *endpoint, const char *command, const char *url, const char *header)
    __attribute__((warn_unused_result));
/* Of one that is open; "" is NULL. False for lack of memory. */
bool endpoint_set_route(struct endpoint *endpoint, const char *ca_file, const char *proxy)
    __attribute__((warn_unused_result));
void endpoint_close(struct endpoint *endpoint);

struct http_answer {
    long status;                    /* 0: none came */
    long retry_after_s;             /* -1: not said */
    char run_id[HTTP_RUN_ID_BYTES]; /* of X-Sandstorm-Run-Id; "" */
    char *body;                     /* never NULL after http_perform(), with a NUL behind it */
    size_t length;
    char error[HTTP_ERROR_BYTES]; /* why it failed */
};

struct http_request {
    const char *method; /* GET, POST or DELETE */
    const char *path;   /* begins with a slash */
    const char *body;   /* JSON, or NULL */
    size_t body_length;
    const char *header; /* one more, "Name: value", or NULL */
    long timeout_s;     /* for all of it; 0: none */
    bool goes_on;       /* a signal does not end it */
    /* Takes the pieces of a 200; false ends the request. NULL: they are gathered. */
    bool (*on_bytes)(void *context, const char *bytes, size_t length);
    /* A signal came, and the connection is still open. May be NULL. */
    void (*on_interrupt)(void *context, const struct http_answer *answer);
    void *context;
};

enum http_result {
    HTTP_ANSWERED,    /* to its end */
    HTTP_FAILED,      /* not reached, or cut: see error */
    HTTP_STOPPED,     /* on_bytes() wanted no more */
    HTTP_INTERRUPTED, /* by a signal */
};

enum http_result http_perform(const struct endpoint *endpoint, const struct http_request *request,
                              struct http_answer *answer) __attribute__((warn_unused_result));
void http_answer_release(struct http_answer *answer);

/* Tells what is wrong: why no answer came, or what an answer that is no success says. */
void http_complain(const struct endpoint *endpoint, const struct http_answer *answer);

/*
 * Asks, and returns the JSON of a success. NULL with *code, the exit code, after a message; nothing is printed of an
 * interruption.
 */
json_t *http_json(const struct endpoint *endpoint, const char *method, const char *path, int *code)
    __attribute__((warn_unused_result));
/* Likewise with a body, which may be NULL. */
json_t *http_json_body(const struct endpoint *endpoint, const char *method, const char *path, const json_t *body,
                       int *code) __attribute__((warn_unused_result));

/* "/runs/<id><rest>" with the id percent-encoded; NULL for lack of memory. */
char *http_run_path(const char *id, const char *rest) __attribute__((warn_unused_result));

#endif
