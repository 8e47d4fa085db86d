#include "cli/doctor.h"

#include "cli/program.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#define BWRAP      "/usr/bin/bwrap" /* what sandboxd runs */
#define CGROUPS    "/sys/fs/cgroup"
#define SAID_BYTES 1024
#define MIB        (1024 * 1024)

/* --- namespaces --------------------------------------------------------------------------------------------- */

/* Whether this user may make the namespaces of a jail: 0, or the errno. */
static int try_namespaces(void)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0)
        _exit(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) == 0
                  ? 0
                  : errno);
    if (pid < 0)
        return errno;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

static void check_namespaces(struct doctor *doctor)
{
    int error = try_namespaces();

    if (error == 0)
        doctor_good(doctor, "namespaces", "user, mount, process, network: allowed");
    else
        doctor_bad(doctor, "namespaces",
                   "allow user namespaces (kernel.unprivileged_userns_clone=1, user.max_user_namespaces, an AppArmor "
                   "profile for bwrap), or run as root; ds doctor --deep says which",
                   "cannot be made: %s", strerror(error));
}

static void check_bubblewrap(struct doctor *doctor)
{
    if (access(BWRAP, X_OK) == 0)
        doctor_good(doctor, "bubblewrap", BWRAP);
    else
        doctor_bad(doctor, "bubblewrap", "apt-get install bubblewrap", BWRAP ": %s", strerror(errno));
}

/* --- the template and the limits ------------------------------------------------------------------------------ */

static void check_template(struct doctor *doctor)
{
    const struct settings *settings = doctor->at.settings;
    char fix[PATH_MAX], path[PATH_MAX];
    struct stat found;

    snprintf(fix, sizeof fix, "ds template build --local %s", settings->template_name);
    snprintf(path, sizeof path, "%s/%s", settings->template_dir, settings->template_name);
    if (*settings->template_dir == '\0')
        doctor_bad(doctor, "template", "set template_dir, and build the template there", "there is no template folder");
    else if (stat(path, &found) == 0 && S_ISDIR(found.st_mode))
        doctor_good(doctor, "template", "%s", path);
    else
        doctor_bad(doctor, "template", fix, "%s is not there", path);
}

static void check_memory(struct doctor *doctor)
{
    long long wanted = (long long)doctor->at.settings->sandbox_memory_bytes / MIB;
    struct sysinfo machine;
    long long has;

    if (sysinfo(&machine) < 0)
        return;
    has = (long long)((double)machine.totalram * machine.mem_unit / MIB);
    if (has >= wanted)
        doctor_good(doctor, "memory", "%lld MiB, one sandbox may take %lld", has, wanted);
    else
        doctor_bad(doctor, "memory", "set a smaller sandbox_memory", "%lld MiB, but one sandbox may take %lld", has,
                   wanted);
}

/* The folder of the group this process is in, in version 2; false when there is none. */
static bool own_group(char path[static PATH_MAX])
{
    FILE *groups = fopen("/proc/self/cgroup", "re");
    char *line = NULL;
    size_t size = 0;
    bool found = false;

    while (groups != NULL && !found && getline(&line, &size, groups) > 0) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = '\0';
            found = snprintf(path, PATH_MAX, CGROUPS "%s", line + 3) < PATH_MAX;
        }
    }
    free(line);
    if (groups != NULL)
        fclose(groups);
    return found;
}

static void check_groups(struct doctor *doctor)
{
    char path[PATH_MAX];
    bool writable = access(CGROUPS "/memory", W_OK | X_OK) == 0 || (own_group(path) && access(path, W_OK | X_OK) == 0);

    if (writable)
        doctor_good(doctor, "limits", "control groups may be made: each sandbox is limited as a whole");
    else
        doctor_note(doctor, "limits",
                    "control groups may not be made: limits are those of each process (a service has Delegate=yes)");
}

/* --- a sandbox ------------------------------------------------------------------------------------------------ */

static void start_sandbox(struct doctor *doctor)
{
    char name[] = "sandboxd", option[] = "--check", said[SAID_BYTES];
    char *words[] = {name, option, NULL};
    int code = program_run(PROGRAM_RUNTIME, words, said, sizeof said);

    said[strcspn(said, "\n")] = '\0';
    if (code == 0)
        doctor_good(doctor, "sandbox", "one was started, ran a program, and was removed");
    else
        doctor_bad(doctor, "sandbox", "sandboxd --check says more", "%s",
                   code < 0        ? "sandboxd cannot be run"
                   : *said != '\0' ? said
                                   : "sandboxd --check fails");
}

void doctor_check_local(struct doctor *doctor)
{
    doctor_note(doctor, "sandboxes", "are made on this machine");
    check_bubblewrap(doctor);
    check_namespaces(doctor);
    check_template(doctor);
    check_memory(doctor);
    check_groups(doctor);
    if (doctor->deep)
        start_sandbox(doctor);
}
