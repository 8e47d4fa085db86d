#include "sandboxd/jail_internal.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* Binds what the descriptor names onto a path. */
static bool bind_fd(int fd, const char *path)
{
    char source[32];

    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
    return mount(source, path, "none", MS_BIND, NULL) == 0;
}

/* Makes an empty file to bind onto. */
static bool make_file(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0444);

    if (fd < 0)
        return false;
    close(fd);
    return true;
}

const char *jail_mounts_prepare(const struct jail_sources *sources)
{
    int init_fd, modules_fd = -1;

    if (unshare(CLONE_NEWNS) < 0)
        return "unshare mounts";
    if (mount("none", "/", "none", MS_REC | MS_SLAVE, NULL) < 0)
        return "make mounts private";
    /* Opened in the new namespace, because a descriptor of the old one cannot be bound here; and before /tmp is
     * covered, because they may lie below it. bwrap itself needs /tmp as a mount point, so it always exists. */
    init_fd = open(sources->init_path, O_PATH | O_CLOEXEC);
    if (init_fd < 0)
        return sources->init_path;
    if (sources->node_modules != NULL) {
        modules_fd = open(sources->node_modules, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (modules_fd < 0)
            return sources->node_modules;
    }
    if (mount("sandbox", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0755") < 0)
        return "tmpfs on /tmp";
    if (!make_file(JAIL_STAGED_INIT) || !bind_fd(init_fd, JAIL_STAGED_INIT))
        return "bind " JAIL_STAGED_INIT;
    if (modules_fd >= 0 &&
        (mkdir(JAIL_STAGED_NODE_MODULES, 0755) < 0 || !bind_fd(modules_fd, JAIL_STAGED_NODE_MODULES)))
        return "bind " JAIL_STAGED_NODE_MODULES;
    return NULL;
}
