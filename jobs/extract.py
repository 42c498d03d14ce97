"""The stage extract for `ray job submit`: the same entry point and options as `urgency-ray extract`."""

import sys

from urgency_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
