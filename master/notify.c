#include "master/notify.h"

#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGE_MAX_BYTES 640

/* The address of $NOTIFY_SOCKET; its length, 0 when there is none that could be reached. */
static socklen_t notify_address(struct sockaddr_un *address)
{
    const char *name = getenv("NOTIFY_SOCKET");
    size_t length = name != NULL ? strlen(name) : 0;

    if (length < 2 || length >= sizeof address->sun_path || (*name != '/' && *name != '@'))
        return 0;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, name, length);
    if (*name == '@')
        address->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

/* Sends one datagram. */
static void notify_send(const char *message)
{
    struct sockaddr_un address;
    socklen_t length = notify_address(&address);
    int fd;

    if (length == 0)
        return;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || sendto(fd, message, strlen(message), MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0)
        log_warn("cannot notify the service manager on %s: %s", getenv("NOTIFY_SOCKET"), strerror(errno));
    if (fd >= 0)
        close(fd);
}

void notify_ready(const char *status)
{
    char message[MESSAGE_MAX_BYTES];

    snprintf(message, sizeof message, "READY=1\nMAINPID=%d\nSTATUS=%s", (int)getpid(), status);
    notify_send(message);
}

void notify_reloading(void)
{
    char message[MESSAGE_MAX_BYTES];

    snprintf(message, sizeof message, "RELOADING=1\nMONOTONIC_USEC=%" PRId64 "\nSTATUS=reloading",
             monotonic_ms() * 1000);
    notify_send(message);
}

void notify_stopping(const char *status)
{
    char message[MESSAGE_MAX_BYTES];

    snprintf(message, sizeof message, "STOPPING=1\nSTATUS=%s", status);
    notify_send(message);
}

void notify_status(const char *status)
{
    char message[MESSAGE_MAX_BYTES];

    snprintf(message, sizeof message, "STATUS=%s", status);
    notify_send(message);
}

void notify_watchdog(void)
{
    notify_send("WATCHDOG=1");
}

int64_t notify_watchdog_interval_ms(void)
{
    const char *interval_us = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");

    if (interval_us == NULL || (pid != NULL && strtoll(pid, NULL, 10) != getpid()))
        return 0;
    return strtoll(interval_us, NULL, 10) / 1000 / 2;
}
