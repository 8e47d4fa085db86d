#!/bin/sh
# prepare-template.sh DEST: makes DEST/node_modules, the read-only part of every local sandbox.
#
# Installs what package-lock.json pins, into a folder beside DEST that is renamed when it is complete: DEST is the old
# template or the new one, never half of one. Does nothing when DEST was made from the same pins. Two at once wait for
# each other. The result can be read by every uid, because each sandbox has its own.
# Needs node and npm; exits non-zero with the reason when they are missing or the install fails.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

fail() {
    echo "prepare-template: $*" >&2
    exit 1
}

# What a template is made of: the pins, how npm is told to install, this script, and the kind of machine.
digest() {
    (cd "$here" && uname -sm && cat package.json package-lock.json .npmrc prepare-template.sh) | sha256sum | cut -d' ' -f1
}

# Old npm does not look at the C library a package asks for and brings both; the one for musl is 200 MB of nothing here.
drop_musl_packages() {
    if getconf GNU_LIBC_VERSION >/dev/null 2>&1; then
        rm -rf "$1"/node_modules/@anthropic-ai/*-musl
    fi
}

install_into() {
    mkdir "$1"
    cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$1/"
    (cd "$1" && npm ci --omit=dev --prefer-offline --loglevel=error >&2) || fail "npm ci failed"
    drop_musl_packages "$1"
    [ -r "$1/node_modules/@anthropic-ai/claude-agent-sdk/package.json" ] || fail "npm installed no Agent SDK"
    digest >"$1/.stamp"
    chmod -R a+rX,go-w "$1"
}

# Two renames: the old template out of the way, the new one in.
replace() {
    if [ -e "$2" ]; then
        mv -T "$2" "$work/old"
    fi
    mv -T "$1" "$2"
}

[ $# -eq 1 ] || fail "usage: $0 DEST"
command -v npm >/dev/null || fail "npm is missing (Debian: apt-get install nodejs npm)"
command -v node >/dev/null || fail "node is missing (Debian: apt-get install nodejs npm)"

dest=$1
parent=$(dirname -- "$dest")
mkdir -p "$parent"
umask 022

# The lock lasts as long as this process: a killed one leaves nothing to clean up but its folder.
exec 9>"$parent/.$(basename -- "$dest").lock"
flock 9
if [ "$(cat "$dest/.stamp" 2>/dev/null)" = "$(digest)" ]; then
    exit 0
fi

rm -rf "$parent/.$(basename -- "$dest")".new.*
work=$(mktemp -d "$parent/.$(basename -- "$dest").new.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "prepare-template: installing the Agent SDK into $dest (about 370 MB, once)" >&2
install_into "$work/template"
replace "$work/template" "$dest"
