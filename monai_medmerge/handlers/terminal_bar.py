"""Progress bars where somebody watches them: a log keeps every state of a bar as a line."""

from __future__ import annotations

import sys
from typing import Any

from ignite.engine import Engine
from ignite.handlers import ProgressBar


class TerminalProgressBar(ProgressBar):
    """Ignite's progress bar, on a terminal only.

    Args:
        settings: as of `ignite.handlers.ProgressBar`.

    Example:
        >>> engine = Engine(lambda engine, batch: None)
        >>> TerminalProgressBar(desc="probe").attach(engine)
        >>> _ = engine.run([1, 2, 3])
    """

    def attach(self, engine: Engine, *arguments: Any, **settings: Any) -> None:
        """Follow an engine if standard error is a terminal.

        Args:
            engine: to follow.
            arguments: as of ignite's.
            settings: as of ignite's.
        """
        if sys.stderr.isatty():
            super().attach(engine, *arguments, **settings)
