/*
 * ds init: begins a project with one of the starters of this installation.
 */
#include "cli/ds.h"
#include "cli/options.h"
#include "cli/write_file.h"
#include "common/near_program.h"
#include "common/small_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_STARTER "general-assistant"
#define FILE_MAX_BYTES  (1 << 20)
#define FILE_MODE       0644
#define DIR_MODE        0755

enum { OPTION_LIST = OPTION_OWN, OPTION_FORCE };

static const struct {
    const char *name;
    const char *summary;
} starters[] = {
    {DEFAULT_STARTER, "tasks of all kinds, results as files"},
    {"research-brief", "a question answered from sources, with references"},
    {"document-analyst", "documents read, every statement with its place"},
    {"support-triage", "customers' messages sorted, as JSON"},
    {"api-extractor", "documentation or source turned into OpenAPI"},
    {"security-audit", "source code searched for security faults"},
    {"code-review", "changes reviewed, remarks as JSON"},
};

#define STARTERS (sizeof starters / sizeof *starters)

static const char *const files[] = {"sandstorm.json", ".env.example", "README.md"};

#define FILES (sizeof files / sizeof *files)

static const char usage[] = "usage: ds init [STARTER] [DIR] [--force]\n"
                            "Begins a project in DIR (default: here): sandstorm.json, .env.example and README.md.\n"
                            "Starters:\n"
                            "\n";

static const struct option longs[] = {
    {"list", no_argument, NULL, OPTION_LIST}, {"force", no_argument, NULL, OPTION_FORCE}, OPTIONS_HELP, {0}};

static void print_starters(void)
{
    for (size_t i = 0; i < STARTERS; i++)
        printf("  %-20s%s\n", starters[i].name, starters[i].summary);
}

static int print_help(void)
{
    fputs(usage, stdout);
    print_starters();
    fputs("\n"
          "  --force             replace files that are there\n"
          "  --list              print the names of the starters\n",
          stdout);
    return DS_OK;
}

static int print_names(void)
{
    for (size_t i = 0; i < STARTERS; i++)
        puts(starters[i].name);
    return DS_OK;
}

static bool is_starter(const char *name)
{
    for (size_t i = 0; i < STARTERS; i++) {
        if (strcmp(starters[i].name, name) == 0)
            return true;
    }
    return false;
}

static int fail(const char *command, const char *path, const char *reason)
{
    fprintf(stderr, "%s: %s: %s\n", command, path, reason);
    return DS_FAILED;
}

/* Nothing is written when one of the files is there. */
static int check_free(const char *command, const char *dir)
{
    char *path = NULL;
    int code = DS_OK;

    for (size_t i = 0; i < FILES; i++) {
        struct stat found;

        if (asprintf(&path, "%s/%s", dir, files[i]) < 0)
            return DS_FAILED;
        if (lstat(path, &found) == 0)
            code = fail(command, path, "is there already; --force replaces it");
        free(path);
    }
    return code;
}

static int copy(const char *command, const char *from_dir, const char *dir, const char *name)
{
    char *from = NULL, *to = NULL, *text = NULL;
    const char *reason;
    size_t length;
    int code = DS_FAILED;

    if (asprintf(&from, "%s/%s", from_dir, name) < 0 || asprintf(&to, "%s/%s", dir, name) < 0)
        code = fail(command, name, strerror(ENOMEM));
    else if ((text = small_file_read(from, FILE_MAX_BYTES, &length, &reason)) == NULL)
        code = fail(command, from, reason);
    else if (!write_file(to, text, length, FILE_MODE))
        code = fail(command, to, strerror(errno));
    else
        code = DS_OK;
    if (text != NULL)
        small_file_free(text, length);
    free(from);
    free(to);
    return code;
}

/* Where the starters of this installation are; NULL after a message. To be freed. */
static char *find_starter(const char *command, const char *starter)
{
    static const char *const places[] = {"../cli/starters", "../../cli/starters", "../share/sandstorm/starters", NULL};
    char *all = near_program(places), *one = NULL;

    if (all == NULL || *all == '\0' || asprintf(&one, "%s/%s", all, starter) < 0) {
        (void)fail(command, starter, "the starters are not where this program's files are");
        one = NULL;
    }
    free(all);
    return one;
}

static int begin(const char *command, const char *starter, const char *dir, bool may_replace)
{
    char *from;
    int code = DS_OK;

    if (mkdir(dir, DIR_MODE) < 0 && errno != EEXIST)
        return fail(command, dir, strerror(errno));
    if (!may_replace && check_free(command, dir) != DS_OK)
        return DS_FAILED;
    from = find_starter(command, starter);
    if (from == NULL)
        return DS_FAILED;
    for (size_t i = 0; code == DS_OK && i < FILES; i++)
        code = copy(command, from, dir, files[i]);
    free(from);
    if (code == DS_OK)
        printf("%s is in %s: sandstorm.json, .env.example, README.md\n"
               "next: %s%s%scp .env.example .env, put your keys there, ds doctor, ds serve\n",
               starter, dir, strcmp(dir, ".") == 0 ? "" : "cd ", strcmp(dir, ".") == 0 ? "" : dir,
               strcmp(dir, ".") == 0 ? "" : ", ");
    return code;
}

int command_init(int argc, char *argv[])
{
    const char *starter = DEFAULT_STARTER;
    bool may_replace = false;
    int option;

    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (option == '?')
            return options_unknown(argv[0]);
        if (option == OPTION_HELP)
            return print_help();
        if (option == OPTION_LIST)
            return print_names();
        may_replace = true;
    }
    if (argc - optind > 2)
        return options_reject(argv[0], "a starter and a folder are enough");
    if (optind < argc)
        starter = argv[optind];
    if (!is_starter(starter))
        return options_reject(argv[0], "no such starter: %s", starter);
    return begin(argv[0], starter, argc - optind == 2 ? argv[optind + 1] : ".", may_replace);
}
