"""What asking takes, by hand."""

import pytest

from lightning_sal.clients.budget import Estimate, Prices
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.clients.planning import forecast, minutes
from lightning_sal.clients.request_check import sent_bytes
from lightning_sal.clients.requests import Request

ASKED = [(["x" * 400, "y" * 80], 2)] * 3  # a system turn, a question and two images, three times


def test_tokens_and_dollars_by_hand():
    planned = forecast(ASKED, Estimate(image=900, output=1000), Prices(2, 10))
    assert (planned.requests, planned.images) == (3, 6)
    assert (planned.input.typical, planned.input.most) == (3 * (100 + 20 + 2 * 600), 3 * (400 + 80 + 2 * 32 + 2 * 900))
    assert (planned.output.typical, planned.output.most) == (3 * 400, 3 * 1000)
    assert planned.cost.typical == pytest.approx((2 * 3960 + 10 * 1200) / 1e6)
    assert planned.cost.most == pytest.approx((2 * 7032 + 10 * 3000) / 1e6)
    assert forecast(ASKED, Estimate(900, 100)).output.typical == 300  # never more than the limit
    assert forecast(ASKED, Estimate(900, 100)).cost is None


def test_time_is_that_of_the_rate_or_of_the_writing():
    planned = forecast(ASKED * 100, Estimate(900, 1000))  # 300 requests, 120,000 tokens or 300,000 at most
    slow = minutes(planned, EndpointConfig("m", per_minute=10, concurrency=8))
    assert (slow.typical, slow.most) == (30, 30)
    few = minutes(planned, EndpointConfig("m", concurrency=2))  # at 50 tokens a second of each
    assert (few.typical, few.most) == (20, 50)


def test_the_size_of_a_request_is_its_text_and_its_images_in_base64():
    assert sent_bytes(Request((b"123456", b"1234"), ("é?",), "be brief")) == 8 + 8 + 3 + 8
