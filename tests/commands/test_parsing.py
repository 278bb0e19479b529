"""A command line is taken word by word, or refused in one line."""

import pytest

from monai_medmerge.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--netwrok", "x"], "the nearest is --network"),
        (["plan", "--network", "UNet", "--sourc", "a.pt"], "--sourc"),
        (["plam"], "plam"),
        (["export", "--outputs=x"], "the nearest is --output"),
        (["rank", "\n\x1b[2J"], "rank"),
    ],
)
def test_what_is_not_known_is_named_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert "\x1b" not in line
