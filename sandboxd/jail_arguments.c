#include "sandboxd/jail_internal.h"

#include "sandboxd/template.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB             (1024ULL * 1024)
#define TMP_BYTES       (256 * MIB)
#define SHM_BYTES       (64 * MIB)
#define OPT_BYTES       (64 * MIB)
#define VAR_TMP_BYTES   (64 * MIB)
#define RUN_BYTES       (4 * MIB)
#define SIZE_TEXT_BYTES 24

/* Options without a value of their own for each sandbox. */
static const char *const isolation[] = {"--unshare-user",
                                        "--unshare-ipc",
                                        "--unshare-pid",
                                        "--unshare-uts",
                                        "--unshare-cgroup",
                                        "--unshare-net",
                                        "--uid",
                                        "1000",
                                        "--gid",
                                        "1000",
                                        "--hostname",
                                        "sandbox",
                                        "--die-with-parent",
                                        "--new-session",
                                        "--as-pid-1",
                                        "--cap-drop",
                                        "ALL",
                                        "--disable-userns",
                                        "--clearenv"};

/* The read-only system, but for /usr. */
static const char *const system_mounts[] = {"--symlink",
                                            "usr/bin",
                                            "/bin",
                                            "--symlink",
                                            "usr/sbin",
                                            "/sbin",
                                            "--symlink",
                                            "usr/lib",
                                            "/lib",
                                            "--symlink",
                                            "usr/lib64",
                                            "/lib64",
                                            "--proc",
                                            "/proc",
                                            "--dev",
                                            "/dev",
                                            "--dir",
                                            "/etc/ssl",
                                            "--ro-bind-try",
                                            "/etc/ssl/certs",
                                            "/etc/ssl/certs",
                                            "--ro-bind-try",
                                            "/etc/ssl/openssl.cnf",
                                            "/etc/ssl/openssl.cnf",
                                            "--ro-bind-try",
                                            "/etc/alternatives",
                                            "/etc/alternatives",
                                            "--ro-bind-try",
                                            "/etc/ld.so.cache",
                                            "/etc/ld.so.cache",
                                            "--ro-bind-try",
                                            "/etc/localtime",
                                            "/etc/localtime"};

/* What can be written: sized, private, in memory. A size of 0 stands for the disk limit. */
static const struct {
    const char *path;
    const char *permissions;
    unsigned long long bytes;
} writable[] = {
    {"/tmp", "1777", TMP_BYTES}, {"/dev/shm", "1777", SHM_BYTES}, {"/var/tmp", "1777", VAR_TMP_BYTES},
    {"/opt", "0755", OPT_BYTES}, {"/run", "0755", RUN_BYTES},     {JAIL_HOME, "0755", 0},
};

/* The few files of /etc that programs look for; none of the host's. */
static const struct {
    const char *path;
    const char *text;
} etc_files[] = {
    {"/etc/passwd", "root:x:0:0:root:/root:/usr/sbin/nologin\n"
                    "user:x:1000:1000:user:/home/user:/bin/bash\n"
                    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"},
    {"/etc/group", "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n"},
    {"/etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"},
    {"/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"},
    /* Names are resolved outside, by the gate. */
    {"/etc/resolv.conf", "options attempts:1 timeout:1\n"},
};

/* bwrap's root and its /dev are tmpfs without a size: closed last. */
static const char *const closing[] = {"--remount-ro", "/dev", "--remount-ro", "/", "--chdir", JAIL_HOME};

#define END          ((const char *)NULL)
#define COUNT(table) (sizeof(table) / sizeof *(table))

/* A memfd that holds the bytes, read from its start; -1 with errno. */
static int memfd_of(const char *name, const void *bytes, size_t length)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    if (fd < 0)
        return -1;
    if (write(fd, bytes, length) != (ssize_t)length || lseek(fd, 0, SEEK_SET) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Adds arguments, up to END. */
static void put(FILE *out, ...)
{
    va_list list;
    const char *argument;

    va_start(list, out);
    while ((argument = va_arg(list, const char *)) != NULL)
        fwrite(argument, 1, strlen(argument) + 1, out);
    va_end(list);
}

static void put_table(FILE *out, const char *const *table, size_t count)
{
    for (size_t i = 0; i < count; i++)
        put(out, table[i], END);
}

/* Adds an option that takes a descriptor with these bytes; false with errno. */
static bool put_bytes(FILE *out, struct jail_arguments *arguments, const char *option, const void *bytes, size_t length)
{
    char number[SIZE_TEXT_BYTES];
    int fd = memfd_of(option, bytes, length);

    if (fd < 0)
        return false;
    arguments->fds[arguments->fd_count++] = fd;
    snprintf(number, sizeof number, "%d", fd);
    put(out, option, number, END);
    return true;
}

static unsigned long long place_bytes(size_t i, const struct jail_limits *limits)
{
    return writable[i].bytes != 0 ? writable[i].bytes : limits->disk_mib * MIB;
}

static void put_writable(FILE *out, const struct jail_limits *limits)
{
    for (size_t i = 0; i < COUNT(writable); i++) {
        char size[SIZE_TEXT_BYTES];

        snprintf(size, sizeof size, "%llu", place_bytes(i, limits));
        put(out, "--perms", writable[i].permissions, "--size", size, "--tmpfs", writable[i].path, END);
    }
}

static bool put_etc(FILE *out, struct jail_arguments *arguments)
{
    for (size_t i = 0; i < COUNT(etc_files); i++) {
        put(out, "--perms", "0644", END);
        if (!put_bytes(out, arguments, "--file", etc_files[i].text, strlen(etc_files[i].text)))
            return false;
        put(out, etc_files[i].path, END);
    }
    return true;
}

/* Binds one part of a template, if it has it. */
static void put_part(FILE *out, const char *folder, const char *seen, const char *part, const char *place)
{
    char source[PATH_MAX];

    if (snprintf(source, sizeof source, "%s/%s", folder, part) < (int)sizeof source && access(source, F_OK) == 0 &&
        snprintf(source, sizeof source, "%s/%s", seen, part) < (int)sizeof source)
        put(out, "--ro-bind", source, place, END);
}

/* Binds each entry of a folder of a template to the same name in a folder of the sandbox. */
static void put_entries(FILE *out, const char *folder, const char *seen, const char *place)
{
    char part[PATH_MAX], target[PATH_MAX];
    const struct dirent *entry;
    DIR *dir = snprintf(part, sizeof part, "%s/root%s", folder, place) < (int)sizeof part ? opendir(part) : NULL;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        snprintf(part, sizeof part, "root%s/%s", place, entry->d_name);
        snprintf(target, sizeof target, "%s/%s", place, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && !template_path_is_reserved(target))
            put_part(out, folder, seen, part, target);
    }
    if (dir != NULL)
        closedir(dir);
}

/* All of a template but its files for /usr: folder is where this process finds it, seen where bwrap does. */
static void put_template(FILE *out, const char *folder, const char *seen)
{
    put_part(out, folder, seen, "node_modules", "/opt/agent-runner/node_modules");
    put_entries(out, folder, seen, "/etc");
    put_entries(out, folder, seen, "/opt");
}

unsigned long long jail_file_limit_bytes(const struct jail_limits *limits)
{
    unsigned long long largest = 0;

    for (size_t i = 0; i < COUNT(writable); i++) {
        if (place_bytes(i, limits) > largest)
            largest = place_bytes(i, limits);
    }
    return largest + MIB;
}

unsigned long long jail_places_bytes(const struct jail_limits *limits)
{
    unsigned long long sum = 0;

    for (size_t i = 0; i < COUNT(writable); i++)
        sum += place_bytes(i, limits);
    return sum;
}

bool jail_arguments_build(struct jail_arguments *arguments, const struct jail_sources *sources,
                          const struct jail_limits *limits, const void *seccomp, size_t seccomp_bytes)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    bool built;

    *arguments = (struct jail_arguments){.args_fd = -1};
    if (out == NULL)
        return false;
    put_table(out, isolation, COUNT(isolation));
    put(out, "--ro-bind", sources->has_usr ? JAIL_STAGED_USR : "/usr", "/usr", END);
    put_table(out, system_mounts, COUNT(system_mounts));
    put_writable(out, limits);
    put(out, "--ro-bind", sources->is_staged ? JAIL_STAGED_INIT : sources->init_path, "/run/sandbox-init", END);
    put(out, "--perms", "0755", "--dir", "/opt/agent-runner", END);
    if (sources->template_folder != NULL)
        put_template(out, sources->template_folder,
                     sources->is_staged ? JAIL_STAGED_TEMPLATE : sources->template_folder);
    built = put_etc(out, arguments) && put_bytes(out, arguments, "--seccomp", seccomp, seccomp_bytes);
    put_table(out, closing, COUNT(closing));
    if (fclose(out) != 0)
        built = false;
    if (built) {
        arguments->args_fd = memfd_of("bwrap-args", text, bytes);
        built = arguments->args_fd >= 0;
    }
    free(text);
    return built;
}

void jail_arguments_free(struct jail_arguments *arguments)
{
    for (size_t i = 0; i < arguments->fd_count; i++)
        close(arguments->fds[i]);
    if (arguments->args_fd >= 0)
        close(arguments->args_fd);
}
