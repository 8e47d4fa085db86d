#include "sandboxd/options.h"

#include <getopt.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How an option's value is stored. */
enum option_type {
    OPTION_TEXT,
    OPTION_NUMBER,
    OPTION_DESCRIPTOR,
    OPTION_FLAG,
    OPTION_ENDPOINT,
    OPTION_LISTEN,
    OPTION_NETWORK,
    OPTION_LEVEL,
    OPTION_HELP,
};

static const struct {
    const char *name;
    const char *value; /* its name in the help; NULL: takes none */
    enum option_type type;
    size_t offset;
    unsigned min, max;
    const char *help;
} table[] = {
    {"socket", "PATH", OPTION_TEXT, offsetof(struct options, socket_path), 0, 0,
     "listen on this unix socket (default: the socket inherited as descriptor 3)"},
    {"listen", "ADDRESS:PORT", OPTION_LISTEN, offsetof(struct options, listen), 0, 0,
     "listen on this loopback address too, for SDKs; port 0 is any free one"},
    {"api-key-file", "FILE", OPTION_TEXT, offsetof(struct options, api_key_file), 0, 0,
     "the keys that --listen takes, one a line (default: --state-dir's, else any)"},
    {"state-dir", "DIR", OPTION_TEXT, offsetof(struct options, state_dir), 0, 0,
     "a folder of this program alone: a lock, and a key if there is no --api-key-file"},
    {"template-dir", "DIR", OPTION_TEXT, offsetof(struct options, template_dir), 0, 0,
     "one folder per template: DIR/NAME/node_modules"},
    {"init", "PATH", OPTION_TEXT, offsetof(struct options, init_path), 0, 0,
     "the init of sandboxes (default: sandbox-init beside this program)"},
    {"network", "NETWORK", OPTION_NETWORK, 0, 0, 0,
     "internet: sandboxes reach public addresses; none: only --network-allow (default: internet)"},
    {"network-allow", "HOST:PORT", OPTION_ENDPOINT, 0, 0, 0,
     "an endpoint that sandboxes may reach whatever it is; may be repeated (default: none)"},
    {"memory-mib", "N", OPTION_NUMBER, offsetof(struct options, limits.memory_mib), 0, 1024 * 1024,
     "memory of the programs of a sandbox, 0: no limit (default: 2048)"},
    {"disk-mib", "N", OPTION_NUMBER, offsetof(struct options, limits.disk_mib), 16, 1024 * 1024,
     "size of a sandbox's home, in memory (default: 1024)"},
    {"processes", "N", OPTION_NUMBER, offsetof(struct options, limits.processes), 128, 1024 * 1024,
     "processes and threads of a sandbox (default: 1024)"},
    {"max-sandboxes", "N", OPTION_NUMBER, offsetof(struct options, max_sandboxes), 1, JAIL_SLOTS_MAX,
     "sandboxes at once, paused ones too (default: 4096)"},
    {"cpu-percent", "N", OPTION_NUMBER, offsetof(struct options, limits.cpu_percent), 0, 100 * 1024,
     "CPU time of a sandbox in percent of one core, 0: an equal share (default: 0)"},
    {"ready-fd", "FD", OPTION_DESCRIPTOR, offsetof(struct options, ready_fd), 3, INT_MAX,
     "write a newline to this descriptor and close it once requests are taken"},
    {"owner-fd", "FD", OPTION_DESCRIPTOR, offsetof(struct options, owner_fd), 3, INT_MAX,
     "end when this pipe does: all who held its other end are gone"},
    {"check", NULL, OPTION_FLAG, offsetof(struct options, check), 0, 0,
     "run true in a sandbox, say whether it worked, and exit 0 or 1"},
    {"die-with-parent", NULL, OPTION_FLAG, offsetof(struct options, die_with_parent), 0, 0,
     "end when the process that started this one ends"},
    {"log-level", "LEVEL", OPTION_LEVEL, offsetof(struct options, log_level), 0, 0,
     "error, warn, info or debug (default: info)"},
    {"help", NULL, OPTION_HELP, 0, 0, 0, "show this and exit"},
};

#define OPTION_COUNT (sizeof table / sizeof *table)

static void print_help(void)
{
    printf("usage: sandboxd [option]...\nServes sandboxes, E2B's API over bubblewrap.\n\n");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char left[40];

        snprintf(left, sizeof left, "--%s %s", table[i].name, table[i].value == NULL ? "" : table[i].value);
        printf("  %-28s %s\n", left, table[i].help);
    }
    printf("\n'sandboxd template --help' tells how to prepare what sandboxes are made from.\n");
}

/* Reads a number within its bounds. */
static bool read_number(const char *text, unsigned min, unsigned max, unsigned *number)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || value < min || value > max)
        return false;
    *number = (unsigned)value;
    return true;
}

static bool add_endpoint(struct endpoint_list *list, const char *text)
{
    return list->count < ENDPOINTS_MAX && endpoint_parse(text, strlen(text), &list->entries[list->count]) &&
           ++list->count > 0;
}

/* Stores one option; false when its value is wrong. */
static bool store(struct options *options, size_t index, const char *value)
{
    void *place = (char *)options + table[index].offset;
    unsigned number = 0;

    switch (table[index].type) {
    case OPTION_TEXT:
        *(const char **)place = value;
        return *value != '\0';
    case OPTION_NUMBER:
        return read_number(value, table[index].min, table[index].max, place);
    case OPTION_DESCRIPTOR:
        if (!read_number(value, table[index].min, table[index].max, &number))
            return false;
        *(int *)place = (int)number;
        return true;
    case OPTION_FLAG:
        *(bool *)place = true;
        return true;
    case OPTION_ENDPOINT:
        return add_endpoint(&options->network.allowed, value);
    case OPTION_LISTEN:
        return listen_parse(value, place) == NULL;
    case OPTION_NETWORK:
        return network_mode_parse(value, &options->network.mode);
    case OPTION_LEVEL:
        return log_level_parse(value, place);
    case OPTION_HELP:
        break;
    }
    log_panic("option --%s cannot be stored", table[index].name);
}

static void say_bad_value(size_t index, const char *value)
{
    struct listen_address ignored;
    const char *reason = table[index].type == OPTION_LISTEN ? listen_parse(value, &ignored) : NULL;

    fprintf(stderr, "sandboxd: bad value for --%s: %s%s%s\n", table[index].name, value, reason == NULL ? "" : ": ",
            reason == NULL ? "" : reason);
}

enum options_result options_parse(struct options *options, int argc, char **argv)
{
    struct option longs[OPTION_COUNT + 1] = {0};
    int index = 0, code;

    *options = (struct options){.network = {.mode = NETWORK_INTERNET},
                                .limits = {.memory_mib = 2048, .disk_mib = 1024, .processes = 1024},
                                .max_sandboxes = JAIL_SLOTS_MAX,
                                .ready_fd = -1,
                                .owner_fd = -1,
                                .log_level = LOG_LEVEL_INFO};
    for (size_t i = 0; i < OPTION_COUNT; i++)
        longs[i] =
            (struct option){.name = table[i].name, .has_arg = table[i].value == NULL ? no_argument : required_argument};
    while ((code = getopt_long(argc, argv, "", longs, &index)) == 0) {
        if (table[index].type == OPTION_HELP) {
            print_help();
            return OPTIONS_HELP;
        }
        if (!store(options, (size_t)index, optarg)) {
            say_bad_value((size_t)index, optarg);
            return OPTIONS_USAGE;
        }
    }
    if (code == -1 && options->api_key_file != NULL && options->listen.length == 0) {
        fprintf(stderr, "sandboxd: --api-key-file is for --listen: the unix socket asks for no key\n");
        return OPTIONS_USAGE;
    }
    if (code != -1 || optind < argc) {
        if (code == -1)
            fprintf(stderr, "sandboxd: unexpected argument: %s\n", argv[optind]);
        fprintf(stderr, "Try 'sandboxd --help'.\n");
        return OPTIONS_USAGE;
    }
    return OPTIONS_RUN;
}
