"""Which versions of urgency_ray understand what others left on disk."""

from __future__ import annotations

from packaging.version import Version

from urgency_ray import __version__


def is_newer(version: Version) -> bool:
    """Whether what a version made may mean by a name, of a column or a field, what is not known here; a patch does not."""
    return version.release[:2] > Version(__version__).release[:2]
