"""Every form of a checkpoint into every network: right, refused or wrong, and the time of reading a large one.

python -m benchmarks.checkpoints                    the table, and 1,000 MB
python -m benchmarks.checkpoints --size-mb 0        the table alone
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

from benchmarks.checkpoints.forms import first_forms
from benchmarks.checkpoints.other_forms import further_forms
from benchmarks.checkpoints.samples import NETWORKS, Sample
from benchmarks.checkpoints.speed import compare, write_large
from benchmarks.checkpoints.trial import Form, Result, attempt


def run(networks: list[str]) -> dict[Form, dict[str, Result]]:
    """What came of every form, by network."""
    forms = [*first_forms(), *further_forms()]
    results: dict[Form, dict[str, Result]] = {form: {} for form in forms}
    for network in networks:
        sample = Sample.of(network)
        for form in forms:
            with tempfile.TemporaryDirectory() as folder:
                results[form][network] = attempt(form, sample, Path(folder))
    return results


def table(results: dict[Form, dict[str, Result]]) -> str:
    """One row a form."""
    lines = ["| form | | right | refused | wrong | what should come of it |", "|---|---|---|---|---|---|"]
    group = ""
    for form, by_network in results.items():
        counts = Counter(result.outcome for result in by_network.values())
        cells = " | ".join(str(counts[outcome] or "") for outcome in ("right", "refused", "wrong"))
        shown = form.group if form.group != group else ""
        lines.append(f"| {shown} | {form.name} | {cells} | {_should(form)} |")
        group = form.group
    return "\n".join(lines)


def _should(form: Form) -> str:
    if isinstance(form.expected, str):
        named = ", ".join(f"`{word}`" for word in form.expected.split(" | ") if word)
        return f"refused, naming {named}" if named else "refused"
    return f"right, and told: `{form.said}`" if form.said else "right"


def main() -> int:
    """Print the table and the times; 1 if anything came out otherwise than the table says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--size-mb", type=int, default=1000, help="of the large file; 0 for none")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = run(arguments.networks)
    print(table(results))
    flat = [(form, network, r) for form, by_network in results.items() for network, r in by_network.items()]
    counts = Counter(result.outcome for _, _, result in flat)
    print(
        f"\n{len(results)} forms, {len(arguments.networks)} networks, {len(flat)} cases: {counts['right']} right, "
        f"{counts['refused']} refused, {counts['wrong']} wrong"
    )
    otherwise = [entry for entry in flat if not entry[2].as_said]
    for form, network, result in otherwise:
        print(f"not as the table says: {form.group}, {form.name}, {network}: {result.outcome}; {result.why[:300]}")
    if arguments.size_mb:
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{compare(write_large(Path(folder), arguments.size_mb))}")
    return int(bool(otherwise))


if __name__ == "__main__":
    sys.exit(main())
