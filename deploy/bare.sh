#!/bin/sh
# The tests on a bare Debian: deploy/bare.sh [pytest's arguments in one word].
#
# Proves that the project's own files install all that its tests need. A root folder with what a fresh machine has
# (Python, gcc, make), a clone of HEAD in it, and there `CI=true make test`, in which a missing service is a failure. Of
# this machine it sees the kernel, the network and how package registries are reached; what is installed here is hidden.
# Needs root. Mounts and processes are in namespaces of their own and end with the run.
set -eu

arguments=${1:-}
release=bookworm
checkout=$(git rev-parse --show-toplevel)
archive=$checkout/.cache/bare/$release.tar

mkdir -p "$checkout/.cache/bare"
root=$(mktemp -d "$checkout/.cache/bare/root.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT TERM

if [ ! -e "$archive" ]; then
    echo "making a minimal $release"
    debootstrap --variant=minbase --include=python3,gcc,make,ca-certificates "$release" "$root" >"$archive.log"
    tar -C "$root" -cf "$archive.new" . && mv "$archive.new" "$archive"
else
    tar -C "$root" -xf "$archive"
fi
chmod 755 "$root"  # apt-get fetches as a user of its own

# How registries are reached from here, they are reached from there.
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt /etc/pip.conf /etc/npmrc "$HOME/.npmrc"; do
    [ ! -e "$file" ] || cp -L "$file" "$root/$(echo "$file" | sed "s|^$HOME/|root/|")"
done
if grep -qs "VERSION_CODENAME=$release" /etc/os-release; then
    for part in sources.list sources.list.d apt.conf.d; do
        rm -rf "$root/etc/apt/$part"
        [ ! -e "/etc/apt/$part" ] || cp -r "/etc/apt/$part" "$root/etc/apt/$part"
    done
fi
registry_variables=$(env | grep -E '^(https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|PIP_CERT|PIP_INDEX_URL|NODE_EXTRA_CA_CERTS|npm_config_[a-z_]+)=' || true)

git clone --quiet "$checkout" "$root/root/polychrome"
echo "testing $(git rev-parse --short HEAD) in it"
# shellcheck disable=SC2086  # words: one variable each
unshare --mount --pid --fork --kill-child sh -euc '
    root=$1; shift
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    exec chroot "$root" "$@"
' - "$root" env -i CI=true HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    $registry_variables make --no-print-directory -C /root/polychrome test ARGS="$arguments"
