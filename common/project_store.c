#include "common/project_store.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* One version. A writer takes the copy that nobody is told to read. */
struct copy {
    bool has_file;
    size_t length;
    char text[PROJECT_STORE_MAX_BYTES];
};

struct project_store {
    atomic_flag writing; /* who finds it set leaves it to the other: both have the same version, or a newer one comes */
    atomic_int current;  /* 1 + index of the copy to read; 0: none yet */
    int provider;        /* of the first version */
    _Atomic uint64_t told;
    struct copy first;
    struct copy copies[2];
};

struct project_store *project_store_new(void)
{
    void *memory = mmap(NULL, sizeof(struct project_store), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return memory != MAP_FAILED ? memory : NULL;
}

void project_store_free(struct project_store *store)
{
    if (store != NULL)
        munmap(store, sizeof *store);
}

static bool is_same(const struct copy *copy, const char *text, size_t length)
{
    return copy->has_file == (text != NULL) && copy->length == length &&
           (text == NULL || memcmp(copy->text, text, length) == 0);
}

static void fill(struct copy *copy, const char *text, size_t length)
{
    copy->has_file = text != NULL;
    copy->length = text != NULL ? length : 0;
    if (text != NULL)
        memcpy(copy->text, text, length);
}

void project_store_put(struct project_store *store, const char *text, size_t length, int provider)
{
    int current;

    if (length > PROJECT_STORE_MAX_BYTES || atomic_flag_test_and_set(&store->writing))
        return;
    current = atomic_load(&store->current);
    if (current == 0) {
        store->provider = provider;
        fill(&store->first, text, length);
    }
    if (current == 0 || !is_same(&store->copies[current - 1], text, text != NULL ? length : 0)) {
        fill(&store->copies[current == 1], text, length);
        atomic_store(&store->current, current == 1 ? 2 : 1);
    }
    atomic_flag_clear(&store->writing);
}

/* copy NULL: nothing was put. */
static bool get(const struct copy *copy, char **text, size_t *length)
{
    *text = NULL;
    *length = 0;
    if (copy == NULL)
        return false;
    if (!copy->has_file)
        return true;
    *text = malloc(copy->length + 1);
    if (*text == NULL)
        return false;
    *length = copy->length;
    memcpy(*text, copy->text, copy->length);
    (*text)[copy->length] = '\0';
    return true;
}

bool project_store_get(struct project_store *store, char **text, size_t *length)
{
    int current = atomic_load(&store->current);

    return get(current != 0 ? &store->copies[current - 1] : NULL, text, length);
}

bool project_store_get_first(struct project_store *store, char **text, size_t *length)
{
    return get(atomic_load(&store->current) != 0 ? &store->first : NULL, text, length);
}

bool project_store_is_news(struct project_store *store, uint64_t number)
{
    return atomic_exchange(&store->told, number) != number;
}

int project_store_provider(const struct project_store *store)
{
    return atomic_load(&store->current) != 0 ? store->provider : 0;
}
