#!/usr/bin/env bash
# A browser without a window: opens a page, lets its scripts run, and prints what became of it, as HTML.
#   URL       the page           DIR   a folder of its own (made if missing)
#   SHOT      optional: a file for a picture of it (PNG), in place of the HTML
#   WAIT_MS   how far its clock goes, 3000 by default: timers are fast-forwarded, requests are waited for
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need DIR URL
root="$(root_of chromium)"
use_libs_of "$root"
export LD_LIBRARY_PATH="$root/$LIBARCH/pulseaudio:$LD_LIBRARY_PATH"
mkdir -p "$DIR"
show=(--dump-dom)
[ -z "${SHOT:-}" ] || show=(--screenshot="$SHOT")
# Of its own sandbox nothing is left for root, and the pages are ours.
# One that hangs is ended after a minute.
exec timeout -k 1 60 "$root/usr/lib/chromium/chromium-headless-shell" --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
    --user-data-dir="$DIR/profile" --window-size=1280,900 --virtual-time-budget="${WAIT_MS:-3000}" \
    "${show[@]}" "$URL"
