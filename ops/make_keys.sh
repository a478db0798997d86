#!/bin/sh
# CURVE keys for one process a service: FOLDER/<service>/key for each, FOLDER/server/peers, and the servers' public key
# beside each key. Keys that are there stay. Gateway and scheduler are the servers, and share one key pair, because the
# others know both by one public key.
#
#   make_keys.sh FOLDER
set -eu
folder=$1
umask 077

for service in server tokenizer executor drafter postprocessor client; do
    mkdir -p "$folder/$service"
    [ -e "$folder/$service/key" ] || troupe keys "$folder/$service/key"
done

public_key() { sed -n 's/^ *public-key *= *"\(.*\)"/\1/p' "$folder/$1/key.pub"; }
{
    echo "$(public_key server) gateway" # the gateway calls the scheduler
    for service in tokenizer executor drafter postprocessor client; do
        echo "$(public_key "$service") $service"
    done
} >"$folder/server/peers.new"
mv "$folder/server/peers.new" "$folder/server/peers"
for service in tokenizer executor drafter postprocessor client; do
    cp "$folder/server/key.pub" "$folder/$service/server.pub"
done
cp "$folder/server/key.pub" "$folder/server/server.pub"
