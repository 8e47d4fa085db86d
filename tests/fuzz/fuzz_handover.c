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

static void check_same_worker(const struct worker *one, const struct worker *other)
{
    FUZZ_CHECK(one->pid == other->pid && one->slot == other->slot && one->fd == other->fd);
    FUZZ_CHECK(one->generation == other->generation && one->seat == other->seat && one->state == other->state);
    FUZZ_CHECK(one->was_ready == other->was_ready && one->is_unseen == other->is_unseen);
    FUZZ_CHECK(one->started_ms == other->started_ms && one->deadline_ms == other->deadline_ms);
    FUZZ_CHECK(one->graceful_timeout_ms == other->graceful_timeout_ms && one->run_limit == other->run_limit);
    FUZZ_CHECK(one->worker_timeout_ms == other->worker_timeout_ms);
}

/* What a successor has to know is what was written. */
static void check_same(const struct handover *one, const struct handover *other)
{
    FUZZ_CHECK(one->worker_count == other->worker_count && one->listeners.count == other->listeners.count);
    for (size_t i = 0; i < one->worker_count; i++)
        check_same_worker(&one->workers[i], &other->workers[i]);
    for (size_t i = 0; i < one->listeners.count; i++) {
        FUZZ_CHECK(one->listeners.fds[i] == other->listeners.fds[i]);
        FUZZ_CHECK(strcmp(one->listeners.about[i].item, other->listeners.about[i].item) == 0);
    }
    FUZZ_CHECK(one->scoreboard_fd == other->scoreboard_fd && one->lock_fd == other->lock_fd);
    FUZZ_CHECK(one->pid_file_fd == other->pid_file_fd && one->compactor == other->compactor);
    FUZZ_CHECK(one->has_auth == other->has_auth && one->settled_lines == other->settled_lines);
    FUZZ_CHECK(strcmp(one->instance, other->instance) == 0 && one->has_runtime == other->has_runtime);
    FUZZ_CHECK((one->fixed == NULL) == (other->fixed == NULL));
    FUZZ_CHECK(one->fixed == NULL || strcmp(one->fixed, other->fixed) == 0);
}

/* The text of a handover is a fixed point. */
static void check_round_trip(const struct handover *handover)
{
    int fd = handover_write(handover), fd_again;
    struct handover *again = handover_read(fd);
    size_t length, length_again;
    char *text, *text_again;

    FUZZ_CHECK(again != NULL);
    check_same(handover, again);
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
