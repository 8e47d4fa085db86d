#include "worker/agent_options.h"

#include "worker/json_text.h"
#include "worker/mcp_servers.h"
#include "worker/number_text.h"

#include <inttypes.h>
#include <string.h>

#define AGENTS_ARE_A_LIST "extra_agents and allowed_agents require agents to be a dict in sandstorm.json, got list"

/* --- JSON ----------------------------------------------------------------------------------------------- */

static void add_text(struct evbuffer *out, const char *text)
{
    evbuffer_add(out, text, strlen(text));
}

static void add_null(struct evbuffer *out)
{
    add_text(out, "null");
}

/* What json_text_verbatim() kept; NULL is null. */
static bool add_verbatim(struct evbuffer *out, const json_t *verbatim)
{
    if (verbatim != NULL)
        return json_text_rewrite(json_text_of(verbatim), out, NULL, NULL);
    add_null(out);
    return true;
}

/* An object of members that json_text_verbatim() kept. */
static bool add_members(struct evbuffer *out, json_t *members)
{
    const char *separator = "{";
    const char *name;
    size_t length;
    json_t *text;

    json_object_keylen_foreach(members, name, length, text)
    {
        add_text(out, separator);
        if (!json_text_write_string(out, name, length) || evbuffer_add(out, ":", 1) < 0 || !add_verbatim(out, text))
            return false;
        separator = ",";
    }
    add_text(out, *separator == '{' ? "{}" : "}");
    return true;
}

/* --- merging -------------------------------------------------------------------------------------------- */

bool name_is_allowed(const json_t *names, const char *name)
{
    return names == NULL || json_object_get(names, name) != NULL;
}

static bool is_in_list(const json_t *list, const char *text)
{
    size_t i;
    json_t *item;

    json_array_foreach(list, i, item)
    {
        if (json_string_length(item) == strlen(text) && strcmp(json_string_value(item), text) == 0)
            return true;
    }
    return false;
}

/* The members whose names are allowed; the caller's. */
static json_t *choose(json_t *members, const json_t *allowed)
{
    json_t *chosen = json_object();
    const char *name;
    json_t *value;

    json_object_foreach(members, name, value)
    {
        if (name_is_allowed(allowed, name))
            json_object_set(chosen, name, value);
    }
    return chosen;
}

/* base, a blank line, append: NUL may be in each. */
static bool add_joined(struct evbuffer *out, const json_t *base, const json_t *append)
{
    struct evbuffer *text = evbuffer_new();
    bool added = text != NULL;

    added = added && evbuffer_add(text, json_string_value(base), json_string_length(base)) == 0 &&
            evbuffer_add(text, "\n\n", 2) == 0 &&
            evbuffer_add(text, json_string_value(append), json_string_length(append)) == 0 &&
            json_text_write_string(out, (const char *)evbuffer_pullup(text, -1), evbuffer_get_length(text));
    if (text != NULL)
        evbuffer_free(text);
    return added;
}

/* An object base: its `append` member is extended, or set. */
static bool add_extended(struct evbuffer *out, const json_t *base, const json_t *append)
{
    json_t *members = json_text_members(json_text_of(base), json_text_verbatim, NULL);
    json_t *own = json_object_get(members, "append");
    struct evbuffer *text = evbuffer_new();
    json_t *old = NULL;
    bool added = false;

    if (members == NULL || text == NULL)
        goto done;
    if (own != NULL && json_text_type(json_text_of(own)) == JSON_TEXT_STRING)
        old = json_text_string(json_text_of(own));
    if (old != NULL && json_string_length(old) > 0 ? !add_joined(text, old, append)
                                                   : !json_text_write_value(text, append))
        goto done;
    json_object_set_new(members, "append",
                        json_stringn((const char *)evbuffer_pullup(text, -1), evbuffer_get_length(text)));
    added = add_members(out, members);
done:
    json_decref(old);
    json_decref(members);
    if (text != NULL)
        evbuffer_free(text);
    return added;
}

static bool add_system_prompt(struct evbuffer *out, const struct project *project)
{
    const json_t *base = project->system_prompt;
    const json_t *append = project->system_prompt_append;
    json_t *text;
    bool added;

    if (append == NULL || json_string_length(append) == 0)
        return add_verbatim(out, base);
    if (base == NULL)
        return json_text_write_value(out, append);
    if (json_text_type(json_text_of(base)) == JSON_TEXT_OBJECT)
        return add_extended(out, base, append);
    text = json_text_string(json_text_of(base));
    added = text != NULL && add_joined(out, text, append);
    json_decref(text);
    return added;
}

/* `{}` switches structured output off, wherever it stands. */
static bool add_output_format(struct evbuffer *out, const struct agent_options *options)
{
    const json_t *format =
        options->request->output_format != NULL ? options->request->output_format : options->project->output_format;
    struct json_text_cursor cursor;
    struct json_text key, value;

    if (format != NULL) {
        cursor = json_text_enter(json_text_of(format));
        if (!json_text_next_member(&cursor, &key, &value))
            format = NULL;
    }
    return add_verbatim(out, format);
}

static bool add_agents(struct evbuffer *out, const struct agent_options *options, char **error)
{
    const struct query_request *request = options->request;
    const struct project *project = options->project;
    json_t *merged, *chosen;
    bool added;

    if (project->agents_list != NULL) {
        if (request->extra_agents == NULL && request->allowed_agents == NULL)
            return add_verbatim(out, project->agents_list);
        *error = strdup(AGENTS_ARE_A_LIST);
        return false;
    }
    if (project->agents == NULL && json_object_size(request->extra_agents) == 0) {
        add_null(out);
        return true;
    }
    merged = project->agents != NULL ? json_copy(project->agents) : json_object();
    json_object_update(merged, request->extra_agents);
    chosen = choose(merged, request->allowed_agents);
    added = add_members(out, chosen);
    json_decref(merged);
    json_decref(chosen);
    return added;
}

/* Chosen first: a server that is left out needs no variables. */
static bool add_mcp_servers(struct evbuffer *out, const struct agent_options *options, char **error)
{
    json_t *chosen;
    bool added;

    if (options->project->mcp_servers == NULL) {
        add_null(out);
        return true;
    }
    chosen = choose(options->project->mcp_servers, options->request->allowed_mcp_servers);
    added = mcp_servers_write(chosen, options->environment, out, error);
    json_decref(chosen);
    return added;
}

/* The request's unchanged; the configured ones with the Skill tool when there are skills. */
static bool add_allowed_tools(struct evbuffer *out, const struct agent_options *options)
{
    json_t *tools;
    bool added;

    if (options->request->allowed_tools != NULL)
        return json_text_write_strings(out, options->request->allowed_tools);
    if (options->project->allowed_tools == NULL) {
        add_null(out);
        return true;
    }
    tools = json_copy(options->project->allowed_tools);
    if (options->has_skills && !is_in_list(tools, "Skill"))
        json_array_append_new(tools, json_string("Skill"));
    added = tools != NULL && json_text_write_strings(out, tools);
    json_decref(tools);
    return added;
}

/* --- the object ------------------------------------------------------------------------------------------ */

static void add_max_turns(struct evbuffer *out, const struct agent_options *options)
{
    int64_t max_turns = options->request->max_turns > 0 ? options->request->max_turns : options->project->max_turns;

    if (max_turns > 0)
        evbuffer_add_printf(out, "%" PRId64, max_turns);
    else
        add_null(out);
}

static void add_fork_session(struct evbuffer *out, enum query_flag flag)
{
    static const char *const words[] = {
        [QUERY_FLAG_ABSENT] = "null", [QUERY_FLAG_FALSE] = "false", [QUERY_FLAG_TRUE] = "true"};

    add_text(out, words[flag]);
}

bool agent_options_write(const struct agent_options *options, struct evbuffer *out, char **error)
{
    char budget[NUMBER_TEXT_BYTES];
    const struct query_request *request = options->request;
    bool good;

    *error = NULL;
    add_text(out, "{\"prompt\":");
    good = json_text_write_value(out, request->prompt);
    add_text(out, ",\"cwd\":\"" AGENT_HOME "\",\"model\":");
    good = good && json_text_write_value(out, request->model != NULL ? request->model : options->project->model);
    add_text(out, ",\"max_turns\":");
    add_max_turns(out, options);
    add_text(out, ",\"system_prompt\":");
    good = good && add_system_prompt(out, options->project);
    add_text(out, ",\"output_format\":");
    good = good && add_output_format(out, options);
    add_text(out, ",\"agents\":");
    good = good && add_agents(out, options, error);
    add_text(out, ",\"mcp_servers\":");
    good = good && add_mcp_servers(out, options, error);
    add_text(out, options->has_skills ? ",\"has_skills\":true" : ",\"has_skills\":false");
    add_text(out, ",\"allowed_tools\":");
    good = good && add_allowed_tools(out, options);
    evbuffer_add_printf(out, ",\"timeout\":%" PRId64 ",\"resume\":", options->timeout_s);
    good = good && json_text_write_value(out, request->resume);
    add_text(out, ",\"fork_session\":");
    add_fork_session(out, request->fork_session);
    add_text(out, ",\"max_budget_usd\":");
    if (request->max_budget_usd >= 0)
        add_text(out, number_text(request->max_budget_usd, budget));
    else
        add_null(out);
    add_text(out, "}");
    return good;
}
