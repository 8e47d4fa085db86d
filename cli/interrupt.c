#include "cli/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EXIT_BY_SIGNAL 128

static volatile sig_atomic_t came;
static int event_fd = -1;

static void on_signal(int number)
{
    const uint64_t one = 1;
    int saved = errno;

    if (came != 0)
        _exit(EXIT_BY_SIGNAL + number);
    came = number;
    if (write(event_fd, &one, sizeof one) < 0)
        _exit(EXIT_BY_SIGNAL + number);
    errno = saved;
}

bool interrupt_catch(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal}, before;

    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event_fd < 0)
        return false;
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) {
        if (sigaction(signals[i], NULL, &before) < 0)
            return false;
        /* What was ignored when we were started (nohup, a job in the background) stays so. */
        if (before.sa_handler != SIG_IGN && sigaction(signals[i], &action, NULL) < 0)
            return false;
    }
    return true;
}

int interrupt_signal(void)
{
    return came;
}

int interrupt_fd(void)
{
    return event_fd;
}

bool interrupt_wait(int milliseconds)
{
    struct pollfd waiting = {.fd = event_fd, .events = POLLIN};

    return came != 0 || poll(&waiting, 1, milliseconds) != 0;
}

int interrupt_exit(void)
{
    return EXIT_BY_SIGNAL + came;
}
