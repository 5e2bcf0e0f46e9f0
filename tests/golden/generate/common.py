"""What all systems are asked, who answers, and how the answers are written down."""

import asyncio, http.client, glob, os, random, socket, subprocess, threading, time
from dataclasses import dataclass, field, replace

FRONT = "127.77.1.1"      # where the load balancers listen, one port for each table
PORT = 18080              # where the backends listen, one address for each
DEAD = 18099              # where nobody listens


@dataclass(frozen=True)
class Host:
    name: str                         # the string that is hashed
    weight: int = 1
    up: bool = True
    address: str = ""                 # "ip:port" to connect to, when it isn't the name
    extra: str = ""
    also: tuple = ()                  # further answers that mean this host

    @property
    def at(self):
        return self.address or self.name


@dataclass
class Table:
    system: str
    name: str
    kind: str
    hosts: list
    options: dict = field(default_factory=dict)
    keys: list = None
    comment: str = ""


def addresses(count, port=PORT):
    return [f"127.77.0.{i + 1}:{port}" for i in range(count)]


def hosts(count, weights=(1,)):
    return [Host(name, weights[i % len(weights)]) for i, name in enumerate(addresses(count))]


MIXED = (1, 5, 2, 10, 1, 3, 7, 1, 4, 2)


def shuffled(table):
    table = list(table)
    random.Random(7).shuffle(table)
    return table


def down(table, *positions):
    return [replace(host, up=i not in positions) for i, host in enumerate(table)]


def keys(count):
    odd = ["a", "0", "Z", "~", "foo", "bar", "/index.html", "user:42", "GET /a?b=c&d=e", "00000000", "00000001",
           "x" * 31, "x" * 32, "x" * 33, "y" * 64, "z" * 120, "caf\u00e9", "\u4e16\u754c", "\U0001f600", "#", "%", "a b  c",
           "the quick brown fox jumps over the lazy dog", "0123456789abcdef", "7f000001-0000-4000-8000-000000000000"]
    out = odd + [f"user-{i}" for i in range((count - len(odd)) // 2)]
    rng = random.Random(1)
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789/_-.:"
    while len(out) < count:
        out.append("".join(rng.choice(alphabet) for _ in range(rng.randint(3, 20))))
    return [key.encode() for key in out]


KEYS, FEW = keys(400), keys(100)


def keys_of(table):
    return table.keys or KEYS


ODD_NAMES = ["a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "shard 7", "caf\u00e9", "_", "a_1", "a_", "A",
             "cache-01.example.internal:11211", "x" * 200, "%41", "\U0001f600", "0"]


class Backend(asyncio.Protocol):
    tried = {}                                     # x-request -> addresses in the order in which they were asked

    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""
        host, port = transport.get_extra_info("sockname")[:2]
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def data_received(self, data):
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            lines = [line.split(b":", 1) for line in head.split(b"\r\n")[1:]]
            headers = {line[0].lower(): line[1].strip() for line in lines}
            fail = b"x-fail" in headers
            if fail:
                Backend.tried.setdefault(headers[b"x-fail"], []).append(self.name)
            status = b"503 Try Again" if fail else b"200 OK"
            body = self.name.encode()
            self.transport.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
            if headers.get(b"connection", b"").lower() == b"close":
                self.transport.close()


def start_backends(names):
    loop = asyncio.new_event_loop()

    async def listen():
        for name in names:
            host, port = name.rsplit(":", 1)
            await loop.create_server(Backend, host.strip("[]"), int(port))

    loop.run_until_complete(listen())
    threading.Thread(target=loop.run_forever, daemon=True).start()


class Asker:
    """One kept-alive connection to the front of one table."""

    def __init__(self, port, source=None):
        self.connection = http.client.HTTPConnection(FRONT, port, timeout=20, source_address=source)

    def ask(self, key, **headers):
        for attempt in (1, 2):
            try:
                self.connection.putrequest("GET", "/", skip_accept_encoding=True)
                self.connection.putheader("x-key", key)
                for name, value in headers.items():
                    self.connection.putheader(name.replace("_", "-"), value)
                self.connection.endheaders()
                answer = self.connection.getresponse()
                return answer.status, answer.read().decode("latin-1").strip(), answer.headers.get("x-upstream", "")
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.connection.close()
                if attempt == 2:
                    raise


def position_of(table, answer):
    for i, host in enumerate(table.hosts):
        if answer == host.at or answer in host.also:
            return i
    raise SystemExit(f"{table.system}-{table.name}: nobody is called {answer!r}")


def ask_in_order(asker, table, key):
    Backend.tried.clear()
    asker.ask(key, x_fail=key.hex())
    (tried,) = Backend.tried.values()
    return [position_of(table, one) for one in tried]


def quoted(raw):
    raw = raw if isinstance(raw, bytes) else raw.encode()
    return "".join(chr(b) if 0x20 < b < 0x7F and b != 0x25 else f"%{b:02X}" for b in raw)


def write(out, version, table, picks):
    path = os.path.join(out, f"{table.system}-{table.name}.txt")
    with open(path, "w") as file:
        print(f"# Answers of {version}, written by generate.sh. {table.comment}".rstrip(), file=file)
        print("table", table.kind, sep="\t", file=file)
        for name, value in table.options.items():
            print("option", name, value, sep="\t", file=file)
        for host in table.hosts:
            row = ["host", quoted(host.name), host.weight, "up" if host.up else "down"]
            print(*row, *([host.extra] if host.extra else []), sep="\t", file=file)
        row = []
        for key, chosen in picks:
            chosen = ",".join(map(str, chosen)) if isinstance(chosen, list) else str(chosen)
            if table.keys not in (None, FEW):
                print("key", quoted(key), chosen, sep="\t", file=file)
                continue
            while KEYS[len(row)] != key:
                row.append("-")
            row.append(chosen)
        for first in range(0, len(row), 20):
            print("picks", first, " ".join(row[first:first + 20]), sep="\t", file=file)
    spread = len({chosen if isinstance(chosen, int) else chosen[0] for _, chosen in picks})
    print(f"{os.path.basename(path)}: {len(picks)} keys on {spread} of {len(table.hosts)} hosts")


class Server:
    """A load balancer in the foreground; stopped by its own process id."""

    def __init__(self, command, ready, environment=None):
        self.process = subprocess.Popen(command, env={**os.environ, **(environment or {})})
        deadline = time.time() + 30
        while time.time() < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"{command[0]} ended with {self.process.returncode}")
            try:
                socket.create_connection((FRONT, ready), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{command[0]} does not listen")

    def stop(self):
        self.process.kill()
        self.process.wait()


def with_loader(root, triplet, program):
    """The program of an unpacked package, run with the C library that was unpacked beside it."""
    loader = (glob.glob(f"{root}/lib64/ld-linux*") + glob.glob(f"{root}/usr/lib64/ld-linux*")
              + glob.glob(f"{root}/lib/{triplet}/ld-linux*") + glob.glob(f"{root}/usr/lib/{triplet}/ld-linux*")
              + glob.glob(f"{root}/lib/ld-linux*") + glob.glob(f"{root}/usr/lib/ld-linux*"))[0]
    libraries = f"{root}/usr/lib/{triplet}:{root}/lib/{triplet}:{root}/usr/lib:{root}/lib"
    return [loader, "--library-path", libraries, f"{root}/{program}"]
