"""Grooves are read from library files: meters that are clear, styles with their tempi, fills apart from variants."""

import pytest

from mflamingo_cli.train.mini.synth import grooves
from tests.train.mini.corpora.test_debian import make_deb, needs_dpkg

FILE = """Time 4
TimeSig 4 4
DefGroove Stomp  A beat.
DefGroove StompPlus More of it.
DefGroove StompFill A fill.
DefGroove StompIntro A start.
DefGroove Other Another beat.
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("4/4", 4, 1)),
        ("Time 3\nTimeSig 3 4", ("3/4", 3, 1)),
        ("Time 6", ("6/8", 6, 3)),
        ("Time 6/8", ("6/8", 6, 3)),
        ("Time 2\nTimesig 6 8", ("6/8", 2, 1)),  # counted in dotted quarters
        ("Time 5\nTimeSig 5 4", None),
        ("Time 4\nTime 3", None),
    ],
)
def test_meters_are_named_where_they_are_clear(text, expected):
    assert grooves._meter(text) == expected


def test_fills_and_variants_are_distinguished(tmp_path):
    (tmp_path / "lib" / "stdlib").mkdir(parents=True)
    (tmp_path / "lib" / "stdlib" / "countryrock.mma").write_text(FILE)
    found = {groove.name: groove for groove in grooves.scan(tmp_path)}
    assert set(found) == {"Stomp", "StompPlus", "Other"}
    assert found["Stomp"].variants == ("StompPlus",)
    assert found["Stomp"].fills == ("StompFill",)
    assert found["Other"].variants == ()
    assert {groove.style for groove in found.values()} == {"country"}
    assert found["Stomp"].description == "A beat."


def test_every_tempo_lies_within_what_is_asked_for():
    assert all(50 <= slow < fast <= 220 for _, style, slow, fast in grooves.STYLES if style)
    assert all(50 <= slow < fast <= 220 for slow, fast in grooves.OWN_TEMPI.values())


@needs_dpkg
def test_mma_is_set_up_once_from_its_package(tmp_path):
    script = "import os, sys, pathlib\npathlib.Path(os.environ['MMA_HOME'], 'calls').open('a').write(sys.argv[1])\n"
    make_deb(tmp_path, "mma", {"usr/bin/mma": script, "usr/share/mma/lib/stdlib/rock.mma": FILE})
    for _ in range(2):
        assert grooves.install_mma(tmp_path) == tmp_path / "mma.py"
    assert (tmp_path / "calls").read_text() == "-g"
    assert {groove.style for groove in grooves.scan(tmp_path)} == {"rock"}
