"""What all tests share."""

from hypothesis import settings

# How long an example takes says nothing about it on a computer that does other things too.
settings.register_profile("paravirt", deadline=None)
settings.load_profile("paravirt")
