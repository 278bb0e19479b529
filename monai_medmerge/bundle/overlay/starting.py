"""The overlay: a user's own training configuration, started from merged sources, not a line of it edited."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from safetensors.torch import save_file
from torch import nn

from monai_medmerge.bundle.overlay.checkpoints import redirect_savers, set_aside_loaders
from monai_medmerge.bundle.overlay.config import find_trainer, when_made
from monai_medmerge.bundle.overlay.merging import MergedStart, MergeOptions, merged_start
from monai_medmerge.bundle.overlay.network import trained_network
from monai_medmerge.bundle.reading import checked_key_map
from monai_medmerge.bundle.settings import unused
from monai_medmerge.errors import SettingError
from monai_medmerge.files import owned, save_weights, weights_sha256, whole_file, write_json
from monai_medmerge.sources import load_sources, match

logger = logging.getLogger(__name__)
OVERLAY_FILE = Path(__file__).parent / "medmerge.json"
INITIALIZATION = "initialization.pt"
FINAL = "model.pt"
RECORD = "merge.json"


class Overlay:
    """What `medmerge.json` adds to a configuration: before its trainer runs, the trainer's network gets merged weights.

    The network object stays the same, so that optimizers, schedules, evaluators and savers keep their references.

    Args:
        sources: checkpoints or bundle folders, or a mapping of names to them; a single one too.
        output_dir: where the start, the final weights and the record go; `medmerge` in the bundle's folder if None.
        trainer_id: of the trainer in the configuration; if None the one that is run, or the usual ids.
        network_id: of the network to merge; if None the trainer's own, or one of the usual ids.
        overwrite: let the configuration's own savers write where there are checkpoints already. Otherwise they write
            to `output_dir`.
        keep_loaders: let a `CheckpointLoader` of the configuration load over the merged weights. Otherwise it is set
            aside for this run.
        key_map: of every source, as of `Source.from_file`: a file of patterns, or the patterns themselves.
        options: fields of `MergeOptions`.

    Raises:
        SettingError: there is no source, or an option is unknown.
        UnsafeCheckpointError: a source cannot be read.
    """

    def __init__(
        self,
        sources: str | Sequence[str] | Mapping[str, str],
        output_dir: str | Path | None = None,
        trainer_id: str | None = None,
        network_id: str | None = None,
        overwrite: bool = False,
        keep_loaders: bool = False,
        key_map: str | Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        known = _fields()
        if unknown := sorted(set(options) - set(known)):
            others = [name for name in inspect.signature(Overlay).parameters if name != "options"]
            raise SettingError(f"settings among {', '.join([*known, *others])}", ", ".join(unknown), "medmerge")
        if "adapt" in options:
            options["adapt"] = _flag("adapt", options["adapt"])
        self.options = MergeOptions(**options)
        self.sources = load_sources(sources, checked_key_map(key_map))
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.trainer_id = trainer_id
        self.network_id = network_id
        self.overwrite = _flag("overwrite", overwrite)
        self.keep_loaders = _flag("keep_loaders", keep_loaders)
        self.installed = False
        self.start: MergedStart | None = None

    def install(self, workflow: ConfigWorkflow) -> None:
        """Arrange for the merge before the configuration's trainer runs; a second call does nothing.

        Args:
            workflow: that runs the configuration.

        Raises:
            SettingError: the configuration has no trainer that can be found, or its folder is not known.
        """
        if self.installed:
            return
        parser = workflow.parser
        _refuse_mistaken(unused(parser.get()))
        self.trainer_id = find_trainer(parser, workflow.run_id, self.trainer_id)
        if self.output_dir is None:
            root = workflow.config_root_path
            if root.resolve() == OVERLAY_FILE.parent:
                raise SettingError("a file of your bundle first, as its folder is the bundle's", "ours", "config_file")
            self.output_dir = (root.parent if root.name == "configs" else root) / "medmerge"
        resolver = parser.ref_resolver
        # `initialize` may have made the trainer already, to set its log level.
        made = resolver.resolved_content.get(self.trainer_id)
        if made is not None:
            self._wrap(made, resolver)
        else:
            when_made(resolver.items[self.trainer_id], lambda trainer: self._wrap(trainer, resolver))
        self.installed = True

    def finish(self) -> None:
        """Called after the run: an overlay that has merged nothing is an error, as it would pass for a success.

        Raises:
            SettingError: its trainer did not run.
        """
        if self.start is None:
            raise SettingError(f"a run of @{self.trainer_id}", "another; name yours: --medmerge::trainer_id", "overlay")

    def _wrap(self, trainer: Any, resolver: Any) -> None:
        """Put the merge before the trainer's `run`, and the final weights after it."""
        run: Callable[..., Any] = trainer.run

        def run_from_merged(*arguments: Any, **keywords: Any) -> Any:
            network = trained_network(trainer, resolver.resolved_content, self.network_id)
            with owned(self._folder):
                if self.start is None:
                    self._begin(trainer, network, resolver.resolved_content)
                result = run(*arguments, **keywords)
                self._save(FINAL, network)
            return result

        trainer.run = run_from_merged

    def _begin(self, trainer: Any, network: nn.Module, objects: Mapping[str, Any]) -> None:
        _make_heard()
        where = f"@{self.trainer_id}"
        for name in ("data_loader", "state"):
            if not hasattr(trainer, name):
                raise SettingError(f"a trainer with `{name}`, such as SupervisedTrainer", type(trainer).__name__, where)
        self._check_folder()
        logger.info("Sources and %s:\n%s", where, match(network, self.sources).table(problems_only=True))
        aside = [] if self.keep_loaders else set_aside_loaders(trainer, network, objects)
        for loader in aside:
            logger.warning(
                "Set aside for this run, as it would load over the merged weights: CheckpointLoader %s", loader
            )
        start = merged_start(trainer, network, self.sources, self.options)
        moved = redirect_savers(objects, self._folder, self.overwrite)
        for saver, folder in moved.items():
            logger.warning("Other checkpoints are or will be in its folder: saver %s writes to %s", saver, folder)
        network.load_state_dict(start.network.state_dict())
        self.start = start
        self._save(INITIALIZATION, network)
        self._record(start, aside, moved)
        self._watch(trainer, network)

    def _watch(self, trainer: Any, network: nn.Module) -> None:
        """When the training has started, the weights must still be the merged ones."""
        digest = weights_sha256(network)

        def check(_: Any) -> None:
            if weights_sha256(network) == digest:
                return
            if not self.keep_loaders:
                raise SettingError(
                    "the merged weights when training starts (--medmerge::keep_loaders true accepts others)",
                    "weights that a handler of its own has changed at Events.STARTED",
                    f"@{self.trainer_id}",
                )
            logger.warning("A handler of @%s has changed the merged weights before training", self.trainer_id)

        if not trainer.has_event_handler(check, Events.STARTED):
            trainer.add_event_handler(Events.STARTED, check)

    @property
    def _folder(self) -> Path:
        if self.output_dir is None:
            raise SettingError("an overlay that was installed", "none", "medmerge")
        return self.output_dir

    def _save(self, name: str, network: nn.Module) -> None:
        if idist.get_rank() == 0:
            save_weights(self._folder / name, network)
            logger.info("Wrote %s/%s", self._folder.resolve().name, name)

    def _check_folder(self) -> None:
        """The overlay replaces what an overlay wrote, which has a record beside it, and no other weights."""
        if self.overwrite or (self._folder / RECORD).is_file():
            return
        found = [name for name in (INITIALIZATION, FINAL) if (self._folder / name).exists()]
        if found:
            expected = "a folder without other weights: another --medmerge::output_dir, or --medmerge::overwrite true"
            raise SettingError(expected, " and ".join(found), self._folder.resolve().name)

    def _record(self, start: MergedStart, aside: list[str], moved: dict[str, str]) -> None:
        if idist.get_rank() > 0:
            return
        record = {**start.as_dict(), "loaders_set_aside": aside, "savers_redirected": moved}
        write_json(self._folder / RECORD, record)
        with whole_file(self._folder / "coefficients.safetensors") as part:
            save_file({name: table.contiguous().cpu() for name, table in start.coefficients.items()}, str(part))


def _refuse_mistaken(names: Sequence[str]) -> None:
    """Refuse what was meant for the overlay and reaches nothing: a user's own unused values are his."""
    options = [name for name in (*inspect.signature(Overlay).parameters, *_fields()) if name != "options"]
    for name in names:
        if nearest := get_close_matches(name, [*options, "medmerge"], 1, cutoff=0.8):
            top = nearest[0] in ("sources", "coefficient_epochs", "medmerge")
            raise SettingError(
                f"--{'' if top else 'medmerge::'}{nearest[0]}", f"--{name}, which nothing uses", "overlay"
            )


def _fields() -> list[str]:
    return [field.name for field in fields(MergeOptions)]


def _flag(name: str, value: bool | str) -> bool:
    """A command line hands `true` and `false` over as texts, and a text is true whatever it says."""
    known = {"true": True, "false": False}
    if str(value).lower() not in known:
        raise SettingError("true or false", repr(value), name)
    return known[str(value).lower()]


def _make_heard() -> None:
    """Where no configuration of logging speaks of this package, the first process tells what the overlay does."""
    package = logging.getLogger("monai_medmerge")
    if package.level != logging.NOTSET or idist.get_rank() > 0:
        return
    package.setLevel(logging.INFO)
    # A handler of the root may be there all along, as of the first warning of any package.
    if not package.hasHandlers():
        package.addHandler(logging.StreamHandler(sys.stdout))
