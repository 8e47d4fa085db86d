#include "sandboxd/tree.h"

#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is done with one entry of a walk; false with the reason printed. */
typedef bool (*visitor)(const FTSENT *entry);

static bool complain(const char *path, int reason)
{
    fprintf(stderr, "sandboxd: %s: %s\n", path, strerror(reason));
    return false;
}

/* Walks a tree; the visitor gets each folder before and after what is in it. */
static bool walk(const char *path, visitor visit)
{
    char *const paths[] = {(char *)path, NULL};
    FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    bool done = true;
    FTSENT *entry;

    if (fts == NULL)
        return complain(path, errno);
    errno = 0;
    while (done && (entry = fts_read(fts)) != NULL) {
        if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS)
            done = (entry->fts_errno == ENOENT && entry->fts_level == FTS_ROOTLEVEL) ||
                   complain(entry->fts_path, entry->fts_errno);
        else
            done = visit(entry);
        errno = 0;
    }
    if (done && errno != 0)
        done = complain(path, errno);
    fts_close(fts);
    return done;
}

/* A folder must be writable to be emptied: an unpacked one may not be. */
static bool remove_one(const FTSENT *entry)
{
    if (entry->fts_info == FTS_D) {
        if ((entry->fts_statp->st_mode & S_IRWXU) != S_IRWXU)
            (void)!chmod(entry->fts_accpath, S_IRWXU);
        return true;
    }
    if (entry->fts_info == FTS_DP ? rmdir(entry->fts_accpath) == 0 : unlink(entry->fts_accpath) == 0)
        return true;
    return complain(entry->fts_path, errno);
}

bool tree_remove(const char *path)
{
    return walk(path, remove_one);
}

static bool seal_one(const FTSENT *entry)
{
    mode_t mode = entry->fts_statp->st_mode;
    mode_t sealed = (mode & 0755) | 0444 | (S_ISDIR(mode) || (mode & 0111) != 0 ? 0111 : 0);

    if (entry->fts_info == FTS_DP)
        return true;
    if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode)) {
        fprintf(stderr, "sandboxd: %s is neither a file, a folder nor a symbolic link\n", entry->fts_path);
        return false;
    }
    if (lchown(entry->fts_accpath, geteuid(), getegid()) < 0 ||
        (!S_ISLNK(mode) && chmod(entry->fts_accpath, sealed | S_IWUSR) < 0))
        return complain(entry->fts_path, errno);
    return true;
}

bool tree_seal(const char *path)
{
    return walk(path, seal_one);
}
