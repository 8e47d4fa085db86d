#include "master/listen_inherited.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_FD   3
#define PROXY_NAME "proxy_protocol"

/* A variable as a whole number; -1: not set, or none. */
static long number_of(const char *name)
{
    const char *text = getenv(name);
    char *end;
    long value;

    if (text == NULL || *text < '0' || *text > '9')
        return -1;
    errno = 0;
    value = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' ? value : -1;
}

static int option_of(int fd, int option)
{
    int value = -1;
    socklen_t size = sizeof value;

    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

/* What is wrong with it; NULL: nothing. */
static const char *fault_of(int fd)
{
    int domain = option_of(fd, SO_DOMAIN);

    if (fcntl(fd, F_GETFD) < 0)
        return "is not open";
    if (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX)
        return "is no socket for TCP or of a path";
    if (option_of(fd, SO_TYPE) != SOCK_STREAM)
        return "is no stream socket";
    if (option_of(fd, SO_ACCEPTCONN) != 1)
        return "does not listen";
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        return strerror(errno);
    return NULL;
}

/* Is the name at this place of a list separated by colons the one? */
static bool is_named(const char *names, size_t index, const char *name)
{
    for (; index > 0 && names != NULL; index--) {
        names = strchr(names, ':');
        names = names != NULL ? names + 1 : NULL;
    }
    return names != NULL && strcspn(names, ":") == strlen(name) && strncmp(names, name, strlen(name)) == 0;
}

static bool take(struct listeners *listeners, long count, const char *names)
{
    for (int fd = FIRST_FD; fd < FIRST_FD + (int)count; fd++) {
        const char *fault = fault_of(fd);

        if (fault != NULL) {
            log_error("LISTEN_FDS=%ld: descriptor %d %s", count, fd, fault);
            return false;
        }
        listeners->about[listeners->count] =
            (struct listener){.has_proxy_header = is_named(names, listeners->count, PROXY_NAME)};
        listeners->fds[listeners->count++] = fd;
    }
    return true;
}

bool listen_inherited(struct listeners *listeners)
{
    long count = number_of("LISTEN_FDS");
    bool good = true;

    if (getenv("LISTEN_FDS") == NULL || number_of("LISTEN_PID") != (long)getpid())
        return true;
    if (count < 1 || count > LISTEN_MAX) {
        log_error("LISTEN_FDS=%s: expected 1 to %d sockets", getenv("LISTEN_FDS"), LISTEN_MAX);
        good = false;
    } else {
        good = take(listeners, count, getenv("LISTEN_FDNAMES"));
    }
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDNAMES");
    return good;
}
