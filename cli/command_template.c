/*
 * ds template: what sandboxes are made from, in E2B's cloud or on this machine.
 */
#include "cli/ds.h"
#include "cli/e2b_template.h"
#include "cli/program.h"
#include "cli/surroundings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CPUS       2
#define CPUS_MAX           64
#define DEFAULT_MEMORY_MIB 2048
#define MEMORY_MIN_MIB     128
#define MEMORY_MAX_MIB     (1024 * 1024)

enum { OPTION_CPUS = OPTION_OWN, OPTION_MEMORY, OPTION_SDK, OPTION_FORCE };

static const char usage[] =
    "usage: ds template build [NAME] [--e2b] [--cpus N] [--memory MIB] [--sdk-version V] [--force]\n"
    "       ds template build --local [NAME] [OPTION]...\n"
    "       ds template list | remove NAME\n"
    "Builds what sandboxes are made from (default: `sandstorm`, with the Agent SDK and runner):\n"
    "in E2B's cloud when E2B_API_KEY is set in the environment or .env, else on this machine,\n"
    "where `sandboxd template` does it and takes the other options. list and remove are of\n"
    "this machine.\n"
    "\n"
    "  --e2b, --local      where, whatever is set; the word after build\n"
    "  --cpus N            of a sandbox in E2B's cloud (default 2)\n"
    "  --memory MIB        of a sandbox in E2B's cloud (default 2048)\n"
    "  --sdk-version V     of the Agent SDK (default: the server's agent_sdk_version)\n"
    "  --force             build every step again\n";

static const struct option longs[] = {{"cpus", required_argument, NULL, OPTION_CPUS},
                                      {"memory", required_argument, NULL, OPTION_MEMORY},
                                      {"sdk-version", required_argument, NULL, OPTION_SDK},
                                      {"force", no_argument, NULL, OPTION_FORCE},
                                      OPTIONS_HELP,
                                      {0}};

/* --- on this machine ------------------------------------------------------------------------------------------ */

/* `sandboxd template VERB NAME …`; a build without a name is the agent's. */
static int become_local(int argc, char *argv[], const struct settings *settings)
{
    char template_word[] = "template", dir_option[] = "--template-dir";
    bool builds = strcmp(argv[1], "build") == 0;
    char **words = calloc((size_t)argc + 6, sizeof *words);
    int used = 1, next = 2, code;

    if (words == NULL)
        return DS_FAILED;
    words[used++] = template_word;
    words[used++] = argv[1];
    if (builds)
        words[used++] = next < argc && *argv[next] != '-' ? argv[next++] : settings->template_name;
    if (*settings->template_dir != '\0') { /* before the user's own words: the last one counts */
        words[used++] = dir_option;
        words[used++] = settings->template_dir;
    }
    while (next < argc)
        words[used++] = argv[next++];
    code = program_become(argv[0], PROGRAM_RUNTIME, words);
    free(words);
    return code;
}

/* --- in E2B's cloud ------------------------------------------------------------------------------------------- */

/* False with *code when the command is to end. */
static bool parse(struct e2b_template *plan, int argc, char *argv[], int *code)
{
    int option;
    bool good = true;

    *code = DS_USAGE;
    while (good && (option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (option == OPTION_CPUS)
            good = options_number(argv[0], "--cpus", optarg, 1, CPUS_MAX, &plan->cpus);
        else if (option == OPTION_MEMORY)
            good = options_number(argv[0], "--memory", optarg, MEMORY_MIN_MIB, MEMORY_MAX_MIB, &plan->memory_mib);
        else if (option == OPTION_SDK)
            plan->sdk_version = optarg;
        else if (option == OPTION_FORCE)
            plan->force = true;
        else
            good = options_unknown(argv[0]) == DS_OK;
    }
    if (good && argc - optind > 1)
        good = options_reject(argv[0], "one name is enough: %s", argv[optind + 1]) == DS_OK;
    if (good && optind < argc)
        plan->name = argv[optind];
    return good;
}

/* It becomes a part of a shell's command line. */
static bool is_version(const char *text)
{
    return *text != '\0' &&
           text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-")] == '\0';
}

static int build_e2b(const struct surroundings *at, int argc, char *argv[])
{
    struct e2b_template plan = {.name = at->settings->template_name,
                                .sdk_version = at->settings->agent_sdk_version,
                                .runner = at->settings->agent_runner,
                                .cpus = DEFAULT_CPUS,
                                .memory_mib = DEFAULT_MEMORY_MIB};
    const char *key = environment_value(at->environment, "E2B_API_KEY");
    struct endpoint endpoint;
    int code;

    if (!parse(&plan, argc, argv, &code))
        return code;
    if (!is_version(plan.sdk_version))
        return options_reject(argv[0], "no version: %s", plan.sdk_version);
    if (key == NULL)
        return options_reject(argv[0], "E2B_API_KEY is not set, neither in the environment nor in .env");
    code = DS_FAILED;
    if (surroundings_open_e2b(at, argv[0], key, &endpoint))
        code = e2b_template_build(&plan, &endpoint);
    endpoint_close(&endpoint);
    return code;
}

/* --- which of both -------------------------------------------------------------------------------------------- */

/* The word after `build`, if it is this option, is taken out. */
static bool take_word(const char *word, int *argc, char *argv[])
{
    if (*argc < 3 || strcmp(argv[2], word) != 0)
        return false;
    memmove(argv + 2, argv + 3, (size_t)(*argc - 2) * sizeof *argv); /* with the NULL behind them */
    (*argc)--;
    return true;
}

static int dispatch(const struct surroundings *at, int argc, char *argv[])
{
    bool builds = strcmp(argv[1], "build") == 0;
    bool wants_local = builds && take_word("--local", &argc, argv);
    bool wants_e2b = builds && !wants_local && take_word("--e2b", &argc, argv);

    if (!builds || wants_local || (!wants_e2b && environment_value(at->environment, "E2B_API_KEY") == NULL))
        return become_local(argc, argv, at->settings);
    argv[1] = argv[0]; /* for messages */
    return build_e2b(at, argc - 1, argv + 1);
}

int command_template(int argc, char *argv[])
{
    static const char *const verbs[] = {"build", "list", "remove"};
    struct surroundings at;
    char *title = argv[0];
    bool known = false, usage_error;
    int code;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return DS_OK;
        }
    }
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++)
        known = known || strcmp(argv[1], verbs[i]) == 0;
    if (!known)
        return options_reject(title, "build, list or remove?");
    if (!surroundings_open(&at, title, 1, argv))
        return DS_FAILED;
    code = DS_FAILED;
    if (*settings_load_errors(at.load, &usage_error) != '\0')
        fputs(settings_load_errors(at.load, &usage_error), stderr);
    else
        code = dispatch(&at, argc, argv);
    surroundings_close(&at);
    return code;
}
