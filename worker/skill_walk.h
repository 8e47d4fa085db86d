/*
 * skill_walk: goes through the skills directory (http-api.md 15.1) in a fixed order and shows what is there.
 *
 * Opens directories only: what a file holds is the visitor's business. A link is followed when what it leads to lies
 * inside the skill (for a link that stands for a skill: inside the skills directory). Nothing but directories and
 * regular files is ever opened, so no FIFO can hold the caller. A tree that changes meanwhile gives a mixture, never
 * harm.
 */
#ifndef WORKER_SKILL_WALK_H
#define WORKER_SKILL_WALK_H

#include <stdbool.h>
#include <sys/stat.h>

/* Every skill must have one. */
#define SKILL_MAIN_FILE "SKILL.md"

/* Bounds of one walk; what goes beyond is skipped. Paths are relative to the skills directory. */
#define SKILL_DEPTH_MAX      20
#define SKILL_ENTRIES_MAX    20000
#define SKILL_PATH_MAX_BYTES 4000

struct skill_entry {
    const char *path; /* relative to the skills directory: "<skill>/<relative path>" */
    int at;           /* an open directory that holds `name`; with name NULL the entry itself, opened with O_PATH */
    const char *name;
    struct stat status; /* of what a link leads to */
};

/* Each may be NULL. */
struct skill_visitor {
    /* Whatever was looked at, for a link also what it leads to. */
    void (*on_status)(void *context, const char *path, const struct stat *status);
    /* A regular file of a directory that has the name and the main file of a skill; skill after skill. */
    void (*on_file)(void *context, const struct skill_entry *entry);
    void (*on_skip)(void *context, const char *path, const char *reason);
    void *context;
};

/* 0, or errno: the directory cannot be read, or this process lacks memory or descriptors. What was shown is then void.
 */
int skill_walk(const char *dir, const struct skill_visitor *visitor) __attribute__((warn_unused_result));
/* Opens a regular file for reading, or gives -1 with errno; ENOENT also for what is no regular file any more. */
int skill_entry_open(const struct skill_entry *entry) __attribute__((warn_unused_result));
/* Does this errno tell of the process (memory, descriptors)? Then nothing can be said about the tree. */
bool skill_failure_is_ours(int error);

#endif
