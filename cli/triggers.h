/*
 * triggers: the triggers of sandstorm.json (http-api.md section 14), as `ds trigger` needs them. Whether the server
 * takes them says its --check.
 */
#ifndef CLI_TRIGGERS_H
#define CLI_TRIGGERS_H

#include "common/environment.h"

#include <jansson.h>

enum trigger_secret {
    TRIGGER_SECRET_NONE, /* its type has none */
    TRIGGER_SECRET_SET,
    TRIGGER_SECRET_PUBLIC,  /* none, and that is wanted */
    TRIGGER_SECRET_MISSING, /* a start is refused */
};

/* What `type` says. */
bool trigger_is(const json_t *trigger, const char *type) __attribute__((warn_unused_result));

/* Of a project; NULL when there is none. The project's. */
const json_t *triggers_find(const json_t *project, const char *name) __attribute__((warn_unused_result));

/*
 * The secret of a webhook with its variables in *text, which is to be freed; NULL there unless it is set, and for lack
 * of memory.
 */
enum trigger_secret trigger_secret(const json_t *trigger, const struct environment *environment, char **text)
    __attribute__((warn_unused_result));

/* The prompt of a schedule: nothing has fired it, so its placeholders give nothing. NULL when there is none. */
json_t *trigger_scheduled_prompt(const json_t *trigger) __attribute__((warn_unused_result));

#endif
