#include "master/listen_unix.h"

#include "common/log.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MODE_MAX        0777
#define OWNER_MAX_BYTES 128
#define NO_ID           ((unsigned)-1)

/* An octal number of at most 0777. */
static bool parse_mode(const char *text, mode_t *mode)
{
    char *end;
    unsigned long value = strtoul(text, &end, 8);

    *mode = (mode_t)value;
    return *text >= '0' && *text <= '7' && *end == '\0' && value <= MODE_MAX;
}

/* "user", "user:group" or ":group"; NO_ID: it stays as it is. False when one is not known. */
static bool parse_owner(const char *text, uid_t *user, gid_t *group)
{
    char name[OWNER_MAX_BYTES];
    char *colon;
    const struct passwd *found_user;
    const struct group *found_group;

    *user = *group = NO_ID;
    snprintf(name, sizeof name, "%s", text);
    colon = strchr(name, ':');
    if (colon != NULL)
        *colon++ = '\0';
    if (*name != '\0') {
        if ((found_user = getpwnam(name)) == NULL)
            return false;
        *user = found_user->pw_uid;
    }
    if (colon != NULL && *colon != '\0') {
        if ((found_group = getgrnam(colon)) == NULL)
            return false;
        *group = found_group->gr_gid;
    }
    return true;
}

bool listen_unix_check(const struct settings *settings)
{
    mode_t mode;
    uid_t user;
    gid_t group;
    bool good = parse_mode(settings->unix_mode, &mode);

    if (!good)
        log_error("setting unix_mode: \"%s\" is not an octal mode from 0 to 0777", settings->unix_mode);
    if (parse_owner(settings->unix_owner, &user, &group))
        return good;
    log_error("setting unix_owner: \"%s\": no such user or group", settings->unix_owner);
    return false;
}

/* Does somebody answer there? */
static bool is_served(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool refused = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 &&
                   (errno == ECONNREFUSED || errno == ENOENT);

    if (fd >= 0)
        close(fd);
    return !refused;
}

bool listen_unix_clear(const struct sockaddr_un *address)
{
    struct stat status;

    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT;
    if (!S_ISSOCK(status.st_mode)) {
        errno = EEXIST;
        return false;
    }
    if (is_served(address)) {
        errno = EADDRINUSE;
        return false;
    }
    log_info("removing the stale socket %s", address->sun_path);
    return unlink(address->sun_path) == 0;
}

/* Nobody can connect before listen(): by then mode and owner are what they are to be. */
static bool bind_guarded(int fd, const struct sockaddr_un *address, const struct settings *settings)
{
    mode_t mode = 0, before;
    uid_t user;
    gid_t group;
    bool good;

    if (!parse_mode(settings->unix_mode, &mode) || !parse_owner(settings->unix_owner, &user, &group)) {
        errno = EINVAL;
        return false;
    }
    before = umask(0777);
    good = bind(fd, (const struct sockaddr *)address, sizeof *address) == 0;
    umask(before);
    return good && ((user == NO_ID && group == NO_ID) || lchown(address->sun_path, user, group) == 0) &&
           chmod(address->sun_path, mode) == 0;
}

int listen_unix_open(const char *path, const struct settings *settings, struct listener *about)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    int fd, saved_errno;

    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    if (!listen_unix_clear(&address))
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind_guarded(fd, &address, settings) && lstat(path, &status) == 0) {
        about->device = status.st_dev;
        about->inode = status.st_ino;
        if (listen(fd, (int)settings->backlog) == 0)
            return fd;
    }
    saved_errno = errno;
    if (fd >= 0)
        close(fd);
    listen_unix_remove(about);
    errno = saved_errno;
    return -1;
}

void listen_unix_remove(const struct listener *about)
{
    const char *path = strchr(about->item, ':') + 1;
    struct stat status;

    if (about->inode != 0 && lstat(path, &status) == 0 && status.st_ino == about->inode &&
        status.st_dev == about->device && unlink(path) < 0)
        log_warn("cannot remove %s: %s", path, strerror(errno));
}
