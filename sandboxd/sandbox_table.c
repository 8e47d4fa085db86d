#include "sandboxd/sandbox_internal.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>

/* Ids are random, so any mixing of their bytes is a hash. */
struct sandbox_list *sandbox_bucket(struct sandbox_table *table, const char *id)
{
    unsigned hash = 0;

    for (size_t i = 0; id[i] != '\0'; i++)
        hash = hash * 31 + (unsigned char)id[i];
    return &table->running[hash % SANDBOX_BUCKETS];
}

static void on_balance(evutil_socket_t fd, short what, void *arg)
{
    struct sandbox_table *table = arg;

    (void)fd;
    (void)what;
    jail_balance(table->jail);
}

/* Begins to share the CPU; false when memory is out. */
static bool start_balance(struct sandbox_table *table)
{
    const struct timeval period = {.tv_usec = JAIL_BALANCE_MS * 1000};

    table->balance = event_new(table->base, -1, EV_PERSIST, on_balance, table);
    return table->balance != NULL && event_add(table->balance, &period) == 0;
}

struct sandbox_table *sandbox_table_new(struct event_base *base, struct jail *jail, const struct network *network,
                                        const struct sandbox_hooks *hooks)
{
    struct sandbox_table *table = calloc(1, sizeof *table);

    if (table == NULL)
        return NULL;
    table->base = base;
    table->jail = jail;
    table->network = network;
    table->hooks = hooks;
    LIST_INIT(&table->unlisted);
    for (size_t i = 0; i < SANDBOX_BUCKETS; i++)
        LIST_INIT(&table->running[i]);
    if (start_balance(table))
        return table;
    sandbox_table_free(table);
    return NULL;
}

void sandbox_table_free(struct sandbox_table *table)
{
    if (table != NULL && table->balance != NULL)
        event_free(table->balance);
    free(table);
}

struct sandbox *sandbox_find(struct sandbox_table *table, const char *id)
{
    struct sandbox *sandbox;

    LIST_FOREACH(sandbox, sandbox_bucket(table, id), next)
    {
        if (strcmp(sandbox->id, id) == 0)
            return sandbox;
    }
    return NULL;
}

unsigned sandbox_table_count(const struct sandbox_table *table)
{
    return table->count;
}

void sandbox_table_each(struct sandbox_table *table, void (*visit)(struct sandbox *sandbox, void *arg), void *arg)
{
    for (size_t i = 0; i < SANDBOX_BUCKETS; i++) {
        struct sandbox *sandbox = LIST_FIRST(&table->running[i]);

        while (sandbox != NULL) {
            struct sandbox *following = LIST_NEXT(sandbox, next);

            visit(sandbox, arg);
            sandbox = following;
        }
    }
}

/* Tells who waits for the end of all, once nothing is left. */
static void check_all_ended(struct sandbox_table *table)
{
    void (*all_ended)(void *arg) = table->all_ended;

    if (all_ended == NULL || !LIST_EMPTY(&table->unlisted))
        return;
    table->all_ended = NULL;
    all_ended(table->all_ended_arg);
}

static void end_one(struct sandbox *sandbox, void *arg)
{
    sandbox_end(sandbox, arg, NULL, NULL);
}

void sandbox_table_end_all(struct sandbox_table *table, void (*done)(void *arg), void *arg)
{
    struct sandbox *sandbox;

    table->all_ended = done;
    table->all_ended_arg = arg;
    sandbox_table_each(table, end_one, "shutdown");
    for (sandbox = LIST_FIRST(&table->unlisted); sandbox != NULL; sandbox = LIST_NEXT(sandbox, next))
        sandbox_end(sandbox, "shutdown", NULL, NULL);
    check_all_ended(table);
}

void sandbox_table_reaped(struct sandbox_table *table, pid_t pid, int status)
{
    struct sandbox *sandbox;

    LIST_FOREACH(sandbox, &table->unlisted, next)
    {
        if (sandbox->private->bwrap_pid == pid)
            break;
    }
    for (size_t i = 0; i < SANDBOX_BUCKETS && sandbox == NULL; i++) {
        LIST_FOREACH(sandbox, &table->running[i], next)
        {
            if (sandbox->private->bwrap_pid == pid)
                break;
        }
    }
    if (sandbox == NULL)
        return;
    if (sandbox->state != SANDBOX_ENDING) {
        log_warn("sandbox %s: bwrap ended by itself, wait status 0x%x", sandbox->id, (unsigned)status);
        sandbox_end(sandbox, "bwrap ended", NULL, NULL);
    }
    LIST_REMOVE(sandbox, next);
    jail_release(table->jail, sandbox->slot);
    sandbox_tell_ended(sandbox);
    sandbox_free(sandbox);
    check_all_ended(table);
}
