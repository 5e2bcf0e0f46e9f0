"""Envoy: `ring_hash` and `maglev`."""

import json, re, shutil, subprocess, tempfile
from dataclasses import replace

from common import (FEW, FRONT, MIXED, ODD_NAMES, PORT, Asker, Host, Server, Table, ask_in_order, down, hosts, keys_of,
                    position_of, shuffled, write)


def envoy_tables():
    ten, odd = hosts(10, MIXED), [Host(name, 1 + i % 4, address=f"127.77.0.{i + 1}:{PORT}")
                                  for i, name in enumerate(ODD_NAMES)]
    named = [Host(f"cache-{i}.example", MIXED[i], address=f"127.77.0.{i + 1}:{PORT}") for i in range(10)]
    tables = []
    for kind, lb, default in (("envoy-ring", "ring", {}), ("envoy-ring", "murmur", {"hash": "murmur2"}),
                              ("envoy-maglev", "maglev", {})):
        def add(name, table, options=None, order=False, **more):
            kind_now = kind + ("-order" if order else "")
            tables.append(Table("envoy", f"{lb}-{name}", kind_now, table, {**default, **(options or {})}, **more))

        add("3-equal", hosts(3))
        add("10-mixed", ten)
        add("10-mixed-shuffled", shuffled(ten))
        add("odd-hash-keys", odd, comment="Strings from the metadata envoy.lb hash_key.")
        add("100-mixed", hosts(100, (1, 2, 3, 1, 20)))
        if lb == "murmur":
            continue
        add("1-alone", hosts(1))
        add("9-mixed-one-gone", ten[:3] + ten[4:])
        add("10-mixed-two-down", down(ten, 3, 6), comment="Unhealthy in the assignment.")
        add("10-mixed-panic", [replace(host, extra="unhealthy") if i in (0, 1, 3, 5, 6, 9) else host
                               for i, host in enumerate(ten)],
            comment="More than half are unhealthy: Envoy panics and hashes over all of them.")
        add("hostnames", named, {"hostnames": "yes"}, comment="use_hostname_for_hashing.")
        add("10-mixed-order", ten, order=True, keys=FEW,
            comment="Everyone fails: the hosts in the order in which retries tried them.")
        near = [replace(host, extra=f"locality={i // 3}") for i, host in enumerate(ten)]
        add("10-mixed-localities", near, {"localities": "2 5 1 3"},
            comment="locality_weighted_lb_config; three hosts in each locality, and one in the last.")
        add("10-mixed-localities-unweighted", near, {"localities": "2 5 0 3"},
            comment="locality_weighted_lb_config; one locality has no weight.")
        add("10-mixed-localities-two-down", down(near, 3, 6), {"localities": "2 5 1 3"},
            comment="locality_weighted_lb_config; one is unhealthy in each of two localities.")
        add("10-mixed-localities-one-down", down(near, 3, 4, 5), {"localities": "2 5 1 3"},
            comment="locality_weighted_lb_config; all of the second locality are unhealthy.")
        add("10-mixed-localities-one-empty", near, {"localities": "2 5 1 3 7"},
            comment="locality_weighted_lb_config; the last locality lists no hosts.")
        if lb == "ring":
            add("10-mixed-capped", ten, {"minimum": 128, "maximum": 133})
            add("10-mixed-capped-shuffled", shuffled(ten), {"minimum": 128, "maximum": 133})
            add("10-equal-tiny", hosts(10), {"minimum": 1, "maximum": 7},
                comment="Fewer points than hosts.")
            add("3-large", hosts(3, (1, 2, 4)), {"minimum": 100000, "maximum": 8388608})
            add("4-far-apart", hosts(4, (1, 1000, 33, 100000)), {"minimum": 1024, "maximum": 20000})
        else:
            add("10-mixed-251", ten, {"table_size": 251})
            add("10-equal-7", hosts(10), {"table_size": 7}, comment="Fewer slots than hosts.")
            add("4-far-apart", hosts(4, (1, 1000, 33, 100000)), {"table_size": 10007})
            add("3-large", hosts(3, (1, 2, 4)), {"table_size": 1000003})
    return tables


def envoy_cluster(i, table):
    weights = table.options.get("localities", "").split()
    localities = [{"locality": {"zone": f"zone-{at}"}, "lb_endpoints": [],
                   **({"load_balancing_weight": int(weight)} if int(weight) else {})}
                  for at, weight in enumerate(weights)] or [{"lb_endpoints": []}]
    for host in table.hosts:
        address, port = host.at.rsplit(":", 1)
        endpoint = {"address": {"socket_address": {"address": address, "port_value": int(port)}}}
        one = {"endpoint": endpoint, "load_balancing_weight": host.weight,
               "health_status": "HEALTHY" if host.up and host.extra != "unhealthy" else "UNHEALTHY"}
        if "hostnames" in table.options:
            endpoint["hostname"] = host.name
        elif host.address:
            one["metadata"] = {"filter_metadata": {"envoy.lb": {"hash_key": host.name}}}
        at = int(host.extra.split("=")[1]) if weights else 0
        localities[at]["lb_endpoints"].append(one)
    cluster = {"name": f"t{i}", "type": "STATIC", "connect_timeout": "1s", "circuit_breakers": {"thresholds": [
                   {"max_retries": 1000}]},
               "load_assignment": {"cluster_name": f"t{i}", "endpoints": localities}}
    if weights:
        cluster["common_lb_config"] = {"locality_weighted_lb_config": {}}
    if "hostnames" in table.options:
        cluster["type"] = "STRICT_DNS"          # static clusters refuse this; the addresses are literals all the same
        cluster["common_lb_config"] = {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}}
    if table.kind.startswith("envoy-maglev"):
        cluster["lb_policy"] = "MAGLEV"
        if "table_size" in table.options:
            cluster["maglev_lb_config"] = {"table_size": table.options["table_size"]}
    else:
        cluster["lb_policy"] = "RING_HASH"
        ring = cluster["ring_hash_lb_config"] = {}
        if "hash" in table.options:
            ring["hash_function"] = "MURMUR_HASH_2"
        for option, name in (("minimum", "minimum_ring_size"), ("maximum", "maximum_ring_size")):
            if option in table.options:
                ring[name] = table.options[option]
    return cluster


def envoy_listener(i, table):
    route = {"cluster": f"t{i}", "hash_policy": [{"header": {"header_name": "x-key"}}]}
    if table.kind.endswith("-order"):
        route["retry_policy"] = {
            "retry_on": "5xx", "num_retries": len(table.hosts) - 1, "host_selection_retry_max_attempts": 100000,
            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
            "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
                "@type": "type.googleapis.com/"
                         "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]}
    manager = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
                        "HttpConnectionManager",
               "stat_prefix": f"t{i}",
               "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                   {"match": {"prefix": "/"}, "route": route}]}]},
               "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                   "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}
    return {"name": f"t{i}", "address": {"socket_address": {"address": FRONT, "port_value": 19000 + i}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager",
                                            "typed_config": manager}]}]}


def generate(args):
    work, tables = tempfile.mkdtemp(prefix="waypost-golden-"), envoy_tables()
    config = {"static_resources": {"listeners": [envoy_listener(i, table) for i, table in enumerate(tables)],
                                   "clusters": [envoy_cluster(i, table) for i, table in enumerate(tables)]}}
    with open(f"{work}/envoy.json", "w") as file:
        json.dump(config, file)
    program = f"{args.cache}/envoy/envoy/_bin/envoy"
    version = re.search(r"/(\d+\.\d+\.\d+)/", subprocess.run([program, "--version"], capture_output=True,
                                                             text=True).stdout).group(1)
    server = Server([program, "-c", f"{work}/envoy.json", "--concurrency", "1", "--disable-hot-restart",
                     "--log-level", "error"], 19000)
    try:
        for i, table in enumerate(tables):
            asker, picks = Asker(19000 + i), []
            for key in keys_of(table):
                if table.kind.endswith("-order"):
                    picks.append((key, ask_in_order(asker, table, key)))
                    continue
                status, body, _ = asker.ask(key)
                assert status == 200, (table.name, key, status, body)
                picks.append((key, position_of(table, body)))
            write(args.out, f"Envoy {version}", table, picks)
    finally:
        server.stop()
        shutil.rmtree(work)
