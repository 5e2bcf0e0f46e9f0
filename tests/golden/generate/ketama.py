"""libmemcached: weighted ketama."""

import ctypes, glob, hashlib, itertools

from common import KEYS, MIXED, ODD_NAMES, Host, Table, keys_of, shuffled, write


def named(count, weights, port):
    return [Host(f"10.0.{i // 50}.{i % 50 + 1}:{port}", weights[i % len(weights)]) for i in range(count)]


def exact_keys(table):
    points = {int.from_bytes(hashlib.md5(f"{host.name}-{n}".encode()).digest()[i:i + 4], "little")
              for host in table for n in range(40) for i in (0, 4, 8, 12)}
    tries = (b"exact-%d" % i for i in range(3_000_000))
    here = (key for key in tries if int.from_bytes(hashlib.md5(key).digest()[:4], "little") in points)
    return list(itertools.islice(here, 12)) + KEYS[:50]


def tables(system, comment):
    """What every ketama is asked."""
    ten, hundred = named(10, MIXED, 11212), named(100, (1,), 11300)
    return [
        Table(system, "3-equal", system, named(3, (1,), 11211), comment=comment),
        Table(system, "1-alone", system, named(1, (1,), 11212)),
        Table(system, "10-mixed", system, ten),
        Table(system, "10-mixed-shuffled", system, shuffled(ten)),
        Table(system, "9-mixed-one-gone", system, ten[:3] + ten[4:]),
        Table(system, "100-mixed", system, named(100, (1, 2, 3, 1, 20), 11300)),
        Table(system, "100-equal-exact", system, hundred, keys=exact_keys(hundred),
              comment="The first keys are points themselves."),
        Table(system, "7-thirds", system, named(7, (1, 1, 1, 3, 3, 7, 9), 11211)),
        Table(system, "4-far-apart", system, named(4, (1, 1000, 33, 100000), 11213),
              comment="The lightest has no point at all."),
    ]


def generate(args):
    """libmemcached's own choice (memcached_generate_hash), asked in-process: no server need run."""
    root = f"{args.cache}/memcached/usr/lib/{args.triplet}"
    ctypes.CDLL(glob.glob(f"{root}/libhashkit.so.2*")[0], mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(glob.glob(f"{root}/libmemcached.so.11*")[0])
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32
    library.memcached_create.restype = pointer
    library.memcached_create.argtypes = [pointer]
    library.memcached_behavior_set.argtypes = [pointer, ctypes.c_int, ctypes.c_uint64]
    library.memcached_server_add_with_weight.argtypes = [pointer, text, ctypes.c_uint16, number]
    library.memcached_generate_hash.argtypes = [pointer, text, ctypes.c_size_t]
    library.memcached_generate_hash.restype = number
    library.memcached_free.argtypes = [pointer]
    library.memcached_lib_version.restype = text
    KETAMA_WEIGHTED = 16                                        # MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED

    odd = [Host(f"{name.replace(' ', '-')}:{11211 + i % 3}", 1 + i % 4) for i, name in enumerate(ODD_NAMES) if ":" not in name]
    for table in (
        *tables("ketama", "The default port is not hashed."),
        Table("ketama", "odd-strings", "ketama", odd),
        Table("ketama", "same-string", "ketama", [Host("10.0.0.1:11211", 2), Host("10.0.0.2:11211"),
                                                  Host("10.0.0.1:11211", 5), Host("10.0.0.3:11211", 3)]),
    ):
        memcached = library.memcached_create(None)
        assert library.memcached_behavior_set(memcached, KETAMA_WEIGHTED, 1) == 0
        for host in table.hosts:
            address, port = host.name.rsplit(":", 1)
            assert library.memcached_server_add_with_weight(memcached, address.encode(), int(port), host.weight) == 0
        picks = [(key, library.memcached_generate_hash(memcached, key, len(key))) for key in keys_of(table)]
        library.memcached_free(memcached)
        write(args.out, f"libmemcached {library.memcached_lib_version().decode()}", table, picks)
