"""The reader of unittests.cfg."""

from __future__ import annotations

from pathlib import Path

from .unittests_cfg import read_unittests

TEXT = '''
# A comment.
[one]
file = one.flat
smp = 2
test_args = "10 `echo 7`"
qemu_params = -cpu qemu64,+x2apic -m 2048
arch = x86_64
accel = kvm

#[off]
#file = off.flat

[two]
file = two.flat
extra_params = """-cpu max \\
-append 'x y'"""
'''


def test_sections(tmp_path: Path) -> None:
    """Keys, shell text, quotes over several lines, and comments."""
    path = tmp_path / "unittests.cfg"
    path.write_text(TEXT)
    one, two = read_unittests(path)
    assert (one.name, one.file, one.smp, one.arch, one.other) == ("one", "one.flat", 2, "x86_64", {"accel": "kvm"})
    assert one.arguments() == ["10", "7"]
    assert one.qemu_option("-cpu") == "qemu64,+x2apic"
    assert one.qemu_option("-m") == "2048"
    assert one.qemu_option("-machine") is None
    assert (two.smp, two.arguments()) == (1, [])
    assert two.qemu_option("-cpu") == "max"
    assert two.qemu_option("-append") == "x y"
