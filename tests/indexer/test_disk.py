"""How full a shard's disk is: walked when asked, at most now and then; what cannot be told is left out."""

import shutil

import pytest
from prometheus_client import CollectorRegistry

from services.indexer.disk import FAMILIES, DiskMetrics


@pytest.fixture
def watched(tmp_path):
    """A data folder with one collection, a registry that asks, and a clock that the test moves."""
    data, now, registry = tmp_path / "data", [0.0], CollectorRegistry()
    folder = data / "collections" / "shop.1"
    folder.mkdir(parents=True)
    (folder / "points.db").write_bytes(bytes(100_000))
    disk = DiskMetrics(data, lambda: [("shop", folder)], registry, lambda: now[0])
    yield data, folder, registry, now
    disk.close()


def test_what_a_collection_takes_is_walked_again_only_after_a_while(watched):
    _, folder, registry, now = watched

    def size():
        return registry.get_sample_value("vitrine_indexer_disk_bytes", {"collection": "shop"})

    first = size()
    assert 100_000 <= first < 200_000
    (folder / "more").write_bytes(bytes(300_000))
    assert size() == first
    now[0] += 60
    assert size() >= first + 300_000


def test_free_space_is_what_the_file_system_says(watched):
    data, _, registry, _ = watched
    assert registry.get_sample_value("vitrine_indexer_disk_size_bytes") == shutil.disk_usage(data).total
    free = registry.get_sample_value("vitrine_indexer_disk_free_bytes")
    assert 0 < free <= shutil.disk_usage(data).total


def test_a_folder_that_is_gone_costs_its_figures_only(watched):
    data, _, registry, _ = watched
    assert {family.name for family in registry.collect()} == set(FAMILIES)
    shutil.rmtree(data)
    assert list(registry.collect()) == []
