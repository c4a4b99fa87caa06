"""Names from an artifact as identifiers of the languages that code is generated in."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgesdk.errors import ArtifactError

Words = tuple[str, ...]

_WORD = re.compile(r"[A-Za-z0-9]+")
_VERSION = re.compile(r"(iOS)?[0-9]+(\.[a-z0-9]+){0,4}")
_LONGEST = 40

# Keywords and names that generated code may not shadow, of all five languages together: a tensor
# is then called the same in every app.
_TAKEN = frozenset(
    """
    abstract actor all alignas alignof and any app arguments array as asm assert associatedtype
    async atomic auto await base bitand bitor bool boolean break by byte case catch char class clock
    companion compl concept const consteval constexpr constinit constructor continue convenience
    crossinline data debugger declare decltype def default defer deinit del delegate delete
    deprecated description didset do double dynamic elif else end enum error eval event except
    explicit export extends extension extern external fallthrough false field file fileprivate
    final finally float for foreach friend from func function get global golden goto guard hash
    hashcode if implements import in indirect infix init inline inner inout input int integer
    interface internal invocations is lambda lateinit lazy left let long main map match measurement
    method model module mutable mutating namespace nan native never new nil noexcept noinline none
    nonisolated nonlocal nonmutating not null number object operator optional or out output
    override package param pass postfix precedence precedencegroup prefix print private property
    protected protocol prototype public raise range receiver register reified reinterpret repeat
    repeated require required requires rethrows return right sealed self set setter short signed
    sizeof some static std strict string struct subscript super suspend switch symbol synchronized
    tailrec template test tflite this thread throw throws to transient true try type typealias
    typedef typeid typename typeof undefined union unknown unowned unsigned using val value values
    var vararg variable virtual void volatile weak when where while willset with xor yield
    """.split()  # noqa: SIM905 - two hundred words read better so
)


def words(text: str, *, fallback: str) -> Words:
    """Return the lower-case ASCII words of a name, never empty and never a keyword alone.

    Whatever else the name holds (quotes, newlines, other scripts) is left out; a name of nothing
    but that becomes ``fallback``.
    """
    found = [word.lower() for word in _WORD.findall(text[:1000])]
    if not found:
        found = [fallback]
    if found[0][0].isdigit():
        found.insert(0, fallback)
    joined = "_".join(found)[:_LONGEST].strip("_")
    found = joined.split("_")
    if len(found) == 1 and found[0] in _TAKEN:
        found.append("tensor" if fallback != "model" else "network")
    return tuple(found)


def distinct(names: Sequence[str], *, fallback: str) -> tuple[Words, ...]:
    """Return each name's words, told apart by a number where two names come to the same."""
    seen: set[str] = set()
    result = []
    for name in names:
        base = words(name, fallback=fallback)
        candidate, count = base, 1
        while pascal(candidate).lower() in seen:
            count += 1
            candidate = (*base, f"n{count}")
        seen.add(pascal(candidate).lower())
        result.append(candidate)
    return tuple(result)


def version(text: str) -> str:
    """Return a version as package managers write it; ``ArtifactError`` for anything else."""
    if not _VERSION.fullmatch(text):
        raise ArtifactError(f"the manifest asks for the runtime version {text!r}")
    return text


def snake(name: Words) -> str:
    """Return ``first_word_second``."""
    return "_".join(name)


def camel(name: Words) -> str:
    """Return ``firstWordSecond``."""
    return name[0] + "".join(word.capitalize() for word in name[1:])


def pascal(name: Words) -> str:
    """Return ``FirstWordSecond``."""
    return "".join(word.capitalize() for word in name)


def kebab(name: Words) -> str:
    """Return ``first-word-second``."""
    return "-".join(name)


def flat(name: Words) -> str:
    """Return ``firstwordsecond``, for package names."""
    joined = "".join(name)
    return f"{joined}app" if joined in _TAKEN else joined
