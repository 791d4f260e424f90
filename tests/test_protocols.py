"""Protocols, selections, versions, strategies, unmerged tiles and the posterior's pictures."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_material import RATIO, encoded, gray_light, make_weights, write_raw
from typer.testing import CliRunner

from lowlight.burst import align
from lowlight.checkpoint import load_weights
from lowlight.cli import app
from lowlight.core.errors import DataError, UsageError, WeightsError
from lowlight.core.photo import BGGR, GBRG, GRBG, RGGB, CfaPattern, Picture, RawFrame
from lowlight.data.pairs import Pair, list_sha256
from lowlight.ops.resize import mean_of_blocks
from lowlight.ops.tiling import GridRule
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.evaluating.clocks import MergeClock
from lowlight.workflows.evaluating.evaluate import evaluate, evaluate_methods, several_reports
from lowlight.workflows.evaluating.methods import EvaluateOptions, chosen_on
from lowlight.workflows.evaluating.pair_lists import Selection, open_pair_list
from lowlight.workflows.evaluating.protocols import PROTOCOLS, find_protocol
from lowlight.workflows.evaluating.scoring import rounded_to_8_bits, score
from lowlight.workflows.evaluating.tile_scores import tile_pictures
from lowlight.workflows.evaluating.weight_lists import expand_weights, with_strategies
from lowlight.workflows.pairing.sid_tree import SidTreeOptions, write_sid_tree
from lowlight.workflows.sharding import parse_shard
from lowlight.writers import write_picture
from lowlight.writers.cfa_dng import write_cfa_dng


@pytest.fixture(scope="module")
def sid_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real pair of files under the names of a burst's frames, a misaligned scene and another split."""
    folder = tmp_path_factory.mktemp("pairs")
    light = gray_light(64, 96)
    write_raw(folder / "dark.dng", light, RATIO, 0.1)
    write_picture(folder / "full.png", Picture(encoded(light)))
    lines = ["scene,split,dark,bright,ratio,iso,burst_index"]
    for scene, split, index, iso in (
        ("10003", "test", 0, 100),
        ("10003", "test", 1, 100),
        ("10034", "test", 0, 800),
        ("10034", "test", 1, 800),
        ("00001", "train", 0, 12800),
    ):
        lines.append(f"{scene},{split},dark.dng,full.png,{RATIO},{iso},{index}")
    path = folder / "pairs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights") / "full.safetensors", 2, posterior=True)


@pytest.mark.parametrize(
    ("name", "scenes"),
    [
        ("half", ["00001", "10003", "10003"]),
        ("paper", ["00001", "10003", "10003", "10034", "10034"]),
        ("first-frame", ["00001", "10003", "10034"]),
        ("562", ["00001", "10003", "10003"]),
        ("patches", ["00001", "10003", "10003"]),
    ],
)
def test_a_protocol_names_its_pairs(sid_manifest: Path, name: str, scenes: list[str]) -> None:
    chosen = open_pair_list(sid_manifest, find_protocol(name))
    assert sorted(row.scene for row in chosen.rows) == scenes
    assert chosen.facts["pairs"] == len(scenes)
    assert len(chosen.facts["list_sha256"]) == 64


def test_selections_narrow_or_widen_a_protocol(sid_manifest: Path, tmp_path: Path) -> None:
    def scenes(protocol: str, **selection: object) -> list[str]:
        chosen = open_pair_list(sid_manifest, find_protocol(protocol), Selection(**selection))  # type: ignore[arg-type]
        return [row.scene for row in chosen.rows]

    assert scenes("half", split="test") == ["10003", "10003"]
    assert scenes("half", split="test", include_misaligned=True) == ["10003", "10003", "10034", "10034"]
    (tmp_path / "exclude.txt").write_text("# packing\n10003\n")
    assert scenes("paper", exclude=tmp_path / "exclude.txt") == ["10034", "10034", "00001"]
    with pytest.raises(UsageError, match="--protocol paper"):
        scenes("562", include_misaligned=True)
    with pytest.raises(DataError):
        scenes("half", split="val")
    with pytest.raises(UsageError, match="first-frame"):
        find_protocol("full")


def test_the_hash_of_a_list_knows_its_pairs_not_their_order() -> None:
    pairs = [("a", "1.dng"), ("b", "2.dng")]
    assert list_sha256(pairs) == list_sha256(reversed(pairs))
    assert list_sha256(pairs) != list_sha256(pairs[:1]) != list_sha256([("b", "1.dng")])


def test_a_folder_of_the_set_is_scored_on_its_test_split(tmp_path: Path) -> None:
    write_sid_tree(tmp_path, SidTreeOptions(scenes=(("0", 1), ("1", 1)), exposures_s=(0.1,)))
    for protocol in ("half", "paper"):  # the truth is rendered at either size
        report = evaluate(tmp_path, EvaluateOptions(baseline="amplified", protocol=protocol))
        (row,) = report["rows"]
        assert (row["scene"][0], row["ratio"], row["iso"]) == ("1", 100, 200)
        assert report["mean"]["count"] == 1 and row["psnr"] > 10
        assert (report["settings"]["split"], report["settings"]["manifest_sha256"]) == ("test", None)


def test_paper_rounds_pictures_to_8_bits_and_says_so(sid_manifest: Path) -> None:
    assert rounded_to_8_bits(np.array([0, 128, 129, 257 + 128, 65535 - 129, 65535], np.uint16)).tolist() == [
        *(0, 0, 257, 257),
        *(65278, 65535),
    ]
    truth = np.full((16, 16, 3), 100 * 257, np.uint16)
    assert score(truth + np.uint16(100), truth, bits=8)["psnr"] is None, "rounds back to the truth"
    assert score(truth + np.uint16(100), truth)["psnr"] == pytest.approx(20 * np.log10(655.35))
    paper = evaluate(sid_manifest, EvaluateOptions(baseline="amplified", protocol="paper"))
    plain = evaluate(sid_manifest, EvaluateOptions(baseline="amplified", size="full"))
    assert "8 bits" in paper["settings"]["rounding"] and "8 bits" not in plain["settings"]["rounding"]
    assert (paper["settings"]["protocol"], plain["settings"]["protocol"]) == ("paper", "half at full size")
    assert 0 < abs(paper["mean"]["mae"] - plain["mean"]["mae"]) < 1e-3


def test_a_gray_picture_is_compared_with_the_luma() -> None:
    truth = np.zeros((16, 16, 3), np.uint16)
    truth[..., 1] = 65535
    gray = np.full((16, 16, 1), round(0.7154 * 65535), np.uint16)
    values = score(gray, truth)
    assert values["mae"] < 1e-5 and values["colour_error"] is None


@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize("pattern", [RGGB, GRBG, GBRG, BGGR])
def test_unmerged_tiles_are_parts_of_the_picture(pattern: CfaPattern, upscale: int, tmp_path: Path) -> None:
    """With tiles side by side nothing is merged: their scores' mean must be near the whole picture's."""
    from lowlight.checkpoint import load_weights

    model, _ = load_weights(make_weights(tmp_path / "w.safetensors", upscale, init="kaiming"))
    restorer = Restorer(model, RestorerOptions(grid=GridRule(overlap=0), precision="fp32", size="half"), "cpu")
    rng = np.random.default_rng(0)
    mosaic = (512 + 400 * gray_light(1023, 510) + rng.normal(0, 3, (1023, 510))).astype(np.uint16)
    frame = RawFrame(
        mosaic=mosaic,
        pattern=pattern,
        black=(512,) * 4,
        white=(16383,) * 4,
        wb=(2.0, 1.0, 1.5, 1.0),
        wb_source="camera",
        camera_to_srgb=None,
    )
    whole = restorer.photo(frame, RATIO).pixels
    pair = Pair("dark", "", frame, whole, RATIO)
    tiles = list(tile_pictures(restorer, pair))
    assert len(tiles) == 2
    for tile, part in tiles:
        assert tile.shape == part.shape
        # The second tile begins where the first ends, or overlaps it by the odd row of the padding.
        middle = (slice(4, -4), slice(4, -4))
        assert np.abs(tile[middle].astype(int) - part[middle]).mean() <= 1.0, "the whole picture has the same tiles"


def test_unmerged_tiles_start_where_the_latents_do(tmp_path: Path) -> None:
    from lowlight.checkpoint import load_weights

    model, _ = load_weights(make_weights(tmp_path / "w.safetensors", 1, init="kaiming"))
    model.traits = replace(model.traits, latent_stride=64)  # type: ignore[arg-type, assignment]
    restorer = Restorer(model, RestorerOptions(grid=GridRule(overlap=0), precision="fp32"), "cpu")
    mosaic = (512 + 400 * gray_light(600, 510)).astype(np.uint16)
    levels = {"black": (512,) * 4, "white": (16383,) * 4, "wb": (2.0, 1.0, 1.5, 1.0)}
    frame = RawFrame(mosaic=mosaic, pattern=RGGB, wb_source="camera", camera_to_srgb=None, **levels)  # type: ignore[arg-type]
    numbered = np.broadcast_to(np.arange(300, dtype=np.uint16)[:, None, None], (300, 255, 3))
    parts = [part for _, part in tile_pictures(restorer, Pair("dark", "", frame, numbered, RATIO))]
    assert [(int(part.min()), int(part.max())) for part in parts] == [(0, 255), (64, 299)]
    assert MergeClock(restorer).seconds(frame) > 0


def test_patches_weigh_every_tile_alike(sid_manifest: Path, weights: Path) -> None:
    report = evaluate(sid_manifest, EvaluateOptions(weights=weights, protocol="patches", device="cpu"))
    half = evaluate(sid_manifest, EvaluateOptions(weights=weights, device="cpu"))
    assert all(row["tiles"] == 1 for row in report["rows"])
    # A frame smaller than a tile is that tile, padding cut off.
    assert report["mean"]["psnr"] == pytest.approx(half["mean"]["psnr"], abs=1e-3)
    with pytest.raises(UsageError, match="amplified"):
        evaluate(sid_manifest, EvaluateOptions(baseline="amplified", protocol="patches"))


def test_several_methods_are_scored_on_the_same_pairs(sid_manifest: Path, weights: Path, tmp_path: Path) -> None:
    other = make_weights(tmp_path / "full.safetensors", 2, seed=1, init="kaiming")
    pairs = open_pair_list(sid_manifest, PROTOCOLS["half"])
    options = EvaluateOptions(weights=weights, device="cpu", precision="fp32")
    several = [*with_strategies(options, "all"), replace(options, weights=other)]
    reports = evaluate_methods(pairs, several)
    assert len({report["settings"]["name"] for report in reports}) == 5
    alone = evaluate(sid_manifest, options)
    assert reports[0]["mean"]["psnr"] == pytest.approx(alone["mean"]["psnr"], abs=1e-9)
    for report in reports[:4]:
        for row in report["rows"]:
            assert 0 < row["predict_seconds"] < row["seconds"] and row["merge_seconds"] > 0
    assert "predict_seconds" not in reports[4]["mean"]
    put_together = several_reports(reports, {"both": (0, 4)})
    assert [row["name"] for row in put_together["table"]] == [r["settings"]["name"] for r in reports]
    (versions,) = put_together["versions"]
    two = [reports[0]["mean"]["psnr"], reports[4]["mean"]["psnr"]]
    assert versions["mean"]["psnr"] == pytest.approx(np.mean(two))
    assert versions["deviation"]["psnr"] == pytest.approx(np.std(two, ddof=1))
    assert "weights_sha256" not in put_together["settings"] and put_together["settings"]["protocol"] == "half"
    with pytest.raises(UsageError, match="quickest"):
        with_strategies(options, "baseline,quickest")


def test_weights_of_one_pattern_or_one_model_are_versions(tmp_path: Path) -> None:
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        for epoch in (1, 2):
            trained = {"objective": "l1" if run == "a" else "cvae"}
            make_weights(tmp_path / run / f"epoch-{epoch}.safetensors", 1, trained=trained)
    pattern = tmp_path / "*" / "epoch-?.safetensors"
    single = tmp_path / "a" / "epoch-1.safetensors"
    found = expand_weights([single, pattern])
    assert len(found.files) == 5 and found.groups == {str(pattern): (1, 2, 3, 4)}
    by_model = expand_weights([pattern], versions=True)
    assert by_model.groups == {"sid-net, l1": (0, 1), "sid-net, cvae": (2, 3)}
    with pytest.raises(UsageError, match="no file"):
        expand_weights([tmp_path / "none-*.safetensors"])
    with pytest.raises(WeightsError, match="no weights file in"):
        expand_weights([tmp_path])
    best = make_weights(tmp_path / "a" / "best.safetensors", 1)
    assert expand_weights([tmp_path / "a"]).files == (best,)


def test_the_posterior_is_seen_and_must_be_there(sid_manifest: Path, weights: Path, tmp_path: Path) -> None:
    options = EvaluateOptions(weights=weights, device="cpu", precision="fp32", oracle=True, size="full")
    report = evaluate(sid_manifest, options)
    assert "error" not in report["rows"][0], report["rows"][0]
    mean = report["mean"]
    # Untrained heads give latents near 0: both pictures exist and are nearly, but not quite, the same.
    assert mean["oracle_psnr"] == pytest.approx(mean["psnr"], abs=0.5)
    without = make_weights(tmp_path / "prior.safetensors", 2)
    with pytest.raises(WeightsError, match="posterior encoder"):
        evaluate(sid_manifest, replace(options, weights=without))


def test_the_oracle_of_latents_that_depend_on_each_other_is_refused() -> None:
    from lowlight.models import build_model, model_config
    from lowlight.workflows.evaluating.oracle import Oracle

    options = {"base_channels": 8, "channel_cap": 16}
    network = build_model("fusion-raw", model_config("fusion-raw", options))
    with pytest.raises(UsageError, match="one latent"):
        Oracle(network, RestorerOptions(precision="fp32"), torch.device("cpu"))


@pytest.mark.parametrize("latent_stride", [1, 64])
def test_the_oracle_gives_each_tile_its_own_truth(latent_stride: int, tmp_path: Path) -> None:
    """A network whose picture is its posterior's target shows that tiles and truths meet."""
    from lowlight.checkpoint import load_weights
    from lowlight.core.restoration import Gaussian
    from lowlight.workflows.evaluating.oracle import Oracle

    model, _ = load_weights(make_weights(tmp_path / "w.safetensors", 1, posterior=True, base="none"))
    model.traits = replace(model.traits, latent_stride=latent_stride)  # type: ignore[arg-type, assignment]
    light = gray_light(600, 580)
    mosaic = (512 + 400 * light).astype(np.uint16)
    levels = {"black": (512,) * 4, "white": (16383,) * 4, "wb": (2.0, 1.0, 1.5, 1.0)}
    for pattern in (RGGB, BGGR):
        frame = RawFrame(mosaic=mosaic, pattern=pattern, wb_source="camera", camera_to_srgb=None, **levels)  # type: ignore[arg-type]
        truth = mean_of_blocks(encoded(light))
        model.posterior = lambda target: Gaussian(target, torch.zeros_like(target))  # type: ignore[method-assign, assignment]
        model.decode = lambda z, condition: z  # type: ignore[method-assign, assignment]
        picture = Oracle(model, RestorerOptions(precision="fp32"), torch.device("cpu")).picture(
            Pair("dark", "", frame, truth, RATIO)
        )
        assert np.abs(picture.astype(int) - truth)[:-1, :-1].max() <= 1


def test_weights_chosen_on_the_scored_pairs_are_marked() -> None:
    def header(validation: dict[str, object]) -> dict[str, object]:
        return {"scores": {"validation": validation}}

    assert chosen_on({}, "x") == {"chosen_on_test": False, "chosen": None}
    assert chosen_on(header({"pairs": 16, "psnr": 30}), "x")["chosen_on_test"] is None
    assert "16 validation pairs" in chosen_on(header({"pairs": 16}), "x")["chosen"]
    assert chosen_on(header({"list_sha256": "x"}), "x")["chosen_on_test"] is True
    assert chosen_on(header({"list_sha256": "y"}), "x")["chosen_on_test"] is None
    told = header({"list_sha256": "y", "pair_hashes": ["a", "b"]})
    assert chosen_on(told, "x", ["c", "d"])["chosen_on_test"] is False
    some = chosen_on(told, "x", ["b", "c", "d"])
    assert some["chosen_on_test"] is True and "1 of these 3 pairs" in some["chosen"]


def test_the_command_compares_and_writes_rows(sid_manifest: Path, weights: Path, tmp_path: Path) -> None:
    same = list_sha256([("10003", "dark.dng"), ("10003", "dark.dng"), ("00001", "dark.dng")])
    chosen = make_weights(tmp_path / "chosen.safetensors", 2, scores={"validation": {"list_sha256": same}})
    out = {suffix: tmp_path / f"rows.{suffix}" for suffix in ("json", "csv", "jsonl")}
    arguments = ["eval", str(sid_manifest), "--weights", str(weights), "--weights", str(chosen), "--device", "cpu"]
    files = ["--json", str(out["json"]), "--rows", str(out["csv"]), "--rows", str(out["jsonl"])]
    result = CliRunner().invoke(app, [*arguments, *files], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    report = json.loads(out["json"].read_text())
    assert [m["settings"]["chosen_on_test"] for m in report["methods"]] == [False, True]
    assert all({"rows", "mean", "settings"} <= method.keys() for method in report["methods"])
    assert "chosen.safetensors *" in result.stdout and "these very pairs" in " ".join(result.stdout.split())
    lines = [json.loads(line) for line in out["jsonl"].read_text().splitlines()]
    assert len(lines) == 6 and {line["method"] for line in lines} == {"full.safetensors", "chosen.safetensors"}
    assert len(out["csv"].read_text().splitlines()) == 7
    wrong = [
        ["--rows", str(tmp_path / "rows.txt")],
        ["--strategies", "all", "--stride", "100"],
        ["--protocol", "patches", "--strategies", "all"],
        ["--protocol", "patches", "--oracle-posterior"],
        ["--protocol", "562", "--include-misaligned"],
        ["--shard", "3"],
        ["--shard", "4/4"],
    ]
    for more in wrong:
        assert isinstance(CliRunner().invoke(app, [*arguments, *more]).exception, UsageError), more


def test_a_pair_whose_oracle_fails_is_not_scored_by_half(
    sid_manifest: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lowlight.workflows.evaluating.oracle import Oracle

    def fail(*_: object) -> None:
        raise DataError("no truth of this size")

    monkeypatch.setattr(Oracle, "picture", fail)
    options = EvaluateOptions(weights=weights, device="cpu", precision="fp32", oracle=True, size="full")
    report = evaluate(sid_manifest, options)
    for row in report["rows"]:
        assert row["error"] == "no truth of this size" and "psnr" not in row and "predict_seconds" not in row
    assert report["mean"]["count"] == 0 and not any(report["statistics"]["luminance"]["pictures"])


def test_pinned_levels_hold_for_every_dark_frame(tmp_path: Path) -> None:
    light, ratio = gray_light(64, 96), 4.0
    mosaic = 512 + (16383 - 512) * light / ratio
    for name, black, white in (("true.dng", 512.0, 16383), ("wrong.dng", 600.0, 15000)):
        pixels, wb = mosaic.round().astype(np.uint16), (1.0, 1.0, 1.0, 1.0)
        write_cfa_dng(tmp_path / name, pixels, pattern=RGGB, black=(black,) * 4, white=white, wb=wb, exposure_s=0.1)
    write_picture(tmp_path / "truth.png", Picture(encoded(light)))
    lines = [f"{name},truth.png,{ratio}" for name in ("true.dng", "wrong.dng")]
    (tmp_path / "pairs.csv").write_text("\n".join(["dark,bright,ratio", *lines]) + "\n")
    found = {}
    for levels in ("", "sony-sid"):
        command = ["eval", str(tmp_path / "pairs.csv"), "--baseline", "amplified", "--json", "-", "--levels", levels]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        found[levels] = json.loads(done.stdout)
    true, wrong = (row["psnr"] for row in found[""]["rows"])
    assert wrong < true - 3 and found[""]["settings"].get("levels") is None
    assert [row["psnr"] for row in found["sony-sid"]["rows"]] == pytest.approx([true, true], abs=1e-3)
    assert found["sony-sid"]["settings"]["levels"] == "sony-sid"
    with pytest.raises(UsageError, match="no levels called 'nikon'; there are sony-sid"):
        open_pair_list(tmp_path / "pairs.csv", find_protocol("half"), Selection(levels="nikon"))


@pytest.fixture(scope="module")
def burst_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two test scenes in SID's layout, of four noisy dark frames each, two exposures."""
    folder = tmp_path_factory.mktemp("bursts")
    write_sid_tree(folder, SidTreeOptions(scenes=(("1", 2),), frames=2, size=(192, 224)))
    return folder


def test_several_frames_of_a_scene_are_fused_and_scored(burst_tree: Path, weights: Path, tmp_path: Path) -> None:
    rows_file = tmp_path / "rows.csv"
    command = ["eval", str(burst_tree), "--weights", str(weights), "--frames", "4, 1,2", "--size", "half"]
    done = CliRunner().invoke(app, [*command, "--json", "-", "--rows", str(rows_file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    reports = json.loads(done.stdout)["methods"]
    assert [report["settings"]["name"] for report in reports] == [
        f"full.safetensors, {words}" for words in ("1 frame", "2 frames", "4 frames")
    ]
    assert [[row["frames"] for row in report["rows"]] for report in reports] == [[1, 1], [2, 2], [4, 4]]
    assert {(report["settings"]["pairs"], report["settings"]["frames_left_out"]) for report in reports} == {(2, 0)}
    pair = open_pair_list(burst_tree, find_protocol("half"), Selection(frames=4)).load(1, "half")
    restorer = Restorer(load_weights(weights)[0], RestorerOptions(size="half"))
    for report, count in zip(reports, (1, 2, 4), strict=True):
        fused = restorer.photo(align([pair.frame, *pair.others][:count]), pair.ratio).pixels
        assert report["rows"][1]["psnr"] == pytest.approx(score(fused, pair.truth, 16)["psnr"], abs=1e-3)
    assert len({report["rows"][1]["psnr"] for report in reports}) == 3
    one = evaluate(burst_tree, EvaluateOptions(weights=weights, size="half"))["rows"]
    alone = {row["dark"]: row["psnr"] for row in one}
    assert all(row["psnr"] == pytest.approx(alone[row["dark"]], abs=1e-3) for row in reports[0]["rows"])
    assert rows_file.read_text().splitlines()[0].count("frames") == 1


def test_what_cannot_be_fused_is_refused(burst_tree: Path, weights: Path) -> None:
    for options, sentence in (
        (["--frames", "5"], "no scene of .* has 5 dark frames, the most is 4"),
        (["--frames", "0,1"], "expected numbers of frames with commas between"),
        (["--frames", "2", "--strategies", "all"], "two comparisons"),
        (["--frames", "2", "--oracle-posterior"], "--frames fuses frames with a network"),
        (["--frames", "2", "--protocol", "patches"], "--frames fuses frames with a network"),
    ):
        done = CliRunner().invoke(app, ["eval", str(burst_tree), "--weights", str(weights), *options])
        assert isinstance(done.exception, (UsageError, DataError)), options
        assert re.search(sentence, str(done.exception)), done.exception


def test_parts_of_scenes_are_all_scenes(burst_tree: Path) -> None:
    whole = open_pair_list(burst_tree, find_protocol("half"), Selection(frames=3))
    assert [len(others) for others in whole.others] == [2, 2] and whole.facts["frames_left_out"] == 2
    assert len({row.dark for row in whole.every_row}) == 6
    mine = whole.part(1, 2)
    assert (mine.rows, mine.others) == (whole.rows[1:], whole.others[1:])
    pair = whole.load(0, "half")
    assert len(pair.others) == 2 and pair.others[0].size == pair.frame.size
    parts = [
        open_pair_list(burst_tree, find_protocol("half"), Selection(frames=3, shard=parse_shard(f"{part}/2")))
        for part in (1, 2)
    ]
    assert sorted(row.dark.name for part in parts for row in part.rows) == sorted(row.dark.name for row in whole.rows)
    assert {part.facts["list_sha256"] for part in parts} == {whole.facts["list_sha256"]}
