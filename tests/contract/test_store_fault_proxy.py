"""The fault proxy itself: what it breaks, how often, and that the server saw what the fault's name says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pagemill_core.errors import PagemillError
from pagemill_core.storage.s3 import S3Store
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.fault_proxy import FaultProxy, ProxyRates, ProxyRule
from pagemill_core.testing.seaweed import SeaweedServer

pytestmark = pytest.mark.s3


@pytest.fixture
def proxy(s3_server: SeaweedServer) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.endpoint, seed=3) as running:
        yield running


@pytest.fixture
def proxied(s3_server: SeaweedServer, proxy: FaultProxy) -> Iterator[S3Store]:
    store = s3_server.fresh_store(endpoint=proxy.endpoint, clock=FakeClock())
    yield store
    store.close()


@pytest.mark.parametrize(
    ("rates", "want_written"),
    [
        (ProxyRates(conflict=1), False),
        (ProxyRates(throttled=1), False),
        (ProxyRates(slow_down=1), False),
        (ProxyRates(unavailable=1), False),
        (ProxyRates(denied=1), False),
        (ProxyRates(reset=1), False),
        (ProxyRates(reply_lost=1), True),
        (ProxyRates(slow=1, slow_s=0.01), True),
    ],
    ids=["409", "429", "503", "500", "403", "reset", "reply lost", "slow"],
)
def test_fault_lets_the_server_see_the_write_or_not(
    proxied: S3Store, proxy: FaultProxy, rates: ProxyRates, want_written: bool
) -> None:
    proxy.set_rules([ProxyRule(rates, conditional=True)])
    try:
        token = proxied.put_if_absent("k", b"")
    except PagemillError:
        token = None
    proxy.set_rules([])

    assert (proxied.head("k") is not None) is want_written
    assert (token is not None) is (rates.slow == 1)


def test_rules_narrow_by_method_path_and_precondition(proxied: S3Store, proxy: FaultProxy) -> None:
    proxy.set_rules(
        [
            ProxyRule(ProxyRates(), pattern="/safe/"),
            ProxyRule(ProxyRates(denied=1), frozenset(("PUT",)), conditional=False),
        ]
    )

    proxied.put("safe/k", b"")
    proxied.put_if_absent("k", b"")
    proxied.get("k")
    with pytest.raises(PagemillError):
        proxied.put("k", b"")
    assert proxy.struck == {"ok": 3, "denied": 1}


def test_same_seed_strikes_the_same_requests(s3_server: SeaweedServer) -> None:
    def struck(seed: int) -> list[bool]:
        rules = [ProxyRule(ProxyRates(denied=0.4))]
        with FaultProxy(s3_server.endpoint, rules, seed=seed) as proxy:
            store = s3_server.store("any-bucket", "same", endpoint=proxy.endpoint, clock=FakeClock())
            outcomes = []
            for number in range(40):
                try:
                    store.head(f"k/{number % 20}")
                    outcomes.append(False)
                except PagemillError:
                    outcomes.append(True)
            store.close()
        return outcomes

    first = struck(1)
    assert first == struck(1) != struck(2)
    assert 6 < sum(first) < 27
    assert first[:20] != first[20:]  # the same request fares otherwise the next time
