from collections.abc import Sequence

import pytest

from edgesdk.budget import Condition
from edgesdk.plan import Price
from edgesdk.planner.prices import explain_price, shadow_prices

LATENCY = Condition(figure="latency_ms", limit=8.0)
SIZE = Condition(figure="size_bytes", limit=1000.0)
FLASH = Condition(figure="flash_bytes", limit=100.0, asked_by="device")
DROP = Condition(figure="accuracy_drop", limit=0.01)


def loss_of(conditions: Sequence[Condition]) -> float | None:
    """Return a loss that falls with the latency allowed; below 7.5 ms nothing fits."""
    limits = {c.figure: c.limit for c in conditions}
    return None if limits["latency_ms"] < 7.5 else 10 / limits["latency_ms"]


def test_every_limit_asked_for_is_moved_while_the_others_are_held() -> None:
    latency, size = shadow_prices((LATENCY, SIZE, FLASH, DROP), loss_of)
    assert (latency.figure, latency.limit, latency.expected_loss) == ("latency_ms", 8.0, 1.25)
    assert latency.tighter_loss is None
    assert latency.looser_loss == pytest.approx(10 / 8.8)
    assert (size.tighter_loss, size.looser_loss) == (1.25, 1.25)


def test_of_a_fleet_a_limit_moves_on_all_devices_together() -> None:
    there = Condition(figure="latency_ms", limit=30.0, device="board")
    seen: list[list[float]] = []

    def loss(conditions: Sequence[Condition]) -> float:
        seen.append([c.limit for c in conditions])
        return 1.0

    (latency,) = shadow_prices((LATENCY, there), loss)
    assert latency.limit == 8.0
    assert seen == [[8.0, 30.0], [pytest.approx(7.2), 27.0], [pytest.approx(8.8), 33.0]]


def test_without_limits_nothing_has_a_price() -> None:
    assert shadow_prices((FLASH, DROP), loss_of) == ()


@pytest.mark.parametrize(
    ("now", "tighter", "looser", "said"),
    [
        (1.0, 2.0, 0.5, "A limit of latency 8.8 ms would lower the expected loss from 1 to 0.5; "
         "one of latency 7.2 ms would raise the loss from 1 to 2."),
        (1.0, None, 1.0, "A limit of latency 8.8 ms would buy nothing; "
         "at latency 7.2 ms nothing fits."),
        (1.0, 1.0, 1.0, "A limit of latency 8.8 ms would buy nothing, "
         "and one of latency 7.2 ms would cost nothing."),
        (None, None, 0.5, "With latency 8.8 ms there is a network, of expected loss 0.5."),
        (None, None, None, "Not even latency 8.8 ms would do."),
    ],
)  # fmt: skip
def test_a_price_is_a_sentence(
    now: float | None, tighter: float | None, looser: float | None, said: str
) -> None:
    price = Price(
        figure="latency_ms", limit=8.0, expected_loss=now, tighter_loss=tighter, looser_loss=looser
    )
    assert explain_price(price) == said
