#!/bin/sh
# Prove the Dockerfile without a container engine: build it, every step as written, and run what comes out.
#
# For a machine like a CI runner, where no engine runs but root may chroot (Debian with buildah and debootstrap; takes two
# to three minutes, so it is not part of bin/check). What differs from a real build: the base is a minimal Debian made on
# the spot, not ARG BASE's default, and chroot isolates the steps, not namespaces.
#
# Proven afterwards: the program starts as uid 10001 with no capability, on a root that it cannot write, /data is the one
# place it can, `verbale health` is there, pip is not, and no private key or database is in the image.
set -eu
cd "$(dirname "$0")/.."
say() { printf '== %s\n' "$*"; }

[ "$(id -u)" = 0 ] || { say "needs root: chroot and mounts"; exit 1; }
for tool in buildah debootstrap setpriv unshare; do
    command -v "$tool" >/dev/null || { say "needs $tool: apt-get install buildah debootstrap util-linux"; exit 1; }
done

scratch=$(mktemp -d)
storage="--root $scratch/storage --runroot $scratch/run --storage-driver vfs"
cleanup() {
    for container in $(buildah $storage containers --quiet 2>/dev/null); do buildah $storage umount "$container" || true; done
    rm -rf "$scratch"
}
trap 'cleanup >/dev/null 2>&1' EXIT
trap 'exit 130' INT TERM

say "base: a minimal Debian with Python"
. /etc/os-release
# The mirror is the one this machine uses itself.
mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' | awk -v want="$VERSION_CODENAME" '$2 == want { print $1; exit }')
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$VERSION_CODENAME" "$scratch/base" "$mirror" \
    >"$scratch/debootstrap.log" 2>&1 || { tail -n 20 "$scratch/debootstrap.log"; exit 1; }
rm -rf "$scratch/base/var/cache/apt/archives/"*.deb "$scratch/base/var/lib/apt/lists/"*
container=$(buildah $storage from scratch)
buildah $storage add --quiet "$container" "$scratch/base" / >/dev/null
buildah $storage commit --quiet --rm "$container" localhost/base:python >/dev/null
rm -rf "$scratch/base"

say "build: the Dockerfile's own steps"
# How this machine's pip finds its index and trusts it, lent to the steps without becoming part of the image.
lent=
for path in /etc/pip.conf /etc/xdg/pip /etc/ssl/certs; do
    [ ! -e "$path" ] || lent="$lent --volume $path:$path:ro"
done
# The docker format, since OCI's knows no HEALTHCHECK.
buildah $storage bud --quiet --format docker --isolation chroot --build-arg BASE=localhost/base:python $lent --tag localhost/verbale . \
    >"$scratch/build.log" 2>&1 || { tail -n 40 "$scratch/build.log"; exit 1; }

say "inspect"
container=$(buildah $storage from --pull-never localhost/verbale)
image=$(buildah $storage mount "$container")
config=$(buildah $storage inspect --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}' "$container")
[ "$config" = "10001:10001 [verbale] [serve]" ] || { say "unexpected user, entry point or command: $config"; exit 1; }
health=$(buildah $storage inspect --format '{{.Docker.Config.Healthcheck.Test}}' "$container")
[ "$health" = "[CMD verbale health]" ] || { say "unexpected health check: $health"; exit 1; }
[ "$(stat -c '%u:%g %a' "$image/data")" = "10001:10001 700" ] || { say "/data must be 10001's, mode 0700"; exit 1; }
[ ! -e "$image/opt/verbale/bin/pip" ] || { say "pip is in the image"; exit 1; }
left=$(find "$image/opt/verbale" "$image/data" \( -name '*.key' -o -name '*.sqlite*' -o -name 'keys' \) -print)
[ -z "$left" ] || { say "in the image, but must not be: $left"; exit 1; }
size=$(du -sm "$image/opt/verbale" | cut -f 1)

say "run: as uid 10001, without capabilities, on a read-only root"
inside() { # inside COMMAND: a shell in the image, in mounts of its own that end with it
    unshare --mount --pid --fork sh -euc '
        mount --bind "$1" "$1"
        mount -t tmpfs -o mode=0700,uid=10001,gid=10001 data "$1/data"
        mount -t tmpfs tmp "$1/tmp"
        mount --bind -o remount,ro "$1"
        exec chroot "$1" setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set -all \
            env -i PATH=/opt/verbale/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 VERBALE_SETTINGS=/data/node.toml sh -euc "cd /data; $2"
    ' sh "$image" "$1"
}
inside 'touch /data/writable'
inside '! touch /opt/verbale/writable 2>/dev/null || { echo "the root can be written"; exit 1; }'
inside 'verbale --help >/dev/null'
inside 'verbale health --help >/dev/null'
# Migrations and data must have come along in the wheel, beside the code.
inside '/opt/verbale/bin/python -c "
import importlib.util, pathlib
site = pathlib.Path(importlib.util.find_spec(\"app\").origin).parent.parent
assert site.name == \"site-packages\", site
assert list((site / \"migrations\" / \"versions\").glob(\"*.py\")), \"no migrations in the image\"
"'
say "image steps proven (/opt/verbale is $size MB)"
