from __future__ import annotations

import ast
import json
import keyword
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.errors import ArtifactError
from edgesdk.integrating import literals, naming

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=40)


@given(TEXT)
def test_a_python_literal_is_the_text(text: str) -> None:
    assert ast.literal_eval(literals.python_string(text)) == text


@given(TEXT)
def test_a_script_literal_is_the_text_and_ascii_without_tags(text: str) -> None:
    literal = literals.script_string(text)
    assert json.loads(literal) == text
    assert literal.isascii()
    assert "<" not in literal


@given(TEXT)
def test_a_c_literal_is_the_text_in_utf8(text: str) -> None:
    literal = literals.c_string(text)
    assert re.fullmatch(r'"([ !#->@-\[\]-~]|\\[0-7]{3})*"', literal)
    octal = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), literal[1:-1].encode())
    assert octal == text.encode()


@given(TEXT)
def test_a_kotlin_literal_is_the_text_and_holds_no_template(text: str) -> None:
    literal = literals.kotlin_string(text)
    assert re.fullmatch(r'"([ !#%-\[\]-~]|\\u[0-9a-f]{4})*"', literal)
    assert json.loads(literal) == text


@given(TEXT)
def test_a_swift_literal_is_the_text_and_is_not_interpolated(text: str) -> None:
    literal = literals.swift_string(text)
    assert re.fullmatch(r'"([ !#-\[\]-~]|\\u\{[0-9a-f]+\})*"', literal)
    decoded = re.sub(r"\\u\{([0-9a-f]+)\}", lambda m: chr(int(m[1], 16)), literal[1:-1])
    assert decoded == text


@given(TEXT)
def test_a_comment_is_one_line_that_ends_no_comment(text: str) -> None:
    shown = literals.comment(text)
    assert len(shown.splitlines()) <= 1
    assert not set(shown) & set("\\\"'`<>*/#$|{}\n")


@given(FLOATS)
def test_a_number_is_the_same_float32_and_no_integer(value: float) -> None:
    text = literals.number(value)
    assert np.float32(text) == np.float32(value)
    assert "." in text or "e" in text


@given(st.lists(TEXT, max_size=6))
def test_names_become_distinct_identifiers_of_every_language(names: list[str]) -> None:
    found = naming.distinct(names, fallback="tensor")
    for style in (naming.snake, naming.camel, naming.pascal, naming.flat):
        texts = [style(name) for name in found]
        assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text) for text in texts)
        assert not any(keyword.iskeyword(text) for text in texts)
    assert len({naming.pascal(name) for name in found}) == len(names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("image", "image"),
        ("Input Image", "input_image"),
        ("class", "class_tensor"),
        ("3d points", "tensor_3d_points"),
        ("数", "tensor"),
        ('"; rm -rf', "rm_rf"),
        ("x" * 100, "x" * 40),
    ],
)
def test_a_name_stays_recognisable(name: str, expected: str) -> None:
    assert naming.snake(naming.words(name, fallback="tensor")) == expected


@pytest.mark.parametrize("text", ["", "1.0; rm", "1.0'", "latest", "1.0\n"])
def test_a_version_is_one(text: str) -> None:
    with pytest.raises(ArtifactError):
        naming.version(text)
