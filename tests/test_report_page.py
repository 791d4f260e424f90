"""The report page, as a file and in a real browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import Page, find_chromium, open_browser
from evaluation_material import RATIO, encoded, gray_light, make_weights, write_raw
from typer.testing import CliRunner

from lowlight.cli import app
from lowlight.core.errors import DataError
from lowlight.core.photo import Picture
from lowlight.workflows.evaluating.previews import SHOWN_METHODS, SIDES_PX, PreviewBook
from lowlight.writers import write_picture

NASTY = '<img src=x onerror=alert(1)> & "co".dng'
LEFT_KEY, RIGHT_KEY, HOME_KEY = ("ArrowLeft", 37), ("ArrowRight", 39), ("Home", 36)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two networks on three pairs, one of them broken and one with a name that must be escaped."""
    folder = tmp_path_factory.mktemp("report")
    light = gray_light(64, 96)
    for name, exposure_s in (("one.dng", 0.1), (NASTY, 0.1)):
        write_raw(folder / name, light, RATIO, exposure_s)
    write_picture(folder / "truth.png", Picture(encoded(light)))
    quoted = '"' + NASTY.replace('"', '""') + '"'
    (folder / "pairs.csv").write_text(
        "scene,split,dark,bright,ratio,iso,burst_index\n"
        f"a,test,one.dng,truth.png,{RATIO},100,0\n"
        f"b,test,{quoted},truth.png,{RATIO},800,0\n"
        f"c,test,missing.dng,truth.png,{RATIO},800,0\n"
    )
    run = folder / "run"
    run.mkdir()
    log = [
        {"step": step, "elapsed_s": step / 2, "loss": 9.0 / step, "validation": {"psnr": 20.0 + step}}
        for step in (1, 2)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    weights = [make_weights(run / f"{name}.safetensors", 2, seed=seed) for seed, name in enumerate(("first", "second"))]
    named = [argument for path in weights for argument in ("--weights", str(path))]
    arguments = ["eval", str(folder / "pairs.csv"), *named, "--device", "cpu", "--report", str(folder / "out" / "page")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and "missing.dng" in result.stderr, result.output
    return folder / "out" / "page" / "index.html"


class Tags(HTMLParser):
    """Collects the tags and attributes of a page, and checks that they are closed in order."""

    VOID = ("meta", "link", "img", "input", "line", "circle", "path")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_needs_nothing_from_outside(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    assert not re.search(r"https?://|src=\"(?!data:)|@import|url\(", text)
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    for tag, attributes in tags.found:
        address = attributes.get("src") or attributes.get("href")
        assert address is None or address.startswith(("data:", "#")), (tag, address)
        assert not any(name.startswith("on") for name in attributes), "no script in attributes"
    assert [path.name for path in page_file.parent.iterdir()] == ["index.html"]


def test_names_are_escaped_and_pictures_described(page_file: Path) -> None:
    tags = Tags()
    tags.feed(page_file.read_text(encoding="utf-8"))
    assert NASTY in next(a["aria-label"] for t, a in tags.found if t == "input" and a["aria-label"].count("onerror"))  # type: ignore[union-attr]
    pictures = [a for tag, a in tags.found if tag == "img"]
    assert len(pictures) == 2 * (2 + 2 + 1), "as shot, amplified, two networks and the truth of two photos"
    assert all(a["alt"] and a["width"] == "48" for a in pictures)
    assert all(a.get("aria-label") for tag, a in tags.found if tag in ("select", "input", "svg"))


def test_previews_shrink_with_the_number_of_photos() -> None:
    sides = [PreviewBook(count).side_px for count in (1, 16, 93, 598, 5000)]
    assert sides == sorted(sides, reverse=True) and sides[1] == SIDES_PX[0][1] and sides[-1] >= 200
    assert SHOWN_METHODS >= 4


def test_a_run_without_a_log_is_refused(page_file: Path) -> None:
    manifest = page_file.parents[2] / "pairs.csv"
    arguments = ["eval", str(manifest), "--baseline", "amplified", "--run", str(manifest.parent)]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, DataError) and "log.jsonl" in str(error)


@pytest.fixture(scope="module")
def tab(page_file: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on the search path; Debian's package is called chromium")
    with open_browser(program, tmp_path_factory.mktemp("profile")) as page:
        page.size(1280, 1600)
        page.open(page_file)
        yield page


def clip(tab: Page, photo: int = 0) -> str:
    return str(
        tab.value(f'getComputedStyle(document.querySelectorAll(".photo")[{photo}].querySelector("img.right")).clipPath')
    )


def at(share: float) -> str:
    return f"inset(0px 0px 0px {share:g}%)"


def test_the_slider_moves_by_keyboard(tab: Page) -> None:
    assert clip(tab) == at(50)
    tab.value('document.querySelector(".photo input").focus()')
    for _ in range(3):
        tab.press(*RIGHT_KEY)
    assert clip(tab) == at(53)
    tab.press(*LEFT_KEY)
    assert clip(tab) == at(52)
    assert tab.value('document.querySelector(".photo input").getAttribute("aria-valuetext")').startswith(
        "52 % amplified"
    )
    assert clip(tab, 1) == at(50), "the other photo stays"
    tab.press(*HOME_KEY)
    assert clip(tab) == at(0)


def test_the_slider_follows_the_pointer(tab: Page) -> None:
    left, top, width, height = tab.value(
        '(() => { const s = document.querySelectorAll(".photo .stage")[1]; s.scrollIntoView({behavior: "instant"});'
        " const r = s.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()"
    )
    middle = top + height / 2
    tab.drag((left + width / 2, middle), (left + width / 4, middle))
    share = float(clip(tab, 1).split()[-1].rstrip("%)"))
    assert share == pytest.approx(25, abs=1), "the border is where the pointer is"


def test_any_two_pictures_can_be_compared(tab: Page) -> None:
    def shown(photo: int) -> list[str]:
        images = f'[...document.querySelectorAll(".photo")[{photo}].querySelectorAll("img")].filter((i) => !i.hidden)'
        # An image that could not be shown would make this fail.
        tab.value(f"Promise.all({images}.map((image) => image.decode()))")
        return list(tab.value(f'{images}.map((image) => image.alt.split(":")[0])'))

    assert shown(0) == ["amplified", "first.safetensors"]
    choose = (
        '(() => {{ const s = document.querySelectorAll("{where} select")[{side}]; s.value = "{layer}";'
        ' s.dispatchEvent(new Event("input", {{bubbles: true}})); }})()'
    )
    tab.value(choose.format(where=".photo", side=0, layer=2) + ";" + choose.format(where=".photo", side=1, layer=4))
    assert shown(0) == ["first.safetensors", "truth"] and shown(1) == ["amplified", "first.safetensors"]
    tab.value(choose.format(where=".all", side=0, layer=0))
    assert shown(0) == ["as shot", "truth"] and shown(1) == ["as shot", "first.safetensors"]
    tab.value(choose.format(where=".all", side=1, layer=0))
    assert shown(0) == ["as shot"], "the same picture on both sides is shown whole"


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_nothing_runs_over_the_edge(tab: Page, width: int) -> None:
    tab.size(width, 1200)
    assert tab.value("document.documentElement.scrollWidth") <= width


def test_dark_and_light_differ(tab: Page) -> None:
    colours = []
    for dark in (False, True):
        tab.size(1280, 1200, dark=dark)
        colours.append(tab.value("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]


def test_it_asks_for_nothing_and_complains_about_nothing(tab: Page) -> None:
    assert tab.value("new Promise((resolve) => setTimeout(() => resolve(document.readyState), 200))") == "complete"
    assert tab.problems() == []
    assert [url for url in tab.requests() if not url.startswith(("file:", "data:", "about:"))] == []
    assert sum(url.startswith("file:") for url in tab.requests()) == 1
