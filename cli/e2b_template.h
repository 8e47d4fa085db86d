/*
 * e2b_template: a template of E2B's, made through its API (https://e2b.dev/docs/api-reference/templates):
 *
 *     POST /v3/templates {"name", "cpuCount", "memoryMB"}          → 202 {"templateID", "buildID", …}
 *     POST /v2/templates/{templateID}/builds/{buildID}             → 202
 *          {"fromImage", "steps": [{"type": "RUN", "args": [command, user]}, …], "force"}
 *     GET  /templates/{templateID}/builds/{buildID}/status?logsOffset=N
 *          → 200 {"status": "waiting"|"building"|"ready"|"error", "logEntries": [{"message", …}], "reason":
 * {"message"}}
 *
 * It holds what an agent needs: Node.js, git, Python, the Agent SDK and the runner in /opt/agent-runner, which belongs
 * to the user `user`, as the server uploads there (http-api.md 6.5).
 */
#ifndef CLI_E2B_TEMPLATE_H
#define CLI_E2B_TEMPLATE_H

#include "cli/http.h"
#include "cli/terminal.h"

struct e2b_template {
    const char *name;
    const char *sdk_version;
    const char *runner; /* the file */
    long cpus;
    long memory_mib;
    bool force; /* every step, also those of which the service has the result */
};

/* Builds it and waits; the log of the build goes to standard output. Returns an exit code. */
int e2b_template_build(const struct e2b_template *plan, const struct endpoint *endpoint)
    __attribute__((warn_unused_result));

#endif
