"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files beside the checkout, or the one LOWLIGHT_SHARED_DATA names."""
    named = os.environ.get("LOWLIGHT_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no folder of real files at {folder}; set LOWLIGHT_SHARED_DATA to one")
    return folder
