"""A person at a shell with `fleet-cloud` and a table of moto's server: commands in this process, with what they print.

Used by the tests of cloud.commands; the fixtures that make one are in tests/cloud/conftest.py.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import pytest
from command_rig import Said

from cloud.cli import main


@dataclass
class CloudShell:
    """In a folder with a schema, with a table's name in the environment."""

    client: Any
    table: str
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str, stdin: str = "") -> Said:
        self.monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        self.capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        return Said(code, captured.out, captured.err)

    def ok(self, *words: str, stdin: str = "") -> Said:
        said = self(*words, stdin=stdin)
        assert (said.code, said.err) == (0, ""), said
        return said

    def refused(self, *words: str, stdin: str = "") -> str:
        said = self(*words, stdin=stdin)
        assert said.code == 2, said
        (line,) = said.err.splitlines()
        assert line.startswith("fleet-cloud: "), line
        return line.removeprefix("fleet-cloud: ")

    def raw(self) -> list[dict[str, Any]]:
        """The items of applications, as they are stored."""
        items = self.client.scan(TableName=self.table)["Items"]
        return sorted(
            (item for item in items if not item["pk"]["S"].startswith("_fleet#")), key=lambda item: item["sk"]["S"]
        )

    def state(self) -> tuple[Any, Any]:
        table = self.client.describe_table(TableName=self.table)["Table"]
        return table, self.client.scan(TableName=self.table)["Items"]
