#include "worker/history_file.h"

#include "common/state_files.h"
#include "worker/run_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILE_MODE 0600
/* The file may be replaced between its opening and its lock, each time once. */
#define LOCK_TRIES_MAX 8
#define PROBE_BYTES    4096

bool history_file_init(struct history_file *file, const char *state_dir, struct scoreboard *scoreboard)
{
    *file = (struct history_file){.fd = -1, .scoreboard = scoreboard};
    if (asprintf(&file->path, "%s/" STATE_FILE_RUNS, state_dir) >= 0)
        return true;
    file->path = NULL;
    return false;
}

void history_file_close(struct history_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}

void history_file_release(struct history_file *file)
{
    history_file_close(file);
    free(file->path);
    file->path = NULL;
}

/* -1 with errno. Something else of that name is neither waited for nor written. */
static int open_regular(const char *path)
{
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, FILE_MODE);
    struct stat status;

    if (fd < 0 || (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)))
        return fd;
    close(fd);
    errno = EINVAL;
    return -1;
}

/* Is what is open still what the name means? */
static bool is_current(const struct history_file *file)
{
    struct stat opened, named;

    return fstat(file->fd, &opened) == 0 && stat(file->path, &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
}

enum history_lock history_file_lock(struct history_file *file, bool wait)
{
    for (int i = 0; i < LOCK_TRIES_MAX; i++) {
        if (file->fd < 0)
            file->fd = open_regular(file->path);
        if (file->fd < 0)
            return HISTORY_FAILED;
        if (flock(file->fd, LOCK_EX | (wait ? 0 : LOCK_NB)) < 0)
            return errno == EWOULDBLOCK ? HISTORY_BUSY : HISTORY_FAILED;
        if (is_current(file))
            return HISTORY_LOCKED;
        history_file_close(file);
    }
    return HISTORY_BUSY;
}

void history_file_unlock(struct history_file *file)
{
    (void)flock(file->fd, LOCK_UN);
}

/* Does the file end in the middle of a line? Its writer was killed, or somebody edited it. */
static bool ends_torn(int fd, off_t size)
{
    char last;

    return size > 0 && pread(fd, &last, 1, size - 1) == 1 && last != '\n';
}

bool history_file_append(struct history_file *file, const char *line, size_t length)
{
    struct iovec pieces[] = {{.iov_base = "\n", .iov_len = 1}, {.iov_base = (void *)line, .iov_len = length}};
    struct stat status;
    ssize_t written;
    bool torn;

    if (fstat(file->fd, &status) < 0)
        return false;
    torn = ends_torn(file->fd, status.st_size);
    written = writev(file->fd, torn ? pieces : pieces + 1, torn ? 2 : 1);
    if (written == (ssize_t)length + torn) {
        atomic_fetch_add(&file->scoreboard->history_lines, 1);
        return true;
    }
    if (written >= 0) {
        if (ftruncate(file->fd, status.st_size) == 0)
            errno = ENOSPC; /* what a next write would have said */
    }
    return false;
}

bool history_file_is_writable(const struct history_file *file)
{
    int fd = open_regular(file->path);
    struct stat status;
    bool writable;

    if (fd < 0)
        return false;
    /* Room behind the end, which the next line may take. Not every file system can tell. */
    writable = fstat(fd, &status) == 0 && (fallocate(fd, FALLOC_FL_KEEP_SIZE, status.st_size, PROBE_BYTES) == 0 ||
                                           errno == EOPNOTSUPP || errno == ENOSYS);
    close(fd);
    return writable;
}

enum run_read history_line_add(const struct scoreboard *scoreboard, unsigned index, struct run_copy *copy,
                               struct evbuffer *out)
{
    enum run_read read = run_table_read(scoreboard, index, copy);

    if (read == RUN_READ_OK &&
        (!run_record_write(copy, RUN_RAW_PROMPT_MAX_BYTES, out) || evbuffer_add(out, "\n", 1) < 0))
        read = RUN_READ_NO_MEMORY;
    return read;
}
