/* json_member: what an object holds under a name, or an array at a place. Text that was checked; nothing is copied. */
#ifndef WORKER_JSON_MEMBER_H
#define WORKER_JSON_MEMBER_H

#include "worker/json_text.h"
#include "worker/span.h"

/* Of a repeated key the last one. start NULL: there is none, or it is no object. */
struct json_text json_member(struct json_text object, struct span name);
/* name: decimal digits. start NULL: there is none, or it is no array. */
struct json_text json_element(struct json_text array, struct span name);

#endif
