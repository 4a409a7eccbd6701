"""Runs a ROM of test386.asm, which reports its progress on a diagnostic port."""

from __future__ import annotations

import paravirt as pv
from paravirt._native import ExitKind

POST_PORT = 0x190
TEXT_PORT = 0xE9
POSTS = (*range(0x07), 0x08, 0x09, 0x20, 0x21, 0x22, *range(0x0B, 0x1D), 0xE0, 0xEE, 0xFF)
"""In the order in which they are reported."""
PAGING_POST, LAST_POST = 0x11, 0xFF
PAGE_FAULT = 14
TESTED_PDE = 0x1004
ACCESSED = 0x20
BUDGET = 2_000_000_000


def run_rom(host: str, rom: bytes) -> tuple[list[int], str]:
    """Run the ROM until it halts. Returns the diagnostic codes and the text that it wrote."""
    machine = pv.Machine(host=host, memory="4M", interfaces=[], devices=[])
    vm = machine._vm
    for address in (0xFFFF0, 0xFFFFFFF0):
        vm.remove_breakpoint(address)
    vm.memory.write((1 << 20) - len(rom), rom)
    vm.claim_ports(POST_PORT, POST_PORT)
    vm.claim_ports(TEXT_PORT, TEXT_PORT)
    vm.intercept_halt(True)
    for name, value in (("cs", 0xF000), ("cs_base", 0xF0000), ("rip", 0xFFF0)):
        vm.set_register(0, name, value)
    posts: list[int] = []
    text = bytearray()
    answer: int | None = None
    while True:
        event = vm.run(BUDGET, answer)
        answer = None
        if event.kind == ExitKind.EXCEPTION:
            # A 386 sets accessed bits only where a whole walk succeeds, and the test insists on it. Processors since
            # then set them as they go, the directory's before the table's entry faults (SDM vol. 3 section 4.8).
            vm.memory.write_int(TESTED_PDE, 4, vm.memory.read_int(TESTED_PDE, 4) & ~ACCESSED)
            vm.answer_default()
        elif event.kind != ExitKind.PORT_WRITE:
            return posts, text.decode("ascii", "replace")
        elif event.address == POST_PORT:
            posts.append(event.value & 0xFF)
            vm.intercept_exception(PAGE_FAULT, posts[-1] == PAGING_POST)
            answer = 0
        else:
            text.append(event.value & 0xFF)
            answer = 0
