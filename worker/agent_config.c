#include "worker/agent_config.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUNNER_MAX_BYTES (1 << 20)
#define RUNNER_PATH      "/opt/agent-runner/runner.mjs"
#define SETTINGS_PATH    AGENT_HOME "/.claude/settings.json"
#define OPENROUTER_URL   "https://openrouter.ai/api"
/* Experimental headers break some providers; without skills nothing needs them (6.6). */
#define SETTINGS_TEXT                                                                                                  \
    "{\"permissions\":{\"allow\":[],\"deny\":[]},\"env\":{\"CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS\":\"1\"}}"
#define OWN_FILES 3

/* Forwarded into the sandbox when they are set and not empty (6.8, 2). */
static const char *const forwarded[] = {
    "CLAUDE_CODE_USE_VERTEX",
    "CLOUD_ML_REGION",
    "ANTHROPIC_VERTEX_PROJECT_ID",
    "CLAUDE_CODE_USE_BEDROCK",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "CLAUDE_CODE_USE_FOUNDRY",
    "AZURE_FOUNDRY_RESOURCE",
    "AZURE_API_KEY",
    "ANTHROPIC_FOUNDRY_RESOURCE",
    "ANTHROPIC_FOUNDRY_API_KEY",
    "ANTHROPIC_FOUNDRY_BASE_URL",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_AUTH_TOKEN",
    "LINEAR_API_KEY",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
};

static const char *const other_providers[] = {"CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_BEDROCK",
                                              "CLAUDE_CODE_USE_FOUNDRY"};

/* Foundry's variables go by two names (6.8, 3). */
static const struct {
    const char *azure;
    const char *foundry;
} foundry_names[] = {
    {"AZURE_FOUNDRY_RESOURCE", "ANTHROPIC_FOUNDRY_RESOURCE"},
    {"AZURE_API_KEY", "ANTHROPIC_FOUNDRY_API_KEY"},
};

static const char *environment(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && *value != '\0' ? value : NULL;
}

/* --- the runner ------------------------------------------------------------------------------------- */

bool agent_runner_load(struct agent_runner *runner, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    ssize_t got = -1;

    *runner = (struct agent_runner){0};
    if (fd >= 0 && fstat(fd, &status) == 0 && status.st_size > 0 && status.st_size <= RUNNER_MAX_BYTES) {
        runner->length = (size_t)status.st_size;
        runner->bytes = malloc(runner->length);
        got = runner->bytes != NULL ? read(fd, runner->bytes, runner->length) : -1;
    }
    if (fd >= 0)
        close(fd);
    if (got >= 0 && (size_t)got == runner->length)
        return true;
    log_error("cannot read the agent's runner %s (setting agent_runner): %s", path, strerror(errno));
    agent_runner_release(runner);
    return false;
}

void agent_runner_release(struct agent_runner *runner)
{
    free(runner->bytes);
    *runner = (struct agent_runner){0};
}

/* --- environment ------------------------------------------------------------------------------------ */

static bool uses_other_provider(void)
{
    for (size_t i = 0; i < sizeof other_providers / sizeof *other_providers; i++) {
        if (environment(other_providers[i]) != NULL)
            return true;
    }
    return false;
}

bool agent_config_has_provider(const struct query_request *request)
{
    return request->anthropic_api_key != NULL || request->openrouter_api_key != NULL ||
           environment("ANTHROPIC_API_KEY") != NULL || environment("OPENROUTER_API_KEY") != NULL ||
           environment("ANTHROPIC_BASE_URL") != NULL || uses_other_provider();
}

static void set(json_t *env, const char *name, const char *value)
{
    json_object_set_new(env, name, json_string(value));
}

/*
 * The OpenRouter key in effect, where it may go (6.8, 4): never to a provider it does not belong to, and the
 * environment's not against a request that brings its own Anthropic key.
 */
static void set_openrouter(json_t *env, const struct query_request *request)
{
    bool own_url = environment("ANTHROPIC_BASE_URL") != NULL;
    const char *key = request->openrouter_api_key;

    if (key == NULL && (request->anthropic_api_key == NULL || own_url))
        key = environment("OPENROUTER_API_KEY");
    if (key == NULL || (!own_url && uses_other_provider()))
        return;
    set(env, "ANTHROPIC_AUTH_TOKEN", key);
    if (!own_url)
        set(env, "ANTHROPIC_BASE_URL", OPENROUTER_URL);
}

static json_t *build_env(const struct query_request *request)
{
    json_t *env = json_object();
    const char *key =
        request->anthropic_api_key != NULL ? request->anthropic_api_key : environment("ANTHROPIC_API_KEY");

    if (key != NULL)
        set(env, "ANTHROPIC_API_KEY", key);
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++) {
        if (environment(forwarded[i]) != NULL)
            set(env, forwarded[i], environment(forwarded[i]));
    }
    for (size_t i = 0; i < sizeof foundry_names / sizeof *foundry_names; i++) {
        if (environment(foundry_names[i].azure) != NULL && environment(foundry_names[i].foundry) == NULL)
            set(env, foundry_names[i].foundry, environment(foundry_names[i].azure));
    }
    set_openrouter(env, request);
    if (json_object_get(env, "ANTHROPIC_BASE_URL") != NULL && json_object_get(env, "ANTHROPIC_AUTH_TOKEN") != NULL)
        set(env, "ANTHROPIC_API_KEY", "");
    return env;
}

/* --- files ------------------------------------------------------------------------------------------ */

static json_t *string_or_null(const char *text, size_t length)
{
    return text != NULL ? json_stringn(text, length) : json_null();
}

/* The 14 keys of http-api.md 6.6. */
static char *build_config_json(const struct query_request *request, int64_t timeout_s)
{
    json_t *root =
        json_pack("{s:o, s:s, s:o, s:o, s:n, s:n, s:n, s:n, s:b, s:n, s:I, s:n, s:n, s:n}", "prompt",
                  string_or_null(request->prompt, request->prompt_bytes), "cwd", AGENT_HOME, "model",
                  string_or_null(request->model, request->model != NULL ? strlen(request->model) : 0), "max_turns",
                  request->max_turns > 0 ? json_integer(request->max_turns) : json_null(), "system_prompt",
                  "output_format", "agents", "mcp_servers", "has_skills", 0, "allowed_tools", "timeout",
                  (json_int_t)timeout_s, "resume", "fork_session", "max_budget_usd");
    char *text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;

    json_decref(root);
    return text;
}

static void add_file(struct agent_config *config, const char *path, const char *bytes, size_t length)
{
    config->files[config->file_count++] = (struct e2b_file){.path = path, .bytes = bytes, .length = length};
}

/* The request's files, but for one that would stand in the place of ours. */
static bool add_request_files(struct agent_config *config, json_t *files)
{
    const char *path;
    json_t *content;

    json_object_foreach(files, path, content)
    {
        char *full;

        if (asprintf(&full, "%s/%s", AGENT_HOME, path) < 0)
            return false;
        config->paths[config->path_count++] = full;
        if (strcmp(full, SETTINGS_PATH) != 0)
            add_file(config, full, json_string_value(content), json_string_length(content));
    }
    return true;
}

bool agent_config_build(struct agent_config *config, const struct query_request *request,
                        const struct agent_runner *runner, int64_t timeout_s)
{
    size_t count = json_object_size(request->files);

    *config = (struct agent_config){0};
    config->env = build_env(request);
    config->config_json = build_config_json(request, timeout_s);
    config->files = calloc(count + OWN_FILES, sizeof *config->files);
    config->paths = calloc(count + 1, sizeof *config->paths);
    if (config->env == NULL || config->config_json == NULL || config->files == NULL || config->paths == NULL ||
        !add_request_files(config, request->files))
        return false;
    add_file(config, SETTINGS_PATH, SETTINGS_TEXT, strlen(SETTINGS_TEXT));
    add_file(config, RUNNER_PATH, runner->bytes, runner->length);
    add_file(config, AGENT_CONFIG_PATH, config->config_json, strlen(config->config_json));
    return true;
}

void agent_config_release(struct agent_config *config)
{
    json_decref(config->env);
    for (size_t i = 0; i < config->path_count; i++)
        free(config->paths[i]);
    free(config->paths);
    free(config->files);
    free(config->config_json);
    *config = (struct agent_config){0};
}
