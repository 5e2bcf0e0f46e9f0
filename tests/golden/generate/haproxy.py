"""HAProxy: `hash-type consistent`, of 2.6 and, for `hash-key`, of 3.0."""

import random, re, shutil, socket, subprocess, tempfile
from dataclasses import replace

from common import (FEW, FRONT, MIXED, PORT, Asker, Host, Server, Table, addresses, ask_in_order, down, hosts, keys_of,
                    position_of, shuffled, with_loader, write)


def haproxy_tables(version):
    ten = hosts(10, MIXED)
    ids = [replace(host, extra=f"id={value}" if value else "") for host, value in
           zip(ten, (7, 0, 1, 0, 900000, 0, 2, 0, 0, 2147483647))]
    if version == "haproxy26":
        tables = [
            haproxy_ties(),
            Table("haproxy", "3-equal", "haproxy", hosts(3)),
            Table("haproxy", "1-alone", "haproxy", hosts(1)),
            Table("haproxy", "10-mixed", "haproxy", ten),
            Table("haproxy", "10-mixed-shuffled", "haproxy", shuffled(ten)),
            Table("haproxy", "10-mixed-ids", "haproxy", ids, comment="Some have an id of their own."),
            Table("haproxy", "10-mixed-ids-shuffled", "haproxy", shuffled(
                [replace(host, extra=f"id={i + 1}") for i, host in enumerate(ten)])),
            Table("haproxy", "9-mixed-one-gone", "haproxy", ten[:3] + ten[4:]),
            Table("haproxy", "10-mixed-two-down", "haproxy", down(ten, 3, 6), comment="Both `disabled`."),
            Table("haproxy", "10-mixed-two-maint", "haproxy", down(ten, 2, 3), {"runtime": "yes"},
                  comment="Put into maintenance while it ran."),
            Table("haproxy", "10-mixed-one-left", "haproxy", down(ten, *range(9))),
            Table("haproxy", "100-mixed", "haproxy", hosts(100, (1, 2, 3, 1, 20))),
            Table("haproxy", "4-far-apart", "haproxy", hosts(4, (1, 256, 0, 100)),
                  comment="The largest weight there is, and none at all."),
        ]
        for function in ("sdbm", "djb2", "wt6", "crc32"):
            for avalanche in ("", "-avalanche"):
                tables.append(Table("haproxy", f"10-mixed-{function}{avalanche}", "haproxy", ten,
                                    {"function": function, "avalanche": "yes" if avalanche else "no"}))
        tables.append(Table("haproxy", "10-mixed-source", "haproxy-source", ten, {"function": "source"},
                            keys=[f"127.77.2.{i}".encode() for i in range(1, 121)], comment="balance source."))
        tables.append(Table("haproxy", "10-mixed-commas", "haproxy-header", ten, keys=commas(),
                            comment="Of values between commas, hdr() takes the first."))
        tables.append(Table("haproxy", "10-mixed-commas-whole", "haproxy", ten, {"rule": "hash req.fhdr(x-key)"},
                            keys=commas(), comment="req.fhdr() takes the whole header."))
        tables.append(Table("haproxy", "10-mixed-redispatch", "haproxy-redispatch", ten, {"redispatch": "yes"}, keys=FEW,
                            comment="Everyone answers 503, and `option redispatch 1` avoids the last one."))
        return tables
    ports = [Host(f"127.77.0.{1 + i // 3}:{PORT + i % 3}", MIXED[i]) for i in range(9)]
    twice = {"hash_key": "id-hashed-twice"}             # what 3.0.11 makes of `id`, by mistake; later releases don't
    six = [Host(f"[::1]:{PORT + i}", MIXED[i]) for i in range(6)] + [Host(f"127.77.0.1:{PORT}", 2)]
    return [
        Table("haproxy", "3.0-10-mixed", "haproxy", ten, twice),
        Table("haproxy", "3.0-10-mixed-ids", "haproxy", ids, twice, comment="Some have an id of their own."),
        Table("haproxy", "3.0-10-mixed-addr", "haproxy", ten, {"hash_key": "addr"}),
        Table("haproxy", "3.0-10-mixed-addr-shuffled", "haproxy", shuffled(ten), {"hash_key": "addr"}),
        Table("haproxy", "3.0-9-mixed-addr-one-gone", "haproxy", ten[:3] + ten[4:], {"hash_key": "addr"}),
        Table("haproxy", "3.0-10-mixed-addr-two-down", "haproxy", down(ten, 3, 6), {"hash_key": "addr"}),
        Table("haproxy", "3.0-9-ports-addr", "haproxy", ports, {"hash_key": "addr"},
              comment="Three share each address, so all their points are equal."),
        Table("haproxy", "3.0-9-ports-addr-port", "haproxy", ports, {"hash_key": "addr-port"}),
        Table("haproxy", "3.0-9-ports-addr-port-shuffled", "haproxy", shuffled(ports), {"hash_key": "addr-port"}),
        Table("haproxy", "3.0-100-mixed-addr-port", "haproxy", hosts(100, (1, 2, 3, 1, 20)), {"hash_key": "addr-port"}),
        Table("haproxy", "3.0-7-ipv6-addr-port", "haproxy", six, {"hash_key": "addr-port"}),
        Table("haproxy", "3.0-7-ipv6-addr", "haproxy", six, {"hash_key": "addr"}),
    ]


def commas():
    """Headers with commas, quotes and backslashes, whose first value is not empty."""
    rng, found = random.Random(3), ["Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"]
    while len(found) < 150:
        key = rng.choice("ab\"") + "".join(rng.choice('a,"\\ b,') for _ in range(rng.randint(3, 14)))
        if key == key.strip() and key not in found:
            found.append(key)
    return [key.encode() for key in found]


def full_hash(a):
    m = 0xFFFFFFFF
    a = (a + 0x7ED55D16 + (a << 12)) & m
    a = a ^ 0xC761C23C ^ a >> 19
    a = (a + 0x165667B1 + (a << 5)) & m
    a = (a + 0xD3A2646C & m) ^ (a << 9 & m)
    a = (a + 0xFD7046C5 + (a << 3)) & m
    a = a ^ 0xB55A4F09 ^ a >> 16
    return a * 3221225473 & m


def haproxy_ties():
    """`balance source` without avalanche hashes a client's address to itself, and all of 127/8 are clients here."""
    table = [Host(name, 256) for name in addresses(10)]
    points = sorted((full_hash((i + 1) * 4096 + n), i) for i in range(10) for n in range(4096))
    near = [(a, b) for a, b in zip(points, points[1:]) if a[0] >> 24 == b[0] >> 24 == 127 and a[1] != b[1]]
    middles = [(a[0] + b[0]) // 2 for a, b in near if (b[0] - a[0]) % 2 == 0][:40]
    around = [value for a, _ in near[:20] for value in (a[0] - 1, a[0], a[0] + 1)]
    values = [value for value in middles + around if 0x7F000001 < value < 0x7FFFFFFE]
    return Table("haproxy", "10-equal-ties", "haproxy-source", table, {"function": "source", "avalanche": "no"},
                 keys=[socket.inet_ntoa(value.to_bytes(4, "big")).encode() for value in values],
                 comment="Addresses in the middle between two points, and at points; no avalanche.")


def generate(args):
    for name in ("haproxy26", "haproxy30"):
        haproxy_of(args, name)


def haproxy_of(args, name):
    work, tables = tempfile.mkdtemp(prefix="waypost-golden-"), haproxy_tables(name)
    config = [f"global\n    stats socket {work}/admin level admin\n    maxconn 200\n    nbthread 1\n"
              "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 20s\n"]
    for i, table in enumerate(tables):
        options = table.options
        rule = "source" if options.get("function") == "source" else options.get("rule", "hdr(x-key)")
        kind = "consistent"
        if options.get("avalanche") == "no" and rule == "source":
            kind += " sdbm"
        if options.get("function", "source") != "source":
            kind += f" {options['function']}" + (" avalanche" if options["avalanche"] == "yes" else "")
        block = f"listen t{i}\n    bind {FRONT}:{19000 + i}\n    balance {rule}\n    hash-type {kind}\n"
        if "redispatch" in options:
            block += "    retries 3\n    option redispatch 1\n    retry-on 503\n"
        for n, host in enumerate(table.hosts):
            words = [f"server s{n} {host.at.replace('[::1]', '::1')} weight {host.weight}", host.extra.replace("=", " ")]
            if "addr" in options.get("hash_key", ""):
                words.append(f"hash-key {options['hash_key']}")
            if not host.up and "runtime" not in options:
                words.append("disabled")
            block += f"    {' '.join(words)}\n"
        config.append(block)
    with open(f"{work}/haproxy.cfg", "w") as file:
        file.write("".join(config))
    command = with_loader(f"{args.cache}/{name}", args.triplet, "usr/sbin/haproxy")
    version = re.search(r"version (\d+\.\d+\.\d+)", subprocess.run([*command, "-v"], capture_output=True,
                                                                   text=True).stdout).group(1)
    server = Server([*command, "-db", "-q", "-f", f"{work}/haproxy.cfg"], 19000)
    try:
        for i, table in enumerate(tables):
            if "runtime" in table.options:
                for n, host in enumerate(table.hosts):
                    if not host.up:
                        with socket.socket(socket.AF_UNIX) as admin:
                            admin.connect(f"{work}/admin")
                            admin.sendall(f"set server t{i}/s{n} state maint\n".encode())
                            assert not admin.recv(4096).strip()
            asker, picks = Asker(19000 + i), []
            for key in keys_of(table):
                if table.kind == "haproxy-redispatch":
                    picks.append((key, ask_in_order(asker, table, key)))
                    continue
                one = Asker(19000 + i, (key.decode(), 0)) if table.kind == "haproxy-source" else asker
                status, body, _ = one.ask(key)
                assert status == 200, (table.name, key, status, body)
                picks.append((key, position_of(table, body)))
            write(args.out, f"HAProxy {version}", table, picks)
    finally:
        server.stop()
        shutil.rmtree(work)
