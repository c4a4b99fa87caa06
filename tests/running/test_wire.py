import io
import json
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgesdk.running.wire import Array, read_message, write_message

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
    )
)


def sent(header: dict[str, Any], arrays: list[Array]) -> io.BytesIO:
    stream = io.BytesIO()
    write_message(stream, header, arrays)
    stream.seek(0)
    return stream


class Trickle(io.BytesIO):
    """A stream that, as a pipe may, gives fewer bytes than were asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1 if size is None or size > 1 else size)


@given(st.lists(ARRAYS, max_size=3), st.dictionaries(st.text(max_size=4), st.integers()))
def test_messages_arrive_as_they_were_sent(arrays: list[Array], extra: dict[str, int]) -> None:
    header = {**extra, "request": "run"}
    header.pop("arrays", None)
    stream = sent(header, arrays)
    found, received = read_message(stream)
    assert found == header
    assert stream.read() == b""
    assert len(received) == len(arrays)
    for wanted, got in zip(arrays, received, strict=True):
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        assert got.tobytes() == wanted.tobytes()


@given(ARRAYS)
def test_a_header_is_not_changed_by_sending_it(array: Array) -> None:
    header = {"request": "run"}
    sent(header, [array])
    assert header == {"request": "run"}


def test_memory_layout_does_not_matter() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    views = [array.transpose(2, 0, 1), array[:, ::2], np.asfortranarray(array), array[..., 1]]
    _, received = read_message(sent({}, views))
    for wanted, got in zip(views, received, strict=True):
        assert np.array_equal(wanted, got)
        assert got.flags.c_contiguous
        assert got.flags.writeable


def test_messages_follow_each_other() -> None:
    stream = io.BytesIO()
    for index in range(3):
        write_message(stream, {"index": index}, [np.full(index, index)])
    stream.seek(0)
    for index in range(3):
        header, [array] = read_message(stream)
        assert header == {"index": index}
        assert array.tolist() == [index] * index
    with pytest.raises(EOFError):
        read_message(stream)


def test_a_message_may_come_in_single_bytes() -> None:
    data = sent({"request": "run"}, [np.arange(5)]).getvalue()
    header, [array] = read_message(Trickle(data))
    assert header == {"request": "run"}
    assert array.tolist() == [0, 1, 2, 3, 4]


def test_an_end_anywhere_is_an_end() -> None:
    data = sent({"request": "run"}, [np.arange(3), np.zeros((2, 2))]).getvalue()
    for length in range(len(data)):
        with pytest.raises(EOFError):
            read_message(io.BytesIO(data[:length]))


def test_objects_are_never_sent() -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        sent({}, [np.array([object()])])


class Bomb:
    """Something whose unpickling would be noticed."""

    went_off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Bomb, "went_off", True)


def test_a_pickle_is_never_loaded() -> None:
    objects = io.BytesIO()
    np.save(objects, np.array([Bomb()], dtype=object), allow_pickle=True)
    for payload in (objects.getvalue(), pickle.dumps(Bomb())):
        header = json.dumps({"arrays": 1}).encode()
        pack = struct.Struct("<Q").pack
        data = pack(len(header)) + header + pack(len(payload)) + payload
        with pytest.raises(ValueError, match="allow_pickle"):
            read_message(io.BytesIO(data))
    assert not Bomb.went_off
