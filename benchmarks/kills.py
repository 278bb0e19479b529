"""What is left of long jobs that are killed, or that meet a full disk, and whether the next run puts it right.

    python -m benchmarks.kills
    python -m benchmarks.kills --jobs stream export rank verify --moments 20
    python -m benchmarks.kills --full

Every job runs undisturbed twice, which gives its time and tells files that are the same each time from those that are
not (a file of times, a page with a date). Then it is started in an empty folder and killed (SIGKILL) at a random moment
of that time, until it was killed so many times while it ran. After each kill every file under its own name must be
whole: the same bytes as undisturbed where those are the same each time, and else readable by what reads such files. The
job is then run again in the same folder, to its end: the folder must hold the files that an undisturbed run leaves, no
other ones, with the same bytes.

`--full` does the same with a limit on the size of files (RLIMIT_FSIZE) and, where one may mount, on a small disk,
instead of the kill; the job must then end in one line of the package's own.

Children are forked from a process that has imported everything and computes nothing, so that a moment falls into the
job and not into its imports. Event files of TensorBoard are logs, to which every run adds one: they are not looked at.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from monai.bundle import run as run_bundle
from PIL import Image
from safetensors.torch import load_file, save_file

from monai_medmerge.__main__ import main as command
from monai_medmerge.bundle import write_images
from monai_medmerge.errors import OutputError, causes
from monai_medmerge.files import file_sha256, save_weights, tensors_sha256
from monai_medmerge.methods import merge_files

BUNDLE = Path(__file__).parent.parent / "bundles" / "medmerge_classification"
NETWORK = str(BUNDLE / "models" / "model.json")
SOURCES = [str(BUNDLE / "models" / f"{name}.safetensors") for name in ("natural", "chest_xray")]
EXPORT = [
    "export", "--network", f"{NETWORK}::network_def", "--task", "classification", "--spatial-shape", "64", "64",
    "--classes", "plain", "bright", "brighter", "--no-onnx",
    "--activation", "softmax", "--preprocessing", "generic",
]  # fmt: skip
# Bytes that a file, or the disk, may have.
LIMITS = (200, 20_000, 600_000)


def prepare(folder: Path) -> None:
    """What the jobs read: images, weights of the bundle's network, and larger files to stream."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = rng.integers(0, 120, (24, 64, 64), dtype=np.uint8) + (80 * labels[:, None, None]).astype(np.uint8)
    sections = dict.fromkeys(("training", "validation", "test"), (images, labels))
    write_images(folder / "dataset", sections, ["plain", "bright", "brighter"])
    for n in range(3):
        torch.manual_seed(n)
        save_file({f"layer{k}": torch.randn(500_000) for k in range(12)}, folder / f"{n}.safetensors")
    for seed, name in enumerate(("used.pt", "model.pt")):
        ended(child(lambda seed=seed, name=name: save_weights(folder / name, _network(seed)), folder / "log"))  # type: ignore[misc]


def _network(seed: int) -> torch.nn.Module:
    from monai.networks.nets import ResNet

    torch.manual_seed(seed)
    return ResNet("basic", [2, 2, 2, 2], [16, 32, 64, 128], spatial_dims=2, n_input_channels=1, num_classes=3)


def stream(inputs: Path, work: Path) -> None:
    """A streamed merge of three files of 24 MB."""
    merge_files("ties", [inputs / f"{n}.safetensors" for n in range(3)], work / "merged.safetensors")


def export(inputs: Path, work: Path) -> None:
    """A bundle with TorchScript."""
    status = command([*EXPORT, "--weights", str(inputs / "model.pt"), "--output", str(work / "bundle")])
    # Where the killed one had come to its end, its bundle is there, and no other one is made.
    if status and not (work / "bundle").exists():
        raise OutputError("a bundle", "none", "export")


def rank(inputs: Path, work: Path) -> None:
    """A ranking, which is printed."""
    sources = [part for path in SOURCES for part in ("--source", path)]
    command(["rank", "--network", NETWORK, *sources, "--data", str(inputs / "dataset"), "--json"])


def verify(inputs: Path, work: Path) -> None:
    """`verify.json`: two networks compared on a site's images."""
    with suppress(SystemExit):
        run_bundle(
            config_file=str(BUNDLE / "configs" / "verify.json"), bundle_root=str(BUNDLE), logging_file=False,
            site_data=str(inputs / "dataset"), reference=str(inputs / "used.pt"), candidate=str(inputs / "model.pt"),
            report_dir=str(work / "verification"),
        )  # fmt: skip


def merge(inputs: Path, work: Path) -> None:
    """`merge.json`: ranked, merged, learned, folded, fine-tuned and reported."""
    run_bundle(
        config_file=str(BUNDLE / "configs" / "merge.json"), bundle_root=str(BUNDLE), logging_file=False,
        dataset_dir=str(inputs / "dataset"), output_dir=str(work / "output"), source_files=SOURCES, probe_epochs=2,
        coefficient_epochs=3, finetune_epochs=3,
    )  # fmt: skip


JOBS: dict[str, Callable[[Path, Path], None]] = {
    "stream": stream, "export": export, "rank": rank, "verify": verify, "merge": merge,
}  # fmt: skip


def child(job: Callable[[], object], log: Path, limit: int = 0) -> int:
    """Fork a process that runs a job; its number. Its output goes to the log, which ends in its error, if any."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(os.fdopen(output, "wb"), write_through=True)
        if limit:
            # The log has one too, but no job says that much.
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(limit, 200), resource.RLIM_INFINITY))
        job()
        status = 0
    except BaseException as error:  # noqa: BLE001
        told = [cause for cause in causes(error) if isinstance(cause, OutputError)]
        status = 2 if told else 1
        with suppress(OSError):
            traceback.print_exc()
            print(f"\n{told[0] if told else error!r}")
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)


@dataclass
class Undisturbed:
    """What a job leaves when nothing happens to it."""

    seconds: float
    same: dict[str, str]
    """Hashes of the files that are the same each time; the printed text is one of them."""
    other: set[str]
    """Names of the files that are not."""


@dataclass
class Tally:
    """What was found of one job."""

    hit: int = 0
    half: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    differ: list[str] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"half written {len(self.half)}, left over after the next run {len(self.left)}, "
        text += f"other bytes at the end {len(self.differ)}"
        more = sorted({*self.half, *self.left, *self.differ, *self.raw})
        return text + (f", other errors {len(self.raw)}" if self.raw else "") + (f": {', '.join(more)}" if more else "")

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.half or self.left or self.differ or self.raw)


class Trial:
    """One job, again and again, in one folder.

    Args:
        name: of the job.
        base: folder with the inputs, and for the work.
    """

    def __init__(self, name: str, base: Path) -> None:
        self.name = name
        self.inputs, self.work, self.log = base / "inputs", base / "work", base / "log.txt"
        self.undisturbed = self._undisturbed()

    def start(self, limit: int = 0) -> int:
        """Start the job; the process's number."""
        return child(lambda: JOBS[self.name](self.inputs, self.work), self.log, limit)

    def complete(self) -> None:
        """Run the job to its end.

        Raises:
            RuntimeError: it failed.
        """
        if ended(self.start()):
            raise RuntimeError(f"{self.name} failed:\n{self.log.read_text(errors='replace')[-3000:]}")

    def clear(self) -> None:
        """Empty the folder."""
        self.work.mkdir(exist_ok=True)
        for path in self.work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def hashes(self) -> dict[str, str]:
        """Of all files, hidden ones too, but for logs; the printed text under the name `printed`."""
        files = {str(path.relative_to(self.work)): path for path in sorted(self.work.rglob("*")) if path.is_file()}
        files = {name: path for name, path in files.items() if "events" not in Path(name).parts}
        return {name: content_sha256(path) for name, path in files.items()}

    def printed(self) -> dict[str, str]:
        """Of the job whose result is what it prints."""
        return {"printed": file_sha256(self.log)} if self.name == "rank" else {}

    def look(self, tally: Tally) -> None:
        """After a disturbance: whether every file under its own name is whole."""
        for name, found in self.hashes().items():
            if name.startswith(".medmerge") or "/.medmerge" in name:
                continue
            wanted = self.undisturbed.same.get(name)
            if (wanted and wanted != found) or not readable(self.work / name):
                tally.half.append(name)

    def again(self, tally: Tally) -> None:
        """The next run, and whether all is then as if nothing had happened."""
        self.complete()
        found = self.hashes() | self.printed()
        # What an earlier verification had come to is set aside, as it should be.
        found = {name: digest for name, digest in found.items() if "superseded" not in Path(name).parts}
        tally.left += sorted(set(found) - set(self.undisturbed.same) - self.undisturbed.other)
        tally.left += [str(path.relative_to(self.work)) for path in self.work.rglob(".medmerge-*")]
        tally.differ += sorted(name for name, digest in self.undisturbed.same.items() if found.get(name) != digest)
        tally.differ += sorted(self.undisturbed.other - set(found))

    def _undisturbed(self) -> Undisturbed:
        seconds, runs = [], []
        for _ in range(2):
            self.clear()
            start = time.perf_counter()
            self.complete()
            seconds.append(time.perf_counter() - start)
            runs.append(self.hashes() | self.printed())
        same = {name: digest for name, digest in runs[0].items() if runs[1].get(name) == digest}
        return Undisturbed(min(seconds), same, set(runs[0]) - set(same))


def ended(process: int) -> int:
    """Wait for a child; its status."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def content_sha256(path: Path) -> str:
    """Of a file's bytes; of a checkpoint to go on from, of what is in it.

    Beside its content such a file holds which of its texts are one object, which differs after a run that was loaded.
    """
    if path.parent.name != "checkpoints" or path.suffix != ".pt":
        return file_sha256(path)
    digest = hashlib.sha256()

    def add(value: object) -> None:
        digest.update(type(value).__name__.encode())
        if isinstance(value, torch.Tensor):
            digest.update(tensors_sha256({"": value}).encode())
        elif isinstance(value, dict | list | tuple):
            for item in value.items() if isinstance(value, dict) else value:
                add(item)
        else:
            digest.update(repr(value).encode())

    try:
        add(torch.load(path, weights_only=True))
    except (RuntimeError, OSError, ValueError, EOFError, pickle.UnpicklingError):
        return "damaged"
    return digest.hexdigest()


def readable(path: Path) -> bool:
    """Whether a file is whole, as far as its format can tell."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix in (".pt", ".ts"):
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".html":
            return path.read_text().rstrip().endswith("</html>")
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile):
        return False
    return True


def kills(trial: Trial, moments: int, seed: int) -> Tally:
    """Kill a job at random moments.

    Args:
        trial: of the job.
        moments: kills that must have hit it while it ran.
        seed: of the moments.
    """
    tally, chance = Tally(), random.Random(f"{trial.name} {seed}")
    while tally.hit < moments:
        trial.clear()
        process = trial.start()
        time.sleep(chance.uniform(0, trial.undisturbed.seconds))
        os.kill(process, 9)
        if ended(process) != -9:
            continue
        tally.hit += 1
        trial.look(tally)
        trial.again(tally)
    return tally


def full(trial: Trial, limits: Sequence[int], small_disk: bool) -> Tally:
    """Let a job meet a limit on the size of files, or a full disk.

    Args:
        trial: of the job.
        limits: bytes of a file, or of the disk.
        small_disk: the latter.
    """
    tally = Tally()
    for limit in limits:
        trial.clear()
        with disk(trial.work, limit) if small_disk else nullcontext():
            status = ended(trial.start(0 if small_disk else limit))
            if status == 2:
                tally.hit += 1
                line = trial.log.read_text(errors="replace").rstrip().rpartition("\n")[2]
                if str(trial.work) in line:
                    tally.raw.append(line)
            elif status:
                tally.raw.append(f"{trial.name} at {limit}: status {status}")
            trial.look(tally)
            if small_disk:
                subprocess.run(["mount", "-o", "remount,size=1g", str(trial.work)], check=True)
            trial.again(tally)
            trial.clear()
    return tally


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A file system in memory of so many bytes, at a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def may_mount(folder: Path) -> bool:
    """Whether this process may mount a file system."""
    if not shutil.which("mount"):
        return False
    with suppress(subprocess.CalledProcessError), disk(folder, 4096):
        return True
    return False


def main() -> int:
    """Try every job and print one line for each; 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="full disks instead of kills")
    parser.add_argument("--folder", type=Path, help="where the work is done; a temporary one if not given")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clean = True
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        base = Path(folder)
        (base / "inputs").mkdir()
        (base / "work").mkdir()
        prepare(base / "inputs")
        for name in arguments.jobs:
            trial = Trial(name, base)
            undisturbed = trial.undisturbed
            start = f"{name} ({undisturbed.seconds:.1f} s, {len(undisturbed.same)} files the same each time)"
            if arguments.full:
                tallies = {"files limited": full(trial, LIMITS, small_disk=False)}
                if may_mount(trial.work):
                    tallies["disk full"] = full(trial, LIMITS, small_disk=True)
            else:
                tallies = {"killed": kills(trial, arguments.moments, arguments.seed)}
            for what, tally in tallies.items():
                print(f"{start}: {what} {tally.hit} times, {tally}", flush=True)
                clean = clean and tally.clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
