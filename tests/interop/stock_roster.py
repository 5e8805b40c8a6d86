"""python-tuf's own client, as its manual shows it, with nothing of ours in it; and keys from what it fetched."""

from pathlib import Path
from typing import Any

from tuf.ngclient import Updater

from tests.interop.served import raw


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


def keys_of(document: dict[str, Any], use: str) -> dict[str, tuple[str, bytes]]:
    """Kid → algorithm and raw public key, from a State's document."""
    return {key["kid"]: (key["alg"], raw(key["public"])) for key in document["keys"] if key["use"] == use}


def only_key_of(document: dict[str, Any], use: str) -> bytes:
    """The raw public key of a use for which the State lists one."""
    ((_, key),) = keys_of(document, use).values()
    return key
