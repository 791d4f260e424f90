"""Parts of a job, by `--shard` and by torchrun, give what one run gives."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from evaluation_material import RATIO, encoded, gray_light, make_weights, write_raw
from typer.testing import CliRunner

from lowlight.cli import app
from lowlight.core.errors import UsageError
from lowlight.core.photo import RGGB, Picture
from lowlight.restorer import RestorerOptions
from lowlight.workflows.enhancing.enhance import enhance_files
from lowlight.workflows.enhancing.inputs import find_photos
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.evaluating.evaluate import evaluate_methods
from lowlight.workflows.evaluating.methods import EvaluateOptions
from lowlight.workflows.evaluating.pair_lists import Selection, open_pair_list
from lowlight.workflows.evaluating.protocols import find_protocol
from lowlight.workflows.evaluating.together import join_reports
from lowlight.workflows.sharding import Shard
from lowlight.writers import write_picture
from lowlight.writers.cfa_dng import write_cfa_dng

BOTH = (Shard(1, 2), Shard(2, 2))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos, two of them with one name but for their suffix, each as bright as no other; and a broken one."""
    folder = tmp_path_factory.mktemp("night")
    for place, light in (("a.dng", 20), ("a.nef", 40), ("b.dng", 320)):
        mosaic = np.full((64, 64), 512 + light, np.uint16)
        write_cfa_dng(folder / place, mosaic, pattern=RGGB, black=(512,) * 4, white=16383, wb=(2.0, 1, 1.5, 1))
    (folder / "broken.dng").write_bytes(b"no photo")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def bare(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "seconds": None, "output": Path(row["output"]).name}


def test_two_shards_give_the_names_and_bytes_of_one_run(tree: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """One ratio for all is that of the whole folder, and names that collide do so across shards."""
    photos = find_photos([str(tree)])
    alone = EnhanceOptions(
        out=tmp_path / "alone",
        weights=tiny_weights,
        ratio="same",
        device="cpu",
        restorer=RestorerOptions(precision="fp32"),
    )
    whole = enhance_files(photos, alone)
    shared = replace(alone, out=tmp_path / "shared")
    rows: list[dict[str, Any]] = []
    heard: list[tuple[int, int]] = []
    for part in BOTH[::-1]:
        mine = replace(shared, shard=part)
        found = enhance_files(photos, mine, on_meter=lambda done, total: heard.append((done, total)))
        assert len(found) == part.size(len(photos)) == 2
        assert heard == [(done, 4) for done in range(5)]
        heard.clear()
        rows += found
    assert sorted(files(shared.out)) == ["a.dng.png", "a.nef.png", "b.png"]
    assert files(shared.out) == files(alone.out)
    assert sorted(map(bare, rows), key=str) == sorted(map(bare, whole), key=str)
    again = enhance_files(photos, replace(shared, shard=BOTH[0]))
    assert [row["status"] for row in again] == ["skipped", "skipped"]


def test_contact_sheets_are_not_made_of_a_shard(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without --shard"):
        EnhanceOptions(out=tmp_path, contact_sheet=True, shard=BOTH[0])


def test_the_command_counts_its_own_photos_and_says_where_the_time_went(
    tree: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = ["enhance", str(tree), "-o", str(tmp_path), "--weights", str(tiny_weights), "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--shard", "1/2", "--profile"])
    assert done.exit_code == 0, done.output
    assert "done     1/2" in done.stdout and "done     2/2" in done.stdout
    said = next(line for line in done.stderr.splitlines() if "of which" in line)
    assert all(f"{stage} " in said for stage in ("load", "read", "network", "merge", "encode"))
    left = CliRunner().invoke(app, [*words, "--dry-run"])
    assert left.stdout.count("skipped") == 2 and left.stdout.count("planned") == 2
    assert CliRunner().invoke(app, [*words, "--shard", "5/5", "--json"]).stdout == "[\n]\n"
    for more in (["--shard", ""], ["--shard", "3/2"], ["--ray", "auto", "--profile"]):
        assert isinstance(CliRunner().invoke(app, [*words, *more]).exception, UsageError), more


@pytest.mark.parametrize("found", [None, ModuleType("ray")])  # a folder called ray is imported as an empty module
def test_a_missing_ray_is_said_in_a_sentence(
    tree: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "ray", found)
    words = ["enhance", str(tree), "-o", str(tmp_path / "out"), "--weights", str(tiny_weights), "--ray", "auto"]
    ended = CliRunner().invoke(app, words)
    assert isinstance(ended.exception, UsageError) and "pip install 'ray>=2.40'" in str(ended.exception)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    light = gray_light(48, 64)
    lines = ["scene,split,dark,bright,ratio,iso,burst_index"]
    write_picture(folder / "full.png", Picture(encoded(light)))
    for index in range(3):
        write_raw(folder / f"{index}.dng", light, RATIO, 0.1)
        lines.append(f"s{index},test,{index}.dng,full.png,{RATIO},800,0")
    path = folder / "pairs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_pairs_of_all_shards_are_those_of_one_run(manifest: Path) -> None:
    protocol = find_protocol("half")
    whole = open_pair_list(manifest, protocol)
    lists = [open_pair_list(manifest, protocol, Selection(shard=part)) for part in BOTH]
    assert sorted((row for each in lists for row in each.rows), key=whole.rows.index) == list(whole.rows)
    assert [each.facts["shard"] for each in lists] == ["1/2", "2/2"] and "shard" not in whole.facts
    assert [each.facts["pairs"] for each in lists] == [2, 1]
    assert {each.facts["pairs_of_all_shards"] for each in lists} == {3}
    assert {each.facts["list_sha256"] for each in lists} == {whole.facts["list_sha256"]}
    with pytest.raises(UsageError, match="at most 3"):
        open_pair_list(manifest, protocol, Selection(shard=Shard(4, 4)))


def test_rows_of_shards_can_be_put_one_after_another(manifest: Path, tmp_path: Path) -> None:
    weights = make_weights(tmp_path / "w.safetensors", 2)
    words = ["eval", str(manifest), "--weights", str(weights), "--device", "cpu", "--precision", "fp32"]
    scored: dict[str, list[dict[str, Any]]] = {}
    for name, more in (("whole", []), ("1", ["--shard", "1/2"]), ("2", ["--shard", "2/2"])):
        rows, report = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.json"
        ended = CliRunner().invoke(app, [*words, *more, "--rows", str(rows), "--json", str(report)])
        assert ended.exit_code == 0, ended.output
        scored[name] = [json.loads(line) for line in rows.read_text().splitlines()]
        assert json.loads(report.read_text())["settings"].get("shard") == (more[1] if more else None)
    parts = [*scored["1"], *scored["2"]]
    assert sorted(row.pop("shard") for row in parts) == ["1/2", "1/2", "2/2"]
    for row in (*parts, *scored["whole"]):
        del row["seconds"]
    assert sorted(parts, key=str) == sorted(scored["whole"], key=str)


def test_reports_of_processes_are_put_together_in_the_order_of_the_pairs(manifest: Path, tmp_path: Path) -> None:
    pairs = open_pair_list(manifest, find_protocol("half"))
    options = EvaluateOptions(weights=make_weights(tmp_path / "w.safetensors", 2), device="cpu", precision="fp32")
    whole, *parts = (
        evaluate_methods(replace(pairs, rows=pairs.rows[which]), [options])[0]
        for which in (slice(None), slice(0, None, 2), slice(1, None, 2))
    )
    joined = join_reports(parts)
    for report in (whole, joined):
        report["mean"].pop("seconds", None)
        for row in report["rows"]:
            del row["seconds"]
    assert joined["rows"] == whole["rows"] and [row["dark"] for row in whole["rows"]] == ["0.dng", "1.dng", "2.dng"]
    assert joined["statistics"]["luminance"] == whole["statistics"]["luminance"]
    assert joined["mean"].items() >= {name: whole["mean"][name] for name in ("psnr", "ssim", "count")}.items()
    assert joined["settings"]["pairs"] == 3 and joined["settings"]["processes"] == 2


@pytest.mark.slow
def test_torchrun_scores_as_one_process(manifest: Path, tmp_path: Path) -> None:
    weights = make_weights(tmp_path / "w.safetensors", 2)
    found = {}
    for processes in (1, 2):
        out = tmp_path / str(processes)
        words = ["-m", "lowlight", "eval", manifest, "--weights", weights, "--device", "cpu", "--precision", "fp32"]
        done = processes_of(processes, *words, "--json", f"{out}.json", "--rows", f"{out}.jsonl", "--report", out)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("mean of 3") == 1
        rows = [json.loads(line) for line in Path(f"{out}.jsonl").read_text().splitlines()]
        found[processes] = (
            [{**row, "seconds": None} for row in rows],
            json.loads(Path(f"{out}.json").read_text())["mean"],
        )
        assert (out / "index.html").read_text().count("2.dng") > 0
    (rows, mean), (their_rows, their_mean) = found.values()
    assert rows == their_rows and mean["psnr"] == their_mean["psnr"]
    refused = processes_of(2, "-m", "lowlight", "eval", "--pictures", tmp_path, tmp_path)
    assert refused.returncode != 0 and "without torchrun" in refused.stderr


def processes_of(count: int, *words: object) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOWLIGHT_")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    command = [sys.executable, *launcher, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
