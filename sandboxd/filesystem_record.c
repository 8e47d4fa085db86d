#include "sandboxd/filesystem_record.h"

#include "sandboxd/init/filesystem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* What is left of a body. */
struct body {
    const char *next;
    const char *end;
};

/* Takes a fixed part; false when there is too little. */
static bool take(struct body *body, void *part, size_t bytes)
{
    if ((size_t)(body->end - body->next) < bytes)
        return false;
    memcpy(part, body->next, bytes);
    body->next += bytes;
    return true;
}

/* Takes a string; NULL when there is none. */
static const char *take_string(struct body *body)
{
    const char *text = body->next;
    const char *nul = text == body->end ? NULL : memchr(text, '\0', (size_t)(body->end - text));

    if (nul == NULL)
        return NULL;
    body->next = nul + 1;
    return text;
}

const char *filesystem_permissions(mode_t mode, char out[static FILESYSTEM_PERMISSIONS_MAX_BYTES])
{
    const struct {
        bool is_set;
        char letter;
    } kinds[] = {
        {S_ISDIR(mode), 'd'},         {S_ISLNK(mode), 'L'},  {S_ISBLK(mode) || S_ISCHR(mode), 'D'},
        {S_ISFIFO(mode), 'p'},        {S_ISSOCK(mode), 'S'}, {(mode & S_ISUID) != 0, 'u'},
        {(mode & S_ISGID) != 0, 'g'}, {S_ISCHR(mode), 'c'},  {(mode & S_ISVTX) != 0, 't'},
    };
    size_t used = 0;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].is_set)
            out[used++] = kinds[i].letter;
    }
    if (used == 0)
        out[used++] = '-';
    for (int bit = 8; bit >= 0; bit--)
        out[used++] = "xwr"[bit % 3];
    for (int bit = 0; bit < 9; bit++) {
        if ((mode & (1U << bit)) == 0)
            out[used - 1 - (size_t)bit] = '-';
    }
    out[used] = '\0';
    return out;
}

const char *filesystem_time(int64_t seconds, uint32_t nanoseconds, char out[static FILESYSTEM_TIME_MAX_BYTES])
{
    time_t when = (time_t)seconds;
    char fraction[16] = "";
    struct tm parts;
    size_t used;

    if (gmtime_r(&when, &parts) == NULL)
        memset(&parts, 0, sizeof parts);
    used = strftime(out, FILESYSTEM_TIME_MAX_BYTES - sizeof fraction, "%Y-%m-%dT%H:%M:%S", &parts);
    nanoseconds %= 1000000000;
    if (nanoseconds % 1000000 == 0 && nanoseconds != 0)
        snprintf(fraction, sizeof fraction, ".%03u", nanoseconds / 1000000);
    else if (nanoseconds % 1000 == 0 && nanoseconds != 0)
        snprintf(fraction, sizeof fraction, ".%06u", nanoseconds / 1000);
    else if (nanoseconds != 0)
        snprintf(fraction, sizeof fraction, ".%09u", nanoseconds);
    snprintf(out + used, FILESYSTEM_TIME_MAX_BYTES - used, "%sZ", fraction);
    return out;
}

/* The last part of a path. */
static json_t *base_name(const char *path)
{
    size_t end = strlen(path), begin;

    while (end > 1 && path[end - 1] == '/')
        end--;
    begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    return begin == end ? json_string("/") : rpc_text(path + begin, end - begin);
}

/* The type of what a path leads to; NULL: none that has a name. A link to nothing is itself. */
static const char *type_name(const struct filesystem_entry *entry)
{
    if (S_ISREG(entry->target_mode))
        return "FILE_TYPE_FILE";
    if (S_ISDIR(entry->target_mode))
        return "FILE_TYPE_DIRECTORY";
    return S_ISLNK(entry->mode) && entry->target_mode == 0 ? "FILE_TYPE_SYMLINK" : NULL;
}

/* Sets the fields that are numbers inside. */
static void set_numbers(json_t *json, const struct filesystem_entry *entry)
{
    char text[FILESYSTEM_TIME_MAX_BYTES], permissions[FILESYSTEM_PERMISSIONS_MAX_BYTES];

    if (type_name(entry) != NULL)
        json_object_set_new(json, "type", json_string(type_name(entry)));
    if (entry->size != 0) {
        snprintf(text, sizeof text, "%" PRId64, entry->size);
        json_object_set_new(json, "size", json_string(text));
    }
    if ((entry->target_mode & 0777) != 0)
        json_object_set_new(json, "mode", json_integer(entry->target_mode & 0777));
    json_object_set_new(json, "permissions", json_string(filesystem_permissions(entry->mode, permissions)));
    json_object_set_new(json, "modifiedTime",
                        json_string(filesystem_time(entry->modified_s, entry->modified_ns, text)));
}

/* Takes one string as a field; false when there is none. */
static bool take_field(struct body *body, json_t *json, const char *key)
{
    const char *text = take_string(body);

    return text != NULL && json_object_set_new(json, key, rpc_text(text, strlen(text))) == 0;
}

/* Takes what is left as metadata: keys and values. */
static bool take_metadata(struct body *body, json_t *json)
{
    json_t *metadata = json_object();
    bool taken = true;

    while (taken && body->next < body->end) {
        const char *key = take_string(body);

        /* What jansson refuses as a key, because it is no UTF-8, is passed over. */
        if (key != NULL && json_object_set_new(metadata, key, json_null()) < 0)
            taken = take_string(body) != NULL;
        else
            taken = key != NULL && take_field(body, metadata, key);
    }
    if (taken && json_object_size(metadata) > 0)
        json_object_set(json, "metadata", metadata);
    json_decref(metadata);
    return taken;
}

/* Takes an entry, up to the end of the body; NULL when it is malformed. */
static json_t *take_entry(struct body *body)
{
    struct filesystem_entry entry;
    json_t *json = json_object();
    const char *path;

    if (!take(body, &entry, sizeof entry) || (path = take_string(body)) == NULL) {
        json_decref(json);
        return NULL;
    }
    json_object_set_new(json, "name", base_name(path));
    json_object_set_new(json, "path", rpc_text(path, strlen(path)));
    set_numbers(json, &entry);
    if (!take_field(body, json, "owner") || !take_field(body, json, "group") ||
        (S_ISLNK(entry.mode) && !take_field(body, json, "symlinkTarget")) || !take_metadata(body, json)) {
        json_decref(json);
        return NULL;
    }
    return json;
}

json_t *filesystem_entry_json(const char *body, size_t bytes)
{
    struct body left = {.next = body, .end = body + bytes};

    return take_entry(&left);
}

json_t *filesystem_event_json(const char *body, size_t bytes)
{
    static const char *const types[] = {
        [FILESYSTEM_CREATE] = "EVENT_TYPE_CREATE",  [FILESYSTEM_WRITE] = "EVENT_TYPE_WRITE",
        [FILESYSTEM_REMOVED] = "EVENT_TYPE_REMOVE", [FILESYSTEM_RENAME] = "EVENT_TYPE_RENAME",
        [FILESYSTEM_CHMOD] = "EVENT_TYPE_CHMOD",
    };
    struct body left = {.next = body, .end = body + bytes};
    struct filesystem_event event;
    const char *name;
    json_t *json, *entry = NULL;

    if (!take(&left, &event, sizeof event) || event.type < FILESYSTEM_CREATE || event.type > FILESYSTEM_CHMOD ||
        (name = take_string(&left)) == NULL)
        return NULL;
    if (event.has_entry != 0 && (entry = take_entry(&left)) == NULL)
        return NULL;
    json = json_pack("{s:o, s:s}", "name", rpc_text(name, strlen(name)), "type", types[event.type]);
    if (entry != NULL)
        json_object_set_new(json, "entry", entry);
    return json;
}

bool filesystem_failure_read(const char *body, size_t bytes, enum rpc_code *code, const char **text, size_t *text_bytes)
{
    static const enum rpc_code codes[] = {
        [FILESYSTEM_NOT_FOUND] = RPC_NOT_FOUND,      [FILESYSTEM_INVALID] = RPC_INVALID_ARGUMENT,
        [FILESYSTEM_EXISTS] = RPC_ALREADY_EXISTS,    [FILESYSTEM_PRECONDITION] = RPC_FAILED_PRECONDITION,
        [FILESYSTEM_DENIED] = RPC_PERMISSION_DENIED, [FILESYSTEM_EXHAUSTED] = RPC_RESOURCE_EXHAUSTED,
        [FILESYSTEM_INTERNAL] = RPC_INTERNAL,
    };
    struct body left = {.next = body, .end = body + bytes};
    uint32_t error;

    if (!take(&left, &error, sizeof error) || error < FILESYSTEM_NOT_FOUND || error > FILESYSTEM_INTERNAL)
        return false;
    *code = codes[error];
    *text = left.next;
    *text_bytes = (size_t)(left.end - left.next);
    return true;
}
