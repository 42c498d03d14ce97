"""The stage train for `ray job submit`: the same entry point and options as `urgency-ray train`."""

import sys

from urgency_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
