"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("tests", deadline=None)  # the first example pays for imports
settings.load_profile("tests")
