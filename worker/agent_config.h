/*
 * agent_config: everything one sandbox gets: its environment and its files (http-api.md 6.5 to 6.8).
 */
#ifndef WORKER_AGENT_CONFIG_H
#define WORKER_AGENT_CONFIG_H

#include "worker/agent_options.h"
#include "worker/e2b.h"
#include "worker/skills.h"

/* The file whose age tells what the agent has written since (6.10). */
#define AGENT_CONFIG_PATH "/opt/agent-runner/agent_config.json"

/* The runner shipped with the server, read once per worker. */
struct agent_runner {
    char *bytes;
    size_t length;
};

bool agent_runner_load(struct agent_runner *runner, const char *path) __attribute__((warn_unused_result));
void agent_runner_release(struct agent_runner *runner);

/* What a configuration is made of. */
struct agent_sources {
    const struct query_request *request;
    const struct project *project;
    const struct environment *environment;
    const struct skill_set *skills; /* those on disk */
    const struct agent_runner *runner;
    const char *project_dir;
    int64_t timeout_s; /* T */
};

/* Freed with agent_config_release(), also after a failure. */
struct agent_config {
    json_t *env;            /* of the sandbox: object of strings */
    struct e2b_file *files; /* in the order of the upload */
    size_t file_count;
    const struct skill_set *skills; /* a reference: files point into it */
    char *vertex_key;
    bool has_skills;
    struct evbuffer *options; /* agent_config.json */
    char **paths;
    size_t path_count;
    char *error; /* for the client: why there is no configuration; NULL: none, or no memory */
};

/* The request and the runner must outlive it. False: *config says why. */
bool agent_config_build(struct agent_config *config, const struct agent_sources *sources)
    __attribute__((warn_unused_result));
/* After the upload: the files are not needed any more, the environment neither. */
void agent_config_release(struct agent_config *config);

#endif
