"""From the text of a schema file to its models: the top level, the merging of `blend` files, all mistakes at once.

Reads files only where a schema names them; raises nothing but InputError. Called by agent.protocol.schema.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from agent.protocol.errors import InputError, Problem
from agent.protocol.keys import HASH, PRIVATE_ATTRIBUTES, SORT
from agent.protocol.onetable.definition import Definition
from agent.protocol.onetable.indexes import Index, key_limits, read_indexes
from agent.protocol.onetable.inspector import Inspector, kind_of
from agent.protocol.onetable.json5 import CHARS_MAX, Node, read
from agent.protocol.onetable.model_reader import Params, Parts, read_model
from agent.protocol.onetable.rules import check_overlaps, check_sync, feed_of, read_process
from agent.protocol.process import Process

BYTES_MAX: Final = CHARS_MAX
FILES_MAX: Final = 32  # of one schema, itself among them
TOP_KEYS: Final = (
    "format", "version", "name", "description", "indexes", "params", "process", "models", "blend", "queries",
)  # fmt: skip
PARAM_KEYS: Final = (
    "typeField", "isoDates", "nulls", "timestamps", "createdField", "updatedField", "separator", "partial", "hidden",
    "warn",
)  # fmt: skip
ReadText = Callable[[Path], str]
_FORMATS: Final = ("onetable:1.1.0", "onetable:1.0.0")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A schema without mistakes. `plain`: the file's values; `text`: a text that gives them, blended files included."""

    version: str
    definitions: tuple[Definition, ...]
    indexes: tuple[Index, ...]  # the secondary ones
    plain: Mapping[str, Any]
    text: str


def load_file(path: Path) -> Loaded:
    """A schema file and the files it blends. Raises InputError."""
    return load_text(read_text(path), str(path), read_text)


def load_text(text: str, file: str, reader: ReadText | None = None) -> Loaded:
    """A schema that is at hand. `reader` gives the text of a file that it blends, by a path beside `file`, or raises
    InputError; None: it blends no other file. Raises InputError."""
    node, repeated = read(text, file)
    see = Inspector(repeated)
    if isinstance(node.value, dict) and "blend" in node.value:
        if reader is None:
            see.note(node.value["blend"], "blend", "other files are blended only when the schema is read from a file")
        else:
            node = _blended(see, node, Path(file), [_place(Path(file))], reader)
            text = json.dumps(node.plain(), ensure_ascii=False, indent=4) + "\n"
    return _loaded(see, node, text)


def _place(path: Path) -> str:
    """The same for the same file, however the path to it is written. Looks at no disk."""
    return os.path.normpath(path)


def read_text(path: Path) -> str:
    """The file's text. Raises InputError when there is none that could be a schema."""
    name = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError([Problem(name, 0, 0, "", f"cannot be read: {reason.lower()}")]) from None
    if len(data) > BYTES_MAX:
        raise InputError([Problem(name, 0, 0, "", f"too large for a schema: over {BYTES_MAX // 1024 // 1024} MB")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise InputError([Problem(name, line, column, "", "is not UTF-8", "save the file as UTF-8")]) from None


def _blended(see: Inspector, node: Node, path: Path, files: list[str], reader: ReadText) -> Node:
    """The named files, each over the ones before it, and this file over them all."""
    blend = node.value["blend"]
    merged: Node | None = None
    names = blend.value if isinstance(blend.value, list) else []
    if not isinstance(blend.value, list):
        see.note(blend, "blend", f"expected a list of files, found {kind_of(blend.value)}")
    for item in names:
        if not isinstance(item.value, str) or not item.value:
            see.note(item, "blend", "expected the name of a file")
            continue
        other = path.parent / item.value
        place = _place(other)
        if place in files or len(files) >= FILES_MAX:
            hint = "" if place in files else f"at most {FILES_MAX} files"
            see.note(item, "blend", f"{item.value!r} is blended already" if not hint else "too many files", hint)
            continue
        files.append(place)
        try:
            loaded, repeated = read(reader(other), str(other))
        except InputError as error:
            if error.problems[0].line == 0:
                see.note(item, "blend", f"{item.value!r} {error.problems[0].message}")
            else:
                see.problems.extend(error.problems)
            continue
        see.problems.extend(repeated)
        if isinstance(loaded.value, dict) and "blend" in loaded.value:
            loaded = _blended(see, loaded, other, files, reader)
        merged = loaded if merged is None else _over(merged, loaded)
    own = Node({name: member for name, member in node.value.items() if name != "blend"}, node.offset, node.source)
    return own if merged is None else _over(merged, own)


def _over(below: Node, above: Node) -> Node:
    """Objects are merged member by member; any other value of `above` replaces what is below."""
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    members = dict(below.value)
    for name, member in above.value.items():
        members[name] = _over(members[name], member) if name in members else member
    merged = Node(members, above.offset, above.source)
    merged.key_offset = above.key_offset
    return merged


def _loaded(see: Inspector, node: Node, text: str) -> Loaded:
    top = see.known_members(node, "", TOP_KEYS)
    if isinstance(node.value, dict):
        for name in ("version", "indexes", "models"):
            if name not in top:
                see.note(node, name, f"the schema has no {name!r}")
    version = see.text(top, "", "version", "") if "version" in top else ""
    see.choice(top, "", "format", _FORMATS, _FORMATS[0])
    indexes = read_indexes(see, top.get("indexes"))
    params = replace(_read_params(see, top.get("params")), key_limits=key_limits(indexes))
    models = see.members(top["models"], "models") if "models" in top else {}
    entries = read_process(see, top.get("process"), models)
    definitions = [_definition(see, name, member, params, entries, indexes) for name, member in models.items()]
    _check_ttl(see, definitions, models)
    check_overlaps(see, definitions, models)
    if see.problems:
        raise InputError(sorted(see.problems, key=lambda problem: (problem.line, problem.column)))
    return Loaded(version, tuple(definitions), indexes, node.plain(), text)


def _read_params(see: Inspector, node: Node | None) -> Params:
    if node is None:
        return Params()
    members = see.known_members(node, "params", PARAM_KEYS)
    stamps = see.choice(members, "params", "timestamps", (True, False, "create", "update"), True)
    see.text(members, "params", "separator", "#")
    see.flag(members, "params", "hidden", False)
    see.flag(members, "params", "warn", False)
    names = {name: see.text(members, "params", name, "") for name in ("typeField", "createdField", "updatedField")}
    for name, value in names.items():
        if value.startswith(PRIVATE_ATTRIBUTES) or value in (HASH, SORT) or "." in value:
            see.note(members[name], f"params.{name}", f"{value!r} cannot be this attribute's name")
    params = Params(
        type_field=names["typeField"] or "_type",
        iso=see.flag(members, "params", "isoDates", False),
        nulls=see.flag(members, "params", "nulls", False),
        partial=see.flag(members, "params", "partial", False),
        created_field=(names["createdField"] or "created") if stamps in (True, "create") else None,
        updated_field=(names["updatedField"] or "updated") if stamps in (True, "update") else None,
    )
    used = [name for name in (params.type_field, params.created_field, params.updated_field) if name]
    if len(dict.fromkeys(used)) < len(used):
        see.note(node, "params", "typeField, createdField and updatedField must be three names", at_name=True)
    return params


def _definition(
    see: Inspector,
    name: str,
    node: Node,
    params: Params,
    entries: Mapping[str, Process],
    indexes: tuple[Index, ...],
) -> Definition:
    if not name or name.startswith("_") or "." in name:
        hint = "names that begin with '_' are the library's own"
        see.note(node, f"models.{name}", f"{name!r} cannot be a model's name", hint, at_name=True)
    parts: Parts = read_model(see, name, node, params)
    process = entries.get(name, Process())
    check_sync(see, name, process, parts, node)
    return Definition(
        name=name,
        process=process,
        feed=feed_of(process, parts.hash_template, parts.sort_template),
        type_field=params.type_field,
        fields=parts.fields,
        hash_template=parts.hash_template,
        sort_template=parts.sort_template,
        created=parts.created,
        updated=parts.updated,
        visible_keys=parts.visible_keys,
        indexes=indexes,
    )


def _check_ttl(see: Inspector, definitions: list[Definition], models: Mapping[str, Node]) -> None:
    """The table sweeps by one attribute only."""
    first = None
    for definition in definitions:
        for field in definition.fields:
            if not field.ttl:
                continue
            if first is None:
                first = field
            elif field.attribute != first.attribute:
                message = f"a second ttl attribute {field.attribute!r}: {first.model} has {first.attribute!r}"
                hint = f"map: {first.attribute!r}"
                node = models[definition.name].value[field.name].value["ttl"]
                see.note(node, f"models.{definition.name}.{field.name}.ttl", message, hint)
