"""Azure's price API, played by a function in virtual time: paging, throttling, incomplete pages, cache."""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kaito.prices.azure_retail import LOOKUP_SECONDS, AzureRetailPrices, PricesUnavailable
from kaito.prices.book import PriceBook
from kaito.prices.cache import MAX_ENTRIES, CachedPrices, PriceCache
from kaito.prices.http import Fetch, FetchError, Response
from kaito.prices.price import Offering
from kaito.prices.table import parse_table
from kaito.runtime.clock import LoopClock, monotonic

pytestmark = pytest.mark.virtual_time

START = datetime(2030, 1, 1, tzinfo=UTC)
"""When the clock of the tests starts."""

WANTED = Offering("azure", "eastus", "Standard_NC24ads_A100_v4")
SPOT = Offering("azure", "eastus", "Standard_NC24ads_A100_v4", "spot")


def item(price: float, **changes: Any) -> dict[str, Any]:
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": price,
        "unitPrice": price,
        "unitOfMeasure": "1 Hour",
        "armRegionName": "eastus",
        "effectiveStartDate": "2024-01-01T00:00:00Z",
        "meterName": "NC24ads A100 v4",
        "productName": "Virtual Machines NCads A100 v4 Series",
        "skuName": "NC24ads A100 v4",
        "type": "Consumption",
        "armSkuName": "Standard_NC24ads_A100_v4",
        **changes,
    }


ITEMS = [
    item(3.673),
    item(1.1019, skuName="NC24ads A100 v4 Spot", meterName="NC24ads A100 v4 Spot"),
    item(0.7, skuName="NC24ads A100 v4 Low Priority"),
    item(4.777, productName="Virtual Machines NCads A100 v4 Series Windows"),
    item(4.7, productName="Virtual Machines NCads A100 v4 Series Win"),
    item(5.0, productName="NCads A100 v4 Series CloudServices"),
    item(20000.0, type="Reservation", reservationTerm="1 Year"),
    item(0.0),
    item(9.0, armRegionName="eastus2"),
    item(9.0, armSkuName="Standard_NC48ads_A100_v4"),
    item(9.0, currencyCode="EUR"),
    item(9.0, effectiveStartDate="2031-01-01T00:00:00Z"),
    item(9.0, effectiveEndDate="2029-01-01T00:00:00Z"),
    item(9.0, unitOfMeasure="1 Month"),
    item(9.0, retailPrice="soon"),
]


def page(*items: dict[str, Any], following: str | None = None, **changes: Any) -> Response:
    document = {"BillingCurrency": "USD", "Items": items, "NextPageLink": following, "Count": len(items), **changes}
    return Response(200, json.dumps(document).encode())


class Api:
    """Answers requests in order; the last answer is repeated. An exception is raised."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers, self.urls = list(answers), list[str]()

    async def __call__(self, url: str) -> Response:
        self.urls.append(url)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def prices(api: Fetch, cache: PriceCache | None = None) -> AzureRetailPrices:
    return AzureRetailPrices(api, cache, clock=LoopClock(), rng=random.Random(1))


async def test_the_linux_price_is_found_among_the_others_by_one_query() -> None:
    api = Api(page(*ITEMS))
    source = prices(api)
    found, spot = await source.find(WANTED), await source.find(SPOT)
    assert found.price is not None
    assert (found.price.per_hour, found.price.currency, found.note) == (Decimal("3.673"), "USD", "")
    assert str(found.price.as_of) == "2030-01-01"
    assert spot.price is not None
    assert (spot.price.per_hour, spot.price.capacity_type) == (Decimal("1.1019"), "spot")
    (url,) = api.urls  # the second answer is from the cache
    query = parse_qs(urlsplit(url).query)
    assert query["$filter"][0].split(" and ") == [
        "serviceName eq 'Virtual Machines'",
        "armRegionName eq 'eastus'",
        "armSkuName eq 'Standard_NC24ads_A100_v4'",
        "priceType eq 'Consumption'",
    ]
    assert query["currencyCode"] == ["'USD'"]


async def test_pages_are_read_to_the_end() -> None:
    second = "https://prices.azure.com/api/retail/prices?$skip=2"
    api = Api(page(*ITEMS[3:], following=second), page(*ITEMS[:3]))
    found = await prices(api).find(WANTED)
    assert found.price is not None
    assert api.urls[1:] == [second]


async def test_a_size_that_the_api_does_not_list_is_unknown_and_not_an_error() -> None:
    assert (await prices(Api(page())).find(WANTED)).price is None
    assert (await prices(Api(page(item(1.0)))).find(SPOT)).price is None


async def test_other_clouds_and_an_unknown_region_are_not_looked_up() -> None:
    api = Api(page(*ITEMS))
    for offering in (Offering("aws", "us-east-1", "p4d.24xlarge"), Offering("azure", "", "Standard_NC6s_v3")):
        assert (await prices(api).find(offering)).price is None
    assert api.urls == []


async def test_two_prices_are_an_error_and_not_a_choice() -> None:
    source = prices(Api(page(item(1.0), item(2.0), item(3.0, skuName="x Spot"))))
    with pytest.raises(PricesUnavailable, match="lists several prices of Standard_NC24ads_A100_v4 in eastus: 1, 2"):
        await source.find(WANTED)
    spot = await source.find(SPOT)
    assert spot.price is not None


INCOMPLETE = [
    FetchError("ended early"),
    Response(429),
    Response(503),
    Response(200, b'{"Items": [{"armSku'),
    Response(200, b"[]"),
    Response(200, b'{"Count": 0}'),
    Response(200, b'{"Items": [1]}'),
    Response(200, b"[" * 100_000),
    page(*ITEMS, Count=100),
    page(*ITEMS, following=7),  # type: ignore[arg-type]
    page(*ITEMS, following="https://elsewhere.example/api"),
    page(*ITEMS, following="http://prices.azure.com/api/retail/prices?$skip=1"),
]


@pytest.mark.parametrize("answer", INCOMPLETE, ids=lambda answer: str(answer)[:60])
async def test_an_incomplete_answer_is_retried(answer: Response | Exception) -> None:
    api = Api(answer, page(*ITEMS))
    found = await prices(api).find(WANTED)
    assert found.price is not None
    assert len(api.urls) == 2
    assert monotonic() >= 1.5


@pytest.mark.parametrize("answer", INCOMPLETE, ids=lambda answer: str(answer)[:60])
async def test_an_incomplete_answer_is_never_taken_for_all_prices(answer: Response | Exception) -> None:
    api = Api(answer)
    with pytest.raises(PricesUnavailable):
        await prices(api).find(WANTED)
    assert len(api.urls) == 4
    assert monotonic() < LOOKUP_SECONDS


async def test_the_second_page_may_fail_as_well() -> None:
    api = Api(page(*ITEMS, following="https://prices.azure.com/2"), Response(500))
    with pytest.raises(PricesUnavailable, match="status 500"):
        await prices(api).find(WANTED)


async def test_retry_after_is_honored_and_a_long_one_ends_the_lookup() -> None:
    api = Api(Response(429, retry_after="20"), page(*ITEMS))
    assert (await prices(api).find(WANTED)).price is not None
    assert monotonic() >= 20
    began = monotonic()
    with pytest.raises(PricesUnavailable, match="status 429"):
        await prices(Api(Response(429, retry_after="3600"))).find(WANTED)
    assert monotonic() == began


async def test_a_rejected_request_is_not_repeated() -> None:
    api = Api(Response(400))
    with pytest.raises(PricesUnavailable, match="rejected the request with status 400"):
        await prices(api).find(WANTED)
    assert len(api.urls) == 1


async def test_an_api_that_hangs_ends_the_lookup() -> None:
    async def hang(url: str) -> Response:
        await asyncio.sleep(100_000)
        return Response(200)

    with pytest.raises(PricesUnavailable, match="did not answer within 45 s"):
        await prices(hang).find(WANTED)
    assert monotonic() == LOOKUP_SECONDS


async def test_pages_that_lead_in_a_circle_or_never_end_are_an_error() -> None:
    circle = "https://prices.azure.com/again"
    with pytest.raises(PricesUnavailable, match="does not end after 2 pages"):
        await prices(Api(page(following=circle))).find(WANTED)

    async def endless(url: str) -> Response:
        return page(following=f"{url}1")

    with pytest.raises(PricesUnavailable, match="does not end after 50 pages"):
        await prices(endless).find(WANTED)


async def test_an_answer_is_reused_for_a_day_and_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "azure.json"
    api = Api(page(*ITEMS))
    await prices(api, PriceCache(path)).find(WANTED)
    await asyncio.sleep(23 * 3600)
    again = await prices(api, PriceCache(path)).find(WANTED)
    assert again.price is not None
    assert str(again.price.as_of) == "2030-01-01"
    assert len(api.urls) == 1
    await asyncio.sleep(2 * 3600)
    renewed = await prices(api, PriceCache(path)).find(WANTED)
    assert renewed.price is not None
    assert str(renewed.price.as_of) == "2030-01-02"
    assert len(api.urls) == 2
    assert [file.name for file in path.parent.iterdir()] == ["azure.json"]


async def test_an_old_answer_is_used_with_its_date_if_the_api_fails_and_not_after_a_month() -> None:
    api, cache = Api(page(*ITEMS), Response(503)), PriceCache()
    await prices(api, cache).find(WANTED)
    await asyncio.sleep(timedelta(days=3).total_seconds())
    found = await prices(api, cache).find(WANTED)
    assert found.price is not None
    assert str(found.price.as_of) == "2030-01-01"
    assert found.note == "the price API returned status 503: the price of 2030-01-01 is used"
    cache.put("usd/eastus/standard_nc24ads_a100_v4", CachedPrices(START - timedelta(days=28), ("1",)))
    with pytest.raises(PricesUnavailable):
        await prices(api, cache).find(WANTED)


async def test_an_answer_of_the_future_is_not_used() -> None:
    cache = PriceCache()
    ahead = LoopClock().now() + timedelta(days=1)
    cache.put("usd/eastus/standard_nc24ads_a100_v4", CachedPrices(ahead, ("1",)))
    found = await prices(Api(page(*ITEMS)), cache).find(WANTED)
    assert found.price is not None
    assert found.price.per_hour == Decimal("3.673")


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"a": 1}', '{"a": {"readAt": "x", "onDemand": [], "spot": []}}', "x" * (2**20 + 1)]
)
async def test_a_damaged_cache_file_costs_a_request(tmp_path: Path, content: str) -> None:
    path = tmp_path / "azure.json"
    path.write_text(content)
    api, cache = Api(page(*ITEMS)), PriceCache(path)
    assert len(cache) == 0
    assert (await prices(api, cache).find(WANTED)).price is not None
    assert len(PriceCache(path)) == 1


async def test_a_cache_that_cannot_be_written_is_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = await prices(Api(page(*ITEMS)), PriceCache(tmp_path / "file" / "azure.json")).find(WANTED)
    assert found.price is not None


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = PriceCache()
    for number in range(MAX_ENTRIES + 10):
        cache.put(str(number), CachedPrices(START + timedelta(seconds=number)))
    assert len(cache) == MAX_ENTRIES
    assert cache.get("9") is None
    assert cache.get("10") is not None


async def test_the_book_reads_the_living_source_before_the_shipped_table() -> None:
    book = PriceBook(living=prices(Api(page(*ITEMS))))
    quote = await book.find(WANTED)
    assert quote.price is not None
    assert (quote.price.source, quote.notes) == ("Azure Retail Prices API", ())
    own = parse_table("prices: [{region: eastus, instanceType: standard_nc24ads_a100_v4, onDemand: 2}]", "mine")
    api = Api(page(*ITEMS))
    mine = await PriceBook(own=own, living=prices(api)).find(WANTED)
    assert mine.price is not None
    assert mine.price.per_hour == 2
    assert api.urls == []


async def test_the_book_reads_the_shipped_table_if_the_api_fails_and_states_why() -> None:
    quote = await PriceBook(living=prices(Api(Response(503)))).find(WANTED)
    assert quote.price is not None
    assert "skypilot" in quote.price.source
    assert quote.notes == ("the price API returned status 503",)
    unknown = await PriceBook(living=prices(Api(page()))).find(Offering("azure", "norwayeast", "Standard_NC6s_v3"))
    assert (unknown.price, unknown.notes) == (None, ())
