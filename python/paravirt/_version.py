"""The package's version; the native module is refused if its own differs."""

__version__ = "0.1.0"
