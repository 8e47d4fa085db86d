#include "master/privileges.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_FILE_MODE 0640

static bool tell_unknown(const char *setting, const char *name)
{
    log_error("setting %s: %s: %s", setting, name, errno != 0 ? strerror(errno) : "there is none of that name");
    return false;
}

/* The user, its groups, and its own group as the default of the setting. */
static bool resolve_user(struct privileges *privileges, const char *name)
{
    const struct passwd *user;

    errno = 0;
    user = getpwnam(name);
    if (user == NULL)
        return tell_unknown("user", name);
    privileges->uid = user->pw_uid;
    privileges->gid = user->pw_gid;
    privileges->group_count = PRIVILEGES_GROUPS_MAX;
    if (getgrouplist(name, user->pw_gid, privileges->groups, &privileges->group_count) >= 0)
        return true;
    log_error("setting user: %s is in more than %d groups", name, PRIVILEGES_GROUPS_MAX);
    return false;
}

static bool resolve_group(struct privileges *privileges, const char *name)
{
    const struct group *group;

    if (*name == '\0')
        return true;
    errno = 0;
    group = getgrnam(name);
    if (group == NULL)
        return tell_unknown("group", name);
    privileges->gid = group->gr_gid;
    return true;
}

bool privileges_resolve(struct privileges *privileges, const struct settings *settings)
{
    *privileges = (struct privileges){.are_dropped = false};
    if (geteuid() != 0 || *settings->user == '\0')
        return true;
    if (!resolve_user(privileges, settings->user) || !resolve_group(privileges, settings->group))
        return false;
    privileges->are_dropped = privileges->uid != 0;
    return true;
}

bool privileges_are_told(const struct settings *settings)
{
    if (geteuid() != 0 || *settings->user != '\0')
        return true;
    log_error("started as root: set user to whom the workers run as (--user NAME); --user root if it must be root");
    return false;
}

static bool change_user(const struct privileges *privileges)
{
    return setgroups((size_t)privileges->group_count, privileges->groups) == 0 &&
           setresgid(privileges->gid, privileges->gid, privileges->gid) == 0 &&
           setresuid(privileges->uid, privileges->uid, privileges->uid) == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0;
}

void privileges_enter(const struct privileges *privileges)
{
    if ((!privileges->are_dropped || change_user(privileges)) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        return;
    log_error("cannot give up privileges: %s", strerror(errno));
    _exit(EXIT_FAILURE);
}

void privileges_give(const struct privileges *privileges, int fd, const char *name)
{
    if (privileges->are_dropped && fchown(fd, privileges->uid, privileges->gid) < 0)
        log_warn("cannot make %s the workers' own: %s", name, strerror(errno));
}

/* "": standard error. */
static void give_log(const struct privileges *privileges, const char *path)
{
    int fd = *path != '\0'
                 ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, LOG_FILE_MODE)
                 : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    struct stat status;

    if (fd < 0)
        return; /* whoever writes there says so */
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        privileges_give(privileges, fd, *path != '\0' ? path : "the log");
    close(fd);
}

void privileges_give_logs(const struct privileges *privileges, const struct settings *settings)
{
    const char *access_log = settings_access_log_file(settings);

    if (!privileges->are_dropped)
        return;
    give_log(privileges, settings->log_file);
    if (*access_log != '\0')
        give_log(privileges, access_log);
}
