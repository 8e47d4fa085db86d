/*
 * run_slots: how the table of runs is laid out in shared memory, for run_entry.c, which writes it, and run_table.c,
 * which reads it. Nobody else includes it.
 */
#ifndef COMMON_RUN_SLOTS_H
#define COMMON_RUN_SLOTS_H

#include "common/run_table.h"

#include <string.h>

#define WORD_BYTES 8u
/* Offset 0 is no place, so that the first word stays unused. */
#define TEXT_BYTES                                                                                                     \
    (RUN_RAW_PROMPT_MAX_BYTES + RUN_CONFIG_MAX_BYTES + RUN_ERROR_MAX_BYTES +                                           \
     (RUN_STRING_COUNT + 8) * RUN_NAME_MAX_BYTES)
#define PAGE_BYTES 4096u

_Static_assert(sizeof(struct run_record) % WORD_BYTES == 0, "a record is shared word by word");

typedef atomic_uint_least64_t shared_word;

enum slot_state {
    SLOT_FREE,
    SLOT_TAKEN,     /* its owner fills it in; nobody else looks at it */
    SLOT_LIVE,      /* the run goes on */
    SLOT_CANCELLED, /* the run goes on, and its owner is to cancel it */
    SLOT_LOST,      /* the run goes on, and its owner is to end it: its sandbox is gone */
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

/* Slots and pages follow the scoreboard, each aligned. */
static inline size_t slots_offset(void)
{
    return (sizeof(struct scoreboard) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static inline size_t pages_offset(unsigned slots)
{
    return slots_offset() + (slots * sizeof(struct run_slot) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static inline struct run_slot *slot_at(const struct scoreboard *scoreboard, unsigned index)
{
    return (struct run_slot *)((char *)scoreboard + slots_offset()) + index;
}

static inline struct run_page *page_at(const struct scoreboard *scoreboard, unsigned index)
{
    return (struct run_page *)((char *)scoreboard + pages_offset(scoreboard->run_slots)) + index;
}

static inline enum slot_state state_of(uint64_t phase)
{
    return (enum slot_state)(phase & ((1u << STATE_BITS) - 1));
}

static inline uint64_t with_state(uint64_t phase, enum slot_state state)
{
    return phase >> STATE_BITS << STATE_BITS | state;
}

/* Not free, nor still being filled in by its owner. */
static inline bool is_seen(enum slot_state state)
{
    return state != SLOT_FREE && state != SLOT_TAKEN;
}

static inline bool is_live(enum slot_state state)
{
    return state == SLOT_LIVE || state == SLOT_CANCELLED || state == SLOT_LOST || state == SLOT_ENDING;
}

/* --- words --------------------------------------------------------------------------------------------- */

/*
 * The order of Boehm's seqlock without fences, which ThreadSanitizer does not know: each word is released behind the
 * odd sequence and acquired before the sequence is looked at again. On x86 these are plain moves.
 */
static inline void put_words(shared_word *words, const void *bytes, size_t length)
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

static inline void get_words(const shared_word *words, void *bytes, size_t length)
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
static inline void begin_write(struct run_slot *slot)
{
    atomic_store_explicit(&slot->sequence, atomic_load_explicit(&slot->sequence, memory_order_relaxed) | 1,
                          memory_order_relaxed);
}

static inline void end_write(struct run_slot *slot)
{
    atomic_store_explicit(&slot->sequence, (atomic_load_explicit(&slot->sequence, memory_order_relaxed) | 1) + 1,
                          memory_order_release);
}

/* Does a text of a record stand among its texts? */
static inline bool is_inside(const struct run_record *record, const struct run_text *text)
{
    return text->length == RUN_TEXT_NULL ||
           (text->offset <= record->text_bytes && text->length <= record->text_bytes - text->offset);
}

#endif
