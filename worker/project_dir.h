/*
 * project_dir: the project directory as runs see it: sandstorm.json, `.env` and the skills, each read again only when
 * it changed (http-api.md section 15).
 *
 * What is broken leaves the last good version in use, with one warning per version.
 */
#ifndef WORKER_PROJECT_DIR_H
#define WORKER_PROJECT_DIR_H

#include "common/environment.h"
#include "common/project_store.h"
#include "worker/project.h"
#include "worker/skills.h"
#include "worker/trigger.h"

#include <event2/event.h>

struct project_dir;

/* What one run is configured with: references, kept to its end. */
struct project_view {
    struct project *project;
    struct environment *environment;
    const struct skill_set *skills;
};

/*
 * Reads everything. While sandstorm.json is broken or gone, what is in the store counts; without that, no
 * configuration. While `.env` cannot be read, environment does. NULL for lack of memory.
 */
struct project_dir *project_dir_new(struct event_base *base, const char *path, struct project_store *store,
                                    struct environment *environment) __attribute__((warn_unused_result));
void project_dir_free(struct project_dir *dir); /* NULL is allowed */

/* As it is now: two stat(2) when nothing changed. The view is to be released. */
struct project_view project_dir_look(struct project_dir *dir);
void project_view_release(struct project_view *view);

/* The triggers this generation of workers began with, and where it wants to be told of sandboxes: "" is nowhere. */
const struct trigger_set *project_dir_triggers(const struct project_dir *dir);
const char *project_dir_webhook_url(const struct project_dir *dir);
/* runtime.provider of sandstorm.json as this generation of workers began with it. */
enum runtime_choice project_dir_runtime(const struct project_dir *dir);
const char *project_dir_path(const struct project_dir *dir);
/* Is the newest sandstorm.json the one in use? */
bool project_dir_is_current(const struct project_dir *dir);

/*
 * For a start or a reload: is everything in the directory good, with the variables of this environment? Faults are
 * logged, each with file, field and reason. What is good is put into the store.
 */
bool project_dir_check(const char *path, const struct environment *environment, struct project_store *store)
    __attribute__((warn_unused_result));

#endif
