"""The real data, where there is some: DISENTKIT_TEST_DATA names a folder with dsprites/ and mnist/."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data. Without one the test is skipped, and in CI it fails."""
    folder = os.environ.get("DISENTKIT_TEST_DATA")
    if not folder:
        reason = "DISENTKIT_TEST_DATA is not set: no real pictures to compare with"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return Path(folder)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home of the kit."""
    monkeypatch.setenv("DISENTKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
