/*
 * project: sandstorm.json, the configuration of runs (http-api.md 15.1).
 *
 * A struct project is one version of it: immutable, shared by reference, used by a run from its start to its end.
 */
#ifndef WORKER_PROJECT_H
#define WORKER_PROJECT_H

#include "common/settings.h"
#include "worker/project_faults.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define PROJECT_FILE      "sandstorm.json"
#define PROJECT_MAX_BYTES (1 << 20)

/* Of the fields, NULL means absent. "JSON text" is a string that json_text_check() takes. */
struct project {
    int references;
    json_t *system_prompt;        /* JSON text of a string or object */
    json_t *system_prompt_append; /* string */
    json_t *model;                /* string */
    int64_t max_turns;            /* 0: absent */
    int64_t timeout_s;            /* 0: absent */
    json_t *output_format;        /* JSON text of an object */
    json_t *agents;               /* object: name -> JSON text */
    json_t *agents_list;          /* JSON text of an array; then agents is NULL */
    json_t *mcp_servers;          /* object: name -> JSON text */
    json_t *skills_dir;           /* string, as written */
    bool template_skills;
    json_t *allowed_tools;       /* array of strings */
    json_t *triggers;            /* JSON text of an array that trigger_set_parse() takes */
    json_t *webhook_url;         /* string: http or https */
    enum runtime_choice runtime; /* of runtime.provider; RUNTIME_AUTO: absent */
};

/* Pure. NULL when the text is not a valid configuration, after at least one fault that is not a warning. */
struct project *project_parse(const char *text, size_t length, const struct project_faults *faults)
    __attribute__((warn_unused_result));
/* No configuration at all. NULL for lack of memory. */
struct project *project_empty(void) __attribute__((warn_unused_result));
struct project *project_ref(struct project *project);
void project_unref(struct project *project); /* NULL is allowed */

#endif
