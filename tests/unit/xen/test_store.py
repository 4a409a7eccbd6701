"""xenstore: the tree, and the wire."""

from __future__ import annotations

import struct

import pytest

from paravirt.boot.layout import XEN_STORE
from paravirt.interfaces.xen.store import Permission, Store, StoreError

from .guest import Guest

DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, START, END, DOMAIN_PATH = 1, 2, 3, 4, 5, 6, 7, 10
WRITE, MKDIR, RM, SET_PERMS, WATCH_EVENT, ERROR, RESET_WATCHES = 11, 12, 13, 14, 15, 16, 21
STORE_PORT = 1


class Client:
    """What a guest's xenbus driver does."""

    def __init__(self) -> None:
        self.guest = Guest()
        self.memory = self.guest.memory

    def send(self, kind: int, payload: bytes, transaction: int = 0) -> None:
        message = struct.pack("<IIII", kind, 77, transaction, len(payload)) + payload
        while message:
            room = 1024 - (self._index(2052) - self._index(2048))
            part, message = message[:room], message[room:]
            prod = self._index(2052)
            for offset, byte in enumerate(part):
                self.memory.write_int(XEN_STORE + (prod + offset) % 1024, 1, byte)
            self.memory.write_int(XEN_STORE + 2052, 4, prod + len(part))
            self.kick()

    def kick(self) -> None:
        assert self.guest.op(32, 4, "I", STORE_PORT) == 0

    def receive(self) -> tuple[int, int, bytes]:
        kind, request, _transaction, length = struct.unpack("<IIII", self._read(16))
        return kind, request, self._read(length)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            cons, prod = self._index(2056), self._index(2060)
            part = min(length - len(data), prod - cons)
            assert part > 0, "nothing comes"
            data += bytes(self.memory.read_int(XEN_STORE + 1024 + (cons + i) % 1024, 1) for i in range(part))
            self.memory.write_int(XEN_STORE + 2056, 4, cons + part)
            self.kick()
        return data

    def _index(self, offset: int) -> int:
        return self.memory.read_int(XEN_STORE + offset, 4)

    @property
    def is_quiet(self) -> bool:
        return self._index(2056) == self._index(2060)

    def ask(self, kind: int, payload: bytes, transaction: int = 0) -> bytes:
        """Return the answer, or what is wrong."""
        self.send(kind, payload, transaction)
        answer, request, reply = self.receive()
        assert request == 77
        assert answer in (kind, ERROR)
        return reply


@pytest.fixture
def client() -> Client:
    return Client()


def test_what_a_guest_finds(client: Client) -> None:
    assert client.ask(READ, b"domid\0") == b"1"
    assert client.ask(READ, b"/local/domain/1/name\0") == b"paravirt"
    assert client.ask(READ, b"vm\0").startswith(b"/vm/")
    assert client.ask(DIRECTORY, b"device\0") == b"suspend\0"
    assert client.ask(DOMAIN_PATH, b"1\0") == b"/local/domain/1\0"
    assert client.ask(READ, b"nothing\0") == b"ENOENT\0"


def test_the_guest_writes_where_it_may(client: Client) -> None:
    assert client.ask(WRITE, b"data/x\0value") == b"OK\0"
    assert client.ask(READ, b"data/x\0") == b"value"
    assert client.ask(WRITE, b"domid\0007") == b"EACCES\0"
    assert client.ask(WRITE, b"/local/domain/0/x\0y") == b"EACCES\0"
    assert client.ask(MKDIR, b"data/a/b\0") == b"OK\0"
    assert client.ask(DIRECTORY, b"data\0") == b"x\0a\0"
    assert client.ask(RM, b"data/a\0") == b"OK\0"
    assert client.ask(RM, b"data/a\0") == b"OK\0"
    assert client.ask(READ, b"data/a/b\0") == b"ENOENT\0"
    assert client.ask(GET_PERMS, b"data\0") == b"n1\0"
    assert client.ask(SET_PERMS, b"data\0n1\0r0\0") == b"OK\0"
    assert client.ask(GET_PERMS, b"data\0") == b"n1\0r0\0"


def test_a_watch_fires_at_once_and_for_what_is_below(client: Client) -> None:
    assert client.ask(WATCH, b"data\0token\0") == b"OK\0"
    assert client.receive() == (WATCH_EVENT, 0, b"data\0token\0")
    assert client.ask(WRITE, b"data/x\0v") == b"OK\0"
    assert client.receive() == (WATCH_EVENT, 0, b"data/x\0token\0")
    assert client.ask(WATCH, b"data\0token\0") == b"EEXIST\0"
    client.guest.xen.store.store.write(b"/local/domain/1/data/y", b"", 0)
    client.kick()
    assert client.receive() == (WATCH_EVENT, 0, b"data/y\0token\0")
    assert client.ask(UNWATCH, b"data\0token\0") == b"OK\0"
    client.ask(WRITE, b"data/x\0w")
    assert client.is_quiet


def test_a_transaction_is_seen_by_others_at_its_end(client: Client) -> None:
    number = int(client.ask(START, b"\0")[:-1])
    assert client.ask(WRITE, b"data/x\0new", number) == b"OK\0"
    assert client.ask(READ, b"data/x\0", number) == b"new"
    assert client.ask(READ, b"data/x\0") == b"ENOENT\0"
    assert client.ask(END, b"T\0", number) == b"OK\0"
    assert client.ask(READ, b"data/x\0") == b"new"
    assert client.ask(END, b"T\0", number) == b"ENOENT\0"


def test_a_transaction_that_was_overtaken_must_be_repeated(client: Client) -> None:
    number = int(client.ask(START, b"\0")[:-1])
    client.ask(WRITE, b"data/x\0mine", number)
    client.ask(WRITE, b"data/x\0other")
    assert client.ask(END, b"T\0", number) == b"EAGAIN\0"
    number = int(client.ask(START, b"\0")[:-1])
    client.ask(WRITE, b"data/x\0mine", number)
    assert client.ask(END, b"F\0", number) == b"OK\0"
    assert client.ask(READ, b"data/x\0") == b"other"


@pytest.mark.parametrize(
    ("kind", "payload", "error"),
    [
        (READ, b"", b"EINVAL\0"),
        (READ, b"no end", b"EINVAL\0"),
        (READ, b"a//b\0", b"EINVAL\0"),
        (READ, b"a b\0", b"EINVAL\0"),
        (WRITE, b"data/x", b"EINVAL\0"),
        (WRITE, b"data/x\0" + b"v" * 2049, b"E2BIG\0"),
        (READ, b"x" * 4096, b"EINVAL\0"),
        (8, b"", b"EACCES\0"),
        (99, b"", b"ENOSYS\0"),
        (END, b"T\0", b"ENOENT\0"),
        (WATCH, b"data\0", b"EINVAL\0"),
        (DOMAIN_PATH, b"\xff\0", b"EINVAL\0"),
        (SET_PERMS, b"data\0z1\0", b"EINVAL\0"),
        (RM, b"/\0", b"EINVAL\0"),
    ],
)
def test_requests_that_fail(client: Client, kind: int, payload: bytes, error: bytes) -> None:
    assert client.ask(kind, payload) == error
    assert client.ask(READ, b"domid\0") == b"1", "the connection lives on"


def test_quotas(client: Client) -> None:
    for number in range(128):
        client.ask(WATCH, b"data\0%d\0" % number)
        client.receive()
    assert client.ask(WATCH, b"data\0more\0") == b"E2BIG\0"
    assert client.ask(RESET_WATCHES, b"\0") == b"OK\0"
    for _ in range(10):
        client.ask(START, b"\0")
    assert client.ask(START, b"\0") == b"ENOSPC\0"


def test_a_transaction_changes_only_so_much(client: Client) -> None:
    number = int(client.ask(START, b"\0")[:-1])
    answers = {client.ask(MKDIR, b"data/%d\0" % index, number) for index in range(600)}
    answers |= {client.ask(RM, b"data/%d\0" % index, number) for index in range(600)}
    answers |= {client.ask(MKDIR, b"data/x%d\0" % index, number) for index in range(600)}
    assert answers == {b"OK\0", b"ENOSPC\0"}


def test_a_guest_may_make_only_so_many_nodes_and_as_deep_as_it_likes() -> None:
    store = Store()
    store.mkdir(b"/a", 0)
    store.set_permissions(b"/a", (Permission("n", 1),), 0)
    deep = b"/a" + b"/x" * 900
    store.write(deep, b"bottom", 1)
    assert store.copy(lambda _path: None).read(deep, 1) == b"bottom"
    with pytest.raises(StoreError, match="ENOSPC"):
        store.write(b"/a" + b"/y" * 200, b"", 1)
    store.remove(b"/a/x", 1)
    store.write(b"/a" + b"/y" * 200, b"", 1)


def test_indices_that_make_no_sense_move_nothing(client: Client) -> None:
    client.memory.write_int(XEN_STORE + 2052, 4, 0x8000_0000)
    client.kick()
    assert client.is_quiet


def test_a_guest_that_does_not_read_is_not_answered(client: Client) -> None:
    payload = b"data\0"
    message = struct.pack("<IIII", DIRECTORY, 1, 0, len(payload)) + payload
    for _ in range(1000):
        prod = client._index(2052)
        if prod - client._index(2048) + len(message) > 1024:
            break
        for offset, byte in enumerate(message):
            client.memory.write_int(XEN_STORE + (prod + offset) % 1024, 1, byte)
        client.memory.write_int(XEN_STORE + 2052, 4, prod + len(message))
        client.kick()
    else:
        pytest.fail("requests were taken for ever")
