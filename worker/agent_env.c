#include "worker/agent_env.h"

#define OPENROUTER_URL "https://openrouter.ai/api"

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

/* The variables while they are gathered. */
struct gathering {
    const struct environment *environment;
    json_t *env;
    const char *bad; /* the first whose value cannot be sent */
};

static const char *given(const struct gathering *gathering, const char *name)
{
    return environment_value(gathering->environment, name);
}

/* JSON carries UTF-8 only. */
static void set(struct gathering *gathering, const char *name, const char *value)
{
    if (json_object_set_new(gathering->env, name, json_string(value)) < 0 && gathering->bad == NULL)
        gathering->bad = name;
}

static bool uses_other_provider(const struct environment *environment)
{
    for (size_t i = 0; i < sizeof other_providers / sizeof *other_providers; i++) {
        if (environment_value(environment, other_providers[i]) != NULL)
            return true;
    }
    return false;
}

bool agent_env_uses_vertex(const struct environment *environment)
{
    return environment_value(environment, "CLAUDE_CODE_USE_VERTEX") != NULL;
}

bool agent_env_has_provider(const struct query_request *request, const struct environment *environment)
{
    return (request != NULL && (request->anthropic_api_key != NULL || request->openrouter_api_key != NULL)) ||
           environment_value(environment, "ANTHROPIC_API_KEY") != NULL ||
           environment_value(environment, "OPENROUTER_API_KEY") != NULL ||
           environment_value(environment, "ANTHROPIC_BASE_URL") != NULL || uses_other_provider(environment);
}

/*
 * The OpenRouter key in effect, where it may go (6.8, 4): never to a provider it does not belong to, and the
 * environment's not against a request that brings its own Anthropic key.
 */
static void set_openrouter(struct gathering *gathering, const struct query_request *request)
{
    bool own_url = given(gathering, "ANTHROPIC_BASE_URL") != NULL;
    const char *key = request->openrouter_api_key;

    if (key == NULL && (request->anthropic_api_key == NULL || own_url))
        key = given(gathering, "OPENROUTER_API_KEY");
    if (key == NULL || (!own_url && uses_other_provider(gathering->environment)))
        return;
    set(gathering, "ANTHROPIC_AUTH_TOKEN", key);
    if (!own_url)
        set(gathering, "ANTHROPIC_BASE_URL", OPENROUTER_URL);
}

/* Foundry reads only its own names. */
static void set_foundry(struct gathering *gathering)
{
    for (size_t i = 0; i < sizeof foundry_names / sizeof *foundry_names; i++) {
        const char *azure = given(gathering, foundry_names[i].azure);

        if (azure != NULL && given(gathering, foundry_names[i].foundry) == NULL)
            set(gathering, foundry_names[i].foundry, azure);
    }
}

json_t *agent_env_build(const struct query_request *request, const struct environment *environment, const char **bad)
{
    struct gathering gathering = {.environment = environment, .env = json_object()};
    const char *key = request->anthropic_api_key;

    if (key == NULL)
        key = given(&gathering, "ANTHROPIC_API_KEY");
    if (key != NULL)
        set(&gathering, "ANTHROPIC_API_KEY", key);
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++) {
        if (given(&gathering, forwarded[i]) != NULL)
            set(&gathering, forwarded[i], given(&gathering, forwarded[i]));
    }
    set_foundry(&gathering);
    set_openrouter(&gathering, request);
    if (json_object_get(gathering.env, "ANTHROPIC_BASE_URL") != NULL &&
        json_object_get(gathering.env, "ANTHROPIC_AUTH_TOKEN") != NULL)
        set(&gathering, "ANTHROPIC_API_KEY", "");
    if (agent_env_uses_vertex(environment))
        set(&gathering, "GOOGLE_APPLICATION_CREDENTIALS", AGENT_VERTEX_KEY_PATH);
    *bad = gathering.bad;
    return gathering.env;
}
