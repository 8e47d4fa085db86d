/* project_faults: what is wrong with sandstorm.json, told to whoever wants to know. */
#ifndef WORKER_PROJECT_FAULTS_H
#define WORKER_PROJECT_FAULTS_H

#include <stdbool.h>

/* One call for each; field is "" for the whole. Warnings do not spoil the file. */
struct project_faults {
    void (*on_fault)(void *context, bool is_warning, const char *field, const char *reason);
    void *context;
};

#endif
