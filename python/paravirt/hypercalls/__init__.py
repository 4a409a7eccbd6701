"""Hypercalls, whatever the interface: recognising the instruction, repairing it, finding who answers."""
