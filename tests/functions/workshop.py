"""What attaches functions and runs them, around a shop."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from compactor.functions import FunctionRunner
from frontend.collections.requests import function_output
from shared.catalog import Database
from shared.catalog.functions import Functions
from shared.log.jobs import Job, Jobs
from shared.log.outputs import Outputs
from shared.segment.cache import SegmentCache
from tests.compactor.conftest import Shop
from tests.compactor.test_rebuild import everything


class Workshop:
    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.functions = Functions(shop.redis, shop.keys, shop.catalog.collections)
        self.outputs = Outputs(shop.redis, shop.keys)
        self.jobs = Jobs(shop.redis, shop.keys)
        self.numbers = itertools.count()

    def runner(self, **parts: Any) -> FunctionRunner:
        folder = self.shop.folder / f"runner-{next(self.numbers)}"
        folder.mkdir()
        given: dict[str, Any] = {"functions": self.functions, "outputs": self.outputs, "log": self.shop.log} | parts
        cache = SegmentCache(self.shop.objects, folder, 1 << 30)
        return FunctionRunner(given["functions"], given["outputs"], given["log"], self.jobs, self.shop.objects, cache)

    async def db(self) -> Database:
        return await self.shop.db()

    async def attach(self, shop: Shop, function: str, name: str = "output") -> Shop:
        new = function_output(name, "my function", function, shop.collection.id)
        output = await self.functions.attach(await self.db(), shop.collection, new)
        return dataclasses.replace(shop, collection=output, model={})

    async def repair(self) -> list[Job]:
        """The jobs that the log service's sweep queues."""
        await self.functions.repair([one async for one in self.shop.catalog.collections.all()])
        jobs = []
        while job := await self.jobs.claim("test", 60):
            jobs.append(job)
            await self.jobs.finish(job, "test")
        return jobs

    async def held(self, output: Shop) -> dict[str, dict[str, Any]]:
        return {one: record[2] for one, record in (await everything(output)).items()}
