"""The stage evaluate for `ray job submit`: the same entry point and options as `urgency-ray evaluate`."""

import sys

from urgency_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
