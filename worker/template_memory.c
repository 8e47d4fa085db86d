#include "worker/template_memory.h"

#include <openssl/evp.h>
#include <string.h>

/* Of service, key and template. The parts end with NUL, so that none runs into the next. */
static bool digest_of(const struct e2b_service *service, const char *template_name, unsigned char digest[static 32])
{
    const char *const parts[] = {service->unix_socket != NULL ? service->unix_socket : "", service->api_url,
                                 service->api_key, template_name};
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;

    for (size_t i = 0; good && i < sizeof parts / sizeof *parts; i++)
        good = EVP_DigestUpdate(context, parts[i], strlen(parts[i]) + 1) == 1;
    good = good && EVP_DigestFinal_ex(context, digest, NULL) == 1;
    EVP_MD_CTX_free(context);
    return good;
}

void template_memory_note(struct template_memory *memory, const struct e2b_service *service, const char *template_name,
                          int64_t now_ms)
{
    unsigned char digest[32];
    size_t oldest = 0;

    if (!digest_of(service, template_name, digest))
        return;
    for (size_t i = 0; i < TEMPLATE_MEMORY_COUNT; i++) {
        if (memcmp(memory->entries[i].digest, digest, sizeof digest) == 0) {
            oldest = i;
            break;
        }
        if (memory->entries[i].until_ms < memory->entries[oldest].until_ms)
            oldest = i;
    }
    memcpy(memory->entries[oldest].digest, digest, sizeof digest);
    memory->entries[oldest].until_ms = now_ms + TEMPLATE_MEMORY_MS;
}

bool template_memory_is_missing(const struct template_memory *memory, const struct e2b_service *service,
                                const char *template_name, int64_t now_ms)
{
    unsigned char digest[32];

    if (!digest_of(service, template_name, digest))
        return false;
    for (size_t i = 0; i < TEMPLATE_MEMORY_COUNT; i++) {
        if (memory->entries[i].until_ms > now_ms && memcmp(memory->entries[i].digest, digest, sizeof digest) == 0)
            return true;
    }
    return false;
}
