/*
 * privileges: whom the workers run as. A master that was started as root binds and keeps root, for its next start of a
 * local runtime and for keys that only root can read; everything that handles what clients send runs as the settings
 * user and group. Without root there is nothing to give up, and the two settings have no effect.
 */
#ifndef MASTER_PRIVILEGES_H
#define MASTER_PRIVILEGES_H

#include "common/settings.h"

#include <stdbool.h>
#include <sys/types.h>

#define PRIVILEGES_GROUPS_MAX 64

struct privileges {
    bool are_dropped; /* false: workers run as the master does */
    uid_t uid;
    gid_t gid;
    gid_t groups[PRIVILEGES_GROUPS_MAX];
    int group_count;
};

/* Looks the names up. False after a log line. */
bool privileges_resolve(struct privileges *privileges, const struct settings *settings)
    __attribute__((warn_unused_result));
/* A server of root's has to be told whom its workers run as, be it root. False after a log line. */
bool privileges_are_told(const struct settings *settings) __attribute__((warn_unused_result));

/*
 * In a fresh child, for good: no new privileges, and if they are dropped, another user, and no core or debugger that
 * would show its keys. Exits after a log line when that fails.
 */
void privileges_enter(const struct privileges *privileges);

/* Makes what an open descriptor names the workers' own. A failure is a warning that names it so. */
void privileges_give(const struct privileges *privileges, int fd, const char *name);
/* Likewise the logs: files are made if they do not exist; standard error, if it is one. */
void privileges_give_logs(const struct privileges *privileges, const struct settings *settings);

#endif
