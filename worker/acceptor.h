/*
 * acceptor: which worker takes the next connection, and when none can.
 *
 * All workers listen on the same sockets. Left alone, one worker takes a whole burst (max/mean 4.00 over four). So a
 * worker takes one connection at a time, and stands aside before each, once, 2 ms for every worker that holds fewer, at
 * most 8; then it takes it anyway, because the others may be stopped. That goes by the number of workers and not by how
 * much fewer they hold: a stopped one with none makes all others wait alike, and their order among themselves stays.
 * When many wait it matters less who takes the next one: a worker may be ahead by one for every 32 of them. Else two
 * workers together would take a thousand a second, and honest clients stand in the queue behind a flood.
 * Cost per connection: two changes of the epoll set, the length of the queue, and a scan of the scoreboard's slots.
 */
#ifndef WORKER_ACCEPTOR_H
#define WORKER_ACCEPTOR_H

#include "common/scoreboard.h"

#include <event2/event.h>
#include <event2/http.h>
#include <stdbool.h>
#include <stddef.h>

struct acceptor;

/* Takes the listening sockets over; proxied has a bit for each. The connections go to http, whose bufferevent callback
 * calls acceptor_took(). */
struct acceptor *acceptor_new(struct event_base *base, struct evhttp *http, struct scoreboard *scoreboard, int slot,
                              const int *listen_fds, size_t count, uint64_t proxied)
    __attribute__((warn_unused_result));
void acceptor_free(struct acceptor *acceptor);

/*
 * Closes the sockets; other processes keep theirs. take_waiting: but first, in the next turn of the loop, takes what
 * waits on them, since connections in the queue of a socket that its last process closes are reset. Not where others go
 * on accepting: what they are to answer, with new settings, is theirs.
 */
void acceptor_stop(struct acceptor *acceptor, bool take_waiting);
bool acceptor_is_closed(const struct acceptor *acceptor);

/* Do the connections of this listening socket begin with a PROXY protocol header? */
bool acceptor_expects_proxy_header(const struct acceptor *acceptor, int listen_fd);

/* A connection was accepted; closed. */
void acceptor_took(struct acceptor *acceptor);
void acceptor_lost(struct acceptor *acceptor);

#endif
