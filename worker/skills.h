/*
 * skills: the skills of a project on disk (http-api.md 15.1 skills_dir), held in memory.
 *
 * A tree is looked at once a second (names, sizes, times: nothing is read) and read again only when it changed, from a
 * timer, never in the path of a request. What is read is a set that runs share by reference. When the directory
 * vanishes or cannot be read, the last good set stays in use, with one warning.
 */
#ifndef WORKER_SKILLS_H
#define WORKER_SKILLS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

/* Bounds of a set; a file that goes beyond is skipped with a warning. */
#define SKILL_SET_MAX_BYTES (20u << 20)
#define SKILL_SET_MAX_FILES 2000

struct skill_file {
    char *path;  /* relative to the skill, '/' between its parts */
    char *bytes; /* UTF-8 */
    size_t length;
};

struct skill {
    char *name;               /* [a-zA-Z0-9_-]+ */
    struct skill_file *files; /* SKILL.md is among them */
    size_t file_count;
};

struct skill_set {
    int references;
    struct skill *skills; /* sorted by name, in byte order */
    size_t count;
};

struct skill_tree;

/* Returns its argument. */
const struct skill_set *skill_set_ref(const struct skill_set *set);
void skill_set_unref(const struct skill_set *set); /* NULL is allowed */

/* Reads the directory at once and watches it; dir is absolute, or "" for no skills. NULL for lack of memory. */
struct skill_tree *skill_tree_new(struct event_base *base, const char *dir) __attribute__((warn_unused_result));
void skill_tree_free(struct skill_tree *tree);
/* The newest good set, borrowed; never NULL. */
const struct skill_set *skill_tree_current(const struct skill_tree *tree);
/* Looks at the directory now: what the timer does. */
void skill_tree_check(struct skill_tree *tree);

/* Is it a directory that can be read? If not, *reason says why (a text of libc's). */
bool skills_check(const char *dir, const char **reason) __attribute__((warn_unused_result));

#endif
