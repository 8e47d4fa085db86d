/*
 * agent_options: request and project -> the agent's own configuration, agent_config.json (http-api.md 6.6, 6.7).
 */
#ifndef WORKER_AGENT_OPTIONS_H
#define WORKER_AGENT_OPTIONS_H

#include "common/environment.h"
#include "worker/project.h"
#include "worker/query_request.h"

#include <event2/buffer.h>

/* Where the agent works. */
#define AGENT_HOME "/home/user"

struct agent_options {
    const struct query_request *request;
    const struct project *project;
    const struct environment *environment; /* for ${…} of mcp_servers */
    int64_t timeout_s;                     /* T */
    bool has_skills;
};

/*
 * Writes the object of 14 keys. False when the configuration cannot be used: *error is the text for the client then,
 * to be freed; or, with *error NULL, for lack of memory.
 */
bool agent_options_write(const struct agent_options *options, struct evbuffer *out, char **error)
    __attribute__((warn_unused_result));

/* Is the name a key of names? Without names every name is allowed. */
bool name_is_allowed(const json_t *names, const char *name);

#endif
