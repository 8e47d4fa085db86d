/*
 * project_store: the last good sandstorm.json of a generation of workers, in memory they share.
 *
 * A worker that is started while the file is broken or gone goes on with what the others use (http-api.md 15.1). Made
 * by the master before it forks, put by whoever took a new version, got by a worker that starts.
 */
#ifndef COMMON_PROJECT_STORE_H
#define COMMON_PROJECT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROJECT_STORE_MAX_BYTES (1 << 20)

struct project_store;

/* NULL with errno. Costs address space only, until something is put. */
struct project_store *project_store_new(void) __attribute__((warn_unused_result));
void project_store_free(struct project_store *store); /* NULL is allowed */

/* text NULL: good is to have no file. provider: enum runtime_choice of the version, which counts of the first one only.
 */
void project_store_put(struct project_store *store, const char *text, size_t length, int provider);

/*
 * What was put last: false when nothing was, or without memory. *text is the caller's to free, NULL when good is to
 * have no file.
 */
bool project_store_get(struct project_store *store, char **text, size_t *length) __attribute__((warn_unused_result));

/* As project_store_get() of what was put first: what a generation does not change while it lives. */
bool project_store_get_first(struct project_store *store, char **text, size_t *length)
    __attribute__((warn_unused_result));

/*
 * Is it news? True for the first process that asks with this number in a row: the one who tells the log of a version of
 * the file, good or bad. Numbers are not 0.
 */
bool project_store_is_news(struct project_store *store, uint64_t number) __attribute__((warn_unused_result));

/*
 * enum runtime_choice of what was put first, RUNTIME_AUTO when nothing was: a generation keeps the runtime it began
 * with, the master has started what that needs.
 */
int project_store_provider(const struct project_store *store);

#endif
