"""What `lowlight eval` does not take, and what it never writes over."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_material import RATIO, encoded, gray_light, make_weights, write_raw
from typer.testing import CliRunner

from lowlight.cli import app
from lowlight.cli.eval_refusals import ENSEMBLES
from lowlight.core.errors import DataError, LowlightError, UsageError
from lowlight.core.photo import Picture
from lowlight.data.pairs import read_manifest
from lowlight.views import VIEWS
from lowlight.workflows.evaluating.methods import EvaluateOptions
from lowlight.writers import write_picture

HEAD = "scene,split,dark,bright,ratio,iso,burst_index\n"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """One pair, beside a file that leaves nothing out."""
    light = gray_light(64, 96)
    write_raw(tmp_path / "dark.dng", light, RATIO, 0.1)
    write_picture(tmp_path / "full.png", Picture(encoded(light)))
    (tmp_path / "exclude.txt").write_text("# nothing\n")
    (tmp_path / "pairs.csv").write_text(f"{HEAD}a,test,dark.dng,full.png,{RATIO},,0\n")
    return tmp_path / "pairs.csv"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights") / "full.safetensors", 2, posterior=True)


def evaluate(*words: object, **environment: str) -> Any:
    done = CliRunner().invoke(app, ["eval", *map(str, words)], env={"COLUMNS": "200", **environment})
    if isinstance(done.exception, LowlightError):
        raise done.exception
    return done


@pytest.mark.parametrize("name", ["pairs.csv", "dark.dng", "full.png", "exclude.txt", "own.safetensors", "log.jsonl"])
@pytest.mark.parametrize("option", ["--json", "--rows"])
def test_inputs_are_never_written_over(manifest: Path, weights: Path, name: str, option: str) -> None:
    folder = manifest.parent
    (folder / "own.safetensors").write_bytes(weights.read_bytes())
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    before = (folder / name).read_bytes()
    target = folder / name
    if option == "--rows" and target.suffix not in (".csv", ".jsonl"):
        target = folder / f"{name}.csv"  # another name of the same file
        target.hardlink_to(folder / name)
    words = (manifest, "--weights", folder / "own.safetensors", "--exclude", folder / "exclude.txt", "--device", "cpu")
    with pytest.raises(UsageError, match="would replace a file that it is made from"):
        evaluate(*words, option, target)
    assert (folder / name).read_bytes() == before


def test_pictures_are_never_written_over_and_tables_beside_them_are(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write_picture(folder / "x.png", Picture(encoded(gray_light(32, 32))))
    before = (folders[1] / "x.png").read_bytes()
    with pytest.raises(UsageError, match="would replace"):
        evaluate("--pictures", *folders, "--json", folders[1] / "x.png")
    assert (folders[1] / "x.png").read_bytes() == before
    (folders[0] / "scores.json").write_text('{"rows": "of yesterday", "settings": 0}')
    assert evaluate("--pictures", *folders, "--json", folders[0] / "scores.json").exit_code == 0
    assert json.loads((folders[0] / "scores.json").read_text())["mean"]["count"] == 1


@pytest.mark.parametrize("column", ["ratio", "iso", "burst_index"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "much"])
def test_manifests_hold_numbers_only(tmp_path: Path, column: str, value: str) -> None:
    cells = {"ratio": "20", "iso": "", "burst_index": "0", column: value}
    path = tmp_path / "pairs.csv"
    path.write_text(f"{HEAD}a,test,d.dng,b.png,{','.join(cells.values())}\n")
    with pytest.raises(DataError, match=f"line 2: {column} is '{value}'; expected a number or nothing"):
        read_manifest(path)


def test_a_sensitivity_of_nothing_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"{HEAD}a,test,d.dng,b.png,20,0,0\na,test,e.dng,b.png,20,-1,0\n")
    assert [row.iso for row in read_manifest(path)] == [None, None]


def test_a_place_in_a_burst_is_a_whole_number(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"{HEAD}a,test,d.dng,b.png,20,1e2,2.0\n")
    (row,) = read_manifest(path)
    assert (row.iso, row.burst_index) == (100.0, 2)
    path.write_text(f"{HEAD}a,test,d.dng,b.png,20,,1.5\n")
    with pytest.raises(DataError, match=r"burst_index is 1\.5; expected a whole number"):
        read_manifest(path)


@pytest.mark.parametrize("what", [{"oracle": True}, {"protocol": "patches"}])
def test_scores_of_one_view_take_no_more_of_them(what: dict[str, Any]) -> None:
    for more in ({"ensemble": 4}, {"detail": True}):
        with pytest.raises(UsageError, match="one view of a photo without detail; leave out --"):
            EvaluateOptions(**what, **more)
    assert EvaluateOptions(**what, ensemble=1, detail=False).one_view
    assert not EvaluateOptions(ensemble=4, detail=True).one_view


def test_scores_of_one_view_say_so(manifest: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    words = (manifest, "--weights", weights, "--device", "cpu", "--json", out)
    for more in (("--protocol", "patches"), ("--oracle-posterior", "--size", "full")):
        assert "Scored is one view without detail" in " ".join(evaluate(*words, *more).stdout.split())
        settings = json.loads(out.read_text())["settings"]
        assert (settings["ensemble"], settings["detail"]) == (1, False) and "one view" in settings["views"]
    assert "one view" not in evaluate(*words).stdout


def test_patches_have_packed_size() -> None:
    with pytest.raises(UsageError, match="patches measures tiles at packed size; leave out --size full"):
        EvaluateOptions(protocol="patches", size="full")
    assert EvaluateOptions(protocol="patches", size="half").compared_size == "half"


@pytest.mark.parametrize(
    "words",
    [
        *(("--weights", "w.safetensors"), ("--model", "sid-net"), ("--baseline", "amplified"), ("--protocol", "paper")),
        *(("--size", "full"), ("--split", "test"), ("--strategies", "all"), ("--strategy", "fastest")),
        *(("--oracle-posterior",), ("--ensemble", "4"), ("--no-detail",), ("--rows", "r.csv"), ("--report", "r")),
        *(("--shard", "1/2"), ("--samples", "2"), ("--figures", "f"), ("--seed", "1"), ("--device", "cpu")),
    ],
    ids=lambda words: words[0],
)
def test_pictures_take_no_options_of_networks(tmp_path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"says nothing about two folders of pictures") as caught:
        evaluate("--pictures", tmp_path, tmp_path, *words)
    assert words[0].replace("--no-", "--") in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        *(("--detail",), ("--ensemble", "4"), ("--stride", "9"), ("--batch", "2"), ("--precision", "bf16")),
        *(("--strategy", "fastest"), ("--strategies", "all"), ("--versions",), ("--oracle-posterior",)),
    ],
    ids=lambda words: words[0],
)
def test_baselines_take_no_options_of_networks(manifest: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"{words[0]} is about networks, and the baseline amplified is none"):
        evaluate(manifest, "--baseline", "amplified", *words)


def test_options_in_the_environment_are_left_alone_where_they_say_nothing(manifest: Path) -> None:
    done = evaluate(manifest, "--baseline", "amplified", LOWLIGHT_ENSEMBLE="4", LOWLIGHT_STRATEGY="fastest")
    assert done.exit_code == 0, done.output


def test_weights_on_the_command_line_beat_a_baseline_in_the_environment(manifest: Path, weights: Path) -> None:
    words = (manifest, "--weights", weights, "--device", "cpu", "--json", "-")
    done = evaluate(*words, LOWLIGHT_BASELINE="amplified")
    assert json.loads(done.stdout)["settings"]["name"] == "full.safetensors"


def test_strategies_name_whole_tilings(manifest: Path, weights: Path) -> None:
    words = (manifest, "--weights", weights, "--device", "cpu", "--strategies", "fastest")
    with pytest.raises(UsageError, match="--strategies names whole tilings; leave out --strategy"):
        evaluate(*words, "--strategy", "baseline")
    assert "Seconds per photo" in evaluate(*words).stdout


def test_views_are_counted_before_anything_is_read(manifest: Path) -> None:
    assert tuple(VIEWS) == ENSEMBLES
    for more in ((), ("--protocol", "patches"), ("--oracle-posterior",)):
        with pytest.raises(UsageError, match="--ensemble is 3; expected 1, 2, 4, 8"):
            evaluate(manifest, "--ensemble", "3", *more)


@pytest.mark.parametrize("command", [("eval", "pairs.csv"), ("edit", "photo.dng")])
@pytest.mark.parametrize("seed", [-1, 2**32, 2**57])
def test_seeds_have_bounds(command: tuple[str, ...], seed: int) -> None:
    done = CliRunner().invoke(app, [*command, "--seed", str(seed)], env={"COLUMNS": "200", "NO_COLOR": "1"})
    bound = "greater than or equal to 0" if seed < 0 else "less than or equal to 4294967295"
    assert done.exit_code == 2 and bound in done.output
