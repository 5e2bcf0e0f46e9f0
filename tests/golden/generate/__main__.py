"""Asks real load balancers which backend they pick for each key, and writes the answers down.

Run generate.sh, which unpacks the servers and then runs this. Every table here becomes one file `SYSTEM-NAME.txt`:

    # comment
    table   kind of table, see tests/hash_compat.rs
    option  name, value
    host    string that is hashed, weight, up|down, and for some kinds one more word
    picks   number of a key in keys.txt, then for this key and those after it the position of the chosen host
            (or positions: hosts in the order in which they were tried); `-` where nothing was asked
    key     a key that is not in keys.txt, the position of the chosen host

separated by tabs, odd bytes as %XX. The answers come from what the backend says of itself (its own address), except
for nginx, whose `$upstream_addr` names peers that nobody can connect to as well; where both speak they must agree.
"""

import argparse, os

import envoy, grpc_core, haproxy, ketama, libketama, nginx
from common import KEYS, PORT, addresses, quoted, start_backends


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--cache", "--triplet", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("systems", nargs="+")
    args = parser.parse_args()
    with open(os.path.join(args.out, "keys.txt"), "w") as file:
        file.write("".join(quoted(key) + "\n" for key in KEYS))
    if "grpc" in args.systems:
        grpc_core.generate(args)        # its servers listen where the backends do, so it comes first
    if {"nginx", "envoy", "haproxy"} & set(args.systems):
        names = addresses(100) + [f"127.77.0.{i}:{PORT + n}" for i in (1, 2, 3) for n in (1, 2)]
        start_backends(names + [f"[::1]:{PORT + n}" for n in range(6)])
    for system in args.systems:
        if system != "grpc":
            {"nginx": nginx, "envoy": envoy, "haproxy": haproxy, "ketama": ketama,
             "libketama": libketama}[system].generate(args)


if __name__ == "__main__":
    main()
