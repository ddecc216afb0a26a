"""Goldens: record a network's end points, and check later, on any machine, that they still have the same bits."""

from refnet.evidence.golden import Report, check, compare_end_points, record
from refnet.evidence.golden_file import Golden, read_golden

__all__ = ["Golden", "Report", "check", "compare_end_points", "read_golden", "record"]
