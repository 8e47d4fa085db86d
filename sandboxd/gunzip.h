/* gunzip: undoes Content-Encoding: gzip of a request body, as it comes. */
#ifndef SANDBOXD_GUNZIP_H
#define SANDBOXD_GUNZIP_H

#include <event2/buffer.h>
#include <stdbool.h>
#include <stddef.h>

struct gunzip;

struct gunzip *gunzip_new(void) __attribute__((returns_nonnull, warn_unused_result));
void gunzip_free(struct gunzip *gunzip);

/* Takes bytes off the input until it is empty or the output holds max bytes. false when they are no gzip. */
bool gunzip_step(struct gunzip *gunzip, struct evbuffer *in, struct evbuffer *out, size_t max)
    __attribute__((warn_unused_result));

/* Whether the bytes so far are a whole: nothing is cut. */
bool gunzip_is_whole(const struct gunzip *gunzip);

#endif
