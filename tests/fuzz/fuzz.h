/*
 * What the fuzz targets share. Each is a LLVMFuzzerTestOneInput(): libFuzzer drives it in `make fuzz`, replay.c with
 * the stored corpus in `make check`.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A promise that the input broke. */
#define FUZZ_CHECK(promise)                                                                                            \
    do {                                                                                                               \
        if (!(promise)) {                                                                                              \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #promise);                              \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * Where bytes are cut into pieces: at places that look random and are always the same for the same input, so that an
 * input is nothing but the bytes that a parser sees. Small pieces are frequent.
 */
struct fuzz_pieces {
    uint64_t state;
};

static inline struct fuzz_pieces fuzz_pieces_of(const uint8_t *data, size_t size)
{
    struct fuzz_pieces pieces = {.state = 14695981039346656037u}; /* FNV-1a */

    for (size_t i = 0; i < size; i++)
        pieces.state = (pieces.state ^ data[i]) * 1099511628211u;
    return pieces;
}

/* The length of the next piece: 1 to left; left > 0. */
static inline size_t fuzz_next_piece(struct fuzz_pieces *pieces, size_t left)
{
    size_t wanted;

    pieces->state = pieces->state * 6364136223846793005u + 1442695040888963407u;
    wanted = 1 + (size_t)(pieces->state >> 40) % ((pieces->state >> 33) % 8 > 0 ? 8 : 1024);
    return wanted < left ? wanted : left;
}

/* The first line of an input, without its end; *rest is what follows. For targets with more than one argument. */
static inline size_t fuzz_first_line(const uint8_t *data, size_t size, const uint8_t **rest, size_t *rest_size)
{
    size_t length = 0;

    while (length < size && data[length] != '\n')
        length++;
    *rest = length < size ? data + length + 1 : data + size;
    *rest_size = length < size ? size - length - 1 : 0;
    return length;
}

/* How many descriptors are open: what is left of an input shows in the end. */
static inline size_t fuzz_count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    size_t count = 0;

    FUZZ_CHECK(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

/* A terminated copy, cut at its first NUL as C reads it; to be freed. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    FUZZ_CHECK(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

#endif
