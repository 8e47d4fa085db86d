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

#define RECORD_WORDS     (sizeof(struct run_record) / WORD_BYTES)
#define SANDBOX_ID_WORDS (RUN_SANDBOX_ID_MAX_BYTES / WORD_BYTES + 1)
#define HEAD_BYTES       1024u
#define HEAD_TEXT_WORDS  (HEAD_BYTES / WORD_BYTES - RECORD_WORDS - SANDBOX_ID_WORDS)
#define HEAD_TEXT_BYTES  (HEAD_TEXT_WORDS * WORD_BYTES)

/* What is read: nearly always all of a run that goes on. */
struct run_head {
    alignas(64) shared_word record[RECORD_WORDS];
    shared_word sandbox_id[SANDBOX_ID_WORDS]; /* of the lease; written before it says so */
    shared_word text[HEAD_TEXT_WORDS];
};

/* The texts that have no room there, in pages of their own, so that only what is used costs memory. */
struct run_tail {
    alignas(PAGE_BYTES) shared_word text[TEXT_BYTES / WORD_BYTES - HEAD_TEXT_WORDS];
};

_Static_assert(sizeof(struct run_head) == HEAD_BYTES, "heads share pages");

/* --- where things are --------------------------------------------------------------------------------- */

static inline size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* Slots, heads and tails follow the scoreboard, each aligned. */
static inline size_t slots_offset(void)
{
    return whole_pages(sizeof(struct scoreboard));
}

static inline size_t heads_offset(unsigned slots)
{
    return slots_offset() + whole_pages(slots * sizeof(struct run_slot));
}

static inline size_t tails_offset(unsigned slots)
{
    return heads_offset(slots) + whole_pages(slots * sizeof(struct run_head));
}

static inline struct run_slot *slot_at(const struct scoreboard *scoreboard, unsigned index)
{
    return (struct run_slot *)((char *)scoreboard + slots_offset()) + index;
}

static inline struct run_head *head_at(const struct scoreboard *scoreboard, unsigned index)
{
    return (struct run_head *)((char *)scoreboard + heads_offset(scoreboard->run_slots)) + index;
}

static inline struct run_tail *tail_at(const struct scoreboard *scoreboard, unsigned index)
{
    return (struct run_tail *)((char *)scoreboard + tails_offset(scoreboard->run_slots)) + index;
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

/* A text at an offset of whole words: what the head has no room for stands in the tail. */
static inline void put_text(const struct scoreboard *scoreboard, unsigned index, size_t offset, const char *text,
                            size_t length)
{
    size_t room = offset < HEAD_TEXT_BYTES ? HEAD_TEXT_BYTES - offset : 0;
    size_t in_head = length < room ? length : room;

    if (in_head > 0)
        put_words(head_at(scoreboard, index)->text + offset / WORD_BYTES, text, in_head);
    if (length > in_head)
        put_words(tail_at(scoreboard, index)->text + (offset + in_head - HEAD_TEXT_BYTES) / WORD_BYTES, text + in_head,
                  length - in_head);
}

/* All texts. */
static inline void get_text(const struct scoreboard *scoreboard, unsigned index, char *text, size_t length)
{
    size_t in_head = length < HEAD_TEXT_BYTES ? length : HEAD_TEXT_BYTES;

    get_words(head_at(scoreboard, index)->text, text, in_head);
    if (length > in_head)
        get_words(tail_at(scoreboard, index)->text, text + in_head, length - in_head);
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
