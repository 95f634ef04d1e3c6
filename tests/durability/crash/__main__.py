"""Kill runs at every point, resume them, and compare:

python -m tests.durability.crash --cases 12000             crashes anywhere, chains of two and three among them
python -m tests.durability.crash --recovery --cases 8000   crashes inside recovery
python -m tests.durability.crash --disks --cases 40000     states that a loss of power can leave
python -m tests.durability.crash --hostile --cases 4000    journals that were damaged or tampered with
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.durability.crash.breaking import BROKEN
from tests.durability.crash.crashing import Runs, attacks, crash, disks, losses_table, table, whole_of


def shard(text: str) -> tuple[int, int]:
    index, count = map(int, text.split("/"))
    return index - 1, count


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.durability.crash",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--recovery", action="store_true", help="crashes inside recovery: pairs and triples")
    kinds.add_argument("--disks", action="store_true", help="losses of power")
    kinds.add_argument("--hostile", action="store_true", help="damaged journals")
    parser.add_argument("--cases", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workload", action="append")
    parser.add_argument("--shard", type=shard, default=(0, 1), metavar="I/N")
    parser.add_argument("--case", help="one case, as a failure names it")
    parser.add_argument("--state", type=int, help="with --disks and --case: one state of it, as a failure names it")
    parser.add_argument("--each", type=int, help="with --disks: states of each run that is recorded")
    parser.add_argument("--most", type=int, default=20, help="failures after which it ends")
    parser.add_argument("--broken", choices=sorted(BROKEN), help="break the engine so, to see that it is noticed")
    parser.add_argument("--json", action="store_true", help="the sums, for a program")
    return parser.parse_args()


def main() -> int:
    options = asked()
    if options.broken:
        BROKEN[options.broken]()
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="crash-", dir=memory if memory.is_dir() else None))
    start = monotonic()
    try:
        runs = Runs(place / "case")
        if options.disks or options.hostile:
            found = (disks if options.disks else attacks)(runs, options)
            failures = [fault for each in found.values() for fault in each.faults]
            shown, sums = losses_table(found), {name: [each.total, each.right] for name, each in found.items()}
        else:
            tallies = crash(runs, options)
            whole = whole_of(tallies)
            failures, shown = whole.failures, table(tallies)
            sums = {"cases": whole.cases, "struck": whole.struck, "points": sorted(whole.states)}
    finally:
        shutil.rmtree(place)
    print(json.dumps({**sums, "failures": failures}) if options.json else "\n\n".join([*failures, shown]))
    print(f"{monotonic() - start:.1f} s", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
