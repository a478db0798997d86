#!/bin/bash
# Makes the image from the release build in build/ and Debian's packages, for machines that cannot pull a base image.
# Needs root, debootstrap and docker; keeps the base system in build/image/.
#   ops/make_image.sh [IMAGE [REDIS_IMAGE]]    troupe:latest; a second name also makes an image of Redis
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
image=${1:-troupe:latest} redis_image=${2:-}
folder=build/image
[[ $EUID == 0 ]] || { echo "make_image.sh: debootstrap needs root" >&2; exit 1; }
[[ -x build/bin/troupe ]] || { echo "make_image.sh: build/bin/troupe is missing: ./dev build" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# base NAME PACKAGE...: a minimal Debian with packages, as $folder/NAME.tar, made once for the same list.
base() {
    local name=$1 list
    shift
    list=$(printf '%s\n' "$@" | sort)
    if [[ -f $folder/$name.tar && $(cat "$folder/$name.list" 2>/dev/null) == "$list" ]]; then return; fi
    mkdir -p "$folder"
    # DEBIAN_MIRROR, where it is set, else debootstrap's own choice
    debootstrap --variant=minbase --include="${list//$'\n'/,}" bookworm "$work/$name" \
        ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$folder/$name.log" 2>&1 || {
        tail -n 20 "$folder/$name.log" >&2
        exit 1
    }
    (cd "$work/$name" && rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* usr/share/{doc,man,locale}/*)
    tar -C "$work/$name" -cf "$folder/$name.tar" .
    rm -rf "${work:?}/$name"
    echo "$list" >"$folder/$name.list"
}

mapfile -t packages <ops/runtime-packages.txt
base troupe "${packages[@]}"
root=$work/root
mkdir -p "$root/usr/local/bin" "$root/usr/share/troupe" "$root/etc"
tar -C "$root" -xf "$folder/troupe.tar"
install -m 755 build/bin/troupe "$root/usr/local/bin/"
strip "$root/usr/local/bin/troupe"
[[ ! -f build/bin/libtroupe_cuda.so ]] || install -m 755 build/bin/libtroupe_cuda.so "$root/usr/local/bin/"
mkdir -p "$root/usr/share/troupe"
install -m 644 ops/make_keys.sh "$root/usr/share/troupe/"
sh ops/prepare_root.sh "$root"
tar -C "$root" -c . | docker import --change 'USER 10001:10001' --change 'ENTRYPOINT ["troupe"]' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$image" >/dev/null
echo "made $image"

[[ -n $redis_image ]] || exit 0
base redis redis-server
docker import --change 'USER 10001:10001' --change 'CMD ["redis-server"]' "$folder/redis.tar" "$redis_image" >/dev/null
echo "made $redis_image"
