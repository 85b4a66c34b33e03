"""Records histories: `python -m tests.golden [NAME...]`, by default the fast ones.

Where only the bits of this machine are missing or changed, they are written and the others stay.
Where an outline changed, the file is written anew, for this machine alone. Read the diff, and say
in the commit why behavior had to change.
"""

from __future__ import annotations

import argparse

from tests.golden.golden_file import Golden, file_of, first_difference, live
from tests.golden.histories import FAST, SLOW
from tests.golden.recorder import fingerprint


def main() -> None:
    parser = argparse.ArgumentParser(description="Records histories for tests/golden.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FAST | SLOW))
    for name in parser.parse_args().names or FAST:
        lived = live((FAST | SLOW)[name])
        golden = Golden(outline=lived.outline, bits={fingerprint(): lived.bits})
        if file_of(name).exists():
            before = Golden.read(name)
            if difference := first_difference(before.outline, lived.outline):
                print(f"{name}: {difference}")
            else:
                golden = Golden(outline=lived.outline, bits=before.bits | golden.bits)
        golden.write(name)
        print(f"{name}: recorded for {fingerprint()}")


if __name__ == "__main__":
    main()
