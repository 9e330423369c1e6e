"""One table says what every RPC needs: none may be missing, none left over, none weaker than what it does."""

import importlib
import pkgutil

import pytest

import vitrine.v1
from services.runtime.identities import Identity, Scope
from services.runtime.permissions import RULES
from vitrine.v1 import embedder_pb2, indexer_pb2, search_pb2

MODULES = [importlib.import_module(f"vitrine.v1.{each.name}") for each in pkgutil.iter_modules(vitrine.v1.__path__)]
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in MODULES
    if hasattr(module, "DESCRIPTOR")
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
WRITING = {
    "/vitrine.v1.Embedder/Ingest",
    "/vitrine.v1.Indexer/Upsert",
    "/vitrine.v1.Indexer/UpdateAttributes",
    "/vitrine.v1.Indexer/Delete",
    "/vitrine.v1.VisualSearch/RecordFeedback",
}
ADMINISTERING = {
    "/vitrine.v1.Indexer/CreateCollection",
    "/vitrine.v1.Indexer/DropCollection",
    "/vitrine.v1.Indexer/SetAlias",
    "/vitrine.v1.Indexer/Snapshot",
    "/vitrine.v1.Indexer/Compact",
    "/vitrine.v1.VisualSearch/ExportFeedback",
}


def test_every_rpc_of_every_service_has_its_rule():
    assert len(METHODS) > 20
    assert set(RULES) == set(METHODS)


def test_what_writes_or_administers_needs_more_than_read():
    assert {name for name, rule in RULES.items() if rule.scope is Scope.WRITE} == WRITING
    assert {name for name, rule in RULES.items() if rule.scope is Scope.ADMIN} == ADMINISTERING
    assert {rule.scope for rule in RULES.values()} == {Scope.READ, Scope.WRITE, Scope.ADMIN}


@pytest.mark.parametrize("name", METHODS)
def test_a_collection_that_a_request_names_is_one_the_rule_sees(name):
    message = METHODS[name].input_type._concrete_class()
    fields = message.DESCRIPTOR.fields_by_name
    if "collection" in fields:
        message.collection = "c"
    elif "spec" in fields:
        message.spec.name = "c"
    elif "start" in fields and "collection" in fields["start"].message_type.fields_by_name:
        message.start.collection = "c"
    else:
        assert list(RULES[name].collections(message)) == []
        return
    assert "c" in list(RULES[name].collections(message))


def test_an_alias_and_what_it_is_to_stand_for_are_both_touched():
    rule = RULES["/vitrine.v1.Indexer/SetAlias"]
    assert list(rule.collections(indexer_pb2.SetAliasRequest(alias="a", collection="b"))) == ["a", "b"]
    assert list(rule.collections(indexer_pb2.SetAliasRequest(alias="a"))) == ["a"]


def test_an_ingestion_that_may_create_its_collection_administers():
    rule = RULES["/vitrine.v1.Embedder/Ingest"]
    start = embedder_pb2.IngestStart(collection="c", create_if_missing=True)
    assert list(rule.more_scopes(embedder_pb2.IngestRequest(start=start))) == [Scope.ADMIN]
    start.create_if_missing = False
    assert list(rule.more_scopes(embedder_pb2.IngestRequest(start=start))) == []
    item = embedder_pb2.IngestRequest(item=embedder_pb2.IngestItem())
    assert list(rule.collections(item)) == list(rule.more_scopes(item)) == []


def test_lists_show_a_caller_its_own_collections():
    identity = Identity("app", frozenset(), ("mine*",))
    infos = indexer_pb2.ListCollectionsResponse()
    for name in ("mine", "yours", "mine-2"):
        infos.collections.add().spec.name = name
    RULES["/vitrine.v1.Indexer/ListCollections"].prune(infos, identity)
    assert [each.spec.name for each in infos.collections] == ["mine", "mine-2"]
    status = search_pb2.GetStatusResponse()
    for name in ("yours", "mine"):
        status.collections.add(name=name)
    RULES["/vitrine.v1.VisualSearch/GetStatus"].prune(status, identity)
    assert [each.name for each in status.collections] == ["mine"]
