/*
 * json_sorted: JSON written anew with its keys in order and blanks behind commas and colons, as Python writes it for
 * people; numbers stay as they were spelled.
 *
 * Cost: one pass over the text, and a buffer for each member of an object.
 */
#ifndef WORKER_JSON_SORTED_H
#define WORKER_JSON_SORTED_H

#include "worker/json_text.h"

/* Of a repeated key the last wins. False for lack of memory. */
bool json_sorted_write(struct json_text value, struct evbuffer *out) __attribute__((warn_unused_result));

#endif
