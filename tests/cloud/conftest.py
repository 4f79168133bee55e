"""Fixtures for tests of `fleet-cloud`: a shell with a table, or without one. Read by pytest."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_shell import CloudShell
from command_rig import SCHEMA
from emulators import KEY_ID, REGION, SECRET, client, table_names


@pytest.fixture
def bare(
    moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CloudShell]:
    """No table yet."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "FLEET_SCHEMA"):
        monkeypatch.delenv(name, raising=False)
    table = f"commands-{uuid.uuid5(uuid.NAMESPACE_URL, str(tmp_path)).hex[:12]}"
    for name, value in (
        ("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_REGION", REGION),
        ("FLEET_ENDPOINT_URL", moto), ("FLEET_TABLE", table),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    (tmp_path / "schema.json5").write_text(SCHEMA)
    monkeypatch.chdir(tmp_path)
    made = client(moto)
    yield CloudShell(made, table, monkeypatch, capsys)
    if table in table_names(made):
        made.delete_table(TableName=table)


@pytest.fixture
def shell(bare: CloudShell) -> CloudShell:
    """With a table of Fleet's."""
    bare.ok("provision")
    return bare
