/* daemon: what one sandboxd is, and one request on its way to a handler. */
#ifndef SANDBOXD_DAEMON_H
#define SANDBOXD_DAEMON_H

#include "sandboxd/intake.h"
#include "sandboxd/sandbox.h"

#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>

struct daemon {
    struct event_base *base;
    struct sandbox_table *sandboxes;
    const char *template_dir; /* or NULL */
    const struct jail_limits *limits;
    unsigned max_sandboxes;
};

/* A request that was routed. Lives while its handler runs; http until it is answered. */
struct request {
    struct daemon *daemon;
    struct evhttp_request *http;
    struct intake *intake;   /* where the body of an upload comes from; NULL: the body is in http */
    struct sandbox *sandbox; /* of sandbox traffic, and of API paths with an id once it was found */
    char id[64];             /* from the path, the E2b-Sandbox-Id header or the Host label */
    struct evkeyvalq query;
    bool is_v2;
};

typedef void (*request_handler)(struct request *request);

/* The control API: api_sandboxes.c, api_list.c, api_lifecycle.c. */
void api_health(struct request *request);
void api_create(struct request *request);
void api_list(struct request *request);
void api_get(struct request *request);
void api_delete(struct request *request);
void api_timeout(struct request *request);
void api_refresh(struct request *request);
void api_connect(struct request *request);
void api_resume(struct request *request);
void api_pause(struct request *request);
void api_unimplemented(struct request *request);

/* envd_files.c */
void envd_health(struct request *request);
void envd_files_read(struct request *request);
void envd_files_write(struct request *request);

/* envd_process.c and envd_process_calls.c */
void envd_process_start(struct request *request);
void envd_process_connect(struct request *request);
void envd_process_list(struct request *request);
void envd_process_send_signal(struct request *request);
void envd_process_send_input(struct request *request);
void envd_process_stream_input(struct request *request);
void envd_process_close_stdin(struct request *request);
void envd_process_update(struct request *request);

/* envd_filesystem.c, envd_watch.c and envd_watcher.c */
void envd_filesystem_stat(struct request *request);
void envd_filesystem_list_dir(struct request *request);
void envd_filesystem_make_dir(struct request *request);
void envd_filesystem_move(struct request *request);
void envd_filesystem_remove(struct request *request);
void envd_filesystem_watch_dir(struct request *request);
void envd_filesystem_create_watcher(struct request *request);
void envd_filesystem_get_watcher_events(struct request *request);
void envd_filesystem_remove_watcher(struct request *request);

/* The body as one piece, which stays until the request is answered. */
const char *request_body(const struct request *request, size_t *bytes);
/* The body as a JSON object, the caller's reference; an empty body is an empty object. NULL when it is none. */
json_t *request_json(const struct request *request) __attribute__((warn_unused_result));
const char *request_header(const struct request *request, const char *name);
const char *request_query(const struct request *request, const char *name);
/* Whether an object holds strings only; NULL and null do. */
bool json_is_string_map(const json_t *object);

#endif
