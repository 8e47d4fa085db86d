/*
 * template_build: makes the folder of a template, from npm packages, Debian packages and files.
 *
 * Built beside its place and put there at once when complete: the template is the old one or the new one, never half
 * of one, and a build that fails leaves nothing. Two builds of one name wait for each other. Sandboxes that run keep
 * the old one's open files; its folder is gone.
 */
#ifndef SANDBOXD_TEMPLATE_BUILD_H
#define SANDBOXD_TEMPLATE_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define TEMPLATE_PARTS_MAX 128

/* What a template is made of. All paths are absolute. */
struct template_recipe {
    const char *name;     /* valid */
    const char *npm_lock; /* a folder with package.json, package-lock.json and .npmrc, or NULL */
    const char *npm[TEMPLATE_PARTS_MAX];
    const char *apt[TEMPLATE_PARTS_MAX];
    struct {
        const char *source;
        const char *destination; /* below /usr, /etc or /opt */
    } files[TEMPLATE_PARTS_MAX];
    size_t npm_count, apt_count, file_count;
};

/* The files of a recipe's npm_lock. */
extern const char *const template_lock_files[3];

/* Builds in the current folder, the template directory. false with the reason printed. */
bool template_build(const struct template_recipe *recipe) __attribute__((warn_unused_result));
/* Removes a template of the current folder. false with the reason printed. */
bool template_remove(const char *name) __attribute__((warn_unused_result));
/* Prints the templates of the current folder and what they were made of. false with the reason printed. */
bool template_list(FILE *out) __attribute__((warn_unused_result));

/*
 * template_packages.c: fill a tree, an absolute path, with what a recipe names. Each prints the reason of a failure.
 */
bool template_install_npm(const struct template_recipe *recipe, const char *tree) __attribute__((warn_unused_result));
/* downloads: an empty folder; each package taken from there is told to the manifest. */
bool template_install_apt(const struct template_recipe *recipe, const char *tree, const char *downloads, FILE *manifest)
    __attribute__((warn_unused_result));
bool template_install_files(const struct template_recipe *recipe, const char *tree) __attribute__((warn_unused_result));

#endif
