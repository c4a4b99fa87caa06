from hypothesis import given
from hypothesis import strategies as st

from edgesdk.cost.arena import Buffer, aligned, arena_bytes


def buffer(size: float, first: int, last: int) -> Buffer:
    return Buffer(size_bytes=size, first=first, last=last)


def test_sizes_are_rounded_up_to_the_alignment() -> None:
    assert [aligned(size) for size in (0, 1, 16, 17)] == [0, 16, 16, 32]


def test_first_fit_fills_gaps() -> None:
    # 100 and 60 side by side; 40 is needed with neither of them and 50 with the first alone.
    placed = [buffer(100, 0, 1), buffer(60, 1, 2), buffer(50, 0, 0), buffer(40, 3, 3)]
    assert arena_bytes(placed) == 160


def test_no_tensor_no_arena() -> None:
    assert arena_bytes([]) == 0


BUFFERS = st.lists(
    st.builds(
        lambda size, first, length: buffer(size, first, first + length),
        st.integers(1, 1000),
        st.integers(0, 20),
        st.integers(0, 8),
    ),
    min_size=1,
    max_size=25,
)


@given(BUFFERS)
def test_arena_lies_between_what_is_live_and_the_sum(buffers: list[Buffer]) -> None:
    live = max(
        sum(item.size_bytes for item in buffers if item.first <= step <= item.last)
        for step in range(30)
    )
    assert live <= arena_bytes(buffers) <= sum(item.size_bytes for item in buffers)
