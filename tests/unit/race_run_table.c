/*
 * One writer, eight readers, ten million reads: no record is torn. Built with ThreadSanitizer, whatever the rest is
 * built with; make check runs it as a unit.
 */
#include "common/run_table.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READERS     8
#define READS       10000000
#define TEXT_LENGTH 40

#define READS_PER_VERSION 4

static struct scoreboard *board;
static unsigned slot_index;
static atomic_bool over;
static atomic_uint reads; /* begun; the writer goes on with every fourth, so that it does not only make readers wait */

/* Every field of a version tells its number: a mixture shows. */
static void write_version(struct run_entry *entry, unsigned version)
{
    char text[TEXT_LENGTH];

    memset(text, 'a' + version % 26, sizeof text);
    run_entry_set(entry, RUN_STRING_MODEL, text, 1 + version % TEXT_LENGTH);
    run_entry_set(entry, RUN_STRING_RESULT_SUBTYPE, text, 1 + version % TEXT_LENGTH);
    entry->record.num_turns = version;
    entry->record.started_us = version;
    entry->record.exit_code = (int32_t)version;
    run_entry_publish(entry);
}

static bool is_whole(const struct run_copy *copy)
{
    int64_t version = copy->record.num_turns;
    size_t wanted = 1 + (size_t)version % TEXT_LENGTH;
    enum run_string strings[] = {RUN_STRING_MODEL, RUN_STRING_RESULT_SUBTYPE};

    for (size_t i = 0; i < 2; i++) {
        size_t length;
        const char *text = run_copy_string(copy, strings[i], &length);

        if (length != wanted)
            return false;
        for (size_t j = 0; j < length; j++) {
            if (text[j] != 'a' + version % 26)
                return false;
        }
    }
    return copy->record.started_us == version && copy->record.exit_code == version;
}

static void *read_all(void *context)
{
    struct run_copy copy = {.text = NULL};
    long *torn = context;
    int64_t last = -1;

    for (int i = 0; i < READS / READERS; i++) {
        atomic_fetch_add_explicit(&reads, 1, memory_order_relaxed);
        if (run_table_read(board, slot_index, &copy) != RUN_READ_OK)
            continue;
        if (!is_whole(&copy) || copy.record.num_turns < last) /* nor does it go back */
            ++*torn;
        last = copy.record.num_turns;
    }
    run_copy_release(&copy);
    return NULL;
}

static void *write_all(void *context)
{
    unsigned version = 0;

    while (!atomic_load(&over)) {
        if (atomic_load_explicit(&reads, memory_order_relaxed) / READS_PER_VERSION >= version)
            write_version(context, ++version);
        else
            sched_yield();
    }
    printf("%u versions were written\n", version);
    return NULL;
}

int main(void)
{
    pthread_t readers[READERS], writer;
    long torn[READERS] = {0}, sum = 0;
    struct run_entry entry;

    board = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 1, .run_history = 1}, NULL);
    if (board == NULL || !run_entry_take(&entry, board, 1, 7))
        return EXIT_FAILURE;
    write_version(&entry, 0);
    slot_index = entry.index;
    if (pthread_create(&writer, NULL, write_all, &entry) != 0)
        return EXIT_FAILURE;
    for (size_t i = 0; i < READERS; i++) {
        if (pthread_create(&readers[i], NULL, read_all, &torn[i]) != 0)
            return EXIT_FAILURE;
    }
    for (size_t i = 0; i < READERS; i++) {
        pthread_join(readers[i], NULL);
        sum += torn[i];
    }
    atomic_store(&over, true);
    pthread_join(writer, NULL);
    scoreboard_free(board);
    printf("%ld of %d reads were torn\n", sum, READS);
    return sum == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
