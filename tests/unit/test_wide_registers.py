"""x87, MMX and vector registers of a vCPU, and the image that they are views of."""

from __future__ import annotations

import re

import pytest

import paravirt as pv

ONE = 0x3FFF_8000_0000_0000_0000
"""1.0 in the extended format."""


@pytest.fixture
def vcpu() -> pv.Vcpu:
    return pv.Machine(memory="2M").vcpus[0]


def test_reset_values(vcpu: pv.Vcpu) -> None:
    """SDM vol. 3 table 9-1: x87 is not as after FNINIT, registers are zero."""
    assert (vcpu.fcw, vcpu.fsw, vcpu.ftw, vcpu.mxcsr, vcpu.xcr0) == (0x40, 0, 0x5555, 0x1F80, 1)
    assert not any((*vcpu.xmm, *vcpu.ymm, *vcpu.st, *vcpu.mm))


def test_halves_of_vector_registers(vcpu: pv.Vcpu) -> None:
    """XMM is the low half of YMM, and leaves the other alone."""
    vcpu.ymm[15] = 0x11 << 248 | 0x22
    vcpu.xmm[15] = (1 << 128) - 1
    assert vcpu.ymm[15] == 0x11 << 248 | (1 << 128) - 1
    assert vcpu.ymm[14] == 0
    assert (len(vcpu.ymm), len(vcpu.st)) == (16, 8)


def test_mmx_registers_do_not_move_with_the_stack(vcpu: pv.Vcpu) -> None:
    """MM1 is R1, which is ST(6) when TOP is 3."""
    vcpu.fsw = 3 << 11
    vcpu.mm[1] = 42
    assert (vcpu.mm[1], vcpu.st[6]) == (42, 0xFFFF << 64 | 42)
    vcpu.fsw = 0
    vcpu.st[0] = ONE
    assert vcpu.mm[0] == 1 << 63
    vcpu.ftw = 0xFFFF
    assert (vcpu.ftw, vcpu.st[0]) == (0xFFFF, ONE)


def test_image(vcpu: pv.Vcpu) -> None:
    """The image is all there is: put back, everything is as before. XSTATE_BV says what is in use."""
    vcpu.pkru, vcpu.mxcsr = 0xC, 0x1FA0
    vcpu.ymm[3] = 7 << 128
    image, before = vcpu.xsave_image, vcpu.machine.state_hash()
    assert image[512:514] == b"\x05\x02"
    vcpu.ymm[3], vcpu.pkru = 0, 0
    assert vcpu.machine.state_hash() != before
    vcpu.xsave_image = image
    assert vcpu.machine.state_hash() == before
    assert vcpu.registers["mxcsr"] == 0x1FA0


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (24 + 2, "xsave_image: MXCSR in the XSAVE image has reserved bits set"),
        (512, "xsave_image: the header of the XSAVE image names what is not there"),
        (520, "xsave_image: the header of the XSAVE image names what is not there"),
    ],
)
def test_bad_images(vcpu: pv.Vcpu, at: int, message: str) -> None:
    """Each is refused, and nothing changes."""
    image = bytearray(vcpu.xsave_image)
    image[at] = 0xFF
    before = vcpu.machine.state_hash()
    with pytest.raises(pv.ConfigurationError, match=f"^{message}$"):
        vcpu.xsave_image = bytes(image)
    with pytest.raises(pv.ConfigurationError, match=r"^xsave_image: an XSAVE image has another length$"):
        vcpu.xsave_image = bytes(image[:-1])
    assert vcpu.machine.state_hash() == before


def test_bad_values(vcpu: pv.Vcpu) -> None:
    """Numbers and values that do not fit."""
    with pytest.raises(pv.ConfigurationError, match=re.escape("mm2 cannot hold -0x1; give 0 to 2**64-1")):
        vcpu.mm[2] = -1
    with pytest.raises(pv.ConfigurationError, match=r"^there is no st8: st0 to st7$"):
        vcpu.st[8]
    with pytest.raises(pv.ConfigurationError, match=r"^mxcsr cannot hold 0x10000: mxcsr cannot hold 0x10000$"):
        vcpu.mxcsr = 0x10000
