"""One self-contained HTML page of an evaluation: tables, plots, and a slider over the pictures of each photo.

Nothing is fetched: style, script, plots and pictures are in the page, and its security policy forbids the rest.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from lowlight.report.figures import Curves, curve_figures, distribution_figures
from lowlight.report.statistics import MEASURES, Row
from lowlight.report.tables import (
    Report,
    Table,
    cell,
    extremes_table,
    group_table,
    methods_table,
    oracle_table,
    photos_table,
    seconds_table,
    settings_table,
    versions_table,
)

HERE = Path(__file__).parent
SHORT = 18  # characters of a cell that is not broken into lines


@dataclass(frozen=True)
class Layer:
    """One picture of a photo: its name and a JPEG file's bytes."""

    name: str
    jpeg: bytes


@dataclass(frozen=True)
class Photo:
    """The pictures of one photo, all `width` x `height` pixels; `index` is its row in every report.

    The first layers are the picture before (the last of them the amplified one), the last layer is the truth.
    """

    index: int
    width: int
    height: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Part:
    """A part of the page: its anchor, its title and its HTML; `folded` parts open on a click."""

    anchor: str
    title: str
    html: str
    folded: bool = False


def build_page(
    reports: Sequence[Report],
    photos: Sequence[Photo],
    *,
    versions: Sequence[dict[str, Any]] = (),
    curves: Sequence[Curves] = (),
) -> str:
    """Lay out the page. `reports` are of several methods on the same pairs; every name is escaped."""
    settings = reports[0]["settings"]
    parts = [part for part in _parts(reports, photos, versions, curves) if part.html]
    links = "".join(f'<a href="#{part.anchor}">{escape(part.title)}</a>' for part in parts)
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{_csp_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = f"Evaluation: {Path(settings['manifest']).name}, protocol {settings['protocol']}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>\n<style>{style}</style></head>\n<body><main>'
        f"<header><h1>{escape(title)}</h1>{_lead(settings)}{_figures(reports)}<nav>{links}</nav></header>\n"
        + "\n".join(_section(part) for part in parts)
        + f"\n<footer>Made by lowlight {escape(settings['versions']['lowlight'])}.</footer></main>\n"
        f"<script>{script}</script></body></html>\n"
    )


def _csp_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _lead(settings: dict[str, Any]) -> str:
    about = f"{settings['protocol_summary']}; {settings['pairs']} pairs"
    if settings.get("excluded"):
        about += f", {settings['excluded']} left out"
    return f'<p class="lead">{escape(about[0].upper() + about[1:])}. {escape(_sentence(settings["rounding"]))}</p>'


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _figures(reports: Sequence[Report]) -> str:
    """The mean measures in large digits, where there is one method."""
    if len(reports) > 1:
        return ""
    mean = reports[0]["mean"]
    items = "".join(
        f"<div><dt>{escape(measure.title)}</dt><dd>{measure.text(mean[name])}</dd></div>"
        for name, measure in MEASURES.items()
        if mean[name] is not None
    )
    return f'<dl class="figures">{items}</dl>'


def _parts(
    reports: Sequence[Report],
    photos: Sequence[Photo],
    versions: Sequence[dict[str, Any]],
    curves: Sequence[Curves],
) -> list[Part]:
    oracle, seconds = oracle_table(reports), seconds_table(reports)
    anchors = photo_anchors([row["dark"] for row in reports[0]["rows"]], [photo.index for photo in photos])
    extremes = [
        _table(table, _heading(reports, report), anchors) for report in reports if (table := extremes_table(report))
    ]
    every = "".join(_table(photos_table(report), _heading(reports, report), anchors) for report in reports)
    settings = "".join(_table(settings_table(report["settings"]), _heading(reports, report)) for report in reports)
    return [
        Part("methods", "Means", _table(methods_table(reports))),
        Part("seconds", "Seconds", _table(seconds) if seconds else ""),
        Part("versions", "Versions", _table(versions_table(versions)) if versions else ""),
        Part("oracle", "Posterior and prior", _table(oracle) if oracle else ""),
        Part("ratio", "By ratio", _groups(reports, "by_ratio")),
        Part("iso", "By ISO", _groups(reports, "by_iso")),
        Part("plots", "Plots", distribution_figures(reports)),
        Part("loss", "Loss curves", curve_figures(curves)),
        Part("extremes", "Worst and best photos", _first_and_more(extremes)),
        Part("photos", "Photos", _photos(reports, photos)),
        Part("rows", "All rows", every, folded=True),
        Part("settings", "Settings", settings, folded=True),
    ]


def photo_anchors(names: Sequence[str], shown: Sequence[int]) -> dict[str, str]:
    """Where the names of shown photos lead, by their rows' indices; one that several rows have leads nowhere."""
    counts = Counter(names)
    return {names[index]: f"photo-{index}" for index in shown if counts[names[index]] == 1}


def _first_and_more(tables: Sequence[str]) -> str:
    """The first method's table, those of the others folded."""
    if len(tables) < 2:
        return "".join(tables)
    return f"{tables[0]}<details><summary>The other methods</summary>{''.join(tables[1:])}</details>"


def _groups(reports: Sequence[Report], key: str) -> str:
    table = group_table(reports, key)
    return "" if {row[0] for row in table.rows} <= {"unknown"} else _table(table)


def _heading(reports: Sequence[Report], report: Report) -> str:
    return report["settings"]["name"] if len(reports) > 1 else ""


def _section(part: Part) -> str:
    heading = f"<h2>{escape(part.title)}</h2>"
    if part.folded:
        return (
            f'<section class="fold" id="{part.anchor}"><details><summary>{heading}</summary>{part.html}</details>'
            "</section>"
        )
    return f'<section id="{part.anchor}">{heading}{part.html}</section>'


def _table(table: Table, heading: str = "", anchors: dict[str, str] | None = None) -> str:
    """A table that scrolls by itself on a narrow screen; cells that name a shown photo link to it."""
    anchors = anchors or {}
    head = "".join(
        f'<th scope="col"{" class=n" if number else ""}>{escape(title)}</th>' for title, number in table.columns
    )
    rows = []
    for row in table.rows:
        cells = []
        for text, (_, number) in zip(row, table.columns, strict=True):
            inner = escape(text)
            if text in anchors and not number:
                inner = f'<a href="#{anchors[text]}">{inner}</a>'
            kind = "n" if number else "w" if len(text) > SHORT else "s"
            cells.append(f'<td class="{kind}">{inner}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    above = f"<h3>{escape(heading)}</h3>" if heading else ""
    label = escape(f"{table.title} {heading}".strip(), quote=True)
    return (
        f'{above}<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>{note}"
    )


def _photos(reports: Sequence[Report], photos: Sequence[Photo]) -> str:
    if not photos:
        return ""
    names = [layer.name for layer in photos[0].layers]
    chooser = ""
    if all([layer.name for layer in photo.layers] == names for photo in photos):
        chooser = f'<div class="choose all">{_selects(names, "of all photos")}</div>'
    figures = "".join(_photo(photo, [report["rows"][photo.index] for report in reports]) for photo in photos)
    return (
        "<p>Drag across a picture, or focus it and use the arrow keys. Left and right show any two of: as shot, "
        f"amplified only, enhanced, and the truth.</p>{chooser}"
        f'<div class="photos">{figures}</div>'
    )


def _photo(photo: Photo, rows: Sequence[Row]) -> str:
    name = str(rows[0]["dark"])
    facts = [f"scene {rows[0]['scene']}"] if rows[0].get("scene") else []
    facts += [
        f"{title} {cell(rows[0][key])}" for key, title in (("ratio", "ratio"), ("iso", "ISO")) if rows[0].get(key)
    ]
    if len(rows) == 1 and rows[0].get("psnr") is not None:
        facts.append(f"{rows[0]['psnr']:.2f} dB")
    images = "".join(
        f'<img src="data:image/jpeg;base64,{base64.b64encode(layer.jpeg).decode()}" '
        f'alt="{escape(f"{layer.name}: {name}", quote=True)}" width="{photo.width}" height="{photo.height}" '
        'decoding="async" loading="lazy">'
        for layer in photo.layers
    )
    label = escape(f"Move the border between the two pictures of {name}", quote=True)
    return (
        f'<figure class="photo" id="photo-{photo.index}"><figcaption><h3>{escape(name)}</h3>'
        f"<p>{escape(' · '.join(facts))}</p></figcaption>"
        f'<div class="stage" style="aspect-ratio:{photo.width}/{photo.height}">{images}'
        '<span class="tag l"></span><span class="tag r"></span><span class="bar"></span>'
        f'<input type="range" min="0" max="100" value="50" step="1" aria-label="{label}"></div>'
        f'<div class="choose">{_selects([layer.name for layer in photo.layers], f"of {name}")}</div></figure>'
    )


def _selects(names: Sequence[str], what: str) -> str:
    """Two choosers of a layer: the left one begins with the amplified picture, the right one with the first result."""
    first = next((index for index, name in enumerate(names) if name == "amplified"), 0)
    sides = []
    for side, chosen in (("Left", first), ("Right", min(first + 1, len(names) - 1))):
        options = "".join(
            f'<option value="{index}"{" selected" if index == chosen else ""}>{escape(name)}</option>'
            for index, name in enumerate(names)
        )
        label = escape(f"{side} picture {what}", quote=True)
        sides.append(f'<label>{side}<select aria-label="{label}" autocomplete="off">{options}</select></label>')
    return "".join(sides)
