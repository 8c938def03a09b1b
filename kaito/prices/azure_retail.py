"""Reads prices from Azure's public retail price API, which needs no account.

One lookup reads every page of the answer for one instance type in one region. A page that fails, ends early or leads to
another host fails the lookup: a part of the items is never taken for all of them. HTTP 429 and 5xx, time limits and
broken connections are retried with growing pauses, within a time limit for the lookup. Answers are kept in a cache.
"""

import asyncio
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast, final
from urllib.parse import quote, urlsplit

from kaito.prices.cache import CachedPrices, PriceCache
from kaito.prices.http import Fetch, FetchError, Response
from kaito.prices.price import Offering, Price
from kaito.runtime.clock import Clock, SystemClock

ENDPOINT: Final = "https://prices.azure.com/api/retail/prices"
API_VERSION: Final = "2023-01-01-preview"

MAX_AGE: Final = timedelta(hours=24)
"""Age up to which a cached answer is used without a request. List prices change once a month at most."""

MAX_STALE_AGE: Final = timedelta(days=30)
"""Age up to which a cached answer is used if the API fails."""

LOOKUP_SECONDS: Final = 45.0
"""Time limit of one lookup with all its pages and retries."""

MAX_PAGES: Final = 50
"""Pages of one answer. One instance type in one region has about ten items, which are one page."""

_ATTEMPTS: Final = 4
_FIRST_PAUSE_SECONDS: Final = 2.0
_MAX_PAUSE_SECONDS: Final = 30.0

_OTHER_PRODUCTS: Final = (" windows", " win ", " cloud services", " cloudservices")
"""Parts of `productName` of prices that are not those of a Linux VM."""


class PricesUnavailable(Exception):
    """The API did not answer completely, or its answer has no single price."""


@final
@dataclass(frozen=True, slots=True)
class Found:
    """Result of a lookup."""

    price: Price | None
    """None if the API lists no price."""
    note: str = ""
    """Why an old answer is used; empty for a current one."""


@final
class AzureRetailPrices:
    """Prices of Azure, in one currency."""

    def __init__(
        self,
        fetch: Fetch,
        cache: PriceCache | None = None,
        *,
        currency: str = "USD",
        endpoint: str = ENDPOINT,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._fetch = fetch
        self._cache = cache if cache is not None else PriceCache()
        self._currency = currency
        self._endpoint = endpoint
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries
        self._lock = asyncio.Lock()

    async def find(self, offering: Offering) -> Found:
        """Returns the price of an offering.

        Raises:
            PricesUnavailable: the API failed and no recent answer is cached, or the price is ambiguous.
        """
        if offering.cloud != "azure" or not offering.region:
            return Found(None)
        key = f"{self._currency}/{offering.region}/{offering.instance_type}".lower()
        async with self._lock:  # one request at a time: parallel queries are throttled
            cached = self._cache.get(key)
            age = self._clock.now() - cached.read_at if cached is not None else None
            if cached is not None and age is not None and timedelta() <= age <= MAX_AGE:
                return Found(self._price(cached, offering))
            try:
                cached = await self._look_up(offering)
            except PricesUnavailable as error:
                if cached is None or age is None or not timedelta() <= age <= MAX_STALE_AGE:
                    raise
                note = f"{error}: the price of {cached.read_at.date()} is used"
                return Found(self._price(cached, offering), note)
            self._cache.put(key, cached)
            return Found(self._price(cached, offering))

    def _price(self, cached: CachedPrices, offering: Offering) -> Price | None:
        amounts = cached.spot if offering.capacity_type == "spot" else cached.on_demand
        if len(amounts) > 1:
            listed = ", ".join(amounts)
            raise PricesUnavailable(
                f"the price API lists several prices of {offering.instance_type} in {offering.region}: {listed}"
            )
        if not amounts:
            return None
        return Price(
            per_hour=Decimal(amounts[0]),
            currency=self._currency,
            capacity_type=offering.capacity_type,
            source="Azure Retail Prices API",
            as_of=cached.read_at.date(),
        )

    async def _look_up(self, offering: Offering) -> CachedPrices:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                items = await self._items(offering)
        except TimeoutError as error:
            raise PricesUnavailable(f"the price API did not answer within {LOOKUP_SECONDS:.0f} s") from error
        now = self._clock.now()
        on_demand, spot = set[str](), set[str]()
        for item in items:
            if (amount := _linux_price(item, offering, self._currency, now)) is not None:
                (spot if _is_spot(item) else on_demand).add(f"{amount:f}")
        return CachedPrices(now, tuple(sorted(on_demand)), tuple(sorted(spot)))

    async def _items(self, offering: Offering) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        url, seen = self._url(offering), set[str]()
        while url:
            if url in seen or len(seen) >= MAX_PAGES:
                raise PricesUnavailable(f"the answer of the price API does not end after {len(seen)} pages")
            seen.add(url)
            page = await self._page(url)
            found.extend(page.items)
            url = page.next_url
        return found

    def _url(self, offering: Offering) -> str:
        conditions = {
            "serviceName": "Virtual Machines",
            "armRegionName": offering.region.lower(),
            "armSkuName": offering.instance_type,
            "priceType": "Consumption",
        }
        text = " and ".join(f"{name} eq '{value.replace(chr(39), chr(39) * 2)}'" for name, value in conditions.items())
        currency = quote(f"'{self._currency}'", safe="")
        return f"{self._endpoint}?api-version={API_VERSION}&currencyCode={currency}&$filter={quote(text, safe='')}"

    async def _page(self, url: str) -> "_Page":
        """Requests a page until it is complete.

        Raises:
            PricesUnavailable: the attempts are used up, or the API rejects the request.
        """
        problem = ""
        for attempt in range(_ATTEMPTS):
            pause = min(_FIRST_PAUSE_SECONDS * 2**attempt, _MAX_PAUSE_SECONDS) * (0.75 + self._rng.random() / 2)
            try:
                response = await self._fetch(url)
            except FetchError as error:
                problem = f"the price API cannot be read: {error}"
            else:
                if response.status == 200:
                    try:
                        return _parse(response, self._endpoint)
                    except (ValueError, RecursionError) as error:
                        problem = f"the price API returned an incomplete page: {error}"
                elif response.status == 429 or response.status >= 500:
                    problem = f"the price API returned status {response.status}"
                    pause = max(pause, _retry_after(response))
                else:
                    raise PricesUnavailable(f"the price API rejected the request with status {response.status}")
            if pause > LOOKUP_SECONDS:
                break
            if attempt + 1 < _ATTEMPTS:
                await asyncio.sleep(pause)
        raise PricesUnavailable(problem)


@final
@dataclass(frozen=True, slots=True)
class _Page:
    items: list[Mapping[str, Any]]
    next_url: str


def _parse(response: Response, endpoint: str) -> _Page:
    """Returns the items of a page.

    Raises:
        ValueError: the page is not complete, or leads to another host.
    """
    document: object = json.loads(response.body)
    if not isinstance(document, dict):
        raise ValueError("not an object")  # noqa: TRY004 - a value of the API
    page = cast("dict[str, Any]", document)
    items: object = page.get("Items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in cast("list[object]", items)):
        raise ValueError("no list of items")
    listed = cast("list[Mapping[str, Any]]", items)
    count = page.get("Count")
    if isinstance(count, int) and count != len(listed):
        raise ValueError(f"{len(listed)} of {count} items")
    following: object = page.get("NextPageLink")
    if following is not None and not isinstance(following, str):
        raise ValueError("NextPageLink is not a URL")
    link = following or ""
    if link and _origin(link) != _origin(endpoint):
        raise ValueError("NextPageLink is on another host")
    return _Page(listed, link)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _retry_after(response: Response) -> float:
    text = response.retry_after.strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0


def _linux_price(item: Mapping[str, Any], offering: Offering, currency: str, now: datetime) -> Decimal | None:
    """Returns the price per hour of an item for Linux that is in effect; None for every other item."""
    expected = {"armSkuName": offering.instance_type, "armRegionName": offering.region, "currencyCode": currency}
    if any(str(item.get(name, "")).lower() != value.lower() for name, value in expected.items()):
        return None
    if item.get("type") != "Consumption" or item.get("unitOfMeasure") != "1 Hour" or item.get("reservationTerm"):
        return None
    product = f"{item.get('productName', '')} ".lower()
    is_low_priority = any("low priority" in text for text in _names(item))
    if is_low_priority or any(other in product for other in _OTHER_PRODUCTS):
        return None
    start, end = _time(item.get("effectiveStartDate")), _time(item.get("effectiveEndDate"))
    if (start is not None and start > now) or (end is not None and end <= now):
        return None
    try:
        amount = Decimal(str(item.get("retailPrice")))
    except InvalidOperation:
        return None
    return amount.normalize() if amount.is_finite() and amount > 0 else None


def _is_spot(item: Mapping[str, Any]) -> bool:
    return any("spot" in text for text in _names(item))


def _names(item: Mapping[str, Any]) -> Iterator[str]:
    for name in ("skuName", "meterName"):
        yield str(item.get(name, "")).lower()


def _time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo is not None else found.replace(tzinfo=UTC)
