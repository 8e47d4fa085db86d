#include "worker/telemetry_options.h"

#include "worker/http_client.h"
#include "worker/percent.h"
#include "worker/span.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#define COMMON_ENDPOINT  "OTEL_EXPORTER_OTLP_ENDPOINT"
#define DEFAULT_ENDPOINT "http://localhost:4318"
#define NAME_BYTES       64
#define TOKEN_CHARS      "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static const struct {
    const char *name;
    const char *upper;
    const char *path;
} signals[TELEMETRY_SIGNALS] = {
    [TELEMETRY_TRACES] = {"traces", "TRACES", "/v1/traces"},
    [TELEMETRY_METRICS] = {"metrics", "METRICS", "/v1/metrics"},
};

/* Numbers: name, default, least, most, and where they go. */
static const struct {
    const char *variable;
    int64_t otherwise, least, most;
    size_t offset;
} numbers[] = {
    {"OTEL_METRIC_EXPORT_INTERVAL", 60000, 100, 86400000, offsetof(struct telemetry_options, metric_interval_ms)},
    {"OTEL_BSP_SCHEDULE_DELAY", 5000, 1, 3600000, offsetof(struct telemetry_options, span_delay_ms)},
    {"OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1, 65536, offsetof(struct telemetry_options, span_queue_max)},
    {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1, 4096, offsetof(struct telemetry_options, span_batch_max)},
};

/* Samplers by their names. */
static const struct {
    const char *name;
    bool is_parent_based, has_ratio, takes_all;
} samplers[] = {
    {"parentbased_always_on", true, false, true}, /* the first is the default */
    {"always_on", false, false, true},
    {"always_off", false, false, false},
    {"traceidratio", false, true, false},
    {"parentbased_always_off", true, false, false},
    {"parentbased_traceidratio", true, true, false},
};

/* The options while they are read. */
struct reading {
    const struct environment *environment;
    telemetry_fault *on_fault;
    struct telemetry_options *options;
    bool failed; /* no memory */
};

const char *telemetry_signal_name(enum telemetry_signal signal)
{
    return signals[signal].name;
}

static void fault(const struct reading *reading, const char *variable, const char *reason)
{
    if (reading->on_fault != NULL)
        reading->on_fault(variable, reason);
}

/* --- is it on? --------------------------------------------------------------------------------------------- */

static bool is_one_of(const char *value, const char *const words[], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(value, words[i]) == 0)
            return true;
    }
    return false;
}

static bool is_on(const struct reading *reading)
{
    static const char *const yes[] = {"1", "true", "yes", "on"};
    static const char *const no[] = {"0", "false", "no", "off"};
    const char *wanted = environment_value(reading->environment, "SANDSTORM_TELEMETRY");
    const char *disabled = environment_value(reading->environment, "OTEL_SDK_DISABLED");

    if (disabled != NULL && strcasecmp(disabled, "true") == 0)
        return false;
    if (wanted != NULL && is_one_of(wanted, yes, sizeof yes / sizeof *yes))
        return true;
    if (wanted != NULL && is_one_of(wanted, no, sizeof no / sizeof *no))
        return false;
    if (wanted != NULL)
        fault(reading, "SANDSTORM_TELEMETRY", "must be 1, true, yes, on, 0, false, no or off: ignored");
    return environment_value(reading->environment, COMMON_ENDPOINT) != NULL;
}

/* --- values ------------------------------------------------------------------------------------------------ */

/* OTEL_EXPORTER_OTLP_<signal>_<what>, else OTEL_EXPORTER_OTLP_<what>; name becomes that of the one that counts. */
static const char *exporter_value(const struct reading *reading, enum telemetry_signal signal, const char *what,
                                  char name[static NAME_BYTES])
{
    const char *value;

    snprintf(name, NAME_BYTES, "OTEL_EXPORTER_OTLP_%s_%s", signals[signal].upper, what);
    value = environment_value(reading->environment, name);
    if (value != NULL)
        return value;
    snprintf(name, NAME_BYTES, "OTEL_EXPORTER_OTLP_%s", what);
    return environment_value(reading->environment, name);
}

static bool read_number(const char *text, int64_t least, int64_t most, int64_t *number)
{
    char *end;

    errno = 0;
    *number = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *number >= least && *number <= most;
}

static void take_numbers(struct reading *reading)
{
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const char *text = environment_value(reading->environment, numbers[i].variable);
        int64_t *place = (int64_t *)((char *)reading->options + numbers[i].offset);
        char reason[128];

        if (text != NULL && read_number(text, numbers[i].least, numbers[i].most, place))
            continue;
        *place = numbers[i].otherwise;
        snprintf(reason, sizeof reason, "must be a number of %lld to %lld: %lld is used", (long long)numbers[i].least,
                 (long long)numbers[i].most, (long long)numbers[i].otherwise);
        if (text != NULL)
            fault(reading, numbers[i].variable, reason);
    }
}

static void take_sampler(struct reading *reading)
{
    struct telemetry_sampler *sampler = &reading->options->sampler;
    const char *name = environment_value(reading->environment, "OTEL_TRACES_SAMPLER");
    const char *argument = environment_value(reading->environment, "OTEL_TRACES_SAMPLER_ARG");
    size_t which = 0, count = sizeof samplers / sizeof *samplers;
    double ratio = 1;
    char *end;

    while (name != NULL && which < count && strcasecmp(samplers[which].name, name) != 0)
        which++;
    if (which == count) {
        fault(reading, "OTEL_TRACES_SAMPLER", "names no sampler this server has: parentbased_always_on is used");
        which = 0;
    }
    *sampler = (struct telemetry_sampler){.is_parent_based = samplers[which].is_parent_based,
                                          .takes_all = samplers[which].takes_all};
    if (!samplers[which].has_ratio)
        return;
    if (argument != NULL) {
        ratio = strtod(argument, &end);
        if (end == argument || *end != '\0' || !(ratio >= 0 && ratio <= 1)) {
            fault(reading, "OTEL_TRACES_SAMPLER_ARG", "must be a number of 0 to 1: 1 is used");
            ratio = 1;
        }
    }
    sampler->takes_all = ratio >= 1;
    sampler->below = ratio < 1 ? (uint64_t)(ratio * 18446744073709551616.0) : 0;
}

bool telemetry_sampler_takes(const struct telemetry_sampler *sampler, const struct trace_context *caller,
                             const uint8_t trace_id[static TRACE_ID_BYTES])
{
    uint64_t half = 0;

    if (sampler->is_parent_based && caller != NULL && caller->is_valid)
        return caller->is_sampled;
    for (size_t i = TRACE_ID_BYTES / 2; i < TRACE_ID_BYTES; i++)
        half = half << 8 | trace_id[i];
    return sampler->takes_all || half < sampler->below;
}

/* --- lists ------------------------------------------------------------------------------------------------- */

/* Percent-decoded, the caller's. NULL: it holds NUL, or there is no memory. */
static char *decode(struct span text)
{
    char *decoded = malloc(text.length + 1);
    size_t length = 0;

    for (size_t at = 0; decoded != NULL && at < text.length;)
        at += percent_decode(text.bytes + at, text.length - at, decoded + length++);
    if (decoded == NULL)
        return NULL;
    decoded[length] = '\0';
    if (strlen(decoded) == length)
        return decoded;
    free(decoded);
    return NULL;
}

/* Calls take(name, value) for each name=value of a list with commas, both decoded. False: one is not that. */
static bool read_list(const char *text, bool (*take)(void *context, const char *name, const char *value), void *context)
{
    struct span list = {text, strlen(text)}, entry, name;
    bool good = true;

    while (good && span_next(&list, ',', &entry)) {
        char *decoded_name, *decoded_value;

        if (span_trim(entry).length == 0)
            continue;
        (void)span_next(&entry, '=', &name);
        if (entry.bytes == NULL)
            return false;
        decoded_name = decode(span_trim(name));
        decoded_value = decode(span_trim(entry));
        good = decoded_name != NULL && *decoded_name != '\0' && decoded_value != NULL &&
               take(context, decoded_name, decoded_value);
        if (decoded_value != NULL)
            explicit_bzero(decoded_value, strlen(decoded_value)); /* it may be a key */
        free(decoded_value);
        free(decoded_name);
    }
    return good;
}

static bool take_header(void *context, const char *name, const char *value)
{
    struct curl_slist **headers = context;

    return strspn(name, TOKEN_CHARS) == strlen(name) && http_add_header(headers, name, value);
}

static bool take_attribute(void *context, const char *name, const char *value)
{
    return json_object_set_new(context, name, json_string(value)) == 0;
}

/* --- endpoints --------------------------------------------------------------------------------------------- */

static bool is_url(const char *text)
{
    CURLU *url = curl_url();
    char *scheme = NULL, *host = NULL;
    bool good = url != NULL && curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) &&
                curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK;

    curl_free(scheme);
    curl_free(host);
    curl_url_cleanup(url);
    return good;
}

/* OTEL_<signal>_EXPORTER says whether the signal is sent at all. */
static bool is_exported(const struct reading *reading, enum telemetry_signal signal)
{
    char name[NAME_BYTES];
    const char *value;

    snprintf(name, sizeof name, "OTEL_%s_EXPORTER", signals[signal].upper);
    value = environment_value(reading->environment, name);
    if (value != NULL && strcasecmp(value, "none") == 0)
        return false;
    if (value != NULL && strcasecmp(value, "otlp") != 0)
        fault(reading, name, "must be otlp or none: otlp is used");
    return true;
}

/* The signal's own URL as it stands, else the common one with the signal's path. */
static void take_url(struct reading *reading, enum telemetry_signal signal)
{
    struct telemetry_endpoint *endpoint = &reading->options->endpoints[signal];
    char name[NAME_BYTES];
    const char *value = exporter_value(reading, signal, "ENDPOINT", name);
    size_t length;

    if (value != NULL && !is_url(value)) {
        fault(reading, name, "must be a URL like http://host:4318: nothing is sent there");
        return;
    }
    if (value != NULL && strcmp(name, COMMON_ENDPOINT) != 0) {
        endpoint->url = strdup(value);
    } else {
        value = value != NULL ? value : DEFAULT_ENDPOINT;
        length = strlen(value);
        while (length > 0 && value[length - 1] == '/')
            length--;
        if (asprintf(&endpoint->url, "%.*s%s", (int)length, value, signals[signal].path) < 0)
            endpoint->url = NULL;
    }
    reading->failed = reading->failed || endpoint->url == NULL;
}

static void take_endpoint(struct reading *reading, enum telemetry_signal signal)
{
    struct telemetry_endpoint *endpoint = &reading->options->endpoints[signal];
    char name[NAME_BYTES];
    const char *value;

    endpoint->timeout_ms = 10000;
    if (!is_exported(reading, signal))
        return;
    take_url(reading, signal);
    value = exporter_value(reading, signal, "HEADERS", name);
    if (value != NULL && !read_list(value, take_header, &endpoint->headers))
        fault(reading, name, "must be a list like name=value,name=value: the rest of it is not used");
    value = exporter_value(reading, signal, "TIMEOUT", name);
    if (value != NULL && !read_number(value, 1, 600000, &endpoint->timeout_ms)) {
        fault(reading, name, "must be a number of 1 to 600000: 10000 is used");
        endpoint->timeout_ms = 10000;
    }
    value = exporter_value(reading, signal, "PROTOCOL", name);
    if (value != NULL && strcmp(value, "http/json") != 0)
        fault(reading, name, "must be http/json, which is what this server sends (to port 4318 of most collectors)");
}

/* --- the resource ------------------------------------------------------------------------------------------ */

/* Names and values, the stronger over the weaker ones. */
static json_t *gather_attributes(struct reading *reading, const char *instance)
{
    const char *given = environment_value(reading->environment, "OTEL_RESOURCE_ATTRIBUTES");
    const char *service = environment_value(reading->environment, "OTEL_SERVICE_NAME");
    json_t *attributes = json_pack("{s:s, s:s, s:s}", "service.name", "sandstorm", "service.version", SANDSTORM_VERSION,
                                   "service.instance.id", instance);
    json_t *list = json_object();

    if (given != NULL && list != NULL && !read_list(given, take_attribute, list))
        fault(reading, "OTEL_RESOURCE_ATTRIBUTES", "must be a list like name=value,name=value: it is not used");
    else if (attributes != NULL && json_object_update(attributes, list) < 0)
        reading->failed = true;
    json_decref(list);
    if (service != NULL && json_object_set_new(attributes, "service.name", json_string(service)) < 0)
        fault(reading, "OTEL_SERVICE_NAME", "must be UTF-8: it is not used");
    return attributes;
}

static void take_resource(struct reading *reading, const char *instance)
{
    json_t *attributes = gather_attributes(reading, instance);
    json_t *list = json_array();
    json_t *resource, *value;
    const char *name;

    json_object_foreach(attributes, name, value)
    {
        if (json_array_append_new(list, json_pack("{s:s, s:{s:O}}", "key", name, "value", "stringValue", value)) < 0)
            reading->failed = true;
    }
    resource = json_pack("{s:o}", "attributes", list);
    reading->options->resource = resource != NULL ? json_dumps(resource, JSON_COMPACT) : NULL;
    json_decref(resource);
    json_decref(attributes);
    reading->failed = reading->failed || reading->options->resource == NULL;
}

/* --- all of it --------------------------------------------------------------------------------------------- */

struct telemetry_options *telemetry_options_read(const struct environment *environment, const char *instance,
                                                 telemetry_fault *on_fault)
{
    struct reading reading = {.environment = environment, .on_fault = on_fault};
    const char *ca_file = environment_value(environment, "OTEL_EXPORTER_OTLP_CERTIFICATE");
    struct telemetry_options *options = is_on(&reading) ? calloc(1, sizeof *options) : NULL;

    if (options == NULL)
        return NULL;
    reading.options = options;
    take_numbers(&reading);
    take_sampler(&reading);
    for (int i = 0; i < TELEMETRY_SIGNALS; i++)
        take_endpoint(&reading, (enum telemetry_signal)i);
    take_resource(&reading, instance);
    options->ca_file = strdup(ca_file != NULL ? ca_file : "");
    if (!reading.failed && options->ca_file != NULL)
        return options;
    telemetry_options_free(options);
    return NULL;
}

void telemetry_options_free(struct telemetry_options *options)
{
    if (options == NULL)
        return;
    for (int i = 0; i < TELEMETRY_SIGNALS; i++) {
        struct telemetry_endpoint *endpoint = &options->endpoints[i];

        free(endpoint->url);
        for (struct curl_slist *header = endpoint->headers; header != NULL; header = header->next)
            explicit_bzero(header->data, strlen(header->data));
        curl_slist_free_all(endpoint->headers);
    }
    free(options->ca_file);
    free(options->resource);
    free(options);
}
