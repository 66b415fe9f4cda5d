"""Laws of man pages and completions: they are what the app would give now, they name every option, and their readers accept them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests import docs

PAGES = docs.tree().walk()
FILES = docs.render()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path):
    assert path.read_text(encoding="utf-8") == FILES[path], "renew with: python -m tests.docs"


def test_no_page_of_a_command_that_is_gone_is_left():
    kept = {path for folder in ("man", "completions") for path in (docs.ROOT / folder).iterdir()}
    assert kept == set(FILES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_is_in_its_man_page_and_in_all_completions(page):
    files = {path.name: text for path, text in FILES.items()}
    assert page.options
    for option in page.options:
        for name in option.names:
            assert f"\\fB{docs.roff(name)}\\fR" in files[f"{page.name}.1"]
            assert name in files["mflamingo"]
            assert name in files["_mflamingo"]
            flag = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
            assert flag in files["mflamingo.fish"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_says_what_it_does(page):
    assert page.summary.endswith(".")
    assert all(param.help for param in page.params), [param.names for param in page.params if not param.help]


@pytest.mark.skipif(shutil.which("man") is None, reason="no man here")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_formats_every_page_without_a_warning(page):
    path = docs.ROOT / "man" / f"{page.name}.1"
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


COMPLETED = [
    ("mflamingo ana", {"analyze"}),
    ("mflamingo models ", {"list", "pull", "rm", "info", "convert", "verify", "imatrix"}),
    ("mflamingo analyze --fo", {"--format"}),
    ("mflamingo analyze --format j", {"json"}),
    ("mflamingo analyze -f t", {"table", "text"}),
    ("mflamingo caption --style ", {"full", "short", "technical", "critic", "lyrics"}),
    ("mflamingo models convert --type Q8", {"Q8_0"}),
]


@pytest.mark.parametrize(("words", "expected"), COMPLETED)
def test_bash_completes(words, expected):
    parts = words.split(" ")
    line = f"COMP_WORDS=({' '.join(repr(part) for part in parts)}); COMP_CWORD={len(parts) - 1}"
    script = f"source completions/mflamingo; compopt() {{ :; }}; {line}; _mflamingo; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=docs.ROOT)
    assert expected <= set(done.stdout.split())


@pytest.mark.parametrize(("shell", "name"), [("zsh", "_mflamingo"), ("fish", "mflamingo.fish")])
def test_other_shells_can_read_their_completion(shell, name):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n", docs.ROOT / "completions" / name], check=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
@pytest.mark.parametrize(("words", "expected"), COMPLETED)
def test_fish_completes(words, expected):
    script = f"source completions/mflamingo.fish; complete -C '{words}'"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True, cwd=docs.ROOT)
    assert expected <= {line.split("\t")[0] for line in done.stdout.splitlines()}
