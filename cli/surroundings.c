#include "cli/surroundings.h"

#include "common/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_DOMAIN "e2b.app"

bool surroundings_open(struct surroundings *surroundings, const char *command, int argc, char *argv[])
{
    log_open("ds");
    surroundings->load = settings_load(argc, argv, NULL);
    if (surroundings->load == NULL) {
        fprintf(stderr, "%s: %s\n", command, strerror(errno));
        return false;
    }
    surroundings->settings = settings_load_values(surroundings->load);
    surroundings->environment = settings_load_environment(surroundings->load);
    return true;
}

bool surroundings_open_dir(struct surroundings *surroundings, const char *command, const char *project_dir)
{
    char name[] = "ds", option[] = "--project-dir";
    char *dir = strdup(project_dir != NULL ? project_dir : "");
    char *words[] = {name, option, dir, NULL};
    bool usage_error,
        opened = dir != NULL && surroundings_open(surroundings, command, project_dir != NULL ? 3 : 1, words);

    free(dir);
    if (!opened || *settings_load_errors(surroundings->load, &usage_error) == '\0')
        return opened;
    fputs(settings_load_errors(surroundings->load, &usage_error), stderr);
    surroundings_close(surroundings);
    return false;
}

void surroundings_close(struct surroundings *surroundings)
{
    settings_load_free(surroundings->load);
}

bool surroundings_open_e2b(const struct surroundings *surroundings, const char *command, const char *key,
                           struct endpoint *endpoint)
{
    const char *domain = environment_value(surroundings->environment, "E2B_DOMAIN");
    const char *url = environment_value(surroundings->environment, "E2B_API_URL");
    char *made = NULL, *header = NULL;
    bool opened = false;

    *endpoint = (struct endpoint){.command = command};
    if (asprintf(&made, "https://api.%s", domain != NULL ? domain : DEFAULT_DOMAIN) >= 0 &&
        asprintf(&header, "X-API-KEY: %s", key) >= 0)
        opened = endpoint_open_url(endpoint, command, url != NULL ? url : made, header) &&
                 endpoint_set_route(endpoint, surroundings->settings->ca_file, surroundings->settings->proxy);
    free(made);
    free(header);
    return opened;
}

/* NULL with an error when it cannot be had. */
static json_t *load_project(const struct settings *settings, json_error_t *error)
{
    char *path = NULL;
    json_t *project = NULL;

    if (asprintf(&path, "%s/sandstorm.json", *settings->project_dir != '\0' ? settings->project_dir : ".") >= 0)
        project = json_load_file(path, JSON_ALLOW_NUL, error);
    free(path);
    return project;
}

json_t *surroundings_read_project(const struct surroundings *surroundings, const char *command)
{
    json_error_t error = {.line = -1};
    json_t *project = load_project(surroundings->settings, &error);

    if (json_is_object(project))
        return project;
    if (project != NULL)
        fprintf(stderr, "%s: sandstorm.json is no JSON object\n", command);
    else if (error.line > 0)
        fprintf(stderr, "%s: sandstorm.json: line %d: %s\n", command, error.line, error.text);
    else
        fprintf(stderr, "%s: %s\n", command, *error.text != '\0' ? error.text : strerror(ENOMEM));
    json_decref(project);
    return NULL;
}

bool surroundings_are_local(const struct surroundings *surroundings)
{
    enum runtime_choice choice = (enum runtime_choice)surroundings->settings->runtime;
    json_t *project = choice == RUNTIME_AUTO ? load_project(surroundings->settings, NULL) : NULL;
    const char *provider = json_string_value(json_object_get(json_object_get(project, "runtime"), "provider"));
    bool is_local = choice == RUNTIME_LOCAL;

    if (choice == RUNTIME_AUTO)
        is_local = provider != NULL ? strcmp(provider, "local") == 0
                                    : environment_value(surroundings->environment, "E2B_API_KEY") == NULL;
    json_decref(project);
    return is_local;
}
