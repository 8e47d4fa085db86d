/*
 * trigger: what starts runs besides POST /query: schedules and webhooks, as `triggers` of sandstorm.json names them
 * (http-api.md section 14). A set belongs to a generation of workers; it does not change while they live.
 */
#ifndef WORKER_TRIGGER_H
#define WORKER_TRIGGER_H

#include "common/cron.h"
#include "common/environment.h"
#include "worker/json_text.h"
#include "worker/project_faults.h"

#include <jansson.h>

#define TRIGGERS_MAX 256

enum trigger_type {
    TRIGGER_CRON,
    TRIGGER_WEBHOOK,
    TRIGGER_REACTION, /* needs Slack: never fires */
};

struct trigger {
    enum trigger_type type;
    char *name; /* [a-zA-Z0-9][a-zA-Z0-9_-]{0,63} */
    json_t *prompt;
    char *schedule;   /* of a cron trigger, as written */
    struct cron cron; /* what it says */
    char *path;       /* of a webhook trigger: "/seg/seg" */
    json_t *secret;   /* of a webhook trigger; NULL: it is public */
};

struct trigger_set {
    size_t count;
    struct trigger triggers[TRIGGERS_MAX];
};

/*
 * A set from the array, with the variables of secrets taken from the environment; NULL: they are not looked up, and the
 * set is only good for being checked. NULL after at least one fault that is not a warning.
 */
struct trigger_set *trigger_set_parse(struct json_text array, const struct environment *environment,
                                      const struct project_faults *faults) __attribute__((warn_unused_result));
void trigger_set_free(struct trigger_set *set); /* NULL is allowed */

/* NULL: there is none of that name. */
const struct trigger *trigger_set_find(const struct trigger_set *set, const char *name);

#endif
