/*
 * agent_config: request and environment -> what one sandbox gets: its environment and its files (http-api.md 6.6, 6.8).
 */
#ifndef WORKER_AGENT_CONFIG_H
#define WORKER_AGENT_CONFIG_H

#include "worker/e2b.h"
#include "worker/query_request.h"

/* Where the collected files live, and the file whose age tells what the agent has written since (6.10). */
#define AGENT_HOME        "/home/user"
#define AGENT_CONFIG_PATH "/opt/agent-runner/agent_config.json"

/* The runner shipped with the server, read once per worker. */
struct agent_runner {
    char *bytes;
    size_t length;
};

bool agent_runner_load(struct agent_runner *runner, const char *path) __attribute__((warn_unused_result));
void agent_runner_release(struct agent_runner *runner);

/* Everything one sandbox gets. Freed with agent_config_release(), also after a failure. */
struct agent_config {
    json_t *env;            /* of the sandbox: object of strings */
    struct e2b_file *files; /* in the order of the upload; bytes belong to the request, the runner or this struct */
    size_t file_count;
    char *config_json;
    char **paths; /* of the request's files */
    size_t path_count;
};

/* The request and the runner must outlive it. False for lack of memory. */
bool agent_config_build(struct agent_config *config, const struct query_request *request,
                        const struct agent_runner *runner, int64_t timeout_s) __attribute__((warn_unused_result));
/* After the upload: the files are not needed any more, the environment neither. */
void agent_config_release(struct agent_config *config);

/*
 * Is there a model to talk to? An Anthropic or OpenRouter key (request or environment), a CLAUDE_CODE_USE_* variable or
 * ANTHROPIC_BASE_URL (http-api.md 3.5).
 */
bool agent_config_has_provider(const struct query_request *request);

#endif
