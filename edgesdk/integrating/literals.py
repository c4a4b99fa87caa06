"""Text and numbers from an artifact as literals of each language; none can end before its quote."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

_PER_LINE = 16


def c_string(text: str) -> str:
    """Return a C++ literal: UTF-8, everything but plain ASCII as three octal digits."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in _utf8(text)) + '"'


def python_string(text: str) -> str:
    """Return a Python literal in double quotes."""
    return _quoted(text, lambda code: f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def script_string(text: str) -> str:
    """Return a JSON literal in ASCII, which is one of TypeScript, too; safe inside HTML."""
    return json.dumps(_clean(text)).replace("<", "\\u003c").replace(">", "\\u003e")


def kotlin_string(text: str) -> str:
    """Return a Kotlin literal; ``$`` is escaped, so nothing in it is a template."""
    units = _clean(text).encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    return '"' + "".join(_kept(code, '"\\$') or f"\\u{code:04x}" for code in codes) + '"'


def swift_string(text: str) -> str:
    """Return a Swift literal; the backslash is escaped, so nothing in it is interpolated."""
    return _quoted(text, lambda code: f"\\u{{{code:x}}}")


def comment(text: str) -> str:
    """Return text that cannot leave a comment line in any of the languages, nor a Markdown line."""
    kept = "".join(c if c.isalnum() or c in " .,:;()[]+-_=%" else " " for c in _clean(text)[:200])
    return " ".join(kept.replace("--", "-").split())


def markup(text: str) -> str:
    """Return text for HTML or XML, in an element or an attribute's quotes."""
    return html.escape(_clean(text), quote=True)


def number(value: float) -> str:
    """Return the shortest decimal that is the same float32, always with a point or an exponent."""
    # repr of a float32's own shortest digits: "0.01", "1e-07".
    text = str(np.float32(value))
    return text if "." in text or "e" in text else f"{text}.0"


def numbers(values: Sequence[float]) -> str:
    """Return float32 values separated by commas."""
    return ", ".join(number(value) for value in values)


def c_numbers(values: Sequence[float]) -> str:
    """Return C++ float literals separated by commas."""
    return ", ".join(f"{number(value)}f" for value in values)


def integers(values: Sequence[int]) -> str:
    """Return integers separated by commas, sixteen a line."""
    lines = [values[i : i + _PER_LINE] for i in range(0, len(values), _PER_LINE)]
    return ",\n".join(", ".join(str(int(value)) for value in line) for line in lines)


def python_tuple(values: Sequence[float]) -> str:
    """Return a Python tuple of integers or float32 values."""
    texts = [str(v) if isinstance(v, int) else number(v) for v in values]
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


FILTERS: Mapping[str, Callable[..., str]] = {
    "c_string": c_string,
    "python_string": python_string,
    "script_string": script_string,
    "kotlin_string": kotlin_string,
    "swift_string": swift_string,
    "comment": comment,
    "markup": markup,
    "number": number,
    "numbers": numbers,
    "c_numbers": c_numbers,
    "integers": integers,
    "python_tuple": python_tuple,
}


def _quoted(text: str, escape: Callable[[int], str]) -> str:
    codes = [ord(c) for c in _clean(text)]
    return '"' + "".join(_kept(code, '"\\') or escape(code) for code in codes) + '"'


def _kept(code: int, special: str) -> str:
    """Return a printable ASCII character that means itself, else nothing."""
    return chr(code) if 0x20 <= code < 0x7F and chr(code) not in special else ""


def _clean(text: str) -> str:
    """Return the text without lone surrogates, which no encoding can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
