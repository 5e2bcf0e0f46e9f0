"""The original libketama of 2007: its source is in PyPI's `ketama`, which compiles it and makes it callable."""

import glob, os, tempfile
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

from common import Table, keys_of, write
from ketama import named, tables


def generate(args):
    (path,) = glob.glob(f"{args.cache}/libketama/ketama.*.so")
    spec = spec_from_file_location("ketama", path, loader=ExtensionFileLoader("ketama", path))
    library = module_from_spec(spec)
    spec.loader.exec_module(library)
    (info,) = glob.glob(f"{args.cache}/libketama/ketama-*.dist-info")
    version = os.path.basename(info).removeprefix("ketama-").removesuffix(".dist-info")

    for table in (
        *tables("libketama", "The default port is hashed."),
        Table("libketama", "23-sevenths", "libketama", named(23, (7, 3, 11, 1, 49), 11211)),
    ):
        with tempfile.NamedTemporaryFile("w", suffix=".servers") as file:
            file.write("".join(f"{host.name}\t{host.weight}\n" for host in table.hosts))
            file.flush()
            ring = library.Ketama(file.name)
            position = {host.name: i for i, host in enumerate(table.hosts)}
            picks = [(key, position[ring.get_server(key)[1]]) for key in keys_of(table)]
            del ring
        write(args.out, f"libketama in the package ketama {version}", table, picks)
