#!/bin/sh
# make_base.sh DEB DEST: a Debian 12 that can be booted, in which apt finds all that the package needs without a network.
#
# DEST is complete or not there. Needs root, debootstrap and a mirror (DEBIAN_MIRROR, default deb.debian.org).
set -eu

[ $# -eq 2 ] || { echo "usage: $0 DEB DEST" >&2; exit 2; }
deb=$1
dest=$2
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

rm -rf "$dest" "$dest.new"
mkdir -p "$(dirname "$dest")"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates,iproute2 bookworm "$dest.new" "$mirror"
cp "$deb" "$dest.new/root/sandstorm.deb"
# nodejs is for agents of the local runtime. What the package depends on is fetched, and installed by apt in the test.
chroot "$dest.new" sh -ec '
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -y -q --no-install-recommends nodejs
    apt-get install -y -q --download-only /root/sandstorm.deb
    rm /root/sandstorm.deb'
mv "$dest.new" "$dest"
