"""The stage tune for `ray job submit`: the same entry point and options as `urgency-ray tune`."""

import sys

from urgency_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
