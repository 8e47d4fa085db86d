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

/* One view of the template's files and the host's, the former first. Nothing can be written through it. */
static bool lay_over_usr(void)
{
    static const char layers[] = "lowerdir=" JAIL_STAGED_TEMPLATE "/root/usr:/usr";

    return mkdir(JAIL_STAGED_USR, 0755) == 0 &&
           mount("sandbox", JAIL_STAGED_USR, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, layers) == 0;
}

const char *jail_mounts_prepare(const struct jail_sources *sources)
{
    int init_fd, template_fd = -1;

    if (unshare(CLONE_NEWNS) < 0)
        return "unshare mounts";
    if (mount("none", "/", "none", MS_REC | MS_SLAVE, NULL) < 0)
        return "make mounts private";
    /* Opened in the new namespace, because a descriptor of the old one cannot be bound here; and before /tmp is
     * covered, because they may lie below it. bwrap itself needs /tmp as a mount point, so it always exists. */
    init_fd = open(sources->init_path, O_PATH | O_CLOEXEC);
    if (init_fd < 0)
        return sources->init_path;
    if (sources->template_folder != NULL) {
        template_fd = open(sources->template_folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (template_fd < 0)
            return sources->template_folder;
    }
    if (mount("sandbox", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0755") < 0)
        return "tmpfs on /tmp";
    if (!make_file(JAIL_STAGED_INIT) || !bind_fd(init_fd, JAIL_STAGED_INIT))
        return "bind " JAIL_STAGED_INIT;
    if (template_fd >= 0 && (mkdir(JAIL_STAGED_TEMPLATE, 0755) < 0 || !bind_fd(template_fd, JAIL_STAGED_TEMPLATE)))
        return "bind " JAIL_STAGED_TEMPLATE;
    if (sources->has_usr && !lay_over_usr())
        return "overlay of the template's /usr";
    return NULL;
}
