"""The stage predict for `ray job submit`: the same entry point and options as `urgency-ray predict`."""

import sys

from urgency_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
