"""Progress bars are for terminals."""

from __future__ import annotations

import io

import pytest
from ignite.engine import Engine

from monai_medmerge.handlers import TerminalProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO, False), (Terminal, True)])
def test_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], shown: bool) -> None:
    written = stream()
    monkeypatch.setattr("sys.stderr", written)
    engine = Engine(lambda engine, batch: None)
    TerminalProgressBar(desc="finetune").attach(engine)
    engine.run([1, 2, 3], max_epochs=2)
    assert ("finetune" in written.getvalue()) is shown
    assert bool(written.getvalue()) is shown
