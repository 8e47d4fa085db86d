/*
 * intake: the bodies of uploads on their way past evhttp, which would hold each in memory as a whole.
 *
 * It stands at the input of every connection. Where a message begins it holds the bytes until the head is whole. The
 * head of POST /files goes on to evhttp without what says that a body follows, so that its handler runs at once and
 * reads the body from here, with back-pressure to the client. A body that no handler wants, or that is left before its
 * end, is thrown away as it comes: the client hears the answer when it has sent it. All other messages pass by.
 */
#ifndef SANDBOXD_INTAKE_H
#define SANDBOXD_INTAKE_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <stdbool.h>

/* The base needs two priorities, and this one is for us. */
#define INTAKE_PRIORITIES 2
#define INTAKE_PRIORITY   0

struct intake_table; /* of a server's connections */
struct intake;       /* of one connection */

struct intake_table *intake_table_new(struct event_base *base, struct evhttp *http) __attribute__((warn_unused_result));
/* After evhttp was freed. */
void intake_table_free(struct intake_table *table);

/*
 * To be called for each request, before its handler: its intake when it is an upload whose body comes from here, else
 * NULL. What the handler did not take by then is thrown away by intake_finish(), to be called after the handler.
 */
struct intake *intake_begin(struct intake_table *table, struct evhttp_request *http);
void intake_finish(struct intake *intake);

/* The length that was announced; 0 when none was. */
long long intake_body_bytes(const struct intake *intake);

struct intake_reader {
    /* Bytes were added to the body. is_complete: they were the last. */
    void (*more)(void *arg, bool is_complete);
    /* The client is gone, or what it sends is no HTTP: nothing more comes, and the connection is to be closed. */
    void (*broken)(void *arg);
};

/*
 * Takes the body: what has come is in it when this returns, the rest is added. true when it is complete already: no
 * call comes then. Else calls come from the loop until it is complete or broken, or intake_leave() ends them.
 */
bool intake_take(struct intake *intake, struct evhttp_request *http, struct evbuffer *body,
                 const struct intake_reader *reader, void *arg) __attribute__((warn_unused_result));

/* To be called when bytes were taken off the body: more may come. */
void intake_continue(struct intake *intake);

/* The reader leaves, before or after the end; also when the connection is gone. Before the request is answered. */
void intake_leave(struct intake *intake);

#endif
