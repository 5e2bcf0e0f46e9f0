"""The original libketama of 2007: its source is in PyPI's `ketama`, which compiles it and makes it callable."""

import glob, os, tempfile
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

from common import MIXED, Table, keys_of, shuffled, write
from ketama import exact_keys, named


def generate(args):
    (path,) = glob.glob(f"{args.cache}/libketama/ketama.*.so")
    spec = spec_from_file_location("ketama", path, loader=ExtensionFileLoader("ketama", path))
    library = module_from_spec(spec)
    spec.loader.exec_module(library)
    (info,) = glob.glob(f"{args.cache}/libketama/ketama-*.dist-info")
    version = os.path.basename(info).removeprefix("ketama-").removesuffix(".dist-info")

    ten, hundred = named(10, MIXED, 11212), named(100, (1,), 11300)
    for table in (
        Table("libketama", "3-equal", "libketama", named(3, (1,), 11211), comment="The default port is hashed."),
        Table("libketama", "1-alone", "libketama", named(1, (1,), 11212)),
        Table("libketama", "10-mixed", "libketama", ten),
        Table("libketama", "10-mixed-shuffled", "libketama", shuffled(ten)),
        Table("libketama", "9-mixed-one-gone", "libketama", ten[:3] + ten[4:]),
        Table("libketama", "100-mixed", "libketama", named(100, (1, 2, 3, 1, 20), 11300)),
        Table("libketama", "100-equal-exact", "libketama", hundred, keys=exact_keys(hundred),
              comment="The first keys are points themselves."),
        Table("libketama", "7-thirds", "libketama", named(7, (1, 1, 1, 3, 3, 7, 9), 11211)),
        Table("libketama", "23-sevenths", "libketama", named(23, (7, 3, 11, 1, 49), 11211)),
        Table("libketama", "4-far-apart", "libketama", named(4, (1, 1000, 33, 100000), 11213),
              comment="The lightest has no point at all."),
    ):
        with tempfile.NamedTemporaryFile("w", suffix=".servers") as file:
            file.write("".join(f"{host.name}\t{host.weight}\n" for host in table.hosts))
            file.flush()
            ring = library.Ketama(file.name)
            position = {host.name: i for i, host in enumerate(table.hosts)}
            picks = [(key, position[ring.get_server(key)[1]]) for key in keys_of(table)]
            del ring
        write(args.out, f"libketama in the package ketama {version}", table, picks)
