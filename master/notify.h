/*
 * notify: tells the service manager how the service is (sd_notify(3)'s protocol: one datagram of KEY=VALUE lines to the
 * unix socket that $NOTIFY_SOCKET names, a path or "@" and an abstract name). Does nothing when there is none. Never
 * blocks; a datagram that cannot be sent is a warning.
 */
#ifndef MASTER_NOTIFY_H
#define MASTER_NOTIFY_H

#include <stdint.h>

/* status is shown by `systemctl status`. */
void notify_ready(const char *status);
/* Carries MONOTONIC_USEC, which a notify-reload unit waits for; notify_ready() ends it. */
void notify_reloading(void);
void notify_stopping(const char *status);
/* The status alone. */
void notify_status(const char *status);
void notify_watchdog(void);

/* How often notify_watchdog() is due: half of what the service manager asked of this process; 0 when it did not. */
int64_t notify_watchdog_interval_ms(void);

#endif
