"""Rules that the source keeps and that can be seen in its syntax tree: above all, what would make a seed not repeat.

Each rule is a function from one source to the places that break it. Never imports or runs what it reads. Used by
test_tidy.py, which runs every rule over every file, and over planted examples that each rule must catch.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

FUNCTION_LINES_MAX: Final = 70
MODULE_LINES_MAX: Final = 500  # past 400, ask; here, split
COLUMNS_MAX: Final = 120
ROOMS: Final = ("agent/", "cloud/", "fleet/", "reports/")

Place = tuple[int, str]  # line, what is wrong there
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file. `path` is relative to the top, with slashes."""

    path: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def imported(self) -> dict[str, str]:
        """What each imported name stands for: `m` -> `time.monotonic` after `from time import monotonic as m`."""
        names: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    names[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return names

    def full_name(self, node: ast.AST) -> str:
        """`datetime.datetime.now` for whatever this module calls it; empty when the name was not imported."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.imported:
            return ""
        return ".".join([self.imported[node.id], *reversed(parts)])

    def comment(self, node: ast.stmt | ast.expr, text: str) -> bool:
        """Whether a comment with this text stands on one of the node's lines."""
        return any(text in line.partition("#")[2] for line in self.lines[node.lineno - 1 : node.end_lineno])


Rule = Callable[[Source], Iterator[Place]]

_CLOCKS: Final = re.compile(
    r"time\.(time|monotonic|perf_counter|process_time|thread_time|clock_gettime)(_ns)?"
    r"|time\.(localtime|gmtime|ctime|asctime|strftime)"
    r"|datetime\.datetime\.(now|utcnow|today)|datetime\.date\.today|pandas\.Timestamp\.(now|utcnow|today)"
)
_CHANCE: Final = re.compile(
    r"random(\..+)?|secrets(\..+)?|numpy\.random(\..+)?|os\.(urandom|getrandom)|uuid\.(uuid1|uuid4|getnode)"
    r"|ulid\.ULID(\.from_(timestamp|datetime))?"
)


def _references(source: Source, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Every use of a name that matches, called or passed on; the longest dotted form once."""
    inner = {id(node.value) for node in source.nodes if isinstance(node, ast.Attribute)}
    for node in source.nodes:
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner and isinstance(node.ctx, ast.Load):
            name = source.full_name(node)
            if name and pattern.fullmatch(name):
                yield node.lineno, name


def clock(source: Source) -> Iterator[Place]:
    for line, name in _references(source, _CLOCKS):
        yield line, f"{name} reads a clock: time is passed in"


def chance(source: Source) -> Iterator[Place]:
    for line, name in _references(source, _CHANCE):
        yield line, f"{name} draws at random: randomness is passed in (fleet.rng)"


def unseeded(source: Source) -> Iterator[Place]:
    """For tests: a generator made with its seed is fine, the global one is not."""
    for node in source.nodes:
        if isinstance(node, ast.Call):
            name = source.full_name(node.func)
            seeded = name in ("random.Random", "numpy.random.default_rng") and (node.args or node.keywords)
            if name and _CHANCE.fullmatch(name) and not seeded:
                yield node.lineno, f"{name} has no seed"


def sleeping(source: Source) -> Iterator[Place]:
    for line, name in _references(source, re.compile(r"(time|trio|asyncio|anyio)\.sleep(_until|_forever)?")):
        yield line, f"{name}: a test waits for what happens, not for the clock"


def skipping(source: Source) -> Iterator[Place]:
    pattern = re.compile(r"pytest\.(skip|xfail|importorskip|mark\.(skip|skipif|xfail))|unittest\.skip\w*")
    for line, name in _references(source, pattern):
        yield line, f"{name}: a test that does not run checks nothing"


def hashing(source: Source) -> Iterator[Place]:
    for node in source.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("hash", "id"):
            what = "differs from process to process" if node.func.id == "hash" else "is an address"
            yield node.lineno, f"{node.func.id}() {what}: use fleet.rng.digest64 or a name"


class _Sets:
    """Which expressions of one function (or of the module's own level) are sets, as far as its text tells."""

    def __init__(self, body: list[ast.AST]) -> None:
        self.names: set[str] = set()
        for node in body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _set_type(node.annotation):
                self.names.add(node.target.id)
            elif isinstance(node, ast.arg) and node.annotation is not None and _set_type(node.annotation):
                self.names.add(node.arg)
            elif isinstance(node, ast.Assign) and self.is_set(node.value):
                self.names.update(target.id for target in node.targets if isinstance(target, ast.Name))

    def is_set(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
            return any(self.is_set(side) or _is_keys(side) for side in (node.left, node.right))
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                return node.func.id in ("set", "frozenset")
            if isinstance(node.func, ast.Attribute):
                return node.func.attr in _SET_METHODS and not isinstance(node.func.value, ast.Constant)
        return False


_SET_METHODS: Final = ("union", "intersection", "difference", "symmetric_difference")
_IN_ORDER: Final = ("list", "tuple", "enumerate", "iter", "reversed", "zip", "map", "filter", "next")


def _set_type(annotation: ast.expr) -> bool:
    name = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return isinstance(name, ast.Name) and name.id in ("set", "frozenset", "Set", "AbstractSet", "MutableSet")


def _is_keys(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def _own(root: ast.AST) -> Iterator[ast.AST]:
    """What belongs to a function itself: not what its inner functions and classes hold."""
    for child in ast.iter_child_nodes(root):
        yield child
        if not isinstance(child, Function | ast.Lambda | ast.ClassDef):
            yield from _own(child)


def set_order(source: Source) -> Iterator[Place]:
    """`# any order` on the line says that the order has no effect."""
    scopes = [source.tree, *(node for node in source.nodes if isinstance(node, Function | ast.ClassDef))]
    for scope in scopes:
        body = list(_own(scope))
        sets = _Sets(body)
        unordered = {  # what these make has no order, or the same whatever the order was
            id(generator)
            for node in body
            if isinstance(node, ast.SetComp) or (isinstance(node, ast.GeneratorExp) and _order_free(node, body))
            for generator in node.generators
        }
        for node in body:
            walked: list[ast.expr] = []
            if isinstance(node, ast.For | ast.comprehension) and id(node) not in unordered:
                walked = [node.iter]
            elif isinstance(node, ast.Starred):
                walked = [node.value]
            elif isinstance(node, ast.Call) and (
                (isinstance(node.func, ast.Name) and node.func.id in _IN_ORDER)
                or (isinstance(node.func, ast.Attribute) and node.func.attr in ("join", "extend", "fromkeys"))
            ):
                walked = node.args
            for expression in walked:
                if sets.is_set(expression) and not source.comment(expression, "any order"):
                    yield expression.lineno, "a set's order differs from process to process: sorted(...)"


def _order_free(generator: ast.GeneratorExp, body: list[ast.AST]) -> bool:
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("sorted", "set", "frozenset", "any", "all", "min", "max", "len")
        and generator in node.args
        for node in body
    )


def summing(source: Source) -> Iterator[Place]:
    """`sum()` of floats differs between Python 3.11 and 3.12. What is plainly exact passes; the rest says `# ints`."""
    for node in source.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "sum" and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.GeneratorExp | ast.ListComp):
                exact = _exact(argument.elt)
            else:  # sum(map(len, ...))
                exact = isinstance(argument, ast.Call) and any(map(_exact_function, argument.args[:1]))
            start = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
            exact = exact or any(isinstance(value, ast.Call) and _called(value) == "Fraction" for value in start)
            if not (exact or source.comment(node, "ints")):
                yield node.lineno, "sum() of floats differs between versions: math.fsum, or say `# ints`"


def _exact(element: ast.expr) -> bool:
    """A literal int, a comparison, a `not`, a length, or something whose name says that it counts."""
    if isinstance(element, ast.UnaryOp) and isinstance(element.op, ast.Not):
        return True
    if isinstance(element, ast.Call):
        return _exact_function(element.func)
    if isinstance(element, ast.Constant):
        return isinstance(element.value, int)
    name = element.attr if isinstance(element, ast.Attribute) else element.id if isinstance(element, ast.Name) else ""
    return isinstance(element, ast.Compare) or name.endswith(("count", "_bytes", "_us"))


def _exact_function(function: ast.expr) -> bool:
    return isinstance(function, ast.Name) and function.id in ("len", "int", "bool", "isinstance")


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def killed_generator(source: Source) -> Iterator[Place]:
    """A killed worker must not run anything more: nothing around a `yield` may act when the generator is closed."""
    for node in source.nodes:
        if isinstance(node, ast.Try | ast.TryStar):
            held = [child for statement in node.body + node.orelse for child in (statement, *_own(statement))]
            wide = any(_catches_close(handler) for handler in node.handlers)
            if (node.finalbody or wide) and _yields(held):
                yield node.lineno, f"a `yield` inside try with {'finally' if node.finalbody else 'a catch-all'}"
        elif isinstance(node, ast.With | ast.AsyncWith) and _yields(list(_own(node))):
            yield node.lineno, "a `yield` inside `with`"


def _yields(nodes: list[ast.AST]) -> bool:
    return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in nodes)


def _catches_close(handler: ast.ExceptHandler) -> bool:
    names = [node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)] if handler.type else ["all"]
    return any(name in ("all", "BaseException", "GeneratorExit") for name in names)


_SELECT: Final = re.compile(r"\s*(?:WITH\b.*\bSELECT\b|SELECT\b).*\sFROM\b|\s*select\b.*\sfrom\b", re.S)
_ONE_ROW: Final = re.compile(
    r"\bORDER\s+BY\b|\bLIMIT\s+1\b|^\s*SELECT\s+EXISTS\s*\("
    r"|\bFROM\s+item\s+WHERE\s+pk\s*=\s*\?\s+AND\s+sk\s*=\s*\?\s*$",  # the primary key of that table
    re.I,
)
_AGGREGATE: Final = re.compile(r"^\s*SELECT\s+(?:\w+\s*\(\s*)?(?:count|max|min|sum|total|avg)\s*\(", re.I)


def query_order(source: Source) -> Iterator[Place]:
    """SQLite answers without ORDER BY in whatever order is cheapest. `# one row` says that a key admits one at most."""
    parts = {id(part) for node in source.nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in source.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "?" for part in node.values)
        else:
            continue
        if not _SELECT.match(text):
            continue
        ordered = _ONE_ROW.search(text) or (_AGGREGATE.match(text) and not re.search(r"\bGROUP\s+BY\b", text, re.I))
        if not (ordered or _says_one_row(source, node)):
            yield node.lineno, "SELECT of several rows without ORDER BY (or say `# one row`)"


def _says_one_row(source: Source, node: ast.expr) -> bool:
    """On the string's own lines, or on the last line of the statement that holds it (where a formatter puts it)."""
    if source.comment(node, "one row"):
        return True
    holders = [
        statement
        for statement in source.nodes
        if isinstance(statement, ast.stmt)
        and not hasattr(statement, "body")
        and statement.lineno <= node.lineno <= (statement.end_lineno or 0)
    ]
    return any("one row" in source.lines[(holder.end_lineno or 1) - 1].partition("#")[2] for holder in holders)


def docstring(source: Source) -> Iterator[Place]:
    if source.text.strip() and not (ast.get_docstring(source.tree) or "").strip():
        yield 1, "the module does not say what it is for"


def long_function(source: Source) -> Iterator[Place]:
    for node in source.nodes:
        if isinstance(node, Function) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield node.lineno, f"{node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"


def long_module(source: Source) -> Iterator[Place]:
    if len(source.lines) > MODULE_LINES_MAX:
        yield 1, f"{len(source.lines)} lines, at most {MODULE_LINES_MAX}: is it two modules?"


def long_line(source: Source) -> Iterator[Place]:
    for number, line in enumerate(source.lines, 1):
        if len(line) > COLUMNS_MAX and "://" not in line:
            yield number, f"{len(line)} columns, at most {COLUMNS_MAX}"


def shadowing(source: Source) -> Iterator[Place]:
    """A module-level name that hides a builtin makes every later reader wrong."""
    for node in source.tree.body:
        if isinstance(node, Function | ast.ClassDef) and hasattr(builtins, node.name):
            yield node.lineno, f"{node.name} hides the builtin of that name"


# Leftovers, and places of one person's machine. Written so that this file does not match itself.
_BANNED: Final = (
    (re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b"), "unfinished: finish it, or open an issue"),
    (re.compile(r"(?<![\w.~}])/(?:home|Users|root|work|workspace)/[\w.]"), "a path of somebody's machine"),
    (re.compile(r"^(?:<{7}|>{7}|={7})(?: |$)", re.M), "an unfinished merge"),
    (re.compile(r"\b(?:black|white)" r"list(?:ed|s)?\b", re.I), "say deny list, allow list"),
    (re.compile(r"[\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"), "an invisible character"),
    (re.compile(r"[ \t]+$", re.M), "trailing space"),
)
# Who may be linked to. A host that is not here is a slip (a mirror, an address of somebody's own network).
_HOSTS: Final = re.compile(
    r"(?:localhost|127\.0\.0\.1|\[::1\]|(?:[\w-]+\.)*(?:example|invalid|test)|(?:www\.)?w3\.org|json-schema\.org"
    r"|(?:[\w-]+\.)*amazon(?:aws)?\.com|(?:[\w-]+\.)*oasis-open\.org|(?:www\.)?sqlite\.org|docs\.python\.org"
    r"|doc\.onetable\.io|(?:[\w-]+\.)*rfc-editor\.org|keepachangelog\.com|semver\.org|doi\.org|[{<$].*)"
)
_URL: Final = re.compile(r"\b(?:https?|wss?|mqtts?)://(\[[0-9a-f:]+\]|[^\s/:\"'`)>\\]+)")


def banned(source: Source) -> Iterator[Place]:
    for pattern, what in _BANNED:
        for match in pattern.finditer(source.text):
            yield source.text.count("\n", 0, match.start()) + 1, f"{match.group().strip()!r}: {what}"
    for match in _URL.finditer(source.text):
        if not _HOSTS.fullmatch(match.group(1)):
            yield source.text.count("\n", 0, match.start()) + 1, f"a link to {match.group(1)}, which no rule knows"
