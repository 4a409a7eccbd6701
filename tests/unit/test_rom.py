"""What firmware is given: files, and the script by which it places the ACPI tables."""

from __future__ import annotations

import struct

import pytest

import paravirt as pv
from paravirt.boot import open_kernel
from paravirt.boot.image import KernelFile, ResetEntry
from paravirt.boot.rom import firmware_files
from paravirt.errors import ConfigurationError, ImageError

KIB = 1 << 10
MIB = 1 << 20
HLT = b"\xf4"
JUMP_TO_LOW_COPY = b"\xea\x00\xff\x00\xf0"
"""`ljmp $0xf000, $0xff00`, the reset vector's instruction."""


def make_rom(code: bytes, *, size: int = 64 * KIB) -> bytes:
    """An image whose reset vector goes to `code` at F000:FF00."""
    rom = bytearray(size)
    rom[-256 : -256 + len(code)] = code
    rom[-16 : -16 + len(JUMP_TO_LOW_COPY)] = JUMP_TO_LOW_COPY
    return bytes(rom)


def run_rom(code: bytes, **options: object) -> pv.Machine:
    machine = pv.Machine(interfaces=[], memory="2M", **options)  # type: ignore[arg-type]
    machine.boot(make_rom(code), protocol="firmware")
    machine.run(max_instructions=10_000)
    return machine


def load_as_firmware(files: dict[str, bytes], addresses: dict[str, int]) -> dict[str, bytearray]:
    """Carry the loader's script out, as SeaBIOS' `romfile_loader.c` describes it."""
    loaded: dict[str, bytearray] = {}

    def text(raw: bytes) -> str:
        return raw.partition(b"\0")[0].decode()

    script = files["etc/table-loader"]
    assert len(script) % 128 == 0
    for at in range(0, len(script), 128):
        (command,) = struct.unpack_from("<I", script, at)
        match command:
            case 1:
                name, alignment, _zone = struct.unpack_from("<56sIB", script, at + 4)
                assert addresses[text(name)] % alignment == 0
                loaded[text(name)] = bytearray(files[text(name)])
            case 2:
                where, to, offset, size = struct.unpack_from("<56s56sIB", script, at + 4)
                block = loaded[text(where)]
                value = int.from_bytes(block[offset : offset + size], "little") + addresses[text(to)]
                block[offset : offset + size] = value.to_bytes(size, "little")
            case 3:
                name, offset, start, length = struct.unpack_from("<56sIII", script, at + 4)
                block = loaded[text(name)]
                block[offset] = -sum(block[start : start + length]) & 0xFF
            case _:
                pytest.fail(f"command {command}")
    return loaded


def test_firmware_places_the_tables() -> None:
    """Placed by the script, the tables are those that a machine without firmware has at that address."""
    tables = 0x07FF_F000
    files = firmware_files([(0, 128 * MIB)], range(3))
    loaded = load_as_firmware(files, {"etc/acpi/tables": tables, "etc/acpi/rsdp": 0xF0000})
    rsdp = loaded["etc/acpi/rsdp"]
    assert sum(rsdp[:20]) % 256 == sum(rsdp) % 256 == 0
    (rsdt_at,) = struct.unpack_from("<I", rsdp, 16)
    block = bytes(loaded["etc/acpi/tables"])
    assert block[rsdt_at - tables :][:4] == b"RSDT"
    (length,) = struct.unpack_from("<I", block, rsdt_at - tables + 4)
    for (address,) in struct.iter_unpack("<I", block[rsdt_at - tables + 36 : rsdt_at - tables + length]):
        table = block[address - tables :]
        (size,) = struct.unpack_from("<I", table, 4)
        assert sum(table[:size]) % 256 == 0


def test_firmware_is_told_of_all_memory() -> None:
    """RAM below and above the hole."""
    e820 = firmware_files([(0, 0xC000_0000), (1 << 32, MIB)], [0])["etc/e820"]
    assert list(struct.iter_unpack("<QQI", e820)) == [(0, 0xC000_0000, 1), (1 << 32, MIB, 1)]


@pytest.mark.parametrize("size", [1, 65535, 17 * MIB])
def test_bad_images(size: int) -> None:
    """One clear line for what is no firmware."""
    file = KernelFile("bios.bin", bytes(size))
    with pytest.raises(ImageError, match=f"a multiple of 64 KiB, up to 16 MiB; this has {size} bytes"):
        open_kernel(file, command_line="", initrd=None, protocol="firmware")


def test_firmware_takes_no_command_line() -> None:
    """There is nobody to read it."""
    file = KernelFile("bios.bin", make_rom(HLT))
    with pytest.raises(ConfigurationError, match="neither a command line nor an initrd"):
        open_kernel(file, command_line="quiet", initrd=None, protocol="firmware")
    assert open_kernel(file, command_line="", initrd=None, protocol="firmware").load(None) == ResetEntry()  # type: ignore[arg-type]


def test_it_starts_at_the_reset_vector() -> None:
    """The first instruction is at the top of 4 GiB; its far jump leads to the copy below 1 MiB."""
    machine = pv.Machine(interfaces=[], memory="2M")
    machine.boot(make_rom(HLT), protocol="firmware")
    assert machine.vcpus[0].linear_rip == 0xFFFF_FFF0
    machine.step()
    assert machine.vcpus[0].linear_rip == 0xFFF00


def test_the_image_cannot_be_written() -> None:
    """mov byte [cs:0], 0x55 ; al = [cs:0]: a store goes nowhere, neither to the image nor to the RAM beneath."""
    machine = run_rom(bytes.fromhex("2e c6 06 00 00 55 2e a0 00 00 f4"))
    assert machine.vcpus[0].rax & 0xFF == 0
    assert machine.memory.read_int(0xF0000, 1) == 0


def test_it_copies_itself_to_ram() -> None:
    """As old firmware does: writes go to RAM while reads still come from the image, then RAM answers both."""
    write_only, read_write = "20", "30"
    set_map = "66b85800008066baf80c000066ef66b800{}000066bafc0c000066ef"
    copy = "b800f08ed88ec031f631ffb90040fcf366a5"  # All 64 KiB of segment F000 to itself.
    mark = "b001a20000"  # mov al, 1; mov [0], al
    machine = run_rom(bytes.fromhex(set_map.format(write_only) + copy + set_map.format(read_write) + mark + "f4"))
    assert machine.memory.read_int(0xF0000, 1) == 1
    assert machine.memory.read(0xFFFF0, 5) == JUMP_TO_LOW_COPY
    machine.reset()
    assert machine.memory.read_int(0xF0000, 1) == 0, "the image answers again"


def test_a_kernel_takes_its_place() -> None:
    """Booting a kernel takes the firmware out; below 1 MiB is RAM."""
    machine = run_rom(HLT)
    machine.boot(HLT, protocol="flat")
    machine.run(max_instructions=1000)
    machine.memory.write_int(0xF0000, 1, 7)
    assert machine.memory.read_int(0xF0000, 1) == 7
    with pytest.raises(pv.GuestMemoryError):
        machine.memory.read(0xFFFF_0000, 1)


def test_the_debug_port_is_kept() -> None:
    """mov al, 'B'; mov dx, 0x402; out dx, al."""
    machine = run_rom(bytes.fromhex("b042ba0204eef4"))
    assert machine.debug_console.text == "B"
