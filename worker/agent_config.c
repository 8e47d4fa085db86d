#include "worker/agent_config.h"

#include "common/log.h"
#include "worker/agent_env.h"
#include "worker/memory_watch.h"
#include "worker/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUNNER_MAX_BYTES     (1 << 20)
#define RUNNER_PATH          "/opt/agent-runner/runner.mjs"
#define SKILLS_PATH          AGENT_HOME "/.claude/skills"
#define SETTINGS_PATH        AGENT_HOME "/.claude/settings.json"
#define VERTEX_KEY_MAX_BYTES (64 << 10)
/* Experimental headers break some providers; without skills nothing needs them (6.6). */
#define SETTINGS_TEXT                                                                                                  \
    "{\"permissions\":{\"allow\":[],\"deny\":[]},\"env\":{\"CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS\":\"1\"}}"
#define SETTINGS_TEXT_WITH_SKILLS "{\"permissions\":{\"allow\":[],\"deny\":[]}}"
#define OWN_FILES                 4
#define VERTEX_KEY_HELP           "set it to a service account's key file: UTF-8, at most 64 KiB"

/* --- small files ----------------------------------------------------------------------------------------- */

/* A regular file of at most `max` bytes, terminated; NULL with errno. A FIFO would block. */
static char *read_small_file(int directory, const char *path, size_t max, size_t *length)
{
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    char *bytes = NULL;
    ssize_t got = -1;

    if (fd < 0)
        return NULL;
    errno = EINVAL;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0 && (size_t)status.st_size <= max) {
        bytes = malloc((size_t)status.st_size + 1);
        got = bytes != NULL ? read(fd, bytes, (size_t)status.st_size) : -1;
    }
    close(fd);
    if (bytes == NULL || got != status.st_size) {
        free(bytes);
        return NULL;
    }
    bytes[got] = '\0';
    *length = (size_t)got;
    return bytes;
}

bool agent_runner_load(struct agent_runner *runner, const char *path)
{
    *runner = (struct agent_runner){0};
    runner->bytes = read_small_file(AT_FDCWD, path, RUNNER_MAX_BYTES, &runner->length);
    if (runner->bytes != NULL)
        return true;
    log_error("cannot read the agent's runner %s (setting agent_runner): %s", path, strerror(errno));
    return false;
}

void agent_runner_release(struct agent_runner *runner)
{
    free(runner->bytes);
    *runner = (struct agent_runner){0};
}

/* --- files ----------------------------------------------------------------------------------------------- */

static void add_file(struct agent_config *config, const char *path, const char *bytes, size_t length)
{
    config->files[config->file_count++] = (struct e2b_file){.path = path, .bytes = bytes, .length = length};
}

/* Files of one skill: its own tree, or the one SKILL.md of an extra skill. */
static void add_skill_file(struct agent_config *config, json_t *taken, const char *skill, const char *relative,
                           const char *bytes, size_t length)
{
    char *path;

    if (asprintf(&path, "%s/%s/%s", SKILLS_PATH, skill, relative) < 0) {
        memory_note_refusal();
        return;
    }
    config->paths[config->path_count++] = path;
    if (json_object_get(taken, path) == NULL)
        add_file(config, path, bytes, length);
}

/* Does this skill of the disk go into the sandbox? */
static bool is_wanted(const struct agent_sources *sources, const char *name)
{
    return !sources->project->template_skills && name_is_allowed(sources->request->allowed_skills, name) &&
           json_object_get(sources->request->extra_skills, name) == NULL;
}

/* The skills on disk, then those of the request; *any tells that there is one. */
static void add_skills(struct agent_config *config, const struct agent_sources *sources, json_t *taken, bool *any)
{
    const struct query_request *request = sources->request;
    const char *name;
    json_t *text;

    for (size_t i = 0; i < sources->skills->count; i++) {
        const struct skill *skill = &sources->skills->skills[i];

        if (!is_wanted(sources, skill->name))
            continue;
        *any = true;
        for (size_t j = 0; j < skill->file_count; j++)
            add_skill_file(config, taken, skill->name, skill->files[j].path, skill->files[j].bytes,
                           skill->files[j].length);
    }
    json_object_foreach(request->extra_skills, name, text)
    {
        if (!name_is_allowed(request->allowed_skills, name))
            continue;
        *any = true;
        add_skill_file(config, taken, name, "SKILL.md", json_string_value(text), json_string_length(text));
    }
}

/* The request's files, but for those that would stand in the place of ours. */
static void add_request_files(struct agent_config *config, const struct agent_sources *sources)
{
    const char *path;
    json_t *content;

    json_object_foreach(sources->request->files, path, content)
    {
        char *full;

        if (asprintf(&full, "%s/%s", AGENT_HOME, path) < 0) {
            memory_note_refusal();
            break;
        }
        config->paths[config->path_count++] = full;
        if (strcmp(full, SETTINGS_PATH) != 0 &&
            !(config->vertex_key != NULL && strcmp(full, AGENT_VERTEX_KEY_PATH) == 0))
            add_file(config, full, json_string_value(content), json_string_length(content));
    }
}

/* The paths that skills may not have: ours and the request's. */
static json_t *taken_paths(const struct agent_sources *sources)
{
    json_t *taken = json_object();
    const char *path;
    json_t *content;

    json_object_foreach(sources->request->files, path, content)
    {
        char *full;

        if (asprintf(&full, "%s/%s", AGENT_HOME, path) < 0) {
            memory_note_refusal();
            break;
        }
        json_object_set(taken, full, content);
        free(full);
    }
    return taken;
}

/* How many files there may be at most. */
static size_t count_files(const struct agent_sources *sources)
{
    size_t count =
        json_object_size(sources->request->files) + json_object_size(sources->request->extra_skills) + OWN_FILES;

    for (size_t i = 0; i < sources->skills->count; i++)
        count += sources->skills->skills[i].file_count;
    return count;
}

/* --- Vertex ---------------------------------------------------------------------------------------------- */

/* Reads what GOOGLE_APPLICATION_CREDENTIALS names. The path is the operator's: it stands in the log only. */
static bool read_vertex_key(struct agent_config *config, const struct agent_sources *sources)
{
    const char *path = environment_value(sources->environment, "GOOGLE_APPLICATION_CREDENTIALS");
    int directory;
    size_t length = 0;

    if (path == NULL) {
        config->error = strdup("Vertex needs GOOGLE_APPLICATION_CREDENTIALS: " VERTEX_KEY_HELP);
        return false;
    }
    directory = open(sources->project_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    config->vertex_key = read_small_file(directory, path, VERTEX_KEY_MAX_BYTES, &length);
    if (directory >= 0)
        close(directory);
    if (config->vertex_key != NULL && utf8_is_valid(config->vertex_key, length) && strlen(config->vertex_key) == length)
        return true;
    log_error("GOOGLE_APPLICATION_CREDENTIALS: cannot use %s: %s", path,
              config->vertex_key == NULL ? strerror(errno) : "not UTF-8");
    config->error = strdup("the file named by GOOGLE_APPLICATION_CREDENTIALS cannot be used: " VERTEX_KEY_HELP);
    return false;
}

/* --- all of it ------------------------------------------------------------------------------------------- */

static bool build_env(struct agent_config *config, const struct agent_sources *sources)
{
    const char *bad = NULL;

    config->env = agent_env_build(sources->request, sources->environment, &bad);
    if (bad != NULL && asprintf(&config->error, "environment variable %s is not UTF-8 text", bad) < 0)
        config->error = NULL;
    return config->env != NULL && bad == NULL;
}

static bool build_options(struct agent_config *config, const struct agent_sources *sources, bool has_skills)
{
    const struct agent_options options = {.request = sources->request,
                                          .project = sources->project,
                                          .environment = sources->environment,
                                          .timeout_s = sources->timeout_s,
                                          .has_skills = has_skills};

    config->options = evbuffer_new();
    return config->options != NULL && agent_options_write(&options, config->options, &config->error);
}

/* In the order of http-api.md 6.5: the configuration is last, its age tells what the agent wrote. */
bool agent_config_build(struct agent_config *config, const struct agent_sources *sources)
{
    size_t count = count_files(sources);
    bool has_skills = sources->project->template_skills;
    unsigned long refusals = memory_refusals();
    const char *settings;
    json_t *taken;

    *config = (struct agent_config){.skills = skill_set_ref(sources->skills)};
    config->files = calloc(count, sizeof *config->files);
    config->paths = calloc(count, sizeof *config->paths);
    if (config->files == NULL || config->paths == NULL || !build_env(config, sources))
        return false;
    if (agent_env_uses_vertex(sources->environment) && !read_vertex_key(config, sources))
        return false;
    taken = taken_paths(sources);
    add_skills(config, sources, taken, &has_skills);
    json_decref(taken);
    add_request_files(config, sources);
    if (memory_refusals() != refusals)
        return false;
    settings = has_skills ? SETTINGS_TEXT_WITH_SKILLS : SETTINGS_TEXT;
    add_file(config, SETTINGS_PATH, settings, strlen(settings));
    if (config->vertex_key != NULL)
        add_file(config, AGENT_VERTEX_KEY_PATH, config->vertex_key, strlen(config->vertex_key));
    add_file(config, RUNNER_PATH, sources->runner->bytes, sources->runner->length);
    config->has_skills = has_skills;
    if (!build_options(config, sources, has_skills))
        return false;
    add_file(config, AGENT_CONFIG_PATH, (const char *)evbuffer_pullup(config->options, -1),
             evbuffer_get_length(config->options));
    return memory_refusals() == refusals;
}

void agent_config_release(struct agent_config *config)
{
    json_decref(config->env);
    for (size_t i = 0; i < config->path_count; i++)
        free(config->paths[i]);
    free(config->paths);
    free(config->files);
    skill_set_unref(config->skills);
    if (config->vertex_key != NULL)
        explicit_bzero(config->vertex_key, strlen(config->vertex_key));
    free(config->vertex_key);
    if (config->options != NULL)
        evbuffer_free(config->options);
    free(config->error);
    *config = (struct agent_config){0};
}
