/*
 * Not a test: with this in place of worker/, master/ and common/ must link with libc alone. The linker enforces the
 * layers (Makefile, layers-ok).
 */
#include "worker/worker.h"

int worker_main(const struct worker_context *context)
{
    return context->slot;
}

bool worker_check_project(const char *project_dir, const struct environment *environment, struct project_store *store)
{
    (void)environment;
    return project_dir != NULL && store != NULL;
}

bool worker_check_tls(const struct tls_files *files)
{
    return files != NULL;
}

bool worker_check_upstream(const struct settings *settings)
{
    return settings != NULL;
}

void worker_check_telemetry(const struct environment *environment)
{
    (void)environment;
}

bool worker_restore_history(const char *state_dir, struct scoreboard *scoreboard)
{
    return state_dir != NULL && scoreboard != NULL;
}

bool worker_compact_history(const char *state_dir, struct scoreboard *scoreboard)
{
    return state_dir != NULL && scoreboard != NULL;
}

bool worker_print_status(const struct scoreboard *scoreboard, pid_t master, bool json)
{
    return scoreboard != NULL && master > 0 && json;
}

int main(void)
{
    return 0;
}
