"""Which processes the options ask for, and what they are told."""

from pathlib import Path

from polychrome.local.plan import DEFAULT_NAME, LOCAL_NAMES, ClusterOptions, Stores, process_specs

STORES = Stores("redis://nowhere", "file:///nowhere", Path("/nowhere"), "test")


def frontend(options: ClusterOptions, *inherited: str) -> dict[str, str]:
    (spec,) = [spec for spec in process_specs(options, STORES, inherited) if spec.role == "frontend"]
    return dict(spec.environ)


def test_with_embedders_frontends_know_the_names_that_their_model_goes_by() -> None:
    options = ClusterOptions(embedders=2)
    assert [spec.name for spec in process_specs(options, STORES) if spec.role == "embedder"] == [
        "embedder-1",
        "embedder-2",
    ]
    environ = frontend(options)
    assert environ[DEFAULT_NAME] == "default"
    assert "default" in environ[LOCAL_NAMES].split(",")


def test_without_embedders_no_name_is_told() -> None:
    assert not {LOCAL_NAMES, DEFAULT_NAME} & frontend(ClusterOptions()).keys()


def test_what_the_environment_says_of_names_stays() -> None:
    options = ClusterOptions(embedders=1)
    assert not {LOCAL_NAMES, DEFAULT_NAME} & frontend(options, LOCAL_NAMES).keys()
    assert DEFAULT_NAME not in frontend(options, DEFAULT_NAME)
