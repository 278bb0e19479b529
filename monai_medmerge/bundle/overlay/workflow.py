"""The overlay as a workflow of MONAI's own kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.utils import ensure_tuple

from monai_medmerge.bundle.overlay.starting import OVERLAY_FILE, Overlay
from monai_medmerge.bundle.settings import tell_in_one_line
from monai_medmerge.errors import MedMergeError, causes


class MergedWorkflow(ConfigWorkflow):
    """A user's own bundle, its training started from merged sources; `run --workflow_name` takes it.

    What `medmerge.json` declares is added after the user's files, so that its settings are overridden as any others.
    Nothing of the configuration is patched: the overlay is installed before the first expression is evaluated, and a
    run that has merged nothing is an error.

    Args:
        config_file: the user's own, one or more; `medmerge.json` need not be among them.
        arguments: as of `monai.bundle.ConfigWorkflow`, and what overrides the configuration: `sources` and others.

    Raises:
        SettingError: there is no source, an option is unknown, or the configuration has no trainer that can be found.
        UnsafeCheckpointError: a source cannot be read.

    Example:
        ::

            python -m monai.bundle run --workflow_name monai_medmerge.bundle.overlay.MergedWorkflow \\
                --config_file configs/train.json --sources "['a.pt','b.safetensors']"
    """

    def __init__(self, config_file: str | Sequence[str], **arguments: Any) -> None:
        files = [str(path) for path in ensure_tuple(config_file)]
        if not any(path.endswith(OVERLAY_FILE.name) for path in files):
            files.append(str(OVERLAY_FILE))
        tell_in_one_line()
        super().__init__(config_file=files, **arguments)

    @property
    def overlay(self) -> Overlay:
        """The one that this run is started by."""
        overlay: Overlay = self.parser.get_parsed_content("medmerge")
        return overlay

    def run(self) -> Any:
        """Run the user's expressions, the trainer's run among them."""
        result = super().run()
        self.overlay.finish()
        return result

    def _run_expr(self, id: str, **keywords: Any) -> list[Any]:
        # MONAI's `initialize` resets the parser and then comes here: after it, and before anything of the user's.
        with reason_last():
            self.overlay.install(self)
            return list(super()._run_expr(id, **keywords))


@contextmanager
def reason_last() -> Iterator[None]:
    """End in an error of this package, which says what to do, and not in MONAI's, which quotes the expression."""
    try:
        yield
    except RuntimeError as error:
        reason = next((cause for cause in causes(error) if isinstance(cause, MedMergeError)), None)
        if reason is None:
            raise
        raise reason from reason.__cause__
