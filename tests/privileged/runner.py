"""Runs an image of generated cases on a processor: the software CPU, or QEMU's."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import paravirt as pv

from . import layout as at
from .image import Case, Record, make_image, read_records

BUDGET = 200_000
"""Instructions for each case, most of which go into copying low memory."""
QEMU = "qemu-system-x86_64"
QEMU_PATIENCE_S = 8
LOST = Record({"vector": 0x1000}, {})
"""The case ended in a triple fault."""

Processor = Callable[[bytes, int], tuple[int, bytes]]
"""Boots an image with so many cases; returns how many ended, and their records."""


def run_cases(processor: Processor, monitor: bytes, cases: Sequence[Case], *, small: bool) -> list[Record]:
    """Run cases; one that ends in a triple fault, which ends the machine too, is LOST."""
    records: list[Record] = []
    while len(records) < len(cases):
        rest = cases[len(records) :]
        done, memory = processor(make_image(monitor, rest, small=small), len(rest))
        records += read_records(memory, done)
        if done < len(rest):
            records.append(LOST)
    return records


def software_cpu(host: str, cpu: str, directory: Path) -> Processor:
    """Return paravirt's processor."""
    image_path = directory / f"{host}.bin"

    def run(image: bytes, count: int) -> tuple[int, bytes]:
        image_path.write_bytes(image)
        machine = pv.Machine(host=host, cpu=cpu, memory=at.MEMORY, interfaces=[], devices=["debug-exit"])
        machine.boot(image_path)
        machine.run(max_instructions=BUDGET * (count + 10))
        done = machine.memory.read_int(at.PARAMETERS + 8, 4)
        return done, machine.memory.read(at.RECORDS, at.MEMORY - at.RECORDS)

    return run


def qemu(cpu: str, directory: Path) -> Processor:
    """Return QEMU's translator. cpu: as for its option -cpu."""
    image_path, memory_path = directory / "qemu.bin", directory / "qemu.memory"
    backend = f"memory-backend-file,id=ram,size={at.MEMORY},mem-path={memory_path},share=on"
    command = [QEMU, "-accel", "tcg", "-cpu", cpu, "-m", str(at.MEMORY >> 20), "-object", backend]
    command += ["-machine", "pc,memory-backend=ram", "-nodefaults", "-display", "none", "-no-reboot"]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-kernel", str(image_path)]

    def run(image: bytes, count: int) -> tuple[int, bytes]:
        image_path.write_bytes(image)
        memory_path.unlink(missing_ok=True)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for_end(process, memory_path)
        finally:
            process.kill()
            process.wait()
        memory = memory_path.read_bytes()
        (done,) = struct.unpack_from("<I", memory, at.PARAMETERS + 8)
        return done, memory[at.RECORDS :]

    return run


def _wait_for_end(process: subprocess.Popen[bytes], memory_path: Path) -> None:
    """Wait until QEMU has ended, or has done nothing for a while: a case that never ends."""
    before = -1
    while True:
        try:
            process.wait(QEMU_PATIENCE_S)
        except subprocess.TimeoutExpired:
            done = _progress(memory_path)
            if done == before:
                return
            before = done
        else:
            return


def _progress(memory_path: Path) -> int:
    with memory_path.open("rb") as file:
        file.seek(at.PARAMETERS + 8)
        return int.from_bytes(file.read(4), "little")
