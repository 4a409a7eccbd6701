"""Timers in virtual time, ends of interrupts, upcalls: what interfaces hang on the machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import paravirt as pv

from .test_machine import ENTRY, HALT, MIB, SPIN, kernel

MakeMachine = Callable[..., pv.Machine]
SVR, EOI = 0xFEE0_00F0, 0xFEE0_00B0
STI_HALT_LOOP = b"\xfb\xf4\xeb\xfd"  # sti; 1: hlt; jmp 1b


def store(address: int, value: int) -> bytes:
    """mov dword [address], value."""
    return b"\xc7\x05" + address.to_bytes(4, "little") + value.to_bytes(4, "little")


@pytest.fixture
def spinning(paravirt_machine: MakeMachine) -> pv.Machine:
    machine = paravirt_machine(memory="4M")
    machine.boot(kernel(SPIN))
    return machine


def test_timers_are_called_in_order_and_at_their_time(spinning: pv.Machine) -> None:
    """Also one that is due already, and one that another makes; not one that was cancelled."""
    calls: list[tuple[str, int]] = []

    def note(name: str) -> Callable[[], None]:
        return lambda: calls.append((name, spinning.now_ns))

    start = spinning.now_ns
    spinning.call_at(start + 3000, note("late"))
    cancelled = spinning.call_at(start + 1500, note("cancelled"))
    spinning.call_at(start + 2000, lambda: spinning.call_at(start + 2500, note("made by another")))
    spinning.call_at(start + 1000, note("first"))
    spinning.call_at(start + 1000, note("second"))
    spinning.call_at(0, note("due already"))
    cancelled.cancel()
    assert not cancelled.is_pending
    spinning.run(max_instructions=10_000)
    assert [name for name, _ in calls] == ["due already", "first", "second", "made by another", "late"]
    for (_, when), due in zip(calls[1:], (1000, 1000, 2500, 3000), strict=True):
        assert 0 <= when - start - due < 100


def test_a_timer_wakes_an_idle_machine(paravirt_machine: MakeMachine) -> None:
    """Time jumps to it; a machine that nothing can wake but a timer is no deadlock before it."""
    machine = paravirt_machine(memory="4M")
    machine.boot(kernel(HALT))
    times: list[int] = []
    machine.call_at(10**9, lambda: times.append(machine.now_ns))
    result = machine.run(max_instructions=1000)
    assert times == [10**9]
    assert result.reason is pv.StopReason.HALTED


def test_cancelled_timers_are_forgotten(spinning: pv.Machine) -> None:
    """A guest that sets a timer for ever costs no memory."""
    for number in range(10_000):
        spinning.call_at(10**12 + number, lambda: None).cancel()
    assert len(spinning._timers._heap) < 1000


def test_end_of_interrupt(paravirt_machine: MakeMachine) -> None:
    """Each end of a watched vector is told until nobody watches; automatic ends too."""
    # The handler ends the interrupt and returns; the IDT entry for 0x50 points to it.
    handler = store(EOI, 0) + b"\xcf"
    idt = 2 * MIB
    load = b"\x0f\x01\x1d" + (idt - 8).to_bytes(4, "little")  # lidt
    mask_8259 = b"\xb0\xff\xe6\x21"  # mov al, 0xff; out 0x21, al
    code = load + mask_8259 + store(SVR, 0x1FF) + STI_HALT_LOOP
    machine = paravirt_machine(memory="4M", interfaces=[])
    machine.boot(kernel(code.ljust(64, b"\x90") + handler))
    machine.memory.write(idt - 8, (0x7FF).to_bytes(2, "little") + idt.to_bytes(4, "little"))
    vcpu = machine.vcpus[0]
    machine.memory.write_int(idt - 32, 8, 0x00CF_9B00_0000_FFFF)  # Selector 8: flat code.
    vcpu.gdtr_base, vcpu.gdtr_limit, vcpu.rsp = idt - 40, 15, idt - 64
    target = ENTRY + 64
    gate = (target & 0xFFFF) | 8 << 16 | 0x8E00 << 32 | (target >> 16) << 48
    machine.memory.write_int(idt + 0x50 * 8, 8, gate)
    machine.run(max_instructions=100)
    ends: list[int] = []
    vcpu.on_end_of_interrupt(0x50, lambda: ends.append(machine.now_ns))
    machine.deliver_interrupt(0, 0x50)
    machine.run(max_instructions=20)
    assert len(ends) == 1
    vcpu.on_end_of_interrupt(0x50, None)
    machine.deliver_interrupt(0, 0x50)
    machine.run(max_instructions=20)
    assert len(ends) == 1

    # An upcall comes whatever the task priority, while its byte is set.
    vcpu.cr8 = 15
    vcpu.set_upcall(0x50, 3 * MIB)
    vcpu.raise_upcall()
    before = vcpu.rip
    machine.run(max_instructions=20)
    assert vcpu.is_halted
    assert vcpu.rip == before
    machine.memory.write_int(3 * MIB, 1, 1)
    vcpu.raise_upcall()
    machine.run(max_instructions=1)
    assert target <= vcpu.rip < target + len(handler)
