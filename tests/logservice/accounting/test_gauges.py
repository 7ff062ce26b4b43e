"""Metrics by tenant, with a bounded number of labels."""

from prometheus_client import REGISTRY
from redis.asyncio import Redis

from logservice.accounting.gauges import OTHER, STORED, USED, TenantGauges, greatest
from logservice.accounting.stored_counter import StoredCounter
from shared.catalog import Catalog, Database
from shared.log.log import Log
from shared.objects.port import ObjectStore
from shared.redis.keys import Keys
from shared.tenancy.stored import StoredTable
from shared.tenancy.usage import Subject, hour_of
from shared.tenancy.usage_table import UsageTable
from tests.logservice.conftest import SteppedClock


def test_the_greatest_have_their_names_and_the_rest_is_added_up() -> None:
    amounts = {"a": 5, "b": 9, "c": 1, "d": 0, "e": 2, "": 4}
    assert greatest(amounts, 2) == {"b": 9, "a": 5, OTHER: 7}
    assert greatest({"a": 5}, 2) == {"a": 5}
    assert greatest({OTHER: 100, "a": 5, "b": 6, "c": 7}, 2) == {"c": 7, "b": 6, OTHER: 105}
    assert greatest({}, 2) == {}


async def test_metrics_show_what_is_counted_now(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database, log: Log, objects: ObjectStore, clock: SteppedClock
) -> None:
    table = UsageTable(redis, keys)
    gauges = TenantGauges(StoredCounter(StoredTable(redis, keys), catalog, log, objects, clock), table, clock)
    hour = hour_of(clock.now())
    await table.flush(hour, "f", 1, {Subject(f"t{number}"): {"queries": 100 + number} for number in range(30)})
    await gauges.step()

    def shown(tenant: str) -> float | None:
        return REGISTRY.get_sample_value("polychrome_logservice_tenant_used", {"tenant": tenant, "measure": "queries"})

    assert (shown("t29"), shown("t10"), shown("t9")) == (129, 110, None)
    assert shown(OTHER) == sum(range(100, 110))
    clock.time_s += 3600
    await gauges.step()
    assert shown("t29") is None
    STORED.clear()
    USED.clear()
