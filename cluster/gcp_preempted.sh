#!/usr/bin/env bash
# Drains this machine's Ray node when Google Cloud preempts the machine, which leaves it 30 seconds.
#   bash cluster/gcp_preempted.sh
set -uo pipefail
host="${GCE_METADATA_HOST:-metadata.google.internal}"
until [ "$(curl --silent --fail --header 'Metadata-Flavor: Google' \
    "http://$host/computeMetadata/v1/instance/preempted?wait_for_change=true")" = TRUE ]; do
    sleep 1
done
exec imagegen-spot-watch --now --grace 25
