"""The check for import cycles finds them between modules and between packages, and names a shortest one."""

from hack.check.cycles import report, siblings, without_deferred

TREE = {
    "app": {"app.web.server"},
    "app.web": set[str](),
    "app.web.server": {"app.store.rows", "app.web"},
    "app.store": set[str](),
    "app.store.rows": {"app.store.keys"},
    "app.store.keys": set[str](),
}


def test_a_tree_without_cycles_has_nothing_to_report() -> None:
    assert report(TREE) == []


def test_two_modules_that_import_each_other_are_reported_once() -> None:
    tree = {**TREE, "app.store.keys": {"app.store.rows"}}
    assert report(tree) == ["app.store.keys -> app.store.rows -> app.store.keys"]


def test_a_detour_is_reported_by_its_shortest_cycle() -> None:
    tree = {"app.a": {"app.b", "app.c"}, "app.b": {"app.c"}, "app.c": {"app.a"}}
    assert report(tree) == ["app.a -> app.c -> app.a"]


def test_packages_are_reported_though_their_modules_have_no_cycle() -> None:
    tree = {**TREE, "app.store.keys": {"app.web.names"}, "app.web.names": set[str]()}
    assert report(tree) == ["app.store -> app.web -> app.store (below app)"]


def test_a_package_and_its_own_modules_are_no_siblings() -> None:
    assert siblings(TREE, "app") == {"app.web": {"app.store"}, "app.store": set()}


def test_imports_of_a_deferred_package_count_only_within_it() -> None:
    imports = {"a.kind": {"a.rare"}, "a.rare": {"a.rare.one"}, "a.rare.one": {"a.kind", "a.rare.two"}}
    found = without_deferred({**imports, "a.rare.two": {"a.rare.one"}}, ["a.rare"])
    assert found["a.kind"] == found["a.rare"] == set()
    assert report(found) == ["a.rare.one -> a.rare.two -> a.rare.one"]
