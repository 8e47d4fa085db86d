#include "worker/chunk_reader.h"

#define SIZE_DIGITS_MAX 15
#define LINE_MAX_BYTES  16384 /* of extensions and trailers */

static void break_off(struct chunk_reader *reader)
{
    reader->state = CHUNK_BROKEN;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void begin_size(struct chunk_reader *reader)
{
    reader->state = CHUNK_SIZE;
    reader->left = 0;
    reader->line = reader->digits = 0;
}

/* The line with the size is over. */
static void end_size(struct chunk_reader *reader)
{
    reader->line = 0;
    reader->state = reader->left > 0 ? CHUNK_BYTES : CHUNK_TRAILER;
}

static void read_size(struct chunk_reader *reader, char c)
{
    int digit = hex_value(c);

    if (digit >= 0 && reader->digits < SIZE_DIGITS_MAX) {
        reader->left = reader->left << 4 | (uint64_t)digit;
        reader->digits++;
    } else if (digit >= 0 || reader->digits == 0) {
        break_off(reader);
    } else if (c == '\n') {
        end_size(reader);
    } else if (c == '\r' || c == ';' || c == ' ' || c == '\t') {
        reader->state = CHUNK_EXTENSION;
    } else {
        break_off(reader);
    }
}

static void read_extension(struct chunk_reader *reader, char c)
{
    if (c == '\n')
        end_size(reader);
    else if (++reader->line > LINE_MAX_BYTES)
        break_off(reader);
}

static void read_end(struct chunk_reader *reader, char c)
{
    if (c == '\n')
        begin_size(reader);
    else if (c != '\r' || ++reader->line > 1)
        break_off(reader);
}

/* An empty line ends the body. line counts what is not a CR at its end. */
static void read_trailer(struct chunk_reader *reader, char c)
{
    if (c == '\n' && reader->line == 0)
        reader->state = CHUNK_WHOLE;
    else if (c == '\n')
        reader->line = 0;
    else if (c != '\r' && ++reader->line > LINE_MAX_BYTES)
        break_off(reader);
}

static void read_byte(struct chunk_reader *reader, char c)
{
    switch ((enum chunk_state)reader->state) {
    case CHUNK_SIZE:
        read_size(reader, c);
        break;
    case CHUNK_EXTENSION:
        read_extension(reader, c);
        break;
    case CHUNK_END:
        read_end(reader, c);
        break;
    case CHUNK_TRAILER:
        read_trailer(reader, c);
        break;
    case CHUNK_BYTES:
    case CHUNK_WHOLE:
    case CHUNK_BROKEN:
    default:
        break;
    }
}

bool chunk_reader_feed(struct chunk_reader *reader, const char *bytes, size_t length,
                       bool (*on_bytes)(void *context, const char *bytes, size_t length), void *context)
{
    size_t at = 0;

    while (at < length && reader->state != CHUNK_WHOLE && reader->state != CHUNK_BROKEN) {
        size_t piece = length - at;

        if (reader->state != CHUNK_BYTES) {
            read_byte(reader, bytes[at++]);
            continue;
        }
        if (piece > reader->left)
            piece = (size_t)reader->left;
        reader->left -= piece;
        if (reader->left == 0) {
            reader->state = CHUNK_END;
            reader->line = 0;
        }
        at += piece;
        if (!on_bytes(context, bytes + at - piece, piece))
            return false;
    }
    return true;
}
