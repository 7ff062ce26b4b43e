"""A directory for the cache of one process."""

from pathlib import Path

from queryworker.cache_dir import locked_cache_dir


def test_two_processes_never_share_a_directory_and_a_free_one_is_found_again(tmp_path: Path) -> None:
    with locked_cache_dir(tmp_path) as first:
        (first / "file").touch()
        with locked_cache_dir(tmp_path) as second:
            assert second != first
    with locked_cache_dir(tmp_path) as again:
        assert again == first
        assert (again / "file").exists()
