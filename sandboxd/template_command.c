#include "sandboxd/template_command.h"

#include "common/near_program.h"
#include "sandboxd/program_run.h"
#include "sandboxd/template.h"
#include "sandboxd/template_build.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define USAGE_EXIT 2

/* The order is that of longs[]. */
enum build_option {
    BUILD_NPM,
    BUILD_NPM_LOCK,
    BUILD_APT,
    BUILD_FILE,
    BUILD_TEMPLATE_DIR,
    BUILD_HELP,
};

static const struct option longs[] = {{"npm", required_argument, NULL, BUILD_NPM},
                                      {"npm-lock", required_argument, NULL, BUILD_NPM_LOCK},
                                      {"apt", required_argument, NULL, BUILD_APT},
                                      {"file", required_argument, NULL, BUILD_FILE},
                                      {"template-dir", required_argument, NULL, BUILD_TEMPLATE_DIR},
                                      {"help", no_argument, NULL, BUILD_HELP},
                                      {0}};

static const char help[] =
    "usage: sandboxd template build NAME [option]...\n"
    "       sandboxd template list [--template-dir DIR]\n"
    "       sandboxd template remove NAME [--template-dir DIR]\n"
    "Prepares what sandboxes are made from.\n\n"
    "  --npm PACKAGE@VERSION   add an npm package, an exact version or the path of a .tgz; may be repeated\n"
    "  --npm-lock DIR          add what DIR/package.json and DIR/package-lock.json pin\n"
    "  --apt PACKAGE[=VERSION] add a Debian package and what it needs; may be repeated\n"
    "  --file SOURCE:PATH      add a file or folder as PATH, below /usr, /etc or /opt; may be repeated\n"
    "  --template-dir DIR      where templates are (default: the installation's)\n\n"
    "Without options, build " TEMPLATE_AGENT " makes the agent's template.\n";

/* What the command line says. */
struct command {
    struct template_recipe recipe;
    const char *verb;
    const char *template_dir; /* or NULL */
};

__attribute__((format(printf, 1, 2))) static bool reject(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("sandboxd: ", stderr);
    vfprintf(stderr, format, args);
    fputs("\n", stderr);
    va_end(args);
    return false;
}

/* An absolute path that a build, which works elsewhere, can use; kept for the life of the process. */
static const char *absolute(const char *option, const char *path)
{
    const char *real = realpath(path, NULL);

    if (real == NULL)
        (void)reject("--%s: %s: %s", option, path, strerror(errno));
    return real;
}

/* --- values of options -------------------------------------------------------------------------- */

/* Whether it is 1.2.3 or 1.2.3-beta.1: a range or a tag would be another version tomorrow. */
static bool is_exact_version(const char *text)
{
    int parts = 0;

    while (isdigit((unsigned char)*text)) {
        text += strspn(text, "0123456789");
        if (++parts == 3 || *text != '.')
            break;
        text++;
    }
    return parts == 3 && (*text == '\0' || ((*text == '-' || *text == '+') && text[1] != '\0' &&
                                            text[strspn(text, "0123456789abcdefghijklmnopqrstuvwxyz"
                                                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ.+-")] == '\0'));
}

/* Whether it is a package's name: name or @scope/name. */
static bool is_npm_name(const char *text, size_t length)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-~";
    const char *slash = *text == '@' ? memchr(text, '/', length) : NULL;
    const char *name = slash != NULL ? slash + 1 : text;

    if (*text == '@' && (slash == NULL || strspn(text + 1, allowed) != (size_t)(slash - text - 1)))
        return false;
    return name < text + length && strspn(name, allowed) >= (size_t)(text + length - name) && *name != '-' &&
           *name != '.';
}

static bool add_npm(struct template_recipe *recipe, const char *value)
{
    const char *at = strrchr(value, '@');
    size_t length = strlen(value);
    const char *package = value;

    if (length > 4 && strcmp(value + length - 4, ".tgz") == 0)
        package = absolute("npm", value);
    else if (at == NULL || at == value || !is_npm_name(value, (size_t)(at - value)) || !is_exact_version(at + 1))
        return reject("--npm wants PACKAGE@VERSION, with an exact version such as 1.2.3, or the path of a .tgz: %s",
                      value);
    if (package == NULL)
        return false;
    recipe->npm[recipe->npm_count++] = package;
    return true;
}

/* apt reads more into a name than a name: foo- removes, foo/testing is another release, ./foo.deb a file. */
static bool add_apt(struct template_recipe *recipe, const char *value)
{
    size_t name = strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789+.-");
    const char *rest = value + name;

    if (*rest == '=')
        rest += 1 + strspn(rest + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-:~");
    if (name < 2 || !isalnum((unsigned char)*value) || value[name - 1] == '-' || *rest != '\0' || rest[-1] == '=')
        return reject("--apt wants the name of a Debian package, or NAME=VERSION: %s", value);
    recipe->apt[recipe->apt_count++] = value;
    return true;
}

/* Whether a path of the sandbox can be a template's, and is written the one way that leaves no doubt where it is. */
static bool is_destination(const char *path)
{
    static const char *const places[] = {"/usr/", "/etc/", "/opt/"};
    bool placed = false;

    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        placed = placed || (strncmp(path, places[i], strlen(places[i])) == 0 && path[strlen(places[i])] != '\0');
    return placed && strstr(path, "/../") == NULL && strstr(path, "/./") == NULL && strstr(path, "//") == NULL &&
           path[strlen(path) - 1] != '/' && strcmp(strrchr(path, '/'), "/..") != 0 &&
           strcmp(strrchr(path, '/'), "/.") != 0;
}

static bool add_file(struct template_recipe *recipe, char *value)
{
    char *colon = strrchr(value, ':');
    const char *source;

    if (colon == NULL || colon == value || !is_destination(colon + 1))
        return reject("--file wants SOURCE:PATH, the path below /usr, /etc or /opt: %s", value);
    if (template_path_is_reserved(colon + 1))
        return reject("--file: every sandbox has a %s of its own", colon + 1);
    *colon = '\0';
    source = absolute("file", value);
    if (source == NULL)
        return false;
    recipe->files[recipe->file_count].source = source;
    recipe->files[recipe->file_count++].destination = colon + 1;
    return true;
}

/* --- the command line --------------------------------------------------------------------------- */

static bool store(struct command *command, enum build_option option, char *value)
{
    struct template_recipe *recipe = &command->recipe;

    if (option != BUILD_TEMPLATE_DIR && strcmp(command->verb, "build") != 0)
        return reject("template %s takes no --%s", command->verb, longs[option].name);
    if (recipe->npm_count == TEMPLATE_PARTS_MAX || recipe->apt_count == TEMPLATE_PARTS_MAX ||
        recipe->file_count == TEMPLATE_PARTS_MAX)
        return reject("a template has at most %d parts of a kind", TEMPLATE_PARTS_MAX);
    switch (option) {
    case BUILD_NPM:
        return add_npm(recipe, value);
    case BUILD_NPM_LOCK:
        return (recipe->npm_lock = absolute("npm-lock", value)) != NULL;
    case BUILD_APT:
        return add_apt(recipe, value);
    case BUILD_FILE:
        return add_file(recipe, value);
    case BUILD_TEMPLATE_DIR:
        command->template_dir = value;
        return *value != '\0' || reject("--template-dir is empty");
    case BUILD_HELP:
        break;
    }
    return false;
}

/* The agent's own template needs no options: its lock file comes with us. */
static bool complete(struct template_recipe *recipe)
{
    static const char *const places[] = {"../agent", "../../agent", "../../share/sandstorm/agent", NULL};

    if (recipe->npm_lock != NULL || recipe->npm_count + recipe->apt_count + recipe->file_count > 0)
        return true;
    if (strcmp(recipe->name, TEMPLATE_AGENT) != 0)
        return reject("say what the template %s is made of: --npm, --npm-lock, --apt or --file", recipe->name);
    recipe->npm_lock = near_program(places);
    return (recipe->npm_lock != NULL && *recipe->npm_lock != '\0') ||
           reject("the agent's package-lock.json is not where this program's files are: say --npm-lock DIR");
}

/* Reads the command line; false when it is wrong, with the reason printed. */
static bool parse(struct command *command, int argc, char **argv, bool *wants_help)
{
    static const char *const verbs[] = {"build", "list", "remove"};
    bool known = false, named;
    int code;

    *wants_help = false;
    command->verb = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        known = known || strcmp(command->verb, verbs[i]) == 0;
    opterr = 0;
    while ((code = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (code == BUILD_HELP)
            return *wants_help = true;
        if (code == '?')
            return reject("an unknown option, or one without its value: %s", argv[optind - 1]);
        if (known && !store(command, (enum build_option)code, optarg))
            return false;
    }
    if (!known)
        return reject("template build, list or remove?");
    named = strcmp(command->verb, "list") != 0;
    if (argc - optind != (named ? 2 : 1))
        return reject(named ? "template %s wants one name" : "template %s takes no name", command->verb);
    if (!named)
        return true;
    command->recipe.name = argv[optind + 1];
    if (!template_name_is_valid(command->recipe.name))
        return reject("not a template's name (lower-case letters, digits, '.', '_', '-'): %s", command->recipe.name);
    return strcmp(command->verb, "build") != 0 || complete(&command->recipe);
}

/* Goes to the template directory, which a build may make. */
static bool enter(const struct command *command)
{
    static const char *const places[] = {"templates", "../templates", "../../share/sandstorm/templates",
                                         "/var/lib/sandstorm/templates", NULL};
    char *found = command->template_dir == NULL ? near_program(places) : strdup(command->template_dir);
    bool entered = found != NULL && *found != '\0';

    if (!entered)
        (void)reject("there is no template directory: say --template-dir DIR");
    else if (strcmp(command->verb, "build") == 0 && mkdir(found, 0755) < 0 && errno != EEXIST)
        entered = reject("%s: %s", found, strerror(errno));
    else if (chdir(found) < 0)
        entered = reject("%s: %s", found, strerror(errno));
    free(found);
    return entered;
}

int template_command(int argc, char **argv)
{
    static struct command command;
    bool wants_help, done;

    if (!parse(&command, argc, argv, &wants_help)) {
        fprintf(stderr, "Try 'sandboxd template --help'.\n");
        return USAGE_EXIT;
    }
    if (wants_help) {
        fputs(help, stdout);
        return 0;
    }
    umask(022);
    if (!enter(&command))
        return 1;
    program_run_catch_signals();
    if (strcmp(command.verb, "build") == 0)
        done = template_build(&command.recipe);
    else if (strcmp(command.verb, "remove") == 0)
        done = template_remove(command.recipe.name);
    else
        done = template_list(stdout);
    return done ? 0 : 1;
}
