#include "sandboxd/cgroups_internal.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MOUNT "/sys/fs/cgroup"
/* Where the processes of a delegated group go, ourselves among them: only its leaves may hold some. end-workers of
 * systemd/ knows the name. */
#define MAIN_GROUP     "sandstorm.main"
#define MOVE_TRIES_MAX 10

const char *const cgroup_controller_names[CGROUP_CONTROLLERS] = {"memory", "pids", "cpu", "cpuacct"};

bool cgroup_write(const char *group, const char *file, const char *text)
{
    char path[PATH_MAX];
    ssize_t written = -1;
    int fd = -1, error;

    errno = ENAMETOOLONG;
    if (snprintf(path, sizeof path, "%s/%s", group, file) < (int)sizeof path)
        fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    /* A limit of version 1 is not set while a signal is pending, such as that of another sandbox's end. */
    do {
        written = write(fd, text, strlen(text));
    } while (written < 0 && errno == EINTR);
    error = errno;
    close(fd);
    errno = error;
    return written == (ssize_t)strlen(text);
}

bool cgroup_turn_on(const char *group, const bool has[static CGROUP_CONTROLLERS])
{
    char text[64];
    int used = 0;

    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (has[i])
            used += snprintf(text + used, sizeof text - (size_t)used, "+%s ", cgroup_controller_names[i]);
    }
    return cgroup_write(group, "cgroup.subtree_control", text);
}

/* Whether the comma or blank separated list has the word. */
static bool has_word(const char *list, const char *word)
{
    size_t length = strlen(word);

    for (const char *at = list; (at = strstr(at, word)) != NULL; at += length) {
        bool begins = at == list || strchr(", ", at[-1]) != NULL;

        if (begins && strchr(", \n", at[length]) != NULL)
            return true;
    }
    return false;
}

/* Our group in the hierarchy that has this controller, "" for version 2; from /proc/self/cgroup. */
static bool own_group(const char *controller, char group[static PATH_MAX])
{
    char line[PATH_MAX + 128];
    FILE *file = fopen("/proc/self/cgroup", "re");
    bool found = false;

    if (file == NULL)
        return false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        char *controllers = strchr(line, ':');
        char *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');

        if (path == NULL)
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        found = *controller == '\0' ? controllers[1] == '\0' : has_word(controllers + 1, controller);
        /* Outside the namespace that the mount shows: no path leads there. */
        if (found && strstr(path, "/..") != NULL)
            found = false;
        else if (found)
            snprintf(group, PATH_MAX, "%s", strcmp(path, "/") == 0 ? "" : path);
    }
    fclose(file);
    return found;
}

/* --- version 2 ------------------------------------------------------------------------------------ */

/* Whether somebody gave this group to us: systemd marks it, an ordinary user owns it. */
static bool is_delegated(const char *group)
{
    static const char *const marks[] = {"trusted.delegate", "user.delegate"};
    struct stat folder;
    char value;

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (getxattr(group, marks[i], &value, 1) == 1 && value == '1')
            return true;
    }
    return geteuid() != 0 && stat(group, &folder) == 0 && folder.st_uid == geteuid();
}

/* Reads which controllers a group can give to its children; false when none is of use. */
static bool read_controllers(struct cgroup_tree *tree)
{
    char path[PATH_MAX + 32], list[512] = "";
    bool any = false;
    FILE *file;

    snprintf(path, sizeof path, "%s/cgroup.controllers", tree->path);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    if (fgets(list, sizeof list, file) == NULL)
        *list = '\0';
    fclose(file);
    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        tree->has[i] = has_word(list, cgroup_controller_names[i]);
        any = any || tree->has[i];
    }
    return any;
}

/* Moves all processes of a group into its leaf: the service's others came before us. */
static bool move_processes(const char *group)
{
    char path[PATH_MAX + 32], pid[32];
    bool moved = true;
    FILE *file;

    snprintf(path, sizeof path, "%s/" MAIN_GROUP, group);
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return false;
    snprintf(path, sizeof path, "%s/cgroup.procs", group);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    while (moved && fgets(pid, sizeof pid, file) != NULL)
        /* One that has ended meanwhile needs no move. */
        moved = cgroup_write(group, MAIN_GROUP "/cgroup.procs", pid) || errno == ESRCH;
    fclose(file);
    return moved;
}

/* Turns the controllers on below a delegated group. A group with processes refuses: they move, and so do those that
 * were forked meanwhile. */
static bool turn_on_delegated(const struct cgroup_tree *tree)
{
    for (int i = 0; i < MOVE_TRIES_MAX; i++) {
        if (cgroup_turn_on(tree->path, tree->has))
            return true;
        if (errno != EBUSY || !move_processes(tree->path))
            return false;
    }
    return false;
}

/* The group of version 2; false with the reason. */
static bool find_v2(struct cgroup_tree *tree, char reason[static JAIL_ERROR_MAX_BYTES])
{
    static const char leaf[] = "/" MAIN_GROUP;
    char group[PATH_MAX];
    size_t length;
    bool delegated;

    if (!own_group("", group)) {
        snprintf(reason, JAIL_ERROR_MAX_BYTES, "no cgroup in /proc/self/cgroup");
        return false;
    }
    length = strlen(group);
    /* Our parent was moved by the sandboxd before us. */
    if (length >= sizeof leaf - 1 && strcmp(group + length - (sizeof leaf - 1), leaf) == 0)
        group[length - (sizeof leaf - 1)] = '\0';
    snprintf(tree->path, sizeof tree->path, MOUNT "%.*s", (int)(sizeof tree->path - sizeof MOUNT), group);
    delegated = is_delegated(tree->path);
    if (!delegated && geteuid() != 0) {
        snprintf(reason, JAIL_ERROR_MAX_BYTES, "cgroup %.256s is not delegated (Delegate=yes)", tree->path);
        return false;
    }
    if (!delegated)
        strcpy(tree->path, MOUNT);
    tree->is_v2 = true;
    if (!read_controllers(tree)) {
        snprintf(reason, JAIL_ERROR_MAX_BYTES, "cgroup %.256s has none of memory, pids and cpu", tree->path);
        return false;
    }
    if (delegated ? turn_on_delegated(tree) : cgroup_turn_on(tree->path, tree->has))
        return true;
    snprintf(reason, JAIL_ERROR_MAX_BYTES, "cgroup %.256s: %s", tree->path, strerror(errno));
    return false;
}

/* --- version 1 ------------------------------------------------------------------------------------ */

/* Our group of each controller, where we may make others; how many. */
static size_t find_v1(struct cgroup_tree *trees)
{
    size_t count = 0;

    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        struct cgroup_tree *tree = &trees[count];
        char group[PATH_MAX];

        /* cpuacct mostly shares the hierarchy of cpu. */
        if (i == CGROUP_CPUACCT && access(MOUNT "/cpu/cpuacct.usage", F_OK) == 0)
            continue;
        if (!own_group(cgroup_controller_names[i], group))
            continue;
        *tree = (struct cgroup_tree){.is_v2 = false};
        tree->has[i] = true;
        if (snprintf(tree->path, sizeof tree->path, MOUNT "/%s%s", cgroup_controller_names[i], group) <
                (int)sizeof tree->path &&
            access(tree->path, W_OK) == 0)
            count++;
    }
    return count;
}

size_t cgroup_bases_find(struct cgroup_tree trees[static CGROUP_CONTROLLERS], char reason[static JAIL_ERROR_MAX_BYTES])
{
    struct statfs mounted;
    size_t count;

    if (statfs(MOUNT, &mounted) < 0) {
        snprintf(reason, JAIL_ERROR_MAX_BYTES, MOUNT ": %s", strerror(errno));
        return 0;
    }
    if (mounted.f_type == CGROUP2_SUPER_MAGIC)
        return find_v2(&trees[0], reason) ? 1 : 0;
    count = find_v1(trees);
    if (count == 0)
        snprintf(reason, JAIL_ERROR_MAX_BYTES, "no cgroup below " MOUNT " may be written to");
    return count;
}
