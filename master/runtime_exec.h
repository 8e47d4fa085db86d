/*
 * runtime_exec: what a forked child does to become sandboxd.
 */
#ifndef MASTER_RUNTIME_EXEC_H
#define MASTER_RUNTIME_EXEC_H

#include "common/settings.h"

/*
 * Execs settings->sandboxd with its command line, listen_fd as descriptor 3 (LISTEN_FDS=1), and the two pipe ends named
 * by --ready-fd and --owner-fd. Exits 127, after a log line, when that fails.
 */
_Noreturn void runtime_exec(const struct settings *settings, int listen_fd, int ready_fd, int owner_fd);

#endif
