/* What a master leaves to the program that takes its place: what is read, written again, is read as the same. */
#include "master/handover.h"
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char *text_of(int fd, size_t *length)
{
    struct stat status;
    char *text;

    FUZZ_CHECK(fstat(fd, &status) == 0);
    *length = (size_t)status.st_size;
    text = malloc(*length + 1);
    FUZZ_CHECK(pread(fd, text, *length, 0) == (ssize_t)*length);
    return text;
}

static void check_bounds(const struct handover *handover)
{
    FUZZ_CHECK(handover->worker_count <= SCOREBOARD_SLOTS_MAX);
    for (size_t i = 0; i < handover->worker_count; i++) {
        const struct worker *worker = &handover->workers[i];

        FUZZ_CHECK(worker->pid > 0 && worker->slot >= 0 && worker->slot < SCOREBOARD_SLOTS_MAX);
        FUZZ_CHECK(worker->seat < SETTINGS_WORKERS_MAX && worker->state < CHILD_STATES);
    }
}

/* The text of a handover is a fixed point. */
static void check_round_trip(const struct handover *handover)
{
    int fd = handover_write(handover), fd_again;
    struct handover *again = handover_read(fd);
    size_t length, length_again;
    char *text, *text_again;

    FUZZ_CHECK(again != NULL);
    fd_again = handover_write(again);
    text = text_of(fd, &length);
    text_again = text_of(fd_again, &length_again);
    FUZZ_CHECK(length == length_again && memcmp(text, text_again, length) == 0);
    free(text);
    free(text_again);
    close(fd);
    close(fd_again);
    handover_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("handover", MFD_CLOEXEC);
    struct handover *handover;

    FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    handover = handover_read(fd);
    close(fd);
    if (handover == NULL)
        return 0;
    check_bounds(handover);
    check_round_trip(handover);
    handover_free(handover);
    return 0;
}
