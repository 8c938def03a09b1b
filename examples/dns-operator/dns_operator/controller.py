"""Reconciles DnsRecords with the records of the provider."""

from kaito.runtime import Backoff, Controller, Request
from kaito.runtime.client import ConditionUpdate
from kaito.runtime.controller import Failure, FailurePolicy
from kaito.runtime.source import Polling, PollRequest

from dns_operator.api import DnsRecord
from dns_operator.provider import Provider

OUTAGE = 5


async def read_address(poll: PollRequest[DnsRecord]) -> str | None:
    """Reads the record at the provider."""
    return await poll.lifespan(Provider).get(poll.object.spec.host)


remote = Polling(DnsRecord, read_address, every=60, timeout=15, concurrency=8, error_after=OUTAGE)


async def reconcile(request: Request[DnsRecord]) -> None:
    """Writes the record if the provider has another address, and reports what the provider has."""
    spec, observed = request.object.spec, remote.of(request)
    async with request.status() as status:
        if observed.failures >= OUTAGE:
            status.set_condition(ConditionUpdate.unknown("Ready", "Unreachable", f"last poll: {observed.error}"))
        if not observed.known:
            return  # the result of the first poll triggers the next reconcile
        if observed.value != spec.address:
            request.fence()
            await request.lifespan(Provider).put(spec.host, spec.address)
            observed.set(spec.address)
        if observed.failures < OUTAGE:
            status.set(published_address=spec.address)
            status.set_condition(ConditionUpdate.true("Ready", "Published"))


async def clean_up(request: Request[DnsRecord]) -> None:
    """Deletes the record at the provider."""
    request.fence()
    await request.lifespan(Provider).delete(request.object.spec.host)


async def report(request: Request[DnsRecord], failure: Failure) -> None:
    """Reports the fourth failure in a row; the reconcile that succeeds reports the recovery."""
    if not failure.recovered:
        async with request.status() as status:
            status.set_condition(ConditionUpdate.false("Ready", "ProviderFailing", failure.message))


controller = (
    Controller(DnsRecord, reconcile, workers=4, on_error={OSError: FailurePolicy(backoff=Backoff(base=2, cap=120))})
    .receives(remote)
    .finalizes("dns.example.com/record", clean_up)
    .reports_failures(report, after=4)
)
