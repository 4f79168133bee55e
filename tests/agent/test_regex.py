"""JavaScript's regular expressions, as Python runs them: same verdict on the inputs where the two languages differ."""

from __future__ import annotations

import pytest

from agent.protocol.onetable.regex import PatternError, compile_pattern


@pytest.mark.parametrize(
    ("expression", "text", "matches"),
    [
        ("/^a+$/", "aaa", True),
        ("/^a+$/", "aaa\n", False),
        ("/^a$/m", "b\na\nc", True),
        ("/abc/i", "xABCx", True),
        ("abc", "xabcx", True),
        ("^abc$", "xabcx", False),
        (r"/^\d+$/", "\u0661\u0662", False),
        (r"/^[\d]+$/", "12", True),
        (r"/^\w+$/", "\u00e9", False),
        (r"/^\s$/", "\ufeff", True),
        (r"/^\s$/", "\x1c", False),
        (r"/\bcat\b/", "\u00e9cat", True),
        (r"/\bcat\b/", "xcat", False),
        ("/^.$/", "\u2028", False),
        ("/^.$/s", "\n", True),
        (r"/(?<y>\d{4})-\k<y>/", "2020-2020", True),
        (r"/(?<y>\d{4})-\k<y>/", "2020-2021", False),
        (r"/(?<=a)b(?!c)/", "abd", True),
        ("/^[[a]$/", "[", True),
        ("/^[a&&b]$/", "&", True),
        (r"/^\A$/", "A", True),
        (r"/^[^a/]+\/x$/", "b/x", True),
        ("/a/b", "x/a/b", True),
    ],
)
def test_the_verdict_is_javascripts(expression: str, text: str, matches: bool) -> None:
    if expression == "/a/b":
        with pytest.raises(PatternError):  # b is no flag
            compile_pattern(expression)
        return
    assert (compile_pattern(expression).search(text) is not None) is matches


@pytest.mark.parametrize(
    "expression", ["/(/", "/[]/", "/a/x", "\\", r"/\p{L}/", "a" * 3000, "/a{2,1}/", "/(?<y/", "/[b-a]/"]
)
def test_what_cannot_be_run_is_refused(expression: str) -> None:
    with pytest.raises(PatternError):
        compile_pattern(expression)
