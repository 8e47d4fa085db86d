#include "common/run_table.h"

#include "common/log.h"
#include "common/run_slots.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* A slot that is being ended is looked at again so often: its owner needs microseconds, unless it was stopped. */
#define ENDING_LOOKS_MAX 1000
/* A record that is being written is read again so often. */
#define READS_MAX 10000

unsigned run_table_slots(const struct scoreboard_sizes *sizes)
{
    return 2 * sizes->max_runs +
           sizes->run_history; /* the live, as many whose sandbox is still being deleted, the past */
}

size_t run_table_bytes(const struct scoreboard_sizes *sizes)
{
    unsigned slots = run_table_slots(sizes);

    return tails_offset(slots) + slots * sizeof(struct run_tail) - sizeof(struct scoreboard);
}

/* --- reading ------------------------------------------------------------------------------------------- */

void run_copy_release(struct run_copy *copy)
{
    free(copy->text);
    *copy = (struct run_copy){.text = NULL};
}

const char *run_copy_string(const struct run_copy *copy, enum run_string which, size_t *length)
{
    const struct run_text *text = &copy->record.strings[which];

    *length = text->length != RUN_TEXT_NULL ? text->length : 0;
    return text->length != RUN_TEXT_NULL ? copy->text + text->offset : NULL;
}

static bool reserve_text(struct run_copy *copy, size_t bytes)
{
    char *grown;

    if (bytes <= copy->capacity)
        return true;
    grown = realloc(copy->text, bytes);
    if (grown == NULL)
        return false;
    copy->text = grown;
    copy->capacity = bytes;
    return true;
}

static bool texts_are_inside(const struct run_record *record)
{
    for (size_t i = 0; i < RUN_STRING_COUNT; i++) {
        if (!is_inside(record, &record->strings[i]))
            return false;
    }
    return record->text_bytes <= TEXT_BYTES;
}

enum run_read run_table_read(const struct scoreboard *scoreboard, unsigned index, struct run_copy *copy)
{
    struct run_slot *slot = slot_at(scoreboard, index);

    for (int i = 0; i < READS_MAX; i++) {
        unsigned before = atomic_load_explicit(&slot->sequence, memory_order_acquire);
        enum slot_state state = state_of(atomic_load(&slot->phase));

        if (!is_seen(state))
            return RUN_READ_GONE;
        if (before & 1) {
            sched_yield();
            continue;
        }
        get_words(head_at(scoreboard, index)->record, &copy->record, sizeof copy->record);
        if (!texts_are_inside(&copy->record))
            continue; /* torn: the sequence has changed */
        if (!reserve_text(copy, copy->record.text_bytes))
            return RUN_READ_NO_MEMORY;
        get_text(scoreboard, index, copy->text, copy->record.text_bytes);
        if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) == before)
            return RUN_READ_OK;
    }
    return RUN_READ_GONE;
}

int run_table_find(const struct scoreboard *scoreboard, uint64_t id)
{
    for (unsigned i = 0; i < scoreboard->run_slots; i++) {
        struct run_slot *slot = slot_at(scoreboard, i);

        if (atomic_load_explicit(&slot->id, memory_order_acquire) == id && is_seen(state_of(atomic_load(&slot->phase))))
            return (int)i;
    }
    return -1;
}

/* --- listing ------------------------------------------------------------------------------------------- */

struct listed {
    uint64_t admitted;
    unsigned index;
};

static int newest_first(const void *left, const void *right)
{
    uint64_t one = ((const struct listed *)left)->admitted, other = ((const struct listed *)right)->admitted;

    return one < other ? 1 : one > other ? -1 : 0;
}

static bool is_wanted(struct run_slot *slot, const struct run_filter *filter, uint64_t before)
{
    if (!is_seen(state_of(atomic_load(&slot->phase))) || atomic_load(&slot->admitted) >= before)
        return false;
    return filter->status < 0 || atomic_load(&slot->status) == filter->status;
}

int run_table_list(const struct scoreboard *scoreboard, const struct run_filter *filter, size_t limit,
                   unsigned **indices)
{
    struct listed *found = malloc((scoreboard->run_slots + 1) * sizeof *found);
    int first = filter->before != 0 ? run_table_find(scoreboard, filter->before) : -1;
    uint64_t before = first >= 0 ? atomic_load(&slot_at(scoreboard, (unsigned)first)->admitted) : UINT64_MAX;
    size_t count = 0;

    *indices = NULL;
    if (found == NULL || (filter->before != 0 && first < 0)) {
        free(found);
        return found == NULL ? -2 : -1;
    }
    for (unsigned i = 0; i < scoreboard->run_slots; i++) {
        struct run_slot *slot = slot_at(scoreboard, i);

        if (is_wanted(slot, filter, before))
            found[count++] = (struct listed){.admitted = atomic_load(&slot->admitted), .index = i};
    }
    qsort(found, count, sizeof *found, newest_first);
    count = count < limit ? count : limit;
    *indices = malloc((count + 1) * sizeof **indices);
    for (size_t i = 0; *indices != NULL && i < count; i++)
        (*indices)[i] = found[i].index;
    free(found);
    return *indices != NULL ? (int)count : -2;
}

/* --- cancelling ---------------------------------------------------------------------------------------- */

enum run_cancel run_table_cancel(struct scoreboard *scoreboard, uint64_t id, uint64_t *owner, enum run_status *status)
{
    for (int i = 0; i < ENDING_LOOKS_MAX; i++) {
        int index = run_table_find(scoreboard, id);
        struct run_slot *slot = index >= 0 ? slot_at(scoreboard, (unsigned)index) : NULL;
        uint64_t phase = slot != NULL ? atomic_load(&slot->phase) : 0;

        if (slot == NULL || atomic_load(&slot->id) != id)
            return RUN_CANCEL_UNKNOWN;
        switch (state_of(phase)) {
        case SLOT_LIVE: /* a slot that was taken anew meanwhile has another phase */
        case SLOT_LOST:
            *owner = atomic_load(&slot->owner);
            if (atomic_compare_exchange_strong(&slot->phase, &phase, with_state(phase, SLOT_CANCELLED)))
                return RUN_CANCEL_ACCEPTED;
            break;
        case SLOT_CANCELLED:
            return RUN_CANCEL_REPEATED;
        case SLOT_ENDED:
            *status = (enum run_status)atomic_load(&slot->status);
            return atomic_load(&slot->by_cancel) ? RUN_CANCEL_REPEATED : RUN_CANCEL_ENDED;
        case SLOT_ENDING:
            sched_yield();
            break;
        case SLOT_FREE:
        case SLOT_TAKEN:
        default:
            return RUN_CANCEL_UNKNOWN;
        }
    }
    return RUN_CANCEL_REPEATED; /* its worker was stopped in the middle of the end: it ends */
}

bool run_table_report_lost(struct scoreboard *scoreboard, uint64_t id, const char *sandbox_id, uint64_t *owner)
{
    int index = run_table_find(scoreboard, id);
    char held[RUN_SANDBOX_ID_MAX_BYTES + WORD_BYTES] = "";
    struct run_slot *slot;
    uint64_t phase;

    if (index < 0)
        return false;
    slot = slot_at(scoreboard, (unsigned)index);
    phase = atomic_load(&slot->phase);
    if (state_of(phase) != SLOT_LIVE || atomic_load(&slot->id) != id || atomic_load(&slot->lease) != RUN_LEASE_LIVE)
        return false;
    get_words(head_at(scoreboard, (unsigned)index)->sandbox_id, held, RUN_SANDBOX_ID_MAX_BYTES);
    if (strcmp(held, sandbox_id) != 0)
        return false;
    *owner = atomic_load(&slot->owner);
    /* A slot that was taken anew meanwhile has another phase. */
    return atomic_compare_exchange_strong(&slot->phase, &phase, with_state(phase, SLOT_LOST));
}

bool run_table_needs_sandbox(const struct scoreboard *scoreboard, uint64_t id)
{
    int index = run_table_find(scoreboard, id);
    struct run_slot *slot;

    if (index < 0)
        return false;
    slot = slot_at(scoreboard, (unsigned)index);
    return is_live(state_of(atomic_load(&slot->phase))) || atomic_load(&slot->lease) != RUN_LEASE_NONE;
}

unsigned run_table_count_leases(const struct scoreboard *scoreboard, uint64_t owner)
{
    unsigned count = 0;

    for (unsigned i = 0; i < scoreboard->run_slots; i++) {
        struct run_slot *slot = slot_at(scoreboard, i);

        count += atomic_load(&slot->lease) != RUN_LEASE_NONE && atomic_load(&slot->owner) == owner;
    }
    return count;
}

unsigned run_table_count_sandboxes(const struct scoreboard *scoreboard)
{
    unsigned count = 0;

    for (unsigned i = 0; i < scoreboard->run_slots; i++) {
        unsigned lease = atomic_load_explicit(&slot_at(scoreboard, i)->lease, memory_order_relaxed);

        count += lease == RUN_LEASE_LIVE || lease == RUN_LEASE_DELETING;
    }
    return count;
}

/* --- names --------------------------------------------------------------------------------------------- */

void run_id_format(uint64_t id, char out[static RUN_ID_DIGITS + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = RUN_ID_DIGITS - 1; i >= 0; i--) {
        out[i] = digits[id & 15];
        id >>= 4;
    }
    out[RUN_ID_DIGITS] = '\0';
}

bool run_id_parse(const char *text, size_t length, uint64_t *id)
{
    *id = 0;
    if (length != RUN_ID_DIGITS)
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];

        if ((c < '0' || c > '9') && (c < 'a' || c > 'f'))
            return false;
        *id = *id << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return *id != 0;
}

const char *run_status_name(enum run_status status)
{
    static const char *const names[RUN_STATUS_COUNT] = {
        [RUN_STATUS_RUNNING] = "running",
        [RUN_STATUS_COMPLETED] = "completed",
        [RUN_STATUS_ERROR] = "error",
        [RUN_STATUS_CANCELLED] = "cancelled",
    };

    if ((unsigned)status >= RUN_STATUS_COUNT)
        log_panic("run_table: no status %d", (int)status);
    return names[status];
}
