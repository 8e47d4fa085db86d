#include "worker/own_service.h"

struct e2b_service *own_cloud_service(struct project_dir *project_dir, const struct environment *environment)
{
    struct project_view view = project_dir_look(project_dir);
    const char *key = environment_value(view.environment, "E2B_API_KEY");
    struct e2b_service *service = key != NULL ? e2b_service_cloud(environment, key) : NULL;

    project_view_release(&view);
    return service;
}
