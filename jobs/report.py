"""The stage report for `ray job submit`: the same entry point and options as `urgency-ray report`."""

import sys

from urgency_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
