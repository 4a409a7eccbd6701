"""xenstore's wire: requests and answers in two rings, watches and transactions.

A request is a header and a payload; it is answered before the next is looked at, and only while there is room for
answers, so a guest that does not read makes nothing grow.

Source: Xen's public/io/xs_wire.h, docs/misc/xenstore.txt, docs/misc/xenstore-ring.txt.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

from paravirt.interfaces.xen.abi import DOMID_OWN
from paravirt.interfaces.xen.ring import Ring
from paravirt.interfaces.xen.store import MAX_PATH, Permission, Store, StoreError

if TYPE_CHECKING:
    from paravirt.memory import GuestMemory

__all__ = ["XenStore"]

REQ, RSP, REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD = 0, 1024, 2048, 2052, 2056, 2060
SERVER_FEATURES = 2064
RING_BYTES = 1024
HEADER = struct.Struct("<IIII")
MAX_PAYLOAD = 4096
MAX_WATCHES = 128
MAX_TRANSACTIONS = 10
MAX_CHANGES = 1024
"""Paths that are changed in one transaction."""
MAX_EVENTS = 512
"""Watch events that wait to be sent. A guest that does not read loses the latest."""
HOME = b"/local/domain/%d" % DOMID_OWN
SPECIAL_WATCHES = (b"@introduceDomain", b"@releaseDomain")


class Type(IntEnum):
    """XS_*: types of messages."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22


class Transaction:
    """A copy of the store, what was changed in it, and which state of the store it began with."""

    def __init__(self, store: Store) -> None:
        self.changed: dict[bytes, None] = {}
        self.generation = store.generation
        self.store = store.copy(self._note)

    def _note(self, path: bytes) -> None:
        if len(self.changed) >= MAX_CHANGES:
            raise StoreError("ENOSPC")
        self.changed[path] = None


class XenStore:
    """The store of a machine and the guest's connection to it. gpa: of the rings' page. notify: sends the guest an
    event. fill: writes the tree that a guest finds."""

    def __init__(
        self, memory: GuestMemory, gpa: int, notify: Callable[[], None], fill: Callable[[Store], None]
    ) -> None:
        self._requests = Ring(memory, gpa + REQ, RING_BYTES, gpa + REQ_CONS, gpa + REQ_PROD)
        self._responses = Ring(memory, gpa + RSP, RING_BYTES, gpa + RSP_CONS, gpa + RSP_PROD)
        self._notify = notify
        self._fill = fill
        self._handlers: dict[Type, Callable[[bytes, int], bytes]] = {
            Type.DIRECTORY: self._directory,
            Type.DIRECTORY_PART: self._directory_part,
            Type.READ: self._read,
            Type.GET_PERMS: self._get_perms,
            Type.WATCH: self._watch,
            Type.UNWATCH: self._unwatch,
            Type.TRANSACTION_START: self._transaction_start,
            Type.TRANSACTION_END: self._transaction_end,
            Type.GET_DOMAIN_PATH: self._get_domain_path,
            Type.IS_DOMAIN_INTRODUCED: self._is_domain_introduced,
            Type.WRITE: self._write,
            Type.MKDIR: self._mkdir,
            Type.RM: self._rm,
            Type.SET_PERMS: self._set_perms,
            Type.RESET_WATCHES: self._reset_watches,
        }
        self.reset()

    def reset(self) -> None:
        """A new connection, and a new tree."""
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._events: list[bytes] = []
        self._watches: dict[tuple[bytes, bytes], bytes] = {}
        """By the path as the guest gave it and its token: the absolute path."""
        self._transactions: dict[int, Transaction] = {}
        self._last_transaction = 0
        self.store = Store(self._fire)
        self._fill(self.store)

    # -- the rings

    def serve(self) -> None:
        """Answer what has come, as far as the answers fit."""
        has_moved = self._send()
        while not self._outgoing and (data := self._requests.take(self._wanted())):
            has_moved = True
            self._incoming += data
            if len(self._incoming) == self._message_bytes():
                self._answer(bytes(self._incoming))
                self._incoming.clear()
                self._send()
        if has_moved:
            self._notify()

    def _message_bytes(self) -> int:
        """How long the message is that is coming in, as far as is known."""
        if len(self._incoming) < HEADER.size:
            return HEADER.size
        length: int = HEADER.unpack_from(self._incoming)[3]
        # Of a message that is too long the rest is taken for the next one: a guest that does this is on its own.
        return HEADER.size + min(length, MAX_PAYLOAD)

    def _wanted(self) -> int:
        return self._message_bytes() - len(self._incoming)

    def _send(self) -> bool:
        before = self._responses.room
        while True:
            if not self._outgoing and self._events:
                self._outgoing += self._events.pop(0)
            if not self._outgoing:
                break
            done = self._responses.put(bytes(self._outgoing))
            del self._outgoing[:done]
            if not done:
                break
        return self._responses.room != before

    # -- requests

    def _answer(self, message: bytes) -> None:
        number, request, transaction, length = HEADER.unpack_from(message)
        payload = message[HEADER.size :]
        try:
            kind, reply = self._carry_out(number, transaction, payload, length)
        except StoreError as error:
            kind, reply = Type.ERROR, error.name.encode() + b"\0"
        self._outgoing += HEADER.pack(kind, request, transaction, len(reply)) + reply

    def _carry_out(self, number: int, transaction: int, payload: bytes, length: int) -> tuple[Type, bytes]:
        if length > MAX_PAYLOAD:
            raise StoreError("E2BIG")
        try:
            kind = Type(number)
        except ValueError:
            raise StoreError("ENOSYS") from None
        handler = self._handlers.get(kind)
        if handler is None:
            # Of the domain of the tool stack only, or answers.
            raise StoreError("EACCES" if kind not in (Type.WATCH_EVENT, Type.ERROR) else "ENOSYS")
        reply = handler(payload, transaction)
        if len(reply) > MAX_PAYLOAD:
            raise StoreError("E2BIG")
        return kind, reply

    def _store(self, transaction: int) -> Store:
        if transaction == 0:
            return self.store
        return self._find_transaction(transaction).store

    def _find_transaction(self, number: int) -> Transaction:
        found = self._transactions.get(number)
        if found is None:
            raise StoreError("ENOENT")
        return found

    def _directory(self, payload: bytes, transaction: int) -> bytes:
        names = self._store(transaction).directory(_path(payload), DOMID_OWN)
        return b"".join(name + b"\0" for name in names)

    def _directory_part(self, payload: bytes, transaction: int) -> bytes:
        """A directory that is longer than a message: the store's generation, and names from an offset on."""
        path, offset_text, *_ = _strings(payload, 2)
        store = self._store(transaction)
        names = b"".join(name + b"\0" for name in store.directory(_absolute(path), DOMID_OWN))
        generation = b"%d\0" % store.generation
        offset = _number(offset_text)
        part = names[offset : offset + MAX_PAYLOAD - len(generation) - 1]
        part = part[: part.rfind(b"\0") + 1]
        return generation + part + (b"\0" if offset + len(part) >= len(names) else b"")

    def _read(self, payload: bytes, transaction: int) -> bytes:
        return self._store(transaction).read(_path(payload), DOMID_OWN)

    def _get_perms(self, payload: bytes, transaction: int) -> bytes:
        permissions = self._store(transaction).permissions(_path(payload), DOMID_OWN)
        return b"".join(f"{entry.letter}{entry.domid}\0".encode() for entry in permissions)

    def _write(self, payload: bytes, transaction: int) -> bytes:
        path, separator, value = payload.partition(b"\0")
        if not separator:
            raise StoreError("EINVAL")
        self._store(transaction).write(_absolute(path), value, DOMID_OWN)
        return b"OK\0"

    def _mkdir(self, payload: bytes, transaction: int) -> bytes:
        self._store(transaction).mkdir(_path(payload), DOMID_OWN)
        return b"OK\0"

    def _rm(self, payload: bytes, transaction: int) -> bytes:
        self._store(transaction).remove(_path(payload), DOMID_OWN)
        return b"OK\0"

    def _set_perms(self, payload: bytes, transaction: int) -> bytes:
        path, *entries = _strings(payload, 2)
        permissions = tuple(_permission(entry) for entry in entries)
        self._store(transaction).set_permissions(_absolute(path), permissions, DOMID_OWN)
        return b"OK\0"

    def _get_domain_path(self, payload: bytes, transaction: int) -> bytes:
        return b"/local/domain/%d\0" % _number(_strings(payload, 1)[0])

    def _is_domain_introduced(self, payload: bytes, transaction: int) -> bytes:
        return b"T\0" if _number(_strings(payload, 1)[0]) in (0, DOMID_OWN) else b"F\0"

    # -- transactions

    def _transaction_start(self, payload: bytes, transaction: int) -> bytes:
        if transaction:
            raise StoreError("EBUSY")
        if len(self._transactions) >= MAX_TRANSACTIONS:
            raise StoreError("ENOSPC")
        self._last_transaction += 1
        self._transactions[self._last_transaction] = Transaction(self.store)
        return b"%d\0" % self._last_transaction

    def _transaction_end(self, payload: bytes, transaction: int) -> bytes:
        """Commit, unless somebody else has changed the store meanwhile."""
        if payload not in (b"T\0", b"F\0"):
            raise StoreError("EINVAL")
        ended = self._find_transaction(transaction)
        del self._transactions[transaction]
        if payload == b"F\0":
            return b"OK\0"
        if ended.changed:
            if ended.generation != self.store.generation:
                raise StoreError("EAGAIN")
            self.store.replace(ended.store)
            for path in ended.changed:
                self._fire(path)
        return b"OK\0"

    # -- watches

    def _watch(self, payload: bytes, transaction: int) -> bytes:
        path, token = _strings(payload, 2)[:2]
        absolute = path if path in SPECIAL_WATCHES else _absolute(path)
        if (path, token) in self._watches:
            raise StoreError("EEXIST")
        if len(self._watches) >= MAX_WATCHES:
            raise StoreError("E2BIG")
        self._watches[path, token] = absolute
        # It fires at once, behind the answer, so that the guest need not read before.
        self._queue_event(path, token)
        return b"OK\0"

    def _unwatch(self, payload: bytes, transaction: int) -> bytes:
        path, token = _strings(payload, 2)[:2]
        if self._watches.pop((path, token), None) is None:
            raise StoreError("ENOENT")
        return b"OK\0"

    def _reset_watches(self, payload: bytes, transaction: int) -> bytes:
        self._watches.clear()
        self._transactions.clear()
        return b"OK\0"

    def _fire(self, changed: bytes) -> None:
        """A path has changed: it concerns watches of it, and of what is above it."""
        for (path, token), absolute in self._watches.items():
            if changed == absolute or changed.startswith(absolute.rstrip(b"/") + b"/"):
                is_relative = not path.startswith((b"/", b"@"))
                self._queue_event(changed.removeprefix(HOME + b"/") if is_relative else changed, token)

    def _queue_event(self, path: bytes, token: bytes) -> None:
        if len(self._events) < MAX_EVENTS:
            payload = path + b"\0" + token + b"\0"
            self._events.append(HEADER.pack(Type.WATCH_EVENT, 0, 0, len(payload)) + payload)


def _strings(payload: bytes, least: int) -> list[bytes]:
    """The strings of a payload, each ended by NUL. Raises StoreError if there are fewer than `least`."""
    strings = payload.split(b"\0")
    if strings.pop() or len(strings) < least:
        raise StoreError("EINVAL")
    return strings


def _path(payload: bytes) -> bytes:
    (path,) = _strings(payload, 1)[:1]
    return _absolute(path)


def _absolute(path: bytes) -> bytes:
    """A path from the root; relative ones begin at the guest's home."""
    if len(path) > MAX_PATH or not path:
        raise StoreError("EINVAL")
    return path if path.startswith(b"/") else HOME + b"/" + path


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 10:
        raise StoreError("EINVAL")
    return int(text)


def _permission(text: bytes) -> Permission:
    letter = text[:1].decode("latin-1")
    if letter not in ("n", "r", "w", "b"):
        raise StoreError("EINVAL")
    return Permission(letter, _number(text[1:]))
