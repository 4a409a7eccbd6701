"""An interface of one's own, and a script that runs a guest against it: `python examples/sensor.py sensor.elf`.

The same class works on the command line: `paravirt run sensor.elf --interface examples/sensor.py:Sensor`.
"""

import ctypes
import sys

import paravirt as pv


class Sample(ctypes.LittleEndianStructure):
    """What the guest passes by pointer."""

    _fields_ = (("sequence", ctypes.c_uint32), ("value", ctypes.c_uint32))


class Sensor(pv.Interface):
    """Adds numbers, collects samples, and counts them in an MSR."""

    signature = b"SENSORSENSOR"

    def __init__(self) -> None:
        self.values: list[int] = []

    @pv.hypercall(1)
    def add(self, vcpu: pv.Vcpu, a: int, b: int) -> int:
        return a + b

    @pv.hypercall(2)
    def record(self, vcpu: pv.Vcpu, sample: pv.GpaPtr[Sample]) -> int:
        self.values.append(sample.read().value)  # a bad pointer is the guest's error: the call returns -14
        return 0

    @pv.msr_read(0x4D000000)
    def count(self, vcpu: pv.Vcpu) -> int:
        return len(self.values)


if __name__ == "__main__":
    sensor = Sensor()
    with pv.Machine(host="amd", interfaces=[sensor], console=sys.stdout) as machine:
        machine.boot(sys.argv[1])
        result = machine.run()
        print(f"{result.instructions} instructions, {result.fixups} fix-ups, samples {sensor.values}")
