"""`python -m docs.generate`: writes the parts of the documents that come from the code; `--check` only compares.

Such a part stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`. Nothing else of a document is touched.
Run by whoever changes what the documents describe; tests/test_generated_docs.py fails until then.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from docs import agent_tables, command_tables, compare_tables, protocol_tables, scenario_tables, source_tables

FOLDER: Final = Path(__file__).resolve().parent
PARTS: Final[dict[str, Callable[[], str]]] = {
    "modules": source_tables.modules,
    "import-rules": source_tables.import_rules,
    "installs": source_tables.installs,
    "checks": source_tables.checks,
    "required-checks": source_tables.required_checks,
    "plants": source_tables.plants,
    "streams": source_tables.streams,
    "inexact-functions": source_tables.inexact_functions,
    "session-diagram": protocol_tables.diagram,
    "session-table": protocol_tables.transitions,
    "session-events": protocol_tables.events,
    "messages": protocol_tables.message_tables,
    "limits": protocol_tables.limits,
    "topics": protocol_tables.topic_table,
    "device-tables": protocol_tables.device_tables,
    "records": protocol_tables.records,
    "agent-numbers": protocol_tables.agent_numbers,
    "command-numbers": protocol_tables.command_numbers,
    "relay-numbers": protocol_tables.relay_numbers,
    "stream-numbers": protocol_tables.stream_numbers,
    "listener-numbers": protocol_tables.listener_numbers,
    "process-records": protocol_tables.process_records,
    "relay-options": command_tables.relay_options,
    "relay-figures": command_tables.relay_figures,
    "scenario-keys": scenario_tables.keys,
    "fault-keys": scenario_tables.fault_keys,
    "links": scenario_tables.links,
    "agent-configuration": agent_tables.configuration,
    "agent-requests": agent_tables.requests,
    "agent-kinds": agent_tables.kinds,
    "daemon-commands": command_tables.daemon_commands,
    "agent-commands": command_tables.agent_commands,
    "agent-arguments": command_tables.agent_arguments,
    "cloud-commands": command_tables.cloud_commands,
    "cloud-arguments": command_tables.cloud_arguments,
    "shipped": scenario_tables.shipped,
    "quota-presets": scenario_tables.presets,
    "threshold-paths": scenario_tables.threshold_paths,
    "metrics": compare_tables.metrics,
}
_PART: Final = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end: \2 -->)", re.S)


def documents(folder: Path = FOLDER) -> list[Path]:
    return sorted(folder.glob("*.md"))


def names_in(text: str) -> list[str]:
    return [match[2] for match in _PART.finditer(text)]


def generated(text: str) -> str:
    """The document with its parts as the code makes them now. Raises KeyError for a part that nobody makes."""
    return _PART.sub(lambda match: f"{match[1]}\n{PARTS[match[2]]()}\n\n{match[4]}", text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description="Writes what comes from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a document is behind the code")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the documents are; default: %(default)s")
    arguments = parser.parse_args(argv)
    behind = []
    for path in documents(arguments.folder):
        old = path.read_text("utf-8")
        new = generated(old)
        if new != old:
            behind.append(path.name)
            if not arguments.check:
                path.write_text(new, "utf-8")
    if behind:
        print(f"{'behind the code' if arguments.check else 'written'}: {', '.join(behind)}")
    return 1 if behind and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
