#!/usr/bin/env bash
# Build the image without a container engine, run it, ask it the README's question, and stop it.
#
#   docker/verify.sh [--keep]     as root, with Debian's buildah and debootstrap; some minutes
#
# The Dockerfile is built as it is, by buildah, on a base that debootstrap makes and that bears the
# base image's name. pip's settings and certificates of this machine go in as mounts for the time
# of the build. What runs is the image's own entry point, as its own user, as PID 1, without
# privileges, on a root file system that is mounted read-only: see verify/checks.py
# for what must hold.
#
# --keep keeps the layers in docker/.cache, so that the next build begins with them.
set -euo pipefail
cd "$(dirname "$0")/.."

CACHE=docker/.cache
STORAGE=$CACHE/storage
IMAGE=localhost/sailplane:verify
NEEDED=(buildah debootstrap unshare nsenter python3)
BASE=$(sed -n 's/^FROM \(debian:[^ ]*\) AS base$/\1/p' docker/Dockerfile)
RELEASE=${BASE#debian:}
RELEASE=${RELEASE%-slim}

keep=${1:-}
scratch=
containers=()

say() { printf '\n== %s (after %ds)\n' "$1" "$SECONDS"; }

fail() { printf 'docker/verify.sh: %s\n' "$1" >&2; exit 1; }

tool() { buildah --root "$PWD/$STORAGE" --runroot "$scratch/run" "$@"; }

clean_up() {
  local status=$?
  trap - EXIT
  for container in "${containers[@]}"; do tool rm "$container" > /dev/null || true; done
  [ "$keep" = --keep ] || tool rmi --all --force > /dev/null 2>&1 || true
  umount "$STORAGE/overlay" 2> /dev/null || true  # the store binds its own folder
  [ "$keep" = --keep ] || rm -rf --one-file-system "$STORAGE"
  rm -rf --one-file-system "$scratch"
  exit "$status"
}

check_tools() {
  [ "$(id -u)" = 0 ] || fail "needs root, to make namespaces and a Debian"
  for name in "${NEEDED[@]}"; do
    command -v "$name" > /dev/null || fail "needs $name: apt-get install buildah debootstrap"
  done
}

# A Debian as the slim images are: no documentation, no package lists.
make_base() {
  local root=$scratch/base mirror
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Component: main' | head -n 1)
  debootstrap --variant=minbase bookworm "$root" ${mirror:+"$mirror"} > "$scratch/debootstrap.log" ||
    { tail -n 20 "$scratch/debootstrap.log" >&2; fail "debootstrap made no base"; }
  printf 'path-exclude /usr/share/%s/*\n' doc man info locale > "$root/etc/dpkg/dpkg.cfg.d/slim"
  rm -rf "$root"/usr/share/{doc,man,info,locale}/* "$root"/var/cache/apt/* \
    "$root"/var/lib/apt/lists/* "$root"/var/log/* "${root:?}"/dev/*
  [ "$(cat "$root/etc/debian_version")" = "$RELEASE" ] ||
    echo "note: the base made here is Debian $(cat "$root/etc/debian_version"); the Dockerfile names $BASE"
  tar --create --numeric-owner --directory "$root" --file "$CACHE/$RELEASE.tar.part" .
  mv "$CACHE/$RELEASE.tar.part" "$CACHE/$RELEASE.tar"
  rm -rf --one-file-system "$root"
}

name_base() {
  local container
  tool images --quiet "docker.io/library/$BASE" > /dev/null 2>&1 && return
  [ -f "$CACHE/$RELEASE.tar" ] || make_base
  container=$(tool from scratch)
  containers+=("$container")
  tool add --quiet "$container" "$CACHE/$RELEASE.tar" / > /dev/null
  tool commit --quiet --rm "$container" "docker.io/library/$BASE" > /dev/null
  containers=()
}

# First the stage that the image is made from, which needs none of the mounts: each would leave an
# empty folder in it. An empty TORCH_INDEX: torch comes from where this machine's pip looks anyway.
build() {
  local volumes
  mapfile -t volumes < <(python3 docker/verify/inputs.py "$scratch/pip.conf")
  build_with --target base --tag localhost/sailplane-base:verify
  build_with --secret "id=pip.conf,src=$scratch/pip.conf" "${volumes[@]}" \
    --build-arg TORCH_INDEX= --build-arg "REVISION=$(git rev-parse HEAD)" --tag "$IMAGE"
}

build_with() {
  tool build --isolation chroot --format docker --pull-never --layers \
    --file docker/Dockerfile "$@" . > "$scratch/build.log" 2>&1 ||
    { tail -n 40 "$scratch/build.log" >&2; fail "the image was not built"; }
}

run() {
  local container root
  container=$(tool from --pull-never "$IMAGE")
  containers+=("$container")
  root=$(tool mount "$container")
  tool inspect --type image "$IMAGE" > "$scratch/image.json"
  python3 docker/verify/checks.py "$root" "$scratch/image.json"
}

check_tools
mkdir -p "$CACHE"
scratch=$(mktemp --directory)
trap clean_up EXIT
say "base $BASE"
name_base
say "build"
build
say "run"
run
say "done"
