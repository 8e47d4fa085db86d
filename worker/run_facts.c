#include "worker/run_facts.h"

#include "common/clock.h"
#include "worker/json_text.h"
#include "worker/utf8.h"

#include <string.h>

static void set_json(struct run_entry *entry, enum run_string which, const json_t *string)
{
    run_entry_set(entry, which, json_string_value(string), json_string_length(string));
}

static void set_text(struct run_entry *entry, enum run_string which, const char *text)
{
    run_entry_set(entry, which, *text != '\0' ? text : NULL, strlen(text));
}

const json_t *run_model(const struct query_request *request, const struct project *project)
{
    return request->model != NULL ? request->model : project->model;
}

/* --- config_snapshot ------------------------------------------------------------------------------------- */

/* Each file by its size; what it holds is nobody's business. */
static bool add_files(struct evbuffer *out, json_t *files)
{
    bool first = true;
    const char *path;
    json_t *content;

    evbuffer_add(out, "{", 1);
    json_object_foreach(files, path, content)
    {
        if (!first)
            evbuffer_add(out, ",", 1);
        first = false;
        if (!json_text_write_string(out, path, strlen(path)))
            return false;
        evbuffer_add_printf(out, ":%zu", json_string_length(content));
    }
    return evbuffer_add(out, "}", 1) == 0;
}

static bool add_number(struct evbuffer *out, const char *key, int64_t number)
{
    return (number > 0 ? evbuffer_add_printf(out, ",\"%s\":%lld", key, (long long)number)
                       : evbuffer_add_printf(out, ",\"%s\":null", key)) >= 0;
}

/* {"model","max_turns","timeout","allowed_tools","files"} of the request. False for lack of memory or room. */
static bool set_config(struct run_entry *entry, const struct query_request *request, bool with_lists)
{
    struct evbuffer *out = evbuffer_new();
    size_t length = 0;
    bool good =
        out != NULL && evbuffer_add_printf(out, "{\"model\":") >= 0 && json_text_write_value(out, request->model);

    good = good && add_number(out, "max_turns", request->max_turns) && add_number(out, "timeout", request->timeout_s) &&
           evbuffer_add_printf(out, ",\"allowed_tools\":") >= 0 &&
           json_text_write_strings(out, with_lists ? request->allowed_tools : NULL) &&
           evbuffer_add_printf(out, ",\"files\":") >= 0 && add_files(out, with_lists ? request->files : NULL) &&
           evbuffer_add(out, "}", 1) == 0;
    if (good && (length = evbuffer_get_length(out)) <= RUN_CONFIG_MAX_BYTES)
        run_entry_set(entry, RUN_STRING_CONFIG, (const char *)evbuffer_pullup(out, -1), length);
    if (out != NULL)
        evbuffer_free(out);
    return good && length <= RUN_CONFIG_MAX_BYTES;
}

/* --- the record ------------------------------------------------------------------------------------------ */

static void set_prompt(struct run_entry *entry, const json_t *prompt, bool is_stored)
{
    const char *text = is_stored ? json_string_value(prompt) : "";
    size_t length = is_stored ? json_string_length(prompt) : 0;

    run_entry_set(entry, RUN_STRING_PROMPT, text, utf8_prefix(text, length, RUN_PROMPT_MAX_CODE_POINTS));
    run_entry_set(entry, RUN_STRING_RAW_PROMPT, text, length);
    entry->record.prompt_truncated = entry->record.strings[RUN_STRING_RAW_PROMPT].length < json_string_length(prompt);
}

void run_facts_admitted(struct run_entry *entry, const struct query_request *request, const struct project *project,
                        const struct settings *settings)
{
    entry->record.started_us = realtime_us();
    entry->record.status = RUN_STATUS_RUNNING;
    entry->record.files_count = (uint32_t)json_object_size(request->files);
    set_prompt(entry, request->prompt, settings->store_prompts != 0);
    set_json(entry, RUN_STRING_MODEL, run_model(request, project));
    set_json(entry, RUN_STRING_TEAM_ID, request->team_id);
    set_json(entry, RUN_STRING_USER_ID, request->user_id);
    set_json(entry, RUN_STRING_CHANNEL_ID, request->channel_id);
    /* A snapshot that has no room for its lists goes without them; a model's name alone always fits or is nonsense. */
    if (!set_config(entry, request, true) && !set_config(entry, request, false))
        run_entry_set(entry, RUN_STRING_CONFIG, NULL, 0);
}

void run_facts_report(struct run_entry *entry, const struct agent_report *report)
{
    if (*report->model != '\0')
        set_text(entry, RUN_STRING_MODEL, report->model);
    if (*report->session_id != '\0')
        set_text(entry, RUN_STRING_AGENT_SESSION_ID, report->session_id);
    set_text(entry, RUN_STRING_RESULT_SUBTYPE, report->subtype);
    run_entry_set(entry, RUN_STRING_ERROR, report->error, report->error != NULL ? strlen(report->error) : 0);
    entry->record.has_cost = report->has_cost;
    entry->record.cost_usd = report->cost_usd;
    entry->record.num_turns = report->num_turns;
}

static enum run_status status_of(enum run_error error)
{
    switch (error) {
    case RUN_ERROR_NONE:
        return RUN_STATUS_COMPLETED;
    case RUN_ERROR_CANCELLED:
    case RUN_ERROR_CLIENT_GONE:
        return RUN_STATUS_CANCELLED;
    default:
        return RUN_STATUS_ERROR;
    }
}

void run_facts_ended(struct run_entry *entry, enum run_error error, const char *message, int64_t duration_us)
{
    entry->record.status = (uint8_t)status_of(error);
    entry->record.ended_us = realtime_us();
    entry->record.duration_us = duration_us;
    set_text(entry, RUN_STRING_ERROR_CODE, run_error_code(error));
    /* The agent's own words are in the record already, or it gave none. */
    if (error != RUN_ERROR_NONE && error != RUN_ERROR_AGENT_ERROR && error != RUN_ERROR_AGENT_RESULT)
        set_text(entry, RUN_STRING_ERROR, message);
}
