"""A person at a shell with `fleet-agent` and a database file: commands in this process, with what they print.

Holds a schema with a field of every type and models of every direction. Used by the tests of agent.commands.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from agent.cli import main

DEVICE: Final = "dev-1"
SCHEMA: Final = """{
    format: 'onetable:1.1.0', version: '1.0.0',
    indexes: {primary: {hash: 'pk', sort: 'sk'}, gs1: {hash: 'gs1pk', sort: 'gs1sk'}},
    params: {typeField: '_type', timestamps: true},
    process: {
        Report: {sync: 'up'}, Config: {sync: 'down'}, Setting: {sync: 'both'},
        Thing: {enable: 'device'}, Free: {enable: 'device'}, Audit: {enable: 'cloud'},
    },
    models: {
        Report: {
            pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'report#${id}'},
            deviceId: {type: 'string', required: true}, id: {type: 'string', generate: 'ulid'},
            level: {type: 'number', required: true}, text: {type: 'string', validate: '/^[^!]*$/'},
        },
        Config: {
            pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'config#'},
            deviceId: {type: 'string', required: true}, text: {type: 'string'},
        },
        Setting: {
            pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'setting#${name}'},
            deviceId: {type: 'string', required: true}, name: {type: 'string', required: true},
            level: {type: 'number'}, mode: {type: 'string', enum: ['on', 'off']},
        },
        Thing: {
            pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'thing#${group}#${id}'},
            deviceId: {type: 'string', required: true}, group: {type: 'string', required: true},
            id: {type: 'string', required: true}, n: {type: 'number'}, yes: {type: 'boolean'}, at: {type: 'date'},
            tags: {type: 'set'}, data: {type: 'buffer'}, list: {type: 'array'}, any: {type: 'object'},
            numbers: {type: 'array', items: {type: 'number'}}, until: {type: 'date', ttl: true},
            place: {type: 'object', schema: {
                lat: {type: 'number'}, since: {type: 'date'}, raw: {type: 'buffer'},
            }},
            gs1pk: {type: 'string', value: 'things'}, gs1sk: {type: 'string', value: '${id}'},
        },
        Free: {pk: {type: 'string'}, sk: {type: 'string'}, text: {type: 'string'}},
        Audit: {
            pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'audit#'},
            text: {type: 'string'},
        },
    },
}
"""


@dataclass(frozen=True)
class Said:
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[Any]:
        """The output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def row(self) -> Any:
        (row,) = self.rows
        return row


class Shell:
    """In a folder with a schema. `environment`: what a person has exported, besides the device."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.database = folder / "agent.db"
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        (folder / "schema.json5").write_text(SCHEMA)
        for name in ("DATABASE", "SCHEMA", "ACCOUNT"):
            monkeypatch.delenv(f"FLEET_{name}", raising=False)
        monkeypatch.setenv("FLEET_DEVICE", DEVICE)
        monkeypatch.chdir(folder)

    def __call__(self, *words: str, stdin: str | bytes = "") -> Said:
        """Runs one command."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        self._capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
        captured = self._capsys.readouterr()
        return Said(code, captured.out, captured.err)

    def ok(self, *words: str, stdin: str | bytes = "") -> Said:
        """A command that must do what it is asked."""
        said = self(*words, stdin=stdin)
        assert (said.code, said.err) == (0, ""), said
        return said

    def refused(self, *words: str, stdin: str | bytes = "") -> str:
        """A command that must not: gives its one line of an error."""
        said = self(*words, stdin=stdin)
        assert said.code == 2, said
        assert said.out == "", said
        (line,) = said.err.splitlines()
        assert line.startswith("fleet-agent: "), line
        return line.removeprefix("fleet-agent: ")
