"""nginx: `hash KEY consistent`, and its turn (smooth weighted round-robin), which knows no keys."""

import os, shutil, subprocess, tempfile, zlib
from dataclasses import replace

from common import (DEAD, FEW, FRONT, KEYS, MIXED, PORT, Asker, Host, Server, Table, down, hosts, keys_of, position_of,
                    shuffled, with_loader, write)


def nginx_tables():
    ten = hosts(10, MIXED)
    ports = [replace(host, name=f"127.77.0.{i + 1}:{PORT}") for i, host in enumerate(ten)]
    odd = [
        Host("127.77.0.1", 2, also=("127.77.0.1:80",)),                     # no port: 80, and nothing hashed for it
        Host("127.77.0.4:80"),
        Host("localhost:18099", also=("127.0.0.1:18099", "[::1]:18099")),   # two peers of one string, on most machines
        Host("unix:/nonexistent/waypost/a.sock"),
        Host("unix:/nonexistent/waypost/b.sock:18099", 2),
        Host("127.77.0.2:018080", address="127.77.0.2:18080"),              # a leading zero is hashed as it stands
        Host("127.77.0.3:18080"),
    ]
    twins = [Host("127.77.0.1:18080", 2), Host("127.77.0.2:18080"), Host("127.77.0.1:18080", 5),
             Host("127.77.0.3:18080", 3), Host("127.77.0.2:18080")]
    dead = [replace(host, name=host.name.replace(str(PORT), str(DEAD)), up=False) if i in (3, 6) else host
            for i, host in enumerate(ten)]
    tables = [
        Table("nginx", "3-equal", "nginx", hosts(3)),
        Table("nginx", "2-unequal", "nginx", hosts(2, (1, 9))),
        Table("nginx", "10-mixed", "nginx", ports),
        Table("nginx", "10-mixed-shuffled", "nginx", shuffled(ports)),
        Table("nginx", "9-mixed-one-gone", "nginx", ports[:3] + ports[4:]),
        Table("nginx", "10-mixed-two-down", "nginx", down(ports, 3, 6), comment="Marked `down`."),
        Table("nginx", "10-mixed-two-dead", "nginx", dead, {"failing": "yes"},
              comment="Nobody listens at two of them; max_fails=1."),
        Table("nginx", "100-mixed", "nginx", hosts(100, (1, 2, 3, 1, 20))),
        Table("nginx", "odd-strings", "nginx", odd),
        Table("nginx", "same-string", "nginx", twins, comment="Entries of one string answer alike."),
        Table("nginx", "10-mixed-order", "nginx-order", ports, keys=FEW,
              comment="Everyone fails: the peers in the order in which they were tried."),
        Table("nginx", "4-unequal-order", "nginx-order", hosts(4, (1, 30, 1, 2)), keys=FEW,
              comment="The same, where 21 points don't always reach every peer."),
        nginx_ties(),
    ]
    return tables + [turn(weights) for weights in ((1, 1, 1), (5, 1, 1), (1, 2, 3), (4, 3, 2, 1), (10, 20, 30), (1, 99))] + [
        replace(turn((20, 1, 7, 13, 2, 2, 5, 11, 3, 17, 1, 6)), name="12-mixed")]


def turn(weights):
    """The endpoint of each call, from the first on: here a key is but the number of a call."""
    return Table("smooth-nginx", "-".join(map(str, weights)), "smooth-nginx", hosts(len(weights), weights),
                 comment="The calls in their order, from the first that nginx is asked.")


def nginx_points(name, weight):
    host, _, port = name.rpartition(":")
    base, previous, points = host.encode() + b"\0" + port.encode(), 0, []
    for _ in range(160 * weight):
        previous = zlib.crc32(base + previous.to_bytes(4, "little"))
        points.append(previous)
    return points


def nginx_ties():
    """Points of different peers that are equal, and keys that land on them: CRC-32 is searched until there are some."""
    table = [Host(f"127.77.0.{i + 1}:{PORT}", 25) for i in range(100)]
    owners = {}
    for i, host in enumerate(table):
        for point in nginx_points(host.name, host.weight):
            owners.setdefault(point, set()).add(i)
    ordered = sorted(owners)
    before = {point: ordered[i - 1] for i, point in enumerate(ordered)}
    ties = [point for point in ordered if len(owners[point]) > 1]
    gaps, wanted, exact, i = sorted((before[point], point) for point in ties), [], [], 0
    while (len(wanted) < 2 * len(ties) or len(exact) < 30) and i < 3_000_000:
        key = b"tie-%d" % i
        value, i = zlib.crc32(key), i + 1
        if len(wanted) < 2 * len(ties) and any(low < value <= high for low, high in gaps):
            wanted.append(key)
        if len(exact) < 30 and value in owners:
            exact.append(key)
    return Table("nginx", "100-equal-points", "nginx", table, keys=wanted + exact + KEYS[:20],
                 comment=f"{len(ties)} points belong to two peers; the first keys land on them, then come keys "
                         "that are points themselves.")


def generate(args):
    root, work = f"{args.cache}/nginx", tempfile.mkdtemp(prefix="waypost-golden-")
    blocks, tables = [], nginx_tables()
    for i, table in enumerate(tables):
        fails = "" if "failing" in table.options else " max_fails=0"
        servers = "".join(
            f"    server {host.name} weight={host.weight}{fails}{' fail_timeout=1h' if not fails else ''}"
            f"{'' if host.up or not fails else ' down'};\n" for host in table.hosts)
        rule = "" if table.kind == "smooth-nginx" else "    hash $http_x_key consistent;\n"
        again = "error http_503" if table.kind == "nginx-order" else "error" if not fails else "off"
        blocks.append(f"""
upstream t{i} {{
{rule}{servers}}}
server {{
    listen {FRONT}:{19000 + i};
    location / {{
        proxy_pass http://t{i};
        proxy_next_upstream {again};
        add_header x-upstream $upstream_addr always;
    }}
}}""")
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        os.makedirs(f"{work}/temp/{name}")
    temps = " ".join(f"{name} {work}/temp/{path};" for name, path in (
        ("client_body_temp_path", "body"), ("proxy_temp_path", "proxy"), ("fastcgi_temp_path", "fastcgi"),
        ("uwsgi_temp_path", "uwsgi"), ("scgi_temp_path", "scgi")))
    with open(f"{work}/nginx.conf", "w") as file:
        file.write(f"worker_processes 1; master_process off; daemon off; pid {work}/pid; error_log /dev/null crit;\n"
                   f"events {{ worker_connections 1024; }}\nhttp {{ access_log off; keepalive_requests 1000000; {temps}\n"
                   f"large_client_header_buffers 4 64k;{''.join(blocks)}\n}}\n")
    command = with_loader(root, args.triplet, "usr/sbin/nginx")
    version = subprocess.run([*command, "-v"], capture_output=True, text=True).stderr.split("/")[-1].strip()
    server = Server([*command, "-p", work, "-c", f"{work}/nginx.conf"], 19000)
    try:
        for i, table in enumerate(tables):
            asker, picks = Asker(19000 + i), []
            order = table.kind == "nginx-order"
            for key in keys_of(table):
                status, body, upstream = asker.ask(key, **({"x_fail": key.hex()} if order else {}))
                tried = upstream.split(", ")
                if order:
                    picks.append((key, [position_of(table, one) for one in tried]))
                else:
                    assert status != 200 or body == tried[-1], (key, status, body, upstream)
                    picks.append((key, position_of(table, tried[-1])))
            write(args.out, f"nginx {version}", table, picks)
    finally:
        server.stop()
        shutil.rmtree(work)
