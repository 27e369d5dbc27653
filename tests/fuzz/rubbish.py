"""Values that nobody should give: of another type, out of range, huge, empty, unknown, mutilated."""

from typing import Any

import yaml
from hypothesis import strategies as st

HUGE = [10**6, 2**31, 2**63 - 1, 2**64, 10**30, 10**400]
NUMBERS = st.sampled_from(
    [
        "0",
        "-1",
        "1",
        "2",
        "3",
        "-0.5",
        "0.5",
        "1.0",
        "1e-320",
        "1e308",
        "1e400",
        "nan",
        ".nan",
        "-.inf",
        ".inf",
        "0x10",
        "1_000",
        "1,000",
        "½",
        "٣",
        "1" + "0" * 400,
        *map(str, HUGE),
    ]
)
WORDS = st.sampled_from(
    [
        "",
        " ",
        "null",
        "true",
        "false",
        "~",
        "{}",
        "[]",
        "[1, 2",
        "{a: }",
        "a: b: c",
        "[[[]]]",
        "x",
        "-",
        "--",
        "*",
        "&a [*a]",
        "!!python/object/apply:os.system [ls]",
        "!!binary x",
        "'",
        '"',
        "%s",
        "{0}",
        "${HOME}",
        "ünïcödé",
        "\u202e",
        "☃" * 50,
        "x" * 5000,
        "a\nb",
        "a\tb",
        "\x1b[31m",
        "os.system",
        "torch.nn.ReLU",
        "builtins.int",
        "a.b.c",
        ".",
        "..",
        "1:2:3",
        "2020-01-01",
        "0o17",
        "=",
        "class_path: x",
        "\udcff",
    ]
)
PATHS = st.sampled_from(
    [
        "",
        ".",
        "..",
        "file",
        "file/below",
        "folder",
        "empty",
        "missing",
        "missing/below",
        "x" * 300,
        "a/" * 2500,
        "ü☃/\u202e",
        "loop",
        "loop/below",
        "null",
        "folder/*",
        "~nobody/x",
        "a\nb",
        "-",
        "<script>",
        "\udcff",
        "folder/image.png",
    ]
)
"""Places in the folder that :func:`furnish` makes; none leads out of it but ``..``, which nobody writes to."""

VALUES = NUMBERS | WORDS | NUMBERS | WORDS | st.text(max_size=12) | st.floats().map(repr)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(HUGE) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)
"""Any value a JSON or YAML file can hold."""


@st.composite
def mutated(draw: st.DrawFn, original: Any) -> Any:
    """A nested value with one part replaced, removed, renamed or added, at any depth."""
    if isinstance(original, dict) and original:
        change = draw(st.sampled_from(["inside", "inside", "inside", "inside", "replace", "remove", "rename", "add"]))
        key = draw(st.sampled_from(sorted(original)))
        rest = {name: value for name, value in original.items() if name != key}
        if change == "inside":
            return original | {key: draw(mutated(original[key]))}
        if change == "remove":
            return rest
        if change == "rename":
            return rest | {draw(st.text(max_size=8)): original[key]}
        if change == "add":
            return original | {draw(st.text(max_size=8)): draw(JSON)}
    if isinstance(original, list) and original and draw(st.booleans()):
        place = draw(st.integers(0, len(original) - 1))
        return [*original[:place], draw(mutated(original[place])), *original[place + 1 :]]
    return draw(JSON)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of a file, cut, spliced, or of another kind altogether."""
    place = draw(st.integers(0, len(content)))
    kind = draw(st.sampled_from(["cut", "splice", "splice", "overwrite", "other"]))
    if kind == "cut":
        return content[:place]
    some = draw(
        st.binary(max_size=12) | st.sampled_from([b"\0", b"\xff\xfe", b"\t", b"\r", b",,,,,", b'"', b"nan", b"1e999", b"- ", b": ", b"\n"])
    )
    if kind == "splice":
        return content[:place] + some + content[place:]
    if kind == "overwrite":
        return content[:place] + some + content[place + len(some) :]
    return some


def as_yaml(value: Any) -> str:
    """Write a value as YAML; what YAML cannot write is written as Python does."""
    try:
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    except (yaml.YAMLError, UnicodeError):
        return repr(value)
