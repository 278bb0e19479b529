"""Run stages in their order: what is unchanged is reused, what was interrupted goes on, what changed is done anew."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medmerge.errors import SettingError
from monai_medmerge.files import owned, read_json, write_json
from monai_medmerge.pipeline.stage import Job, Results, Stage, StoppedError

INPUTS, RESULT = "inputs.json", "result.json"
logger = logging.getLogger(__name__)


def run_pipeline(
    job: Job, stages: Sequence[Stage], until: str | None = None, start: str | None = None, dry: bool = False
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Run the stages, one after the other.

    Args:
        job: what is asked for.
        stages: in their order.
        until: the last stage to run; all if None.
        start: the first stage that is done anew, whether its inputs changed or not.
        dry: say what would be done, and how long it took last time, and do nothing.

    Yields:
        Name of the stage, what is done with it and why, and what it found (nothing where nothing was done).

    Raises:
        SettingError: there is no such stage.
        StoppedError: a stage forbids the next.
        OutputError: another process runs this pipeline.
    """
    names = [stage.name for stage in stages]
    for word, option in ((until, "--until"), (start, "--from")):
        if word is not None and word not in names:
            raise SettingError(f"a stage among {', '.join(names)}", word, option)
    last = names.index(until) if until else len(names) - 1
    first = names.index(start) if start else len(names)
    if dry:
        yield from _planned(job, stages[: last + 1], first)
        return
    with owned(job.output):
        results: dict[str, Mapping[str, Any]] = {}
        for number, stage in enumerate(stages[: last + 1]):
            folder = job.output / f"{number + 1}_{stage.name}"
            inputs = dict(stage.inputs(job, results))
            why = "done anew, as you ask for it (--from)" if number >= first else _why(folder, inputs)
            if why:
                results[stage.name] = _done(stage, job, results, folder, inputs, keep=why.startswith("goes on"))
            else:
                results[stage.name] = read_json(folder / RESULT)["found"]
            yield stage.name, why or "unchanged, reused", results[stage.name]
            if "stop" in results[stage.name]:
                stop = results[stage.name]["stop"]
                raise StoppedError(stop["status"], stop["expected"], stop["found"], stage.name)


def _why(folder: Path, inputs: Mapping[str, Any]) -> str:
    """Why a stage is run; empty where its result can be reused."""
    if not (folder / INPUTS).is_file():
        return "first run"
    known = read_json(folder / INPUTS)
    if changed := sorted(name for name in {*known, *inputs} if known.get(name) != inputs.get(name)):
        return f"done anew, as {', '.join(changed)} changed"
    return "" if (folder / RESULT).is_file() else "goes on where it was interrupted"


def _done(
    stage: Stage, job: Job, results: Results, folder: Path, inputs: Mapping[str, Any], keep: bool
) -> Mapping[str, Any]:
    if folder.exists() and not keep:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / INPUTS, inputs)
    begin = time.monotonic()
    found = stage.run(job, results, folder)
    write_json(folder / RESULT, {"seconds": round(time.monotonic() - begin, 1), "found": dict(found)})
    logger.info("%s: %.1f s", stage.name, time.monotonic() - begin)
    return found


def _planned(job: Job, stages: Sequence[Stage], first: int) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    results: dict[str, Mapping[str, Any]] = {}
    known = True
    for number, stage in enumerate(stages):
        folder = job.output / f"{number + 1}_{stage.name}"
        there = (folder / RESULT).is_file()
        seconds = f"{read_json(folder / RESULT)['seconds']} s the last time" if there else "never measured here"
        why = "after an earlier stage that is run"
        if known:
            why = "as you ask for it (--from)" if number >= first else _why(folder, dict(stage.inputs(job, results)))
        known = known and not why
        if known:
            results[stage.name] = read_json(folder / RESULT)["found"]
        yield stage.name, f"would be run: {why}; {seconds}" if why else "unchanged, would be reused", {}
