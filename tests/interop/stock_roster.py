"""python-tuf's own client, as its manual shows it, with nothing of ours in it."""

from pathlib import Path

from tuf.ngclient import Updater


def download(url: str, root: bytes, directory: Path, names: list[str]) -> dict[str, bytes]:
    """Fetch and verify files of a roster, from a pinned root. Raises what the client raises."""
    (directory / "targets").mkdir()
    updater = Updater(
        str(directory / "metadata"),
        f"{url}/metadata/",
        target_dir=str(directory / "targets"),
        target_base_url=f"{url}/targets/",
        bootstrap=root,
    )
    updater.refresh()
    files = {}
    for name in names:
        info = updater.get_targetinfo(name)
        assert info is not None, f"{name} is not in the roster"
        files[name] = Path(updater.download_target(info)).read_bytes()
    return files
