/*
 * agent_env: request and environment -> the variables of one sandbox (http-api.md 6.8), and who the model's provider
 * is.
 */
#ifndef WORKER_AGENT_ENV_H
#define WORKER_AGENT_ENV_H

#include "common/environment.h"
#include "worker/query_request.h"

/* Where a Vertex run finds its key file. */
#define AGENT_VERTEX_KEY_PATH "/home/user/.config/gcloud/service_account.json"

/*
 * Object of strings, the caller's; NULL for lack of memory. Nothing else of our environment enters the sandbox. *bad
 * becomes the name of a variable whose value is not UTF-8 and therefore missing, else NULL.
 */
json_t *agent_env_build(const struct query_request *request, const struct environment *environment, const char **bad)
    __attribute__((warn_unused_result));

/* Does the run need the key file that GOOGLE_APPLICATION_CREDENTIALS names? */
bool agent_env_uses_vertex(const struct environment *environment);

/*
 * Is there a model to talk to? An Anthropic or OpenRouter key (request or environment), a CLAUDE_CODE_USE_* variable or
 * ANTHROPIC_BASE_URL (http-api.md 3.5). A NULL request asks for the environment alone.
 */
bool agent_env_has_provider(const struct query_request *request, const struct environment *environment);

#endif
