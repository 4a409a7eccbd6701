"""Run one loop of the benchmark's image in Unicorn: `unicorn_loop.py IMAGE NAME COUNT`."""

from __future__ import annotations

import sys

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from unicorn import UC_ARCH_X86, UC_HOOK_INSN_INVALID, UC_MODE_64, Uc
from unicorn.x86_const import (
    UC_X86_REG_RAX,
    UC_X86_REG_RBX,
    UC_X86_REG_RCX,
    UC_X86_REG_RDI,
    UC_X86_REG_RIP,
    UC_X86_REG_RSP,
)

RAM_BYTES = 64 << 20
STACK_TOP = 0x3000000
RETURN_TO = 0x3800000
VMCALL_LENGTH = 3


def _add(emulator: Uc, _data: object) -> bool:
    """The same work as the handler of interface.py, by Unicorn's means."""
    a, b = emulator.reg_read_batch((UC_X86_REG_RBX, UC_X86_REG_RCX))
    emulator.reg_write(UC_X86_REG_RAX, a + b)
    emulator.reg_write(UC_X86_REG_RIP, emulator.reg_read(UC_X86_REG_RIP) + VMCALL_LENGTH)
    return True


def main() -> None:
    path, loop, count = sys.argv[1:]
    emulator = Uc(UC_ARCH_X86, UC_MODE_64)
    emulator.mem_map(0, RAM_BYTES)
    with open(path, "rb") as file:  # noqa: PTH123 - one short script, measured from its start
        elf = ELFFile(file)
        for segment in elf.iter_segments("PT_LOAD"):
            emulator.mem_write(segment["p_paddr"], segment.data())
        table = elf.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        symbols = table.get_symbol_by_name(f"bench_{loop}")
        assert symbols is not None
    emulator.mem_write(STACK_TOP, RETURN_TO.to_bytes(8, "little"))
    emulator.reg_write(UC_X86_REG_RSP, STACK_TOP)
    emulator.reg_write(UC_X86_REG_RDI, int(count))
    emulator.hook_add(UC_HOOK_INSN_INVALID, _add)
    emulator.emu_start(symbols[0]["st_value"], RETURN_TO)


main()
