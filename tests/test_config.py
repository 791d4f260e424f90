"""Configurations: strict in what they take, and the same after a trip through TOML."""

import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_material import tiny_values

from lowlight.cli.train import overrides
from lowlight.core.config import from_dict, parse_json, read_toml, to_dict, to_toml
from lowlight.core.errors import ConfigError
from lowlight.workflows.training.config import BUDGETS, TrainConfig, first_difference, load_config, resolve


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 1.0
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = "x"
    kind: Literal["a", "b"] = "a"
    count: int | None = None
    path: Path | None = None
    on: bool = False
    inner: Inner = field(default_factory=Inner)
    options: dict[str, Any] = field(default_factory=dict)


finite = st.floats(allow_nan=False, allow_infinity=False)
inners = st.builds(
    Inner, rate=finite, pair=st.tuples(finite, finite), many=st.lists(st.integers(-(2**62), 2**62)).map(tuple)
)
# Lone surrogates are no text that a file could hold; control characters have their own test.
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.just("\n"))
outers = st.builds(
    Outer,
    name=texts,
    kind=st.sampled_from(("a", "b")),
    count=st.none() | st.integers(0, 2**62),
    path=st.none() | st.just(Path("C:\\photos\\new")) | st.just(Path("a b/c")),
    on=st.booleans(),
    inner=inners,
    options=st.dictionaries(st.sampled_from(("p", "q")), st.integers() | st.booleans() | texts),
)


@given(outers)
def test_a_configuration_survives_toml(config: Outer) -> None:
    text = to_toml(to_dict(config))
    assert from_dict(Outer, tomllib.loads(text), "test") == config


def test_control_characters_survive_toml() -> None:
    name = "".join(map(chr, (*range(32), 127)))
    assert tomllib.loads(to_toml({"name": name})) == {"name": name}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"nmae": "y"}, "unknown key 'nmae' in here; did you mean 'name'"),
        ({"zzz": 1}, "unknown key 'zzz' in here; known are count, inner"),
        ({"inner": {"rat": 1}}, "unknown key 'rat' in inner in here; did you mean 'rate'"),
        ({"name": 3}, "name in here is 3; expected str"),
        ({"on": 1}, "on in here is 1; expected bool"),
        ({"count": True}, "count in here is True"),
        ({"count": 1.5}, "count in here is 1.5"),
        ({"kind": "c"}, "kind in here is 'c'; expected one of a, b"),
        ({"inner": 3}, "inner in here is 3; expected a section"),
        ({"inner": {"rate": "fast"}}, "rate in inner in here is 'fast'; expected float"),
        ({"inner": {"rate": True}}, "expected float"),
        ({"inner": {"rate": math.inf}}, "rate in inner in here is inf; expected a finite number"),
        ({"inner": {"pair": [0.0, math.nan]}}, "pair in inner in here is nan; expected a finite number"),
        ({"inner": {"pair": [1.0]}}, "has 1 values; expected 2"),
        ({"inner": {"pair": 1.0}}, "expected a list"),
        ({"inner": {"many": [1, "2"]}}, "is '2'; expected int"),
        ({"options": []}, r"options in here is \[\]"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        from_dict(Outer, values, "here")


@dataclass(frozen=True)
class Needy:
    name: str
    size: int
    note: str = ""


def test_what_is_missing_is_named() -> None:
    assert from_dict(Needy, {"name": "a", "size": 1}, "here") == Needy("a", 1)
    with pytest.raises(ConfigError, match="here lacks size; expected name, note, size"):
        from_dict(Needy, {"name": "a"}, "here")
    with pytest.raises(ConfigError, match=r"here is '\[1, 2\]'; expected keys"):
        from_dict(Needy, [1, 2], "here")  # type: ignore[arg-type]  # as a file of JSON may say


def test_whole_numbers_and_texts_become_what_the_field_is() -> None:
    config = from_dict(Outer, {"path": "a/b", "inner": {"rate": 2, "pair": [1, 2]}}, "here")
    assert config.path == Path("a/b")
    assert (config.inner.rate, config.inner.pair) == (2.0, (1.0, 2.0))
    assert isinstance(config.inner.rate, float)


def test_files_that_are_no_toml_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    with pytest.raises(ConfigError, match=r"cannot read .*run\.toml"):
        read_toml(path)
    for content in (b"a = ", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is not valid TOML"):
            read_toml(path)


def test_a_byte_order_mark_and_names_of_any_bytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b'\xef\xbb\xbfpath = "ph\xff"\n')
    assert read_toml(path) == {"path": "ph\udcff"}


def test_toml_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("a = " + 3000 * "[")
    with pytest.raises(ConfigError, match="nested too deeply"):
        read_toml(path)
    path.write_text("a = " + 5000 * "1")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(path)
    for text in ("{", 9999 * "[", 5000 * "1"):
        with pytest.raises(ConfigError, match="no valid JSON"):
            parse_json(text)
    assert overrides({}, ["run.steps=" + 3000 * "["])["run"]["steps"].startswith("[[[")


def run(**changes: dict[str, Any]) -> TrainConfig:
    values = tiny_values(Path("photos"))
    for section, change in changes.items():
        values[section] = {**values[section], **change}
    return resolve(values)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"run": {"minutes": 3.0}}, "either steps or minutes"),
        ({"run": {"steps": None}}, "either steps or minutes"),
        ({"run": {"steps": 0}}, "steps is 0; expected at least 1"),
        ({"run": {"steps": None, "minutes": 0.0}}, "minutes is 0.0; expected above 0"),
        ({"run": {"log_every": 0}}, "log_every is 0"),
        ({"run": {"seed": -1}}, "seed is -1"),
        ({"run": {"precision": "fp16"}}, "precision is fp16; expected one of auto, fp32, bf16"),
        ({"optimiser": {"batch": 0}}, "batch is 0"),
        ({"optimiser": {"ema": 1.0}}, "ema is 1.0"),
        ({"optimiser": {"learning_rate": math.inf}}, "learning_rate in .* is inf; expected a finite number"),
        ({"run": {"steps": None, "minutes": math.inf}}, "minutes in .* is inf; expected a finite number"),
        ({"optimiser": {"milestone": 0.25}}, "milestone is 0.25, which says nothing to the schedule cosine"),
        ({"optimiser": {"final": 0.1, "schedule": "milestone"}}, "choose the schedule cosine"),
        ({"optimiser": {"schedule": "linear"}}, "schedule in optimiser"),
        ({"optimiser": {"lr": 1.0}}, "unknown key 'lr' in optimiser"),
        ({"data": {"name": "sid"}}, "no dataset called 'sid'"),
        ({"data": {"options": {"ratoi": [1, 2]}}}, "did you mean 'ratio'"),
        ({"data": {"options": {"noise": {"gian": [1, 2]}}}}, "did you mean 'gain'"),
        ({"model": {"options": {"latnet": 3}}}, "did you mean 'latent'"),
        ({"model": {"name": "sid"}}, "no model called 'sid'"),
        ({"objective": {"options": {"beta": 1.0}}}, "unknown key 'beta' in options of objective l1"),
    ],
)
def test_impossible_runs_are_refused(changes: dict[str, dict[str, Any]], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(**changes)


def test_resolving_fills_in_everything_and_is_stable() -> None:
    resolved = to_dict(run())
    assert resolved["model"]["options"]["upscale"] == 1
    assert resolved["data"]["options"]["noise"]["prnu"] == pytest.approx(0.006)
    assert to_dict(resolve(tomllib.loads(to_toml(resolved)))) == resolved


@pytest.mark.parametrize(
    ("model", "objective", "given", "used"),
    [
        ("sid-net", {"name": "fisher"}, {}, 1.0),
        ("sid-net", {"name": "fisher"}, {"clip_norm": 0.0}, 0.0),
        ("sid-net", {"name": "cvae"}, {}, 0.0),
        ("lapcvae", {"name": "lapcvae", "options": {"fisher": {}}}, {}, 1.0),
        ("lapcvae", {"name": "lapcvae"}, {}, 0.0),
    ],
    ids=str,
)
def test_fisher_on_raw_clips_gradients_unless_told_otherwise(
    model: str, objective: dict[str, Any], given: dict[str, float], used: float
) -> None:
    values = {"model": {"name": model}, "objective": objective, "optimiser": given, "run": {"steps": 1}}
    resolved = resolve(values)
    assert resolved.optimiser.clip_norm == used
    assert resolve(to_dict(resolved)) == resolved
    assert load_config(None, {}, "kmnist/fisher").optimiser.clip_norm == 0  # digits, as published


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(to_toml(tiny_values(Path("photos"), minutes=5.0, steps=None)).replace("steps = None\n", ""))
    config = load_config(path, overrides({"steps": 7, "batch": 3, "photos": Path("other")}, []))
    assert (config.run.steps, config.run.minutes) == (7, None)
    assert (config.optimiser.batch, config.data.path) == (3, Path("other"))
    assert config.optimiser.ema == 0.9


def test_settings_reach_any_key_and_flags_win() -> None:
    values = overrides(
        {"seed": 4}, ["run.seed=3", "data.options.ratio = [50, 300]", "optimiser.schedule=milestone", "run.steps=9"]
    )
    assert values["run"] == {"seed": 4, "steps": 9}
    assert values["data"] == {"options": {"ratio": [50, 300]}}
    assert values["optimiser"] == {"schedule": "milestone"}


@pytest.mark.parametrize("budget", ["steps", "minutes", "epochs"])
def test_a_budget_unsets_those_below_it(tmp_path: Path, budget: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[run]\nminutes = 5.0\n")
    for below in ({"preset": "thesis/sid-net"}, {}):  # epochs in the preset, minutes in the file
        config = load_config(None if below else path, overrides({budget: 3}, ["run.steps=9"]), **below).run
        assert {name: getattr(config, name) for name in BUDGETS} == {**dict.fromkeys(BUDGETS), budget: 3}
    over_both = load_config(path, {}, "thesis/sid-net")
    assert (over_both.run.minutes, over_both.run.epochs) == (5.0, None)
    assert over_both.data.name == "pairs"


def test_another_schedule_unsets_what_was_about_the_one_below(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[optimiser]\nschedule = "cosine"\nfinal = 0.1\n')
    rates = load_config(
        path, overrides({"schedule": "milestone"}, ["optimiser.milestone=0.25", "run.steps=1"])
    ).optimiser
    assert (rates.schedule, rates.milestone, rates.final) == ("milestone", 0.25, 0.0)
    assert load_config(path, overrides({"schedule": "cosine", "steps": 1}, [])).optimiser.final == 0.1


@pytest.mark.parametrize("setting", ["seed", "seed=3", "run.seed"])
def test_settings_without_section_or_value_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        overrides({}, [setting])


def test_two_budgets_are_refused() -> None:
    with pytest.raises(ConfigError, match="either --steps or --minutes"):
        overrides({"steps": 1, "minutes": 1.0}, [])
    with pytest.raises(ConfigError, match="only one of them"):
        resolve({"run": {"steps": 1, "epochs": 1}})


def test_the_first_difference_is_named_and_places_do_not_count() -> None:
    assert first_difference(run(), run()) is None
    moved = run(run={"steps": 99, "log_every": 7}, data={"path": "elsewhere"})
    assert first_difference(run(), moved) is None
    assert first_difference(run(), run(run={"seed": 5})) == "run.seed was 0 and is 5"
    deeper = run(data={"options": {"noise": {"prnu": 0.5}}})
    assert str(first_difference(run(), deeper)).startswith("data.options.noise.prnu was 0.006")


def test_the_example_is_a_run() -> None:
    examples = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.toml"))
    assert examples
    for path in examples:
        load_config(path, {})


def test_numbers_beyond_floats_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"learning_rate .* is a number beyond 1e308"):
        resolve({"optimiser": {"learning_rate": 10**400}, "data": {"path": "x"}, "run": {"steps": 1}})
