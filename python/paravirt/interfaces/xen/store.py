"""The tree of xenstore: names, values, and who may do what.

Source: Xen's docs/misc/xenstore.txt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["MAX_PATH", "Permission", "Store", "StoreError"]

MAX_PATH = 3072
MAX_VALUE = 2048
MAX_NODES = 1000
"""Quotas of xenstored for a guest."""

_NAME = re.compile(rb"[-\w@:/]+\Z", re.ASCII)


class StoreError(Exception):
    """Ends a request; `name` is what the guest is told, such as ENOENT."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Permission(NamedTuple):
    """What a domain may do with a node: `n`othing, `r`ead, `w`rite, `b`oth. The first of a node's is its owner's, who
    may do everything; its letter is for all domains that the others do not name."""

    letter: str
    domid: int


@dataclass(slots=True)
class Node:
    """A value, and the names of what is below it, in order."""

    permissions: tuple[Permission, ...]
    value: bytes = b""
    names: dict[bytes, None] = field(default_factory=dict)

    def allows(self, domid: int, letters: str) -> bool:
        """Whether a domain may do something: 0 and the owner may do everything."""
        owner = self.permissions[0]
        if domid in (0, owner.domid):
            return True
        granted = next((entry.letter for entry in self.permissions[1:] if entry.domid == domid), owner.letter)
        return granted in letters


READ, WRITE = "rb", "wb"


class Store:
    """A tree of nodes. Paths are absolute; `domid` says who asks.

    Nodes are in one dict by their paths, so that nothing recurses however deep a guest makes its tree.
    """

    def __init__(self, changed: Callable[[bytes], None] = lambda _path: None) -> None:
        self._nodes = {ROOT: Node((Permission("r", 0),))}
        self._changed = changed
        self.generation = 0
        """How often it has changed."""

    def copy(self, changed: Callable[[bytes], None]) -> Store:
        """Return the same again, for a transaction. changed: is called with each path that is changed there."""
        other = Store(changed)
        other._nodes = {
            path: Node(node.permissions, node.value, dict(node.names)) for path, node in self._nodes.items()
        }
        return other

    def replace(self, other: Store) -> None:
        """Become what a transaction has made."""
        self._nodes = other._nodes
        self.generation += 1

    # -- what can be asked for

    def read(self, path: bytes, domid: int) -> bytes:
        """Return a value. Raises StoreError."""
        return self._find(path, domid, READ).value

    def directory(self, path: bytes, domid: int) -> list[bytes]:
        """Return the names below a node."""
        return list(self._find(path, domid, READ).names)

    def permissions(self, path: bytes, domid: int) -> tuple[Permission, ...]:
        """Return who may do what."""
        return self._find(path, domid, READ).permissions

    def write(self, path: bytes, value: bytes, domid: int) -> None:
        """Set a value; make the node, and those above it, if they are not there."""
        if len(value) > MAX_VALUE:
            raise StoreError("E2BIG")
        self._find_or_make(path, domid).value = value
        self._note(path)

    def mkdir(self, path: bytes, domid: int) -> None:
        """Make a node if it is not there."""
        if _key(path) not in self._nodes:
            self._find_or_make(path, domid)
            self._note(path)

    def remove(self, path: bytes, domid: int) -> None:
        """Remove a node and all below it. One that is not there is no error if the one above it is."""
        key = _key(path)
        if key == ROOT:
            raise StoreError("EINVAL")
        above, _, name = key.rpartition(b"/")
        parent = self._find(above or b"/", domid, WRITE)
        if key not in self._nodes:
            return
        self._check(self._nodes[key], domid, WRITE)
        del parent.names[name]
        below = key + b"/"
        for other in [other for other in self._nodes if other == key or other.startswith(below)]:
            del self._nodes[other]
        self._note(path)

    def set_permissions(self, path: bytes, permissions: tuple[Permission, ...], domid: int) -> None:
        """Say who may do what: the owner alone may, and stays owner."""
        node = self._find(path, domid, READ)
        owner = node.permissions[0].domid
        if domid not in (0, owner):
            raise StoreError("EACCES")
        if domid and permissions[0].domid != owner:
            raise StoreError("EPERM")
        node.permissions = permissions
        self._note(path)

    # -- within

    def _find(self, path: bytes, domid: int, letters: str) -> Node:
        key = _key(path)
        node = self._nodes.get(key)
        if node is None:
            self._check(self._nearest(key)[1], domid, READ)
            raise StoreError("ENOENT")
        self._check(node, domid, letters)
        return node

    def _find_or_make(self, path: bytes, domid: int) -> Node:
        key = _key(path)
        at, node = self._nearest(key)
        self._check(node, domid, WRITE)
        missing = key[len(at) + 1 :].split(b"/") if at != key else []
        if domid and len(self._nodes) + len(missing) > MAX_NODES:
            raise StoreError("ENOSPC")
        for name in missing:
            owner, *others = node.permissions
            node.names[name] = None
            at += b"/" + name
            node = self._nodes[at] = Node((Permission(owner.letter, domid) if domid else owner, *others))
        return node

    def _nearest(self, key: bytes) -> tuple[bytes, Node]:
        """The node at a place, or the next one above that is there."""
        while key not in self._nodes:
            key = key.rpartition(b"/")[0]
        return key, self._nodes[key]

    @staticmethod
    def _check(node: Node, domid: int, letters: str) -> None:
        if not node.allows(domid, letters):
            raise StoreError("EACCES")

    def _note(self, path: bytes) -> None:
        self.generation += 1
        self._changed(path)


ROOT = b""


def _key(path: bytes) -> bytes:
    """A path without a slash at its end, which only the root's has. Raises StoreError for one that is none."""
    if path == b"/":
        return ROOT
    if len(path) > MAX_PATH or path[:1] != b"/" or path[-1:] == b"/" or b"//" in path or not _NAME.match(path):
        raise StoreError("EINVAL")
    return path
