#include "common/run_table.h"

#include "common/log.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BYTES 8u
/* Offset 0 is no place, so that the first word stays unused. */
#define TEXT_BYTES                                                                                                     \
    (RUN_RAW_PROMPT_MAX_BYTES + RUN_CONFIG_MAX_BYTES + RUN_ERROR_MAX_BYTES +                                           \
     (RUN_STRING_COUNT + 8) * RUN_NAME_MAX_BYTES)
#define PAGE_BYTES 4096u
/* A slot that is being ended is looked at again so often: its owner needs microseconds, unless it was stopped. */
#define ENDING_LOOKS_MAX 1000
/* A record that is being written is read again so often. */
#define READS_MAX 10000

_Static_assert(sizeof(struct run_record) % WORD_BYTES == 0, "a record is shared word by word");

typedef atomic_uint_least64_t shared_word;

enum slot_state {
    SLOT_FREE,
    SLOT_TAKEN,     /* its owner fills it in; nobody else looks at it */
    SLOT_LIVE,      /* the run goes on */
    SLOT_CANCELLED, /* the run goes on, and its owner is to cancel it */
    SLOT_ENDING,    /* its owner writes the final record */
    SLOT_ENDED,     /* history */
};

#define STATE_BITS 3

/* What is scanned: one cache line. */
struct run_slot {
    alignas(64) shared_word phase; /* how often the slot was taken << STATE_BITS | enum slot_state */
    shared_word id;
    shared_word owner;    /* serial of its worker, also while it only holds the lease */
    shared_word admitted; /* from scoreboard.run_admissions */
    shared_word ended;    /* from scoreboard.run_ends */
    atomic_int_least64_t expires_ms;
    atomic_uint sequence;  /* odd: a record is being written */
    atomic_uchar status;   /* enum run_status of the record that was published */
    atomic_uchar lease;    /* enum run_lease */
    atomic_bool foreign;   /* the lease's key is a caller's */
    atomic_bool by_cancel; /* it ended because somebody asked for it */
};

/* What is read: in its own pages, so that only what is used costs memory. */
struct run_page {
    alignas(PAGE_BYTES) shared_word record[sizeof(struct run_record) / WORD_BYTES];
    shared_word sandbox_id[RUN_SANDBOX_ID_MAX_BYTES / WORD_BYTES + 1]; /* of the lease; written before it says so */
    shared_word text[TEXT_BYTES / WORD_BYTES];
};

/* --- where things are --------------------------------------------------------------------------------- */

unsigned run_table_slots(const struct scoreboard_sizes *sizes)
{
    return 2 * sizes->max_runs +
           sizes->run_history; /* the live, as many whose sandbox is still being deleted, the past */
}

/* Slots and pages follow the scoreboard, each aligned. */
static size_t slots_offset(void)
{
    return (sizeof(struct scoreboard) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static size_t pages_offset(unsigned slots)
{
    return slots_offset() + (slots * sizeof(struct run_slot) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

size_t run_table_bytes(const struct scoreboard_sizes *sizes)
{
    unsigned slots = run_table_slots(sizes);

    return pages_offset(slots) + slots * sizeof(struct run_page) - sizeof(struct scoreboard);
}

static struct run_slot *slot_at(const struct scoreboard *scoreboard, unsigned index)
{
    return (struct run_slot *)((char *)scoreboard + slots_offset()) + index;
}

static struct run_page *page_at(const struct scoreboard *scoreboard, unsigned index)
{
    return (struct run_page *)((char *)scoreboard + pages_offset(scoreboard->run_slots)) + index;
}

static enum slot_state state_of(uint64_t phase)
{
    return (enum slot_state)(phase & ((1u << STATE_BITS) - 1));
}

static uint64_t with_state(uint64_t phase, enum slot_state state)
{
    return phase >> STATE_BITS << STATE_BITS | state;
}

static bool is_live(enum slot_state state)
{
    return state == SLOT_LIVE || state == SLOT_CANCELLED || state == SLOT_ENDING;
}

/* --- words --------------------------------------------------------------------------------------------- */

/*
 * The order of Boehm's seqlock without fences, which ThreadSanitizer does not know: each word is released behind the
 * odd sequence and acquired before the sequence is looked at again. On x86 these are plain moves.
 */
static void put_words(shared_word *words, const void *bytes, size_t length)
{
    const char *from = bytes;

    for (size_t i = 0; length > 0; i++) {
        size_t piece = length < WORD_BYTES ? length : WORD_BYTES;
        uint64_t word = 0;

        memcpy(&word, from, piece);
        atomic_store_explicit(&words[i], word, memory_order_release);
        from += piece;
        length -= piece;
    }
}

static void get_words(const shared_word *words, void *bytes, size_t length)
{
    char *to = bytes;

    for (size_t i = 0; length > 0; i++) {
        size_t piece = length < WORD_BYTES ? length : WORD_BYTES;
        uint64_t word = atomic_load_explicit(&words[i], memory_order_acquire);

        memcpy(to, &word, piece);
        to += piece;
        length -= piece;
    }
}

/* Makes the sequence odd; it may be that already, if a writer died. */
static void begin_write(struct run_slot *slot)
{
    atomic_store_explicit(&slot->sequence, atomic_load_explicit(&slot->sequence, memory_order_relaxed) | 1,
                          memory_order_relaxed);
}

static void end_write(struct run_slot *slot)
{
    atomic_store_explicit(&slot->sequence, (atomic_load_explicit(&slot->sequence, memory_order_relaxed) | 1) + 1,
                          memory_order_release);
}

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

static size_t cut(const char *text, size_t length, size_t most)
{
    if (length <= most)
        return length;
    while (most > 0 && ((unsigned char)text[most] & 0xc0) == 0x80)
        most--;
    return most;
}

void run_entry_set(struct run_entry *entry, enum run_string which, const char *text, size_t length)
{
    struct run_text *place = &entry->record.strings[which];
    size_t size = limit_of(which);

    if (text == NULL) {
        place->length = RUN_TEXT_NULL;
        return;
    }
    length = cut(text, length, size);
    if (place->offset == 0 || !is_rewritten(which)) {
        size = is_rewritten(which) ? size : length;
        place->offset = allot(&entry->record, &size);
        length = cut(text, length, size);
    } else {
        begin_write(slot_at(entry->scoreboard, entry->index)); /* readers may be there: until it is published */
    }
    place->length = (uint32_t)length;
    put_words(page_at(entry->scoreboard, entry->index)->text + place->offset / WORD_BYTES, text, length);
}

static void write_record(struct run_entry *entry)
{
    struct run_slot *slot = slot_at(entry->scoreboard, entry->index);

    begin_write(slot);
    put_words(page_at(entry->scoreboard, entry->index)->record, &entry->record, sizeof entry->record);
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

void run_lease_creating(struct scoreboard *scoreboard, struct run_lease_name name)
{
    struct run_slot *slot = leased_slot(scoreboard, name);

    if (slot != NULL)
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
    put_words(page_at(scoreboard, name.index)->sandbox_id, id, sizeof id);
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

static bool is_inside(const struct run_record *record, const struct run_text *text)
{
    return text->length == RUN_TEXT_NULL ||
           (text->offset <= record->text_bytes && text->length <= record->text_bytes - text->offset);
}

/* What its writer left, perhaps in the middle of a record. */
static void take_over_record(struct run_entry *entry)
{
    struct run_record *record = &entry->record;

    get_words(page_at(entry->scoreboard, entry->index)->record, record, sizeof *record);
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
    get_words(page_at(scoreboard, index)->sandbox_id, orphan->sandbox_id, RUN_SANDBOX_ID_MAX_BYTES);
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
    const struct run_page *page = page_at(scoreboard, index);

    for (int i = 0; i < READS_MAX; i++) {
        unsigned before = atomic_load_explicit(&slot->sequence, memory_order_acquire);
        enum slot_state state = state_of(atomic_load(&slot->phase));

        if (state == SLOT_FREE || state == SLOT_TAKEN)
            return RUN_READ_GONE;
        if (before & 1) {
            sched_yield();
            continue;
        }
        get_words(page->record, &copy->record, sizeof copy->record);
        if (!texts_are_inside(&copy->record))
            continue; /* torn: the sequence has changed */
        if (!reserve_text(copy, copy->record.text_bytes))
            return RUN_READ_NO_MEMORY;
        get_words(page->text, copy->text, copy->record.text_bytes);
        if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) == before)
            return RUN_READ_OK;
    }
    return RUN_READ_GONE;
}

int run_table_find(const struct scoreboard *scoreboard, uint64_t id)
{
    for (unsigned i = 0; i < scoreboard->run_slots; i++) {
        struct run_slot *slot = slot_at(scoreboard, i);

        if (atomic_load_explicit(&slot->id, memory_order_acquire) == id) {
            enum slot_state state = state_of(atomic_load(&slot->phase));

            if (state != SLOT_FREE && state != SLOT_TAKEN)
                return (int)i;
        }
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
    enum slot_state state = state_of(atomic_load(&slot->phase));

    if (state == SLOT_FREE || state == SLOT_TAKEN || atomic_load(&slot->admitted) >= before)
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
