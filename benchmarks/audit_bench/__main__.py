"""How often is the audit right? Small networks of known truth, each audited once and judged again on random subsets of its images.

    python -m benchmarks.audit_bench [--out results/audit_bench] [--only TEXT] [--images 500] [--subsets 200] [--fresh]

Every network is trained from a seed, its truth is measured by an attacker who knows what hides its gradient, and it is audited with the
budget `quick`. What is audited already, by the same attacks, is not audited again. Thresholds are chosen on one half of the networks and
reported on the other. Writes networks/NAME.json.gz (truth and evidence), table.json and table.md.
"""

import argparse
from pathlib import Path

from benchmarks.audit_bench.run import bench


def main() -> None:
    """Run the bench and print its table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.audit_bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/audit_bench"))
    parser.add_argument("--only", default="", help="only networks whose name contains this")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--subsets", type=int, default=200)
    parser.add_argument("--size", type=int, default=256, help="images of a subset")
    parser.add_argument("--fresh", action="store_true", help="audit everything again")
    given = parser.parse_args()
    print(bench(given.out, only=given.only, images=given.images, subsets_=given.subsets, size=given.size, fresh=given.fresh))


if __name__ == "__main__":
    main()
