"""Which bytes are a hypercall instruction: reference encodings, prefixes, neighbours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.host import INT_1F, VMCALL, VMMCALL
from paravirt.hypercalls.instruction import HypercallInstruction, recognise

OPCODES = [VMCALL, VMMCALL, INT_1F]
REDUNDANT = [b"\x26", b"\x2e", b"\x36", b"\x3e", b"\x64", b"\x65", b"\x66", b"\x67"]


@pytest.mark.parametrize("opcode", OPCODES)
@pytest.mark.parametrize("is_64bit", [True, False])
def test_plain(opcode: bytes, is_64bit: bool) -> None:
    """The three encodings are known in every mode, and what follows does not matter."""
    assert recognise(opcode + b"\xcc", is_64bit=is_64bit) == HypercallInstruction(opcode, 0)


@pytest.mark.parametrize("prefix", [*REDUNDANT, b"\x48", b"\x40", b"\x66\x67\x2e\x4f", b"\x48\x66"])
def test_redundant_prefixes(prefix: bytes) -> None:
    """They belong to the instruction; the opcode's place is behind them."""
    found = recognise(prefix + VMMCALL, is_64bit=True)
    assert found == HypercallInstruction(VMMCALL, len(prefix))
    assert found.length == len(prefix) + 3


def test_rex_outside_64_bit_code() -> None:
    """40 to 4F are INC and DEC there."""
    assert recognise(b"\x48" + VMCALL, is_64bit=False) is None


@pytest.mark.parametrize("prefix", [b"\xf0", b"\xf2", b"\xf3", b"\x66\xf3", b"\x48\xf0", b"\xf0\x48"])
def test_other_prefixes(prefix: bytes) -> None:
    """LOCK makes it undefined, F2 and F3 another instruction."""
    assert recognise(prefix + VMCALL, is_64bit=True) is None


@pytest.mark.parametrize("third", sorted(set(range(256)) - {0xC1, 0xD9}))
def test_neighbours(third: int) -> None:
    """Of `0F 01 xx` only two are ours."""
    assert recognise(bytes((0x0F, 0x01, third)), is_64bit=True) is None


@pytest.mark.parametrize(("prefixes", "is_known"), [(12, True), (13, False)])
def test_length_limit(prefixes: int, is_known: bool) -> None:
    """15 bytes in all, not one more."""
    assert (recognise(b"\x66" * prefixes + VMCALL, is_64bit=True) is not None) == is_known


@pytest.mark.parametrize("length", range(3))
def test_cut_off(length: int) -> None:
    """What is not there cannot be recognised."""
    assert recognise(VMCALL[:length], is_64bit=True) is None


def test_int_takes_no_prefix() -> None:
    """It is two instructions, `int` and `nop`; a prefix would belong to the first."""
    assert recognise(b"\x66" + INT_1F, is_64bit=False) is None


@given(st.binary(max_size=20), st.booleans())
def test_any_bytes(code: bytes, is_64bit: bool) -> None:
    """Whatever the bytes, what is found is really there, within 15 bytes."""
    found = recognise(code, is_64bit=is_64bit)
    if found is not None:
        assert code[found.opcode_offset : found.length] == found.opcode
        assert found.length <= 15
