#include "worker/field_errors.h"

#include "common/log.h"
#include "worker/memory_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *location(struct field_place place)
{
    json_t *list = json_array();

    json_array_append_new(list, json_string(place.in));
    if (place.field != NULL)
        json_array_append_new(list, json_string(place.field));
    if (place.element != NULL)
        json_array_append(list, place.element);
    return list;
}

bool field_errors_are_full(const json_t *errors)
{
    return json_array_size(errors) >= FIELD_ERRORS_MAX;
}

static void add(json_t *errors, struct field_place place, const char *type, json_t *message, json_t *ctx)
{
    json_t *error;

    if (field_errors_are_full(errors)) {
        json_decref(message);
        json_decref(ctx);
        return;
    }
    error = json_object();
    json_object_set_new(error, "type", json_string(type));
    json_object_set_new(error, "loc", location(place));
    json_object_set_new(error, "msg", message);
    if (ctx != NULL)
        json_object_set_new(error, "ctx", ctx);
    json_array_append_new(errors, error);
}

void field_error_add(json_t *errors, struct field_place place, const char *type, const char *message, json_t *ctx)
{
    add(errors, place, type, json_string(message), ctx);
}

void field_error_add_value(json_t *errors, struct field_place place, const char *text, size_t length)
{
    static const char prefix[] = "Value error, ";
    char *message = malloc(sizeof prefix + length);

    if (message == NULL) {
        memory_note_refusal();
        return;
    }
    memcpy(message, prefix, sizeof prefix - 1);
    memcpy(message + sizeof prefix - 1, text, length);
    add(errors, place, "value_error", json_stringn(message, sizeof prefix - 1 + length), json_pack("{s:{}}", "error"));
    free(message);
}

void field_error_add_string_type(json_t *errors, struct field_place place)
{
    field_error_add(errors, place, "string_type", "Input should be a valid string", NULL);
}

void field_error_add_list_type(json_t *errors, struct field_place place)
{
    field_error_add(errors, place, "list_type", "Input should be a valid list", NULL);
}

void field_error_add_dict_type(json_t *errors, struct field_place place)
{
    field_error_add(errors, place, "dict_type", "Input should be a valid dictionary", NULL);
}

void field_error_add_too_short(json_t *errors, struct field_place place)
{
    field_error_add(errors, place, "string_too_short", "String should have at least 1 character",
                    json_pack("{s:i}", "min_length", 1));
}

void field_error_add_too_long(json_t *errors, struct field_place place, int limit)
{
    char message[64];

    snprintf(message, sizeof message, "String should have at most %d characters", limit);
    field_error_add(errors, place, "string_too_long", message, json_pack("{s:i}", "max_length", limit));
}

/* One type and message for each fault of one coercion. */
struct fault_text {
    const char *type;
    const char *message;
};

static void add_fault(json_t *errors, struct field_place place, const struct fault_text *texts, enum coerced fault)
{
    if (texts[fault].type == NULL)
        log_panic("field_errors: no text for fault %d", (int)fault);
    field_error_add(errors, place, texts[fault].type, texts[fault].message, NULL);
}

void field_error_add_integer(json_t *errors, struct field_place place, enum coerced fault)
{
    static const struct fault_text texts[COERCE_NO_MEMORY + 1] = {
        [COERCE_TYPE] = {"int_type", "Input should be a valid integer"},
        [COERCE_PARSING] = {"int_parsing", "Input should be a valid integer, unable to parse string as an integer"},
        [COERCE_FRACTION] = {"int_from_float", "Input should be a valid integer, got a number with a fractional part"},
        [COERCE_NO_MEMORY] = {"int_parsing", "Input should be a valid integer, unable to parse string as an integer"},
    };

    add_fault(errors, place, texts, fault);
}

void field_error_add_number(json_t *errors, struct field_place place, enum coerced fault)
{
    static const struct fault_text texts[COERCE_NO_MEMORY + 1] = {
        [COERCE_TYPE] = {"float_type", "Input should be a valid number"},
        [COERCE_PARSING] = {"float_parsing", "Input should be a valid number, unable to parse string as a number"},
        [COERCE_NOT_FINITE] = {"finite_number", "Input should be a finite number"},
        [COERCE_NO_MEMORY] = {"float_parsing", "Input should be a valid number, unable to parse string as a number"},
    };

    add_fault(errors, place, texts, fault);
}

void field_error_add_bool(json_t *errors, struct field_place place, enum coerced fault)
{
    static const struct fault_text texts[COERCE_NO_MEMORY + 1] = {
        [COERCE_TYPE] = {"bool_type", "Input should be a valid boolean"},
        [COERCE_PARSING] = {"bool_parsing", "Input should be a valid boolean, unable to interpret input"},
    };

    add_fault(errors, place, texts, fault);
}

bool field_error_check_range(json_t *errors, struct field_place place, int64_t number, int64_t min, int64_t max)
{
    char message[96];

    if (number >= min && number <= max)
        return true;
    snprintf(message, sizeof message, "Input should be %s than or equal to %lld", number < min ? "greater" : "less",
             (long long)(number < min ? min : max));
    if (number < min)
        field_error_add(errors, place, "greater_than_equal", message, json_pack("{s:I}", "ge", (json_int_t)min));
    else
        field_error_add(errors, place, "less_than_equal", message, json_pack("{s:I}", "le", (json_int_t)max));
    return false;
}
