"""A folder on a Ray cluster of two local workers gives the files and rows of a run without Ray."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lowlight.core.errors import UsageError
from lowlight.restorer import RestorerOptions
from lowlight.workflows.enhancing import ray_cluster
from lowlight.workflows.enhancing.enhance import EnhanceOptions, enhance_files
from lowlight.workflows.enhancing.inputs import Photo
from lowlight.workflows.enhancing.planning import plan_jobs
from lowlight.workflows.enhancing.ray_job import PhotoWorker, _tasks, enhance_on_ray
from lowlight.workflows.sharding import Shard


def options(out: Path, weights: Path, **more: object) -> EnhanceOptions:
    return EnhanceOptions(
        out=out,
        weights=weights,
        device="cpu",
        restorer=RestorerOptions(precision="fp32"),
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, dark_dng: Path) -> Path:
    folder = tmp_path_factory.mktemp("night")
    for index in range(6):
        (folder / f"{index}.dng").write_bytes(dark_dng.read_bytes())
    (folder / "broken.dng").write_bytes(b"no photo")
    return folder


def photos(folder: Path) -> list[Photo]:
    return [Photo(path, Path(path.name)) for path in sorted(folder.iterdir())]


def bare(rows: list[dict[str, object]], out: Path) -> list[dict[str, object]]:
    """Rows without what may differ between two runs: the clock and the place of the output."""
    return [{**row, "seconds": None, "output": os.path.relpath(str(row["output"]), out)} for row in rows]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("ratio", [40.0, "same"])
def test_a_worker_does_photo_by_photo_what_one_run_does(
    folder: Path, tiny_weights: Path, tmp_path: Path, ratio: float | str
) -> None:
    chosen = photos(folder)[:2] + photos(folder)[-1:]
    alone = options(tmp_path / "alone", tiny_weights, ratio=ratio)
    rows = enhance_files(chosen, alone)
    shared = options(tmp_path / "worker", tiny_weights, ratio=ratio)
    worker = PhotoWorker(shared, os.getcwd(), None)
    assert worker.problem() is None
    jobs = plan_jobs(chosen, shared)
    common = 2.0 ** worker.stops(jobs[:1])[0] if ratio == "same" else None  # type: ignore[operator]
    assert worker.stops(jobs[2:]) == [None]
    found = [row for job in jobs for row in worker.enhance([job], common, False)]
    assert bare(found, shared.out) == bare(rows, alone.out)
    assert [row["status"] for row in found] == ["done", "done", "failed"]
    assert files(shared.out) == files(alone.out)
    assert [row["status"] for row in worker.enhance(jobs[:2], common, False)] == ["skipped", "skipped"]
    assert [row["status"] for row in worker.enhance(jobs[:1], common, True)] == ["done"]


def test_a_worker_keeps_what_is_wrong_with_its_options(tmp_path: Path, tiny_weights: Path) -> None:
    worker = PhotoWorker(options(tmp_path, tmp_path / "none.safetensors"), os.getcwd(), None)
    assert "none.safetensors" in str(worker.problem())
    elsewhere = PhotoWorker(options(tmp_path, tiny_weights), str(tmp_path / "nowhere"), None)
    assert "all machines must see" in str(elsewhere.problem())


@pytest.mark.parametrize(("count", "workers", "largest"), [(1, 2, 1), (7, 2, 1), (64, 2, 8), (10_000, 8, 16)])
def test_tasks_hold_every_photo_once_and_leave_all_workers_something(count: int, workers: int, largest: int) -> None:
    tasks = _tasks(count, workers)
    assert [place for task in tasks for place in task.places] == list(range(count))
    assert max(len(task.places) for task in tasks) == largest


def test_contact_sheets_are_refused(tmp_path: Path, tiny_weights: Path) -> None:
    with pytest.raises(UsageError, match="contact sheets"):
        enhance_on_ray([], options(tmp_path, tiny_weights, contact_sheet=True))


def test_a_worker_that_is_to_stop_begins_no_photo(folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    shared = options(tmp_path / "worker", tiny_weights)
    worker, jobs = PhotoWorker(shared, os.getcwd(), None), plan_jobs(photos(folder)[:2], shared)
    worker.stop()
    assert worker.stops(jobs) == [] and worker.enhance(jobs, 40.0, False) == []
    assert not shared.out.exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="needs the extra lowlight[ray]")
    ray.init(num_cpus=2, log_to_driver=False, configure_logging=False, include_dashboard=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker has: sums in fp32 depend on it in their last bit
    yield
    torch.set_num_threads(threads)
    ray.shutdown()


def descendants() -> set[int]:
    """Processes that this one has started, and those that they have."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    ours, size = {os.getpid()}, 0
    while len(ours) > size:
        size = len(ours)
        ours |= {process for process, parent in parents.items() if parent in ours}
    return ours - {os.getpid()}


def kill_a_worker() -> None:
    """As a machine that is switched off would."""
    for process in sorted(descendants()):
        try:
            name = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::PhotoWorker"):
            os.kill(process, signal.SIGKILL)
            return
    raise AssertionError("no worker is running")


@pytest.mark.slow
def test_two_workers_one_of_them_killed_give_the_files_of_one_run(
    cluster: None, folder: Path, tiny_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = options(tmp_path / "alone", tiny_weights)
    rows = enhance_files(photos(folder), alone)
    shared = options(tmp_path / "ray", tiny_weights)
    seen: list[dict[str, object]] = []

    def on_row(row: dict[str, object]) -> None:
        if not seen:
            kill_a_worker()
        seen.append(row)

    found = enhance_on_ray(photos(folder), shared, on_row=on_row, workers=2)
    assert "a worker was lost" in caplog.text
    assert bare(found, shared.out) == bare(rows, alone.out)
    assert sorted(str(row["file"]) for row in seen) == [str(row["file"]) for row in rows]
    assert files(shared.out) == files(alone.out)
    again = enhance_on_ray(photos(folder), shared, workers=2)
    assert [row["status"] for row in again] == ["skipped"] * 6 + ["failed"]


@pytest.mark.slow
def test_a_shard_on_a_cluster_is_that_part_of_one_run(
    cluster: None, folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    alone, shared = (options(tmp_path / name, tiny_weights, shard=Shard(2, 3)) for name in ("alone", "ray"))
    rows = enhance_files(photos(folder), alone)
    found = enhance_on_ray(photos(folder), shared)
    assert bare(found, shared.out) == bare(rows, alone.out) and len(rows) == 2
    assert files(shared.out) == files(alone.out)


@pytest.mark.slow
def test_one_ratio_for_all_is_that_of_one_run(cluster: None, folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    chosen = photos(folder)[:2]
    alone, shared = (options(tmp_path / name, tiny_weights, ratio="same") for name in ("alone", "ray"))
    heard: list[tuple[int, int]] = []
    enhance_files(chosen, alone)
    found = enhance_on_ray(chosen, shared, on_meter=lambda done, total: heard.append((done, total)))
    assert [row["ratio_source"] for row in found] == ["same", "same"]
    assert files(shared.out) == files(alone.out)
    assert heard == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.slow
def test_options_that_cannot_work_are_refused_before_any_photo(
    cluster: None, folder: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"none\.safetensors"):
        enhance_on_ray(
            photos(folder), replace(options(tmp_path / "out", tiny_weights), weights=tmp_path / "none.safetensors")
        )
    with pytest.raises(UsageError, match="no slot"):
        enhance_on_ray(photos(folder), options(tmp_path / "out", tiny_weights), cpus_per_worker=64)
    assert not (tmp_path / "out").exists()


def test_a_cluster_is_one_that_was_started_to_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert ray_cluster._started_here() is None
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    assert ray_cluster._started_here() == "10.0.0.1:6379"


def test_a_dead_address_is_found_out_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert ray_cluster._answers(address)
    began = time.monotonic()
    assert not ray_cluster._answers(address) and not ray_cluster._answers("127.0.0.1:99999")
    assert time.monotonic() - began < ray_cluster.ANSWER_S
    assert all(map(ray_cluster._answers, ("local", "ray://127.0.0.1:1", "somewhere")))  # Ray's to judge


def run_by_itself(folder: Path, out: Path, weights: Path) -> "subprocess.Popen[str]":
    command = ["enhance", str(folder), "-o", str(out), "--weights", str(weights), "--ray", "local", "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "lowlight", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_pictures(out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.png"))) < count:
        assert time.monotonic() < deadline, "no pictures came"
        time.sleep(0.1)


@pytest.fixture
def many(tmp_path: Path, dark_dng: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(300):
        (folder / f"{index}.dng").hardlink_to(dark_dng)
    return folder


@pytest.mark.slow
def test_the_list_on_stdout_is_a_list_whatever_happens_to_workers(
    many: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra lowlight[ray]")
    run = run_by_itself(many, tmp_path / "out", tiny_weights)
    wait_for_pictures(tmp_path / "out", 2)
    kill_a_worker()
    said, told = run.communicate(timeout=300)
    rows = json.loads(said)
    assert run.returncode == 0 and "a worker was lost" in told
    assert [row["status"] for row in rows] == ["done"] * 300
    assert [row["file"] for row in rows] == [str(path) for path in sorted(many.iterdir())]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_and_not_the_program(
    many: Path, tiny_weights: Path, tmp_path: Path, number: signal.Signals
) -> None:
    pytest.importorskip("ray", reason="needs the extra lowlight[ray]")
    run = run_by_itself(many, tmp_path / "out", tiny_weights)
    wait_for_pictures(tmp_path / "out", 2)
    run.send_signal(number)
    said, told = run.communicate(timeout=120)
    rows, written = json.loads(said), sorted(map(str, (tmp_path / "out").glob("*.png")))
    assert run.returncode == 130 and f"interrupted; {len(rows)} finished photos are kept" in told
    assert sorted(row["output"] for row in rows if row["status"] == "done") == written and len(rows) < 300


@pytest.mark.slow
def test_a_stop_leaves_whole_files_only(cluster: None, folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    seen: list[object] = []
    began = time.monotonic()
    found = enhance_on_ray(
        photos(folder), options(tmp_path / "out", tiny_weights), on_row=seen.append, stop=lambda: len(seen) >= 2
    )
    assert 2 <= len(found) < 7
    assert time.monotonic() - began < 60
    assert {str(row["output"]) for row in found if row["status"] == "done"} == set(
        map(str, (tmp_path / "out").glob("*.png"))
    )
    assert {path.suffix for path in (tmp_path / "out").iterdir()} <= {".png", ".part"}
