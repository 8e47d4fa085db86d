/*
 * surroundings: what a server started here would have: its settings and the environment with the project's `.env`
 * (common/settings.h). For the commands that prepare or examine a server.
 */
#ifndef CLI_SURROUNDINGS_H
#define CLI_SURROUNDINGS_H

#include "cli/http.h"
#include "common/settings.h"

struct surroundings {
    struct settings_load *load;
    const struct settings *settings;
    struct environment *environment;
};

/* argv[0] is not looked at. False after a message. Errors of settings are settings_load_errors(). */
bool surroundings_open(struct surroundings *surroundings, const char *command, int argc, char *argv[])
    __attribute__((warn_unused_result));
/* Of a folder, NULL: the one the settings say. False after a message, also about errors of settings. */
bool surroundings_open_dir(struct surroundings *surroundings, const char *command, const char *project_dir)
    __attribute__((warn_unused_result));
void surroundings_close(struct surroundings *surroundings);

/* The sandbox service's control API, with this key. False after a message. */
bool surroundings_open_e2b(const struct surroundings *surroundings, const char *command, const char *key,
                           struct endpoint *endpoint) __attribute__((warn_unused_result));

/* sandstorm.json, an object. NULL after a message. */
json_t *surroundings_read_project(const struct surroundings *surroundings, const char *command)
    __attribute__((warn_unused_result));

/* Local sandboxes: by the settings, sandstorm.json, or for lack of an E2B key (http-api.md 3.5). */
bool surroundings_are_local(const struct surroundings *surroundings);

#endif
