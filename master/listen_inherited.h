/*
 * listen_inherited: sockets that the service manager bound (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES).
 * Used by listen.
 */
#ifndef MASTER_LISTEN_INHERITED_H
#define MASTER_LISTEN_INHERITED_H

#include "master/listen.h"

/*
 * Takes them over when they are meant for this process, and forgets the variables, so that no child takes them for its
 * own. Each must be a stream socket that listens. A socket named proxy_protocol (FileDescriptorName=) expects PROXY
 * protocol headers. False after a log line; true with none when there are none.
 */
bool listen_inherited(struct listeners *listeners) __attribute__((warn_unused_result));

#endif
