/*
 * doctor: what `ds doctor` looks at, part by part. Each part tells of what it finds, in lines for a person: good, a
 * note, or bad with the way to mend it.
 */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include "cli/surroundings.h"
#include "cli/terminal.h"

struct doctor {
    const char *command;
    struct terminal out;
    struct surroundings at;
    bool deep;
    bool has_faults;
};

void doctor_good(const struct doctor *doctor, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void doctor_note(const struct doctor *doctor, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void doctor_bad(struct doctor *doctor, const char *name, const char *fix, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* What agents think with. */
void doctor_check_provider(struct doctor *doctor);
/* E2B's key and reach. */
void doctor_check_e2b(struct doctor *doctor);
/* What local sandboxes need of this machine. */
void doctor_check_local(struct doctor *doctor);

#endif
