"""Completion of the shell: its script is whole, and absent it is one line."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from monai_medmerge.__main__ import main


def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as exited:
        main(["--print-completion", "bash"])
    script = capsys.readouterr().out
    assert exited.value.code == 0
    for word in ("merge", "verify", "bundles", "--candidate"):
        assert word in script
    if (bash := shutil.which("bash")) is not None:
        ask = "\nCOMP_WORDS=(medmerge ver); COMP_CWORD=1; _shtab_medmerge medmerge ver medmerge; echo ${COMPREPLY[@]}"
        done = subprocess.run([bash, "--norc", "-c", script + ask], capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["verify"], done.stderr


def test_without_the_extra_it_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    for arguments, told in [(["bash"], "monai_medmerge[completion]"), (["fishy"], "bash"), ([], "--print-completion")]:
        with pytest.raises(SystemExit) as exited:
            main(["--print-completion", *arguments])
        error = capsys.readouterr().err
        assert exited.value.code == 2
        assert error.count("\n") == 1
        assert told in error
