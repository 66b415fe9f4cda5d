"""Laws of pages: self-contained, whole in a browser on any screen, and nothing that a file or a model named becomes part of them."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from mflamingo_cli.render import WRITERS, Layout
from mflamingo_cli.render.html import IndexPage, SongPage
from mflamingo_cli.schema import (
    Analysis,
    AudioInfo,
    FormPart,
    KeyInfo,
    Loudness,
    MeterInfo,
    Result,
    Segment,
    SongTags,
    TempoInfo,
    VocalsInfo,
    path_fields,
)
from tests import browser
from tests.docs import ROOT
from tests.test_schema import FAILED

OCEAN = ROOT / "tests" / "data" / "ocean.opus"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}</title></style>"
BEAT_S = 0.484
RESULT = Result(
    tempo=TempoInfo(123.97, (61.98,), "measured", 124.0, True, 0.72),
    key=KeyInfo("A", "minor", "A minor", "8A", "1m", "Am", "measured", "D minor", False, 0.74),
    meter=MeterInfo("4/4", "measured", None, 0.81),
    beats=tuple((round(i * BEAT_S, 3), (i + 2) % 4 + 1) for i in range(125)),  # two beats before the first bar
    chords=(Segment(0.0, 30.0, "A:min7"), Segment(30.0, 31.0, "N"), Segment(31.0, 60.48, "F#:hdim7/b7")),
    sections=(FormPart(0.0, 30.0, "A", False, -12.6), FormPart(30.0, 60.48, "B")),
    loudness=Loudness(-12.06, 2.51, 0.67),
    instruments=("bass", "drums"),
    vocals=VocalsInfo(True, "a warm voice"),
    caption="First line.\nSecond line.",
)
SONG = Analysis(
    "analyze",
    "ok",
    "song.mp3",
    audio=AudioInfo(60.484, 48_000, 2, "opus", 0.0, 60.484, 3, False),
    result=RESULT,
    warnings=("careful",),
)


class Tags(HTMLParser):
    """Start tags with their attributes, and all text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._raw = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        if not self._raw:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, tag: str, name: str) -> list[str | None]:
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]


def page(record: Analysis, writer=SongPage) -> str:
    stream = io.StringIO()
    writer(stream).write(record)
    return stream.getvalue()


def test_a_section_says_its_times_its_loudness_and_whether_it_is_sung():
    assert "<title>A, 0:00 to 0:30 · −12.6 LUFS · not sung</title>" in page(SONG)
    assert "<span>0:00 – 0:30 · −12.6 LUFS · not sung</span>" in page(SONG)
    assert "<title>B, 0:30 to 1:00</title>" in page(SONG)


def test_a_section_that_repeats_another_says_when_that_begins():
    first = FormPart(0.0, 30.0, "A")
    result = dataclasses.replace(SONG.result, sections=(first, FormPart(30.0, 40.0, "B"), FormPart(40.0, 60.0, "A", repeats=0)))
    assert "<span>0:40 – 1:00 · repeats 0:00</span>" in page(dataclasses.replace(SONG, result=result))


def hostile() -> Analysis:
    spans = (FormPart(0.0, 9.0, HOSTILE),)
    key = KeyInfo("A", "minor", "A minor", "8A", "1m", "Am", "measured", HOSTILE, False, 0.5)
    result = dataclasses.replace(
        RESULT, caption=HOSTILE, chords=spans, sections=spans, genre=(HOSTILE,), vocals=VocalsInfo(True, HOSTILE), key=key
    )
    audio = dataclasses.replace(SONG.audio, tags=SongTags(title=HOSTILE, artist=HOSTILE))
    path = f"a/{HOSTILE}.wav"
    return dataclasses.replace(SONG, path=path, audio=audio, result=result, warnings=(HOSTILE,), text=HOSTILE, thinking=HOSTILE)


def test_a_page_and_its_row_are_headed_by_artist_and_title_and_name_the_file():
    tagged = dataclasses.replace(SONG, audio=dataclasses.replace(SONG.audio, tags=SongTags(title="Ocean", artist="Will Savino")))
    whole = page(tagged)
    assert "<title>Will Savino - Ocean · mflamingo</title>" in whole
    assert "<h1><bdi>Will Savino - Ocean</bdi></h1>" in whole
    assert "<bdi>song.mp3</bdi>" in whole
    assert "<bdi>Will Savino - Ocean</bdi></a> <small><bdi>song</bdi></small>" in page(tagged, IndexPage)
    assert "<small><bdi>song</bdi></small>" not in page(SONG, IndexPage)


@pytest.mark.parametrize("writer", [SongPage, IndexPage])
def test_nothing_that_was_named_becomes_markup(writer):
    found = Tags(page(hostile(), writer))
    assert not {"img"} & {tag for tag, _ in found.tags}
    assert len([tag for tag, _ in found.tags if tag == "script"]) == (2 if writer is SongPage else 1)
    assert not any(name.startswith("on") or name == "style" for _, attributes in found.tags for name in attributes)
    assert "<script>alert(1)</script>" in found.text
    assert "{{ 7*7 }}" in found.text


def test_the_policy_allows_what_the_page_holds_and_no_network():
    [policy] = [a["content"] for tag, a in Tags(page(SONG)).tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not re.search(r"https?:", policy)


@pytest.mark.parametrize(
    ("path", "address"), [("a b/c#d?.mp3", "a%20b/c%23d%3F.mp3"), ("javascript:x.mp3", "javascript%3Ax.mp3"), ("-", None)]
)
def test_the_player_names_the_song_relative_to_the_page(path, address):
    found = Tags(page(dataclasses.replace(SONG, path=path)))
    assert found.values("audio", "src") == ([address] if address else [])


def test_a_path_that_is_not_utf8_is_played_by_its_bytes():
    name, encoded = path_fields(os.fsdecode(b"caf\xe9.mp3"))
    assert Tags(page(dataclasses.replace(SONG, path=name, path_b64=encoded))).values("audio", "src") == ["caf%E9.mp3"]


def test_a_page_in_another_folder_finds_the_song(tmp_path):
    with (tmp_path / "page.html").open("w") as stream:
        WRITERS["html"].writer(stream, Layout(folder=os.fspath(tmp_path))).write(SONG)
    [source] = Tags((tmp_path / "page.html").read_text()).values("audio", "src")
    assert os.path.realpath(tmp_path / source) == os.path.realpath("song.mp3")


def test_facts_stand_beside_claims():
    text = Tags(page(SONG)).text
    for words in ("124 BPM", "72 % sure", "or 62", "the model agrees", "A minor", "the model says D minor", "\u221212.1 LUFS", "careful"):
        assert words in text


def test_the_wheel_marks_the_key_its_neighbours_and_the_claim():
    found = Tags(page(SONG))
    [label] = [label for label in found.values("svg", "aria-label") if label.startswith("Key wheel")]
    assert label == "Key wheel. A minor, Camelot 8A. Neighbours: 7A D minor, 9A E minor, 8B C major. The model says D minor."
    states = [attributes["class"].split()[3] for tag, attributes in found.tags if tag == "g"]
    assert [states.count(name) for name in ("here", "near", "far")] == [1, 3, 20]


def test_the_chart_has_a_cell_per_bar():
    cells = Tags(page(SONG)).values("button", "aria-label")
    assert cells[:2] == ["0:00 Am7", "0:00 Am7 continued"]  # the pickup, then the first whole bar
    assert len(cells) == 1 + 31
    assert "0:30 F#m7b5" in " ".join(cells).replace("no chord, ", "")


def test_without_a_meter_the_chart_has_a_cell_per_chord():
    result = dataclasses.replace(RESULT, beats=tuple((time, None) for time, _ in RESULT.beats), meter=MeterInfo())
    cells = Tags(page(dataclasses.replace(SONG, result=result))).values("button", "aria-label")
    assert cells == ["0:00 Am7", "0:30 no chord", "0:31 F#m7b5"]


@pytest.mark.parametrize("writer", [SongPage, IndexPage])
def test_a_record_without_a_song_is_a_page_too(writer):
    assert "b.mp3: broken" in Tags(page(FAILED, writer)).text
    page(Analysis(command="analyze", status="ok", path="x", result=Result()), writer)
    assert "A ballad." in Tags(page(Analysis("think", "ok", "x", thinking="slow", text="A ballad."), writer)).text


def test_a_song_that_is_gone_has_a_page_without_a_waveform():
    found = Tags(page(dataclasses.replace(SONG, path="gone.mp3")))
    assert "No waveform: gone.mp3: there is no such file." in found.text
    assert "124 BPM" in found.text


def test_a_page_of_four_minutes_is_small(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 240 * 8000), 8000)
    chords = tuple(Segment(2.0 * i, 2.0 * i + 2, "A:min7") for i in range(120))
    result = dataclasses.replace(RESULT, chords=chords, beats=tuple((0.5 * i, i % 4 + 1) for i in range(480)))
    audio = AudioInfo(240.0, 8000, 1, "pcm", 0.0, 240.0, 8, False)
    assert len(page(dataclasses.replace(SONG, path=os.fspath(path), audio=audio, result=result)).encode()) < 200_000


def test_an_index_is_whole_after_every_row():
    stream = io.StringIO()
    index = IndexPage(stream, link=lambda record: "pages/a b.html" if record is FAILED else None)
    for count, record in enumerate([SONG, FAILED, hostile()], start=1):
        index.write(record)
        found = Tags(stream.getvalue())
        assert len([tag for tag, _ in found.tags if tag == "tr"]) == 1 + count
    assert found.values("a", "href")[1] == "pages/a%20b.html"


# --- in a browser -----------------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
DARK_OR_LIGHT = [False, True]
CONTRASTS = """
(() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const luminance = (color) => {
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const css = (element, name) => getComputedStyle(element)[name];
  const ratios = {};
  const probe = document.body.appendChild(document.createElement("div"));
  for (let i = 0; i < 12; i++) for (const minor of ["", " minor"]) {
    probe.className = `chip r${i}${minor}`;
    ratios[probe.className] = ratio(luminance(css(probe, "color")), luminance(css(probe, "backgroundColor")));
  }
  probe.remove();
  const paper = luminance(css(document.body, "backgroundColor"));
  for (const name of ["body", ".quiet", "h2", "h3", "dd", ".facts .agrees", ".facts .differs", "figcaption"])
    ratios[name] = ratio(luminance(css(document.querySelector(name), "color")), paper);
  const fill = (element, part) => luminance(css(element.querySelector(part), "fill"));
  const filled = (element, text, field) => ratio(fill(element, text), fill(element, field));
  for (const field of document.querySelectorAll(".field")) ratios[field.className.baseVal] = filled(field, ".code", "path");
  for (const block of document.querySelectorAll(".timeline .block")) ratios[block.className.baseVal] = filled(block, "text", "rect");
  return ratios;
})()
"""


@pytest.fixture(scope="module")
def tab():
    opened = browser.Browser()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A folder with a song, its page, a page whose song is gone, a hostile page and an index."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "ocean.opus").write_bytes(OCEAN.read_bytes())
    songs = {"song": os.fspath(folder / "ocean.opus"), "gone": os.fspath(folder / "gone.opus")}
    for name, path in songs.items():
        with (folder / f"{name}.html").open("w", encoding="utf-8") as stream:
            SongPage(stream, os.fspath(folder)).write(dataclasses.replace(SONG, path=path))
    with (folder / "hostile.html").open("w", encoding="utf-8") as stream:
        SongPage(stream, os.fspath(folder)).write(hostile())
    with (folder / "index.html").open("w", encoding="utf-8") as stream:
        index = IndexPage(stream, os.fspath(folder))
        slow = dataclasses.replace(RESULT, tempo=TempoInfo(61.0, (), "measured"), caption=None)
        for record in (
            dataclasses.replace(SONG, path=songs["song"]),
            FAILED,
            hostile(),
            dataclasses.replace(SONG, path="slow.mp3", result=slow),
        ):
            index.write(record)
    return folder


def own(requests: list[str]) -> list[str]:
    """What a page asked for; pictures inside the browser's own controls are no request."""
    return [address.rpartition("/")[2] for address in requests if not address.startswith("data:")]


@needs_browser
@pytest.mark.parametrize("dark", DARK_OR_LIGHT)
@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("name", ["song", "hostile", "index"])
def test_a_page_fits_every_screen_without_a_complaint(tab, pages, name, width, dark):
    tab.open(pages / f"{name}.html", width=width, dark=dark)
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert [problem for problem in tab.problems if name != "hostile" or "Failed to load" not in problem] == []
    if name == "song":
        assert tab.until("document.getElementById('player').readyState >= 1")
        assert set(own(tab.requests)) == {"song.html", "ocean.opus"}
    elif name == "index":
        assert own(tab.requests) == ["index.html"]


@needs_browser
@pytest.mark.parametrize("dark", DARK_OR_LIGHT)
def test_everything_can_be_read(tab, pages, dark):
    tab.open(pages / "song.html", dark=dark)
    ratios = tab.run(CONTRASTS)
    assert len(ratios) > 30
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}  # WCAG 2.2, 1.4.3
    paper = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) is dark


@needs_browser
def test_a_click_seeks_and_what_sounds_is_marked(tab, pages):
    tab.open(pages / "song.html")
    assert tab.until("document.getElementById('player').readyState >= 1")
    box = tab.run("(() => { const b = document.getElementById('timeline').getBoundingClientRect(); return [b.x, b.y, b.width]; })()")
    tab.click(box[0] + box[2] * 0.75, box[1] + 40)
    assert tab.until("Math.abs(document.getElementById('player').currentTime - 45.4) < 0.2")
    assert tab.run("document.getElementById('now').textContent") == "F#m7b5 section B"
    assert tab.run("[...document.querySelectorAll('.block.on text')].map((t) => t.textContent)") == ["B", "F#m7b5"]
    assert tab.run("document.querySelector('[aria-current] u.on') !== null")
    assert tab.run("document.getElementById('timeline').getAttribute('aria-valuetext')") == "0:45, section B, F#m7b5"


@needs_browser
def test_keys_and_the_chart_seek(tab, pages):
    tab.open(pages / "song.html")
    assert tab.until("document.getElementById('player').readyState >= 1")
    tab.run("document.getElementById('timeline').focus()")
    tab.press("End")
    tab.press("PageDown")
    assert tab.until("Math.abs(document.getElementById('player').currentTime - 30.48) < 0.1")
    tab.run("document.querySelectorAll('.bars button')[2].click()")
    assert tab.until("Math.abs(document.getElementById('player').currentTime - 6 * 0.484) < 0.1")


@needs_browser
def test_the_cursor_follows_the_sound(tab, pages):
    tab.open(pages / "song.html")
    assert tab.until("document.getElementById('player').readyState >= 1")
    tab.run("document.getElementById('player').play().then(() => true)")
    assert tab.until("parseFloat(document.getElementById('cursor').getAttribute('x1')) > 0.5")
    tab.run("document.getElementById('player').pause()")


@needs_browser
def test_without_the_song_the_player_goes_and_the_timeline_stays(tab, pages):
    tab.open(pages / "gone.html")
    assert tab.until("document.getElementById('bar').hidden")
    assert "not where this page looks for it" in tab.run("document.getElementById('nosound').innerText")
    tab.run("document.getElementById('timeline').focus()")
    tab.press("End")
    assert tab.run("document.getElementById('cursor').getAttribute('x1')") == "100%"


@needs_browser
def test_an_index_sorts_and_finds(tab, pages):
    tab.open(pages / "index.html")
    tab.run("document.querySelectorAll('thead button')[2].click()")
    names = "[...document.querySelectorAll('tbody tr:not([hidden]) th bdi:first-of-type')].map((n) => n.textContent.slice(0, 5))"
    assert tab.run(names)[0] == "slow"
    tab.run("(() => { const s = document.getElementById('search'); s.value = 'OCEAN'; s.dispatchEvent(new Event('input')); })()")
    assert tab.run("[...document.querySelectorAll('tbody tr:not([hidden])')].length") == 1
    assert tab.run("document.getElementById('count').textContent") == "1 of 4 \u00b7 "
