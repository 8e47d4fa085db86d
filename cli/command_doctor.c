/*
 * ds doctor: looks at everything that runs need on this machine, and says how to mend what is missing.
 */
#include "cli/doctor.h"
#include "cli/ds.h"
#include "cli/interrupt.h"
#include "cli/program.h"
#include "common/descriptors.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SAID_BYTES 4096

static const char usage[] =
    "usage: ds doctor [--deep] [--SETTING VALUE]...\n"
    "Looks at what a server started here with these settings would need: configuration, keys,\n"
    "the sandbox service or the local runtime, state folder, open files. Needs no server.\n"
    "\n"
    "  --deep              also ask the provider and E2B whether they take the keys, and start\n"
    "                      a local sandbox\n"
    "\n"
    "The exit code is 0 when nothing is missing, else 1.\n";

/* --- findings ----------------------------------------------------------------------------------------------- */

/* "✓ name  detail". */
__attribute__((format(printf, 5, 0))) static void tell(const struct doctor *doctor, enum style style, const char *mark,
                                                       const char *name, const char *format, va_list args)
{
    char *detail = NULL;

    terminal_style(&doctor->out, style);
    fputs(mark, stdout);
    terminal_style(&doctor->out, STYLE_NONE);
    printf(" %-16s", name);
    if (vasprintf(&detail, format, args) >= 0) {
        terminal_line(&doctor->out, detail);
        free(detail);
    }
    fputc('\n', stdout);
    fflush(stdout);
}

void doctor_good(const struct doctor *doctor, const char *name, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    tell(doctor, STYLE_GREEN, "✓", name, format, args);
    va_end(args);
}

void doctor_note(const struct doctor *doctor, const char *name, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    tell(doctor, STYLE_DIM, "·", name, format, args);
    va_end(args);
}

void doctor_bad(struct doctor *doctor, const char *name, const char *fix, const char *format, ...)
{
    va_list args;

    doctor->has_faults = true;
    va_start(args, format);
    tell(doctor, STYLE_RED, "✗", name, format, args);
    va_end(args);
    printf("  %-16s%s\n", "", fix);
    fflush(stdout);
}

/* --- what every server needs -------------------------------------------------------------------------------- */

/* The server's own --check, with the words we were given. */
static void check_configuration(struct doctor *doctor, int argc, char *argv[])
{
    char check_option[] = "--check", name[] = "sandstorm", said[SAID_BYTES], *rest = said, *line;
    char **words = calloc((size_t)argc + 2, sizeof *words);
    int code = -1;

    if (words != NULL) {
        words[0] = name;
        words[1] = check_option;
        memcpy(words + 2, argv + 1, (size_t)(argc - 1) * sizeof *words);
        code = program_run(PROGRAM_SERVER, words, said, sizeof said);
    }
    free(words);
    if (code == 0) {
        doctor_good(doctor, "configuration", "taken by sandstorm --check");
        return;
    }
    doctor_bad(doctor, "configuration",
               code < 0 ? "install sandstorm beside ds, or put it into PATH"
                        : "mend what it says below (`ds check` shows every setting)",
               code < 0 ? "the server's program cannot be run" : "not taken by sandstorm --check");
    while (code >= 0 && (line = strsep(&rest, "\n")) != NULL) {
        if (*line == '\0')
            continue;
        printf("  %-16s", "");
        terminal_line(&doctor->out, line);
        fputc('\n', stdout);
    }
}

/* The folder above a path; to be freed. */
static char *parent_of(const char *path)
{
    char *parent = strdup(path), *slash = parent != NULL ? strrchr(parent, '/') : NULL;

    if (slash != NULL)
        slash[slash == parent ? 1 : 0] = '\0';
    return parent;
}

static void check_state(struct doctor *doctor)
{
    static const char name[] = "state folder", fix[] = "make it writable for the server, or set state_dir";
    const char *path = doctor->at.settings->state_dir;
    char *parent = parent_of(path);
    struct stat found;

    if (stat(path, &found) == 0 && !S_ISDIR(found.st_mode))
        doctor_bad(doctor, name, fix, "%s is no folder", path);
    else if (access(path, W_OK | X_OK) == 0)
        doctor_good(doctor, name, "%s", path);
    else if (errno == ENOENT && parent != NULL && access(parent, W_OK | X_OK) == 0)
        doctor_good(doctor, name, "%s can be made", path);
    else
        doctor_bad(doctor, name, fix, "%s: %s", path, strerror(errno));
    free(parent);
}

static void check_descriptors(struct doctor *doctor)
{
    long long runs = (long long)doctor->at.settings->max_runs;
    long long needed = runs * DESCRIPTORS_PER_RUN + DESCRIPTORS_RESERVE;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    if (limit.rlim_max >= (rlim_t)needed)
        doctor_good(doctor, "open files", "%llu are allowed, %lld runs need %lld", (unsigned long long)limit.rlim_max,
                    runs, needed);
    else
        doctor_bad(doctor, "open files", "raise it (ulimit -Hn, LimitNOFILE= of the unit), or set a smaller max_runs",
                   "%llu are allowed, %lld runs need %lld", (unsigned long long)limit.rlim_max, runs, needed);
}

/* --- all of it ---------------------------------------------------------------------------------------------- */

static int examine(struct doctor *doctor, int argc, char *argv[])
{
    bool is_local, usage_error = false;

    if (!surroundings_open(&doctor->at, doctor->command, argc, argv))
        return DS_FAILED;
    check_configuration(doctor, argc, argv);
    if (*settings_load_errors(doctor->at.load, &usage_error) == '\0') {
        is_local = surroundings_are_local(&doctor->at);
        doctor_check_provider(doctor);
        if (is_local)
            doctor_check_local(doctor);
        else
            doctor_check_e2b(doctor);
        check_state(doctor);
        check_descriptors(doctor);
    }
    surroundings_close(&doctor->at);
    if (interrupt_signal() != 0)
        return interrupt_exit();
    if (!terminal_close(doctor->command, stdout))
        return DS_FAILED;
    return usage_error ? DS_USAGE : doctor->has_faults ? DS_FAILED : DS_OK;
}

int command_doctor(int argc, char *argv[])
{
    struct doctor doctor = {.command = argv[0]};
    int kept = 1;

    /* All but our own option is the server's. */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return DS_OK;
        }
        if (strcmp(argv[i], "--deep") == 0)
            doctor.deep = true;
        else
            argv[kept++] = argv[i];
    }
    terminal_open(&doctor.out, stdout);
    return examine(&doctor, kept, argv);
}
