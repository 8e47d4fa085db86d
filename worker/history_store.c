#include "worker/history_store.h"

#include "common/log.h"
#include "common/run_table.h"
#include "common/state_files.h"
#include "worker/history_file.h"
#include "worker/history_lines.h"
#include "worker/run_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MODE  0600
#define COPY_BYTES (64u << 10)

/* --- the text of the file -------------------------------------------------------------------------------- */

/* A file in memory, as it was at one moment. */
struct text {
    const char *bytes; /* NULL: the file is not there, or empty */
    size_t length;
    struct stat status;
};

/* False with errno. */
static bool map_text(struct text *text, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    void *mapping = NULL;
    int saved_errno;

    *text = (struct text){.bytes = NULL};
    if (fd < 0)
        return errno == ENOENT;
    if (fstat(fd, &text->status) == 0 && text->status.st_size > 0)
        mapping = mmap(NULL, (size_t)text->status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    saved_errno = errno;
    close(fd);
    errno = saved_errno;
    if (mapping == MAP_FAILED)
        return false;
    text->bytes = mapping;
    text->length = mapping != NULL ? (size_t)text->status.st_size : 0;
    return true;
}

static void unmap_text(struct text *text)
{
    if (text->bytes != NULL)
        munmap((void *)text->bytes, (size_t)text->status.st_size);
    text->bytes = NULL;
}

/* --- restoring ------------------------------------------------------------------------------------------- */

struct restored {
    struct run_entry entry;
    bool is_changed; /* the file says something else */
};

/* Slots are taken in the order in which runs began, that of lists, and ended in the order in which runs ended. */
static bool fill_table(struct history_lines *lines, struct scoreboard *scoreboard, struct restored *restored)
{
    history_lines_sort_by_start(lines);
    for (size_t i = 0; i < lines->count; i++) {
        const struct history_line *line = &lines->lines[i];
        struct restored *run = &restored[line->rank];

        if (!run_entry_take_ended(&run->entry, scoreboard, line->summary.id, line->summary.by_cancel))
            log_panic("history: no slot for a restored run");
        if (!run_record_read(line->text, line->length, &run->entry))
            return false;
        run->is_changed = line->summary.is_running || !line->summary.is_ours;
    }
    for (size_t i = 0; i < lines->count; i++)
        run_entry_end(&restored[i].entry);
    return true;
}

/* 0 or errno. */
static int append_changed(const struct restored *restored, size_t count, struct history_file *file)
{
    struct evbuffer *line = evbuffer_new();
    struct run_copy copy = {.text = NULL};
    int error = line != NULL ? 0 : ENOMEM;

    for (size_t i = 0; error == 0 && i < count; i++) {
        if (!restored[i].is_changed)
            continue;
        if (history_line_add(file->scoreboard, restored[i].entry.index, &copy, line) != RUN_READ_OK)
            error = ENOMEM;
        else if (!history_file_append(file, (const char *)evbuffer_pullup(line, -1), evbuffer_get_length(line)))
            error = errno;
        evbuffer_drain(line, evbuffer_get_length(line));
    }
    run_copy_release(&copy);
    if (line != NULL)
        evbuffer_free(line);
    return error;
}

/* The file need not be writable for its runs to be remembered. */
static void write_changed(const struct restored *restored, size_t count, struct history_file *file)
{
    int error;

    if (history_file_lock(file, true) != HISTORY_LOCKED) {
        error = errno;
    } else {
        error = append_changed(restored, count, file);
        history_file_unlock(file);
    }
    if (error != 0)
        log_warn("cannot write %s: %s", file->path, strerror(error));
}

static void tell_useless(const struct history_lines *lines, const char *path)
{
    if (lines->useless > 0)
        log_warn("%s: %zu lines are no records of runs and were skipped, the first is line %zu", path, lines->useless,
                 lines->first_useless);
}

static bool restore(struct history_file *file, const struct text *text)
{
    struct scoreboard *scoreboard = file->scoreboard;
    struct history_lines lines;
    struct restored *restored;
    size_t running;
    bool good;

    if (!history_lines_read(&lines, text->bytes, text->length))
        return false;
    tell_useless(&lines, file->path);
    atomic_store(&scoreboard->history_lines, lines.total);
    running = history_lines_running(&lines);
    history_lines_keep_newest(&lines, scoreboard->sizes.run_history);
    restored = calloc(lines.count + 1, sizeof *restored);
    good = restored != NULL && fill_table(&lines, scoreboard, restored);
    if (good) {
        log_info("%zu runs restored from %s, %zu of them had not ended", lines.count, file->path, running);
        write_changed(restored, lines.count, file);
    }
    free(restored);
    history_lines_release(&lines);
    return good;
}

bool history_restore(const char *state_dir, struct scoreboard *scoreboard)
{
    struct history_file file;
    struct text text;
    bool good = false;

    if (!history_file_init(&file, state_dir, scoreboard)) {
        log_error("no memory to restore the history of runs");
        return false;
    }
    if (!map_text(&text, file.path)) {
        log_error("cannot read %s: %s", file.path, strerror(errno));
    } else {
        good = text.length == 0 || restore(&file, &text);
        if (!good)
            log_error("no memory to restore %s", file.path);
        unmap_text(&text);
    }
    history_file_release(&file);
    return good;
}

/* --- compacting ------------------------------------------------------------------------------------------ */

/* The file that takes the place of the old one. */
struct replacement {
    char *path;
    FILE *stream;
    size_t lines;
};

static bool replacement_open(struct replacement *new, const char *state_dir)
{
    int fd;

    *new = (struct replacement){.path = NULL};
    if (asprintf(&new->path, "%s/" STATE_FILE_RUNS_NEW, state_dir) < 0) {
        new->path = NULL;
        return false;
    }
    (void)unlink(new->path); /* what a compaction that was killed left */
    fd = open(new->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    new->stream = fd >= 0 ? fdopen(fd, "w") : NULL;
    return new->stream != NULL;
}

/* What was not renamed is of no use. */
static void replacement_close(struct replacement *new, bool renamed)
{
    if (new->stream != NULL)
        fclose(new->stream);
    if (new->path != NULL && !renamed)
        (void)unlink(new->path);
    free(new->path);
}

static bool replacement_sync(struct replacement *new)
{
    return fflush(new->stream) == 0 && fsync(fileno(new->stream)) == 0;
}

static bool add_kept(struct replacement *new, const struct history_lines *kept)
{
    for (size_t i = 0; i < kept->count; i++) {
        const struct history_line *line = &kept->lines[i];

        if (fwrite(line->text, 1, line->length, new->stream) != line->length || putc('\n', new->stream) == EOF)
            return false;
    }
    new->lines = kept->count;
    return replacement_sync(new);
}

/* What was appended behind `offset` meanwhile; nobody appends now. */
static bool add_tail(struct replacement *new, int fd, off_t offset)
{
    static char buffer[COPY_BYTES];
    ssize_t got;

    while ((got = pread(fd, buffer, sizeof buffer, offset)) > 0) {
        if (fwrite(buffer, 1, (size_t)got, new->stream) != (size_t)got)
            return false;
        for (ssize_t i = 0; i < got; i++)
            new->lines += buffer[i] == '\n';
        offset += got;
    }
    return got == 0 && replacement_sync(new);
}

/* Under the lock: the tail, and the name. */
static bool put_in_place(struct replacement *new, struct history_file *file, off_t offset)
{
    if (!add_tail(new, file->fd, offset) || rename(new->path, file->path) < 0)
        return false;
    atomic_store(&file->scoreboard->history_lines, new->lines);
    return true;
}

/* The rename is to outlive a power cut; if it does not, the old file is as good. */
static void sync_directory(const char *state_dir)
{
    int fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

/* False with errno. */
static bool replace(struct history_file *file, const char *state_dir, const struct text *text,
                    const struct history_lines *kept)
{
    struct replacement new;
    struct stat status;
    bool renamed = false;
    int saved_errno;

    if (replacement_open(&new, state_dir) && add_kept(&new, kept) && history_file_lock(file, true) == HISTORY_LOCKED) {
        if (fstat(file->fd, &status) == 0 && status.st_ino == text->status.st_ino &&
            status.st_dev == text->status.st_dev)
            renamed = put_in_place(&new, file, (off_t)text->length);
        else
            errno = ESTALE; /* somebody else replaced it */
    }
    saved_errno = errno;
    replacement_close(&new, renamed);
    history_file_close(file);
    if (renamed)
        sync_directory(state_dir);
    errno = saved_errno;
    return renamed;
}

/* The whole lines that are there while nobody writes. False with errno. */
static bool map_between_lines(struct text *text, struct history_file *file)
{
    const char *end;
    bool mapped;

    *text = (struct text){.bytes = NULL};
    if (history_file_lock(file, true) != HISTORY_LOCKED)
        return false;
    mapped = map_text(text, file->path);
    history_file_unlock(file);
    end = text->length > 0 ? memrchr(text->bytes, '\n', text->length) : NULL;
    text->length = end != NULL ? (size_t)(end - text->bytes) + 1 : 0;
    return mapped;
}

/* False with errno. */
static bool compact(struct history_file *file, const char *state_dir, const struct text *text)
{
    struct history_lines lines;
    bool good = true;

    if (!history_lines_read(&lines, text->bytes, text->length))
        return false;
    history_lines_keep_newest(&lines, file->scoreboard->sizes.run_history + history_lines_running(&lines));
    if (lines.count < lines.total) {
        history_lines_sort_by_place(&lines);
        good = replace(file, state_dir, text, &lines);
        if (good)
            log_info("%s: %zu of %zu lines kept", file->path, lines.count, lines.total);
    }
    history_lines_release(&lines);
    return good;
}

bool history_compact(const char *state_dir, struct scoreboard *scoreboard)
{
    struct history_file file;
    struct text text;
    bool good;

    if (!history_file_init(&file, state_dir, scoreboard)) {
        log_error("no memory to compact the history of runs");
        return false;
    }
    good = map_between_lines(&text, &file) && (text.length == 0 || compact(&file, state_dir, &text));
    if (!good)
        log_warn("cannot compact %s: %s", file.path, strerror(errno));
    unmap_text(&text);
    history_file_release(&file);
    return good;
}
