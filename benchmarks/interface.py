"""The interface whose hypercall is measured: one handler in Python, with two arguments."""

import paravirt as pv


class Adder(pv.Interface):
    """As in the README."""

    signature = b"ADDERADDERAD"

    @pv.hypercall(1)
    def add(self, vcpu: pv.Vcpu, a: int, b: int) -> int:
        return a + b
