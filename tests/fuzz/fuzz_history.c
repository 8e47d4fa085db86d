/*
 * The history of runs on disk: any bytes give records that can be shown; those written again are restored as the same,
 * and a compaction loses none of them.
 */
#include "common/log.h"
#include "common/run_table.h"
#include "tests/fuzz/fuzz.h"
#include "worker/history_file.h"
#include "worker/history_store.h"

#include <fcntl.h>
#include <jansson.h>
#include <unistd.h>

#define RUN_HISTORY 8

static char directory[] = "/tmp/sandstorm-fuzz-XXXXXX";
static char path[sizeof directory + 16];

static void clean_up(void)
{
    unlink(path);
    rmdir(directory);
}

static void write_file(const char *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    FUZZ_CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    close(fd);
}

/* Each record is a line of JSON. */
static void check_lines(const char *text, size_t length)
{
    while (length > 0) {
        const char *end = memchr(text, '\n', length);
        json_t *record;

        FUZZ_CHECK(end != NULL);
        record = json_loadb(text, (size_t)(end - text), JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
        FUZZ_CHECK(json_is_object(record) && json_is_string(json_object_get(record, "id")));
        json_decref(record);
        length -= (size_t)(end + 1 - text);
        text = end + 1;
    }
}

/* What the file says, as records, the oldest first; to be freed. */
static struct evbuffer *restore(void)
{
    struct scoreboard *board =
        scoreboard_new(&(struct scoreboard_sizes){.max_runs = 2, .run_history = RUN_HISTORY}, NULL);
    struct evbuffer *out = evbuffer_new();
    struct run_copy copy = {.text = NULL};
    const struct run_filter all = {.status = -1};
    unsigned *indices;
    int count;

    FUZZ_CHECK(board != NULL && history_restore(directory, board));
    count = run_table_list(board, &all, RUN_HISTORY + 2, &indices);
    FUZZ_CHECK(count >= 0 && count <= RUN_HISTORY);
    while (count-- > 0)
        FUZZ_CHECK(history_line_add(board, indices[count], &copy, out) == RUN_READ_OK);
    free(indices);
    run_copy_release(&copy);
    scoreboard_free(board);
    check_lines((const char *)evbuffer_pullup(out, -1), evbuffer_get_length(out));
    return out;
}

static int by_text(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* The lines of a text in the order of their bytes; their ends become NULs. */
static size_t sort_lines(struct evbuffer *text, char *lines[RUN_HISTORY + 2])
{
    char *rest, *line;
    size_t count = 0;

    evbuffer_add(text, "", 1);
    rest = (char *)evbuffer_pullup(text, -1);
    while ((line = strsep(&rest, "\n")) != NULL && *line != '\0')
        lines[count++] = line;
    qsort(lines, count, sizeof *lines, by_text);
    return count;
}

/* Runs that began at the same time may have changed places. Spoils the texts. */
static void check_same(struct evbuffer *one, struct evbuffer *other)
{
    char *lines[RUN_HISTORY + 2], *others[RUN_HISTORY + 2];
    size_t count = sort_lines(one, lines);

    FUZZ_CHECK(count == sort_lines(other, others));
    for (size_t i = 0; i < count; i++)
        FUZZ_CHECK(strcmp(lines[i], others[i]) == 0);
}

static void compact(void)
{
    struct scoreboard *board =
        scoreboard_new(&(struct scoreboard_sizes){.max_runs = 2, .run_history = RUN_HISTORY}, NULL);

    FUZZ_CHECK(board != NULL && history_compact(directory, board));
    scoreboard_free(board);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool is_ready;
    struct evbuffer *first, *again;

    if (!is_ready) {
        FUZZ_CHECK(mkdtemp(directory) != NULL);
        snprintf(path, sizeof path, "%s/runs.jsonl", directory);
        atexit(clean_up);
        log_set_level(LOG_LEVEL_ERROR);
        is_ready = true;
    }
    write_file((const char *)data, size);
    first = restore();
    if (size > 0 && data[size - 1] == '\n') { /* a line without its end is no whole one to it */
        compact();
        again = restore();
        check_same(first, again);
        evbuffer_free(first);
        evbuffer_free(again);
        first = restore();
    }
    write_file((const char *)evbuffer_pullup(first, -1), evbuffer_get_length(first));
    again = restore();
    check_same(first, again);
    evbuffer_free(first);
    evbuffer_free(again);
    return 0;
}
