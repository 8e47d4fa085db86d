#include "worker/routes.h"

const struct route routes[] = {
    {EVHTTP_REQ_POST, "/query", route_query, false},
    {EVHTTP_REQ_GET, "/health", route_health, true},
    {0, NULL, NULL, false},
};
