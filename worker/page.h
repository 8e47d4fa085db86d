/*
 * page: an HTML page of ours that may run nothing but its own one script and style (http-api.md section 12).
 */
#ifndef WORKER_PAGE_H
#define WORKER_PAGE_H

#include "worker/server.h"

struct page;

/* The bytes stay with the caller, to the end of the program. NULL for lack of memory. */
struct page *page_new(const char *bytes, size_t length) __attribute__((warn_unused_result));
void page_free(struct page *page);
void page_reply(const struct page *page, struct exchange *exchange);

#endif
