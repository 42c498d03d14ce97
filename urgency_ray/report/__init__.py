"""A run folder -> report.html, one self-contained page."""
