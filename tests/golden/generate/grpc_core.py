"""gRPC: `ring_hash_experimental` of the C core."""

import json, os, sys

from common import Table, hosts, keys_of, position_of, write


def generate(args):
    """gRPC's C core as a client of its own servers. Addresses in the target carry no weights, so all are equal."""
    os.environ["GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY"] = "true"
    sys.path.insert(0, f"{args.cache}/grpc")
    import grpc as g
    from concurrent import futures

    class Name(g.GenericRpcHandler):
        def __init__(self, name):
            self.name = name

        def service(self, details):
            return g.unary_unary_rpc_method_handler(lambda request, context: self.name.encode())

    for count, minimum, maximum in ((3, 1024, 4096), (10, 1024, 4096), (12, 8192, 8192), (7, 100, 110)):
        table = Table("grpc", f"{count}-equal-{minimum}", "grpc-ring", hosts(count),
                      {"minimum": minimum, "maximum": maximum})
        servers = []
        for host in table.hosts:
            server = g.server(futures.ThreadPoolExecutor(1), handlers=[Name(host.name)])
            if server.add_insecure_port(host.name) == 0:
                raise SystemExit(f"cannot listen at {host.name}")
            server.start()
            servers.append(server)
        policy = {"ring_hash_experimental": {"minRingSize": minimum, "maxRingSize": maximum,
                                             "requestHashHeader": "x-key"}}
        target = "ipv4:" + ",".join(host.name for host in table.hosts)
        with g.insecure_channel(target, options=[
                ("grpc.service_config", json.dumps({"loadBalancingConfig": [policy]}))]) as channel:
            call = channel.unary_unary("/waypost.Name/Get")
            picks = []
            for key in keys_of(table):
                if any(b > 0x7E for b in key):      # metadata is ASCII
                    continue
                answer = call(b"", metadata=[("x-key", key.decode())], wait_for_ready=True, timeout=20)
                picks.append((key, position_of(table, answer.decode())))
        for server in servers:
            server.stop(None).wait()
        write(args.out, f"gRPC {g.__version__} (C core)", table, picks)
