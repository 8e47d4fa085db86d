/*
 * The side of a run's owner: slots, records and leases are written here, and taken over from the dead.
 */
#include "common/run_slots.h"
#include "common/utf8_cut.h"

#include "common/log.h"

/* --- taking and forgetting ----------------------------------------------------------------------------- */

/* The oldest ended run gives up its slot; one whose sandbox is still to be deleted only if need be. */
static bool forget_oldest(struct scoreboard *scoreboard, bool leased_too)
{
    struct run_slot *oldest = NULL;
    uint64_t oldest_phase = 0, oldest_ended = UINT64_MAX;

    for (unsigned i = 0; i < scoreboard->run_slots; i++) {
        struct run_slot *slot = slot_at(scoreboard, i);
        uint64_t phase = atomic_load(&slot->phase);
        uint64_t ended = atomic_load(&slot->ended);

        if (state_of(phase) != SLOT_ENDED || ended >= oldest_ended ||
            (!leased_too && atomic_load(&slot->lease) != RUN_LEASE_NONE))
            continue;
        oldest = slot;
        oldest_phase = phase;
        oldest_ended = ended;
    }
    if (oldest == NULL)
        return false;
    if (atomic_compare_exchange_strong(&oldest->phase, &oldest_phase, with_state(oldest_phase, SLOT_TAKEN))) {
        atomic_store(&oldest->lease, RUN_LEASE_NONE);
        atomic_store(&oldest->owner, 0);
        atomic_store(&oldest->phase, with_state(oldest_phase, SLOT_FREE));
        atomic_fetch_sub(&scoreboard->ended_runs, 1);
    }
    return true; /* else another process just did it */
}

static bool take_free(struct scoreboard *scoreboard, unsigned *index)
{
    static unsigned next; /* of this process: where the last search ended */

    for (unsigned i = 0; i < scoreboard->run_slots; i++) {
        struct run_slot *slot = slot_at(scoreboard, *index = (next + i) % scoreboard->run_slots);
        uint64_t phase = atomic_load_explicit(&slot->phase, memory_order_relaxed);
        uint64_t taken = with_state(phase, SLOT_TAKEN) + (1u << STATE_BITS);

        if (state_of(phase) != SLOT_FREE || !atomic_compare_exchange_strong(&slot->phase, &phase, taken))
            continue;
        next = *index + 1;
        return true;
    }
    return false;
}

static bool take(struct run_entry *entry, struct scoreboard *scoreboard, uint64_t owner, uint64_t id)
{
    struct run_slot *slot;
    unsigned index = 0;

    while (!take_free(scoreboard, &index)) {
        if (!forget_oldest(scoreboard, true))
            return false;
    }
    slot = slot_at(scoreboard, index);
    atomic_store(&slot->owner, owner);
    begin_write(slot); /* until it is published */
    atomic_store(&slot->id, id);
    atomic_store(&slot->admitted, atomic_fetch_add(&scoreboard->run_admissions, 1) + 1);
    atomic_store(&slot->lease, RUN_LEASE_NONE);
    atomic_store(&slot->foreign, false);
    atomic_store(&slot->by_cancel, false);
    *entry = (struct run_entry){.scoreboard = scoreboard, .index = index, .record = {.id = id, .num_turns = -1}};
    entry->record.text_bytes = WORD_BYTES;
    for (size_t i = 0; i < RUN_STRING_COUNT; i++)
        entry->record.strings[i].length = RUN_TEXT_NULL;
    return true;
}

bool run_entry_take(struct run_entry *entry, struct scoreboard *scoreboard, uint64_t owner, uint64_t id)
{
    return id != 0 && run_table_find(scoreboard, id) < 0 && take(entry, scoreboard, owner, id);
}

bool run_entry_take_ended(struct run_entry *entry, struct scoreboard *scoreboard, uint64_t id, bool by_cancel)
{
    if (!take(entry, scoreboard, 0, id))
        return false;
    atomic_store(&slot_at(scoreboard, entry->index)->by_cancel, by_cancel);
    return true;
}

/* --- writing ------------------------------------------------------------------------------------------- */

static size_t limit_of(enum run_string which)
{
    switch (which) {
    case RUN_STRING_RAW_PROMPT:
        return RUN_RAW_PROMPT_MAX_BYTES;
    case RUN_STRING_CONFIG:
        return RUN_CONFIG_MAX_BYTES;
    case RUN_STRING_ERROR:
        return RUN_ERROR_MAX_BYTES;
    case RUN_STRING_PROMPT:
        return 4 * RUN_NAME_MAX_BYTES;
    default:
        return RUN_NAME_MAX_BYTES;
    }
}

/* These change in the life of a run: they get a place for their longest text, and keep it. */
static bool is_rewritten(enum run_string which)
{
    return which == RUN_STRING_MODEL || which == RUN_STRING_AGENT_SESSION_ID || which == RUN_STRING_RESULT_SUBTYPE ||
           which == RUN_STRING_ERROR;
}

/* A place behind all that readers may be reading; *size is what can be had of what is wanted. */
static uint32_t allot(struct run_record *record, size_t *size)
{
    size_t offset = (record->text_bytes + WORD_BYTES - 1) / WORD_BYTES * WORD_BYTES;

    if (offset > TEXT_BYTES)
        offset = TEXT_BYTES;
    if (*size > TEXT_BYTES - offset)
        *size = TEXT_BYTES - offset;
    record->text_bytes = (uint32_t)(offset + *size);
    return (uint32_t)offset;
}

void run_entry_set(struct run_entry *entry, enum run_string which, const char *text, size_t length)
{
    struct run_text *place = &entry->record.strings[which];
    size_t size = limit_of(which);

    if (text == NULL) {
        place->length = RUN_TEXT_NULL;
        return;
    }
    length = utf8_cut(text, length, size);
    if (place->offset == 0 || !is_rewritten(which)) {
        size = is_rewritten(which) ? size : length;
        place->offset = allot(&entry->record, &size);
        length = utf8_cut(text, length, size);
    } else {
        begin_write(slot_at(entry->scoreboard, entry->index)); /* readers may be there: until it is published */
    }
    place->length = (uint32_t)length;
    put_text(entry->scoreboard, entry->index, place->offset, text, length);
}

static void write_record(struct run_entry *entry)
{
    struct run_slot *slot = slot_at(entry->scoreboard, entry->index);

    begin_write(slot);
    put_words(head_at(entry->scoreboard, entry->index)->record, &entry->record, sizeof entry->record);
    atomic_store(&slot->status, entry->record.status);
    end_write(slot);
}

void run_entry_publish(struct run_entry *entry)
{
    struct run_slot *slot = slot_at(entry->scoreboard, entry->index);
    uint64_t phase;

    write_record(entry);
    phase = atomic_load(&slot->phase);
    if (state_of(phase) == SLOT_TAKEN)
        atomic_store(&slot->phase, with_state(phase, SLOT_LIVE));
}

bool run_entry_is_cancelled(const struct run_entry *entry)
{
    return state_of(atomic_load(&slot_at(entry->scoreboard, entry->index)->phase)) == SLOT_CANCELLED;
}

bool run_entry_is_lost(const struct run_entry *entry)
{
    return state_of(atomic_load(&slot_at(entry->scoreboard, entry->index)->phase)) == SLOT_LOST;
}

bool run_entry_begin_end(struct run_entry *entry)
{
    struct run_slot *slot = slot_at(entry->scoreboard, entry->index);
    uint64_t phase = atomic_load(&slot->phase);

    while (!atomic_compare_exchange_weak(&slot->phase, &phase, with_state(phase, SLOT_ENDING))) {
    }
    if (state_of(phase) == SLOT_CANCELLED)
        atomic_store(&slot->by_cancel, true);
    return state_of(phase) == SLOT_CANCELLED;
}

void run_entry_end(struct run_entry *entry)
{
    struct scoreboard *scoreboard = entry->scoreboard;
    struct run_slot *slot = slot_at(scoreboard, entry->index);

    write_record(entry);
    atomic_store(&slot->ended, atomic_fetch_add(&scoreboard->run_ends, 1) + 1);
    atomic_store(&slot->phase, with_state(atomic_load(&slot->phase), SLOT_ENDED));
    if (atomic_fetch_add(&scoreboard->ended_runs, 1) + 1 > scoreboard->sizes.run_history)
        (void)forget_oldest(scoreboard, false);
}

/* --- leases -------------------------------------------------------------------------------------------- */

struct run_lease_name run_entry_lease_name(const struct run_entry *entry)
{
    return (struct run_lease_name){.index = entry->index, .id = entry->record.id};
}

void run_entry_mark_foreign(struct run_entry *entry)
{
    atomic_store(&slot_at(entry->scoreboard, entry->index)->foreign, true);
}

/* NULL: the run was forgotten, and its slot is another's. */
static struct run_slot *leased_slot(struct scoreboard *scoreboard, struct run_lease_name name)
{
    struct run_slot *slot = slot_at(scoreboard, name.index);

    return atomic_load(&slot->id) == name.id ? slot : NULL;
}

void run_lease_creating(struct scoreboard *scoreboard, struct run_lease_name name, int64_t until_ms)
{
    struct run_slot *slot = leased_slot(scoreboard, name);

    if (slot == NULL)
        return;
    atomic_store(&slot->expires_ms, until_ms);
    atomic_store(&slot->lease, RUN_LEASE_CREATING);
}

void run_lease_hold(struct scoreboard *scoreboard, struct run_lease_name name, enum run_lease lease,
                    const char *sandbox_id, int64_t expires_ms)
{
    struct run_slot *slot = leased_slot(scoreboard, name);
    char id[RUN_SANDBOX_ID_MAX_BYTES + WORD_BYTES] = "";

    if (slot == NULL)
        return;
    memcpy(id, sandbox_id, strnlen(sandbox_id, RUN_SANDBOX_ID_MAX_BYTES));
    put_words(head_at(scoreboard, name.index)->sandbox_id, id, sizeof id);
    atomic_store(&slot->expires_ms, expires_ms);
    atomic_store(&slot->lease, lease);
}

void run_lease_clear(struct scoreboard *scoreboard, struct run_lease_name name)
{
    struct run_slot *slot = leased_slot(scoreboard, name);

    if (slot != NULL)
        atomic_store(&slot->lease, RUN_LEASE_NONE);
}

/* --- orphans ------------------------------------------------------------------------------------------- */

static bool is_orphan(const struct scoreboard *scoreboard, struct run_slot *slot, uint64_t owner)
{
    enum slot_state state = state_of(atomic_load(&slot->phase));

    return owner != 0 && !scoreboard_is_alive(scoreboard, owner) &&
           (state == SLOT_TAKEN || is_live(state) || atomic_load(&slot->lease) != RUN_LEASE_NONE);
}

/* What its writer left, perhaps in the middle of a record. */
static void take_over_record(struct run_entry *entry)
{
    struct run_record *record = &entry->record;

    get_words(head_at(entry->scoreboard, entry->index)->record, record, sizeof *record);
    record->id = atomic_load(&slot_at(entry->scoreboard, entry->index)->id);
    if (record->text_bytes < WORD_BYTES || record->text_bytes > TEXT_BYTES)
        record->text_bytes = WORD_BYTES;
    for (size_t i = 0; i < RUN_STRING_COUNT; i++) {
        if (!is_inside(record, &record->strings[i]))
            record->strings[i] = (struct run_text){.length = RUN_TEXT_NULL};
    }
}

static void describe_orphan(struct run_orphan *orphan, struct scoreboard *scoreboard, unsigned index)
{
    struct run_slot *slot = slot_at(scoreboard, index);

    *orphan = (struct run_orphan){.entry = {.scoreboard = scoreboard, .index = index},
                                  .was_live = is_live(state_of(atomic_load(&slot->phase))),
                                  .lease = (enum run_lease)atomic_load(&slot->lease),
                                  .is_foreign = atomic_load(&slot->foreign),
                                  .expires_ms = atomic_load(&slot->expires_ms)};
    get_words(head_at(scoreboard, index)->sandbox_id, orphan->sandbox_id, RUN_SANDBOX_ID_MAX_BYTES);
    take_over_record(&orphan->entry);
    if (orphan->was_live)
        orphan->was_cancelled = run_entry_begin_end(&orphan->entry) || atomic_load(&slot->by_cancel);
}

bool run_table_adopt(struct scoreboard *scoreboard, uint64_t owner, unsigned *cursor, struct run_orphan *orphan)
{
    while (*cursor < scoreboard->run_slots) {
        unsigned index = (*cursor)++;
        struct run_slot *slot = slot_at(scoreboard, index);
        uint64_t dead = atomic_load(&slot->owner);

        if (!is_orphan(scoreboard, slot, dead) || !atomic_compare_exchange_strong(&slot->owner, &dead, owner))
            continue;
        if (state_of(atomic_load(&slot->phase)) == SLOT_TAKEN) { /* nobody saw it yet */
            atomic_store(&slot->owner, 0);
            end_write(slot);
            atomic_store(&slot->phase, with_state(atomic_load(&slot->phase), SLOT_FREE));
            continue;
        }
        describe_orphan(orphan, scoreboard, index);
        return true;
    }
    return false;
}
