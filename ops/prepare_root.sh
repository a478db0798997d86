#!/bin/sh
# What an image of Troupe has beside packages and the program: a user, and the folders that volumes with keys take their
# owner from. Used by both ways of making the image.
#   prepare_root.sh ROOT
set -eu
root=${1%/}
echo 'troupe:x:10001:' >>"$root/etc/group"
echo 'troupe:x:10001:10001:Troupe:/nonexistent:/usr/sbin/nologin' >>"$root/etc/passwd"
for service in server tokenizer executor drafter postprocessor client; do
    mkdir -p "$root/keys/$service"
done
chown -R 10001:10001 "$root/keys"
chmod 700 "$root"/keys/*
