/*
 * template: folders that sandboxes are made from, one a name in the template directory.
 *
 *   NAME/node_modules   what a sandbox sees as /opt/agent-runner/node_modules, read-only
 *   NAME/root/usr       laid over the host's /usr
 *   NAME/root/etc/X     /etc/X, read-only
 *   NAME/root/opt/X     /opt/X, read-only
 *   NAME/.manifest      what it was made of, by template_build()
 *
 * Each part may be missing. Names that begin with a dot are a build's own.
 */
#ifndef SANDBOXD_TEMPLATE_H
#define SANDBOXD_TEMPLATE_H

#include <limits.h>
#include <stdbool.h>

#define TEMPLATE_NAME_MAX_BYTES 128
/* Exists without a folder: the host's /usr and nothing else. */
#define TEMPLATE_BASE "base"
/* The agent's; built from its lock file where nothing else is said. */
#define TEMPLATE_AGENT    "sandstorm"
#define TEMPLATE_MANIFEST ".manifest"

/* Whether a name, in lower case, can be a template's: [a-z0-9._-], no dot in front. */
bool template_name_is_valid(const char *name) __attribute__((warn_unused_result));

/* Finds a template's folder; path is "" for a base without one. dir may be NULL. false when there is none. */
bool template_find(const char *dir, const char *name, char path[static PATH_MAX]) __attribute__((warn_unused_result));

/* Whether the sandbox, not a template, decides what a path is: /etc/passwd, /opt/agent-runner and the like. */
bool template_path_is_reserved(const char *path) __attribute__((warn_unused_result));

#endif
