"""Downloads of published files: pinned by SHA-256 and size, from any place that has the bytes.

Sources are URLs: `https:`, `http:`, `file:`, and `hf://datasets/OWNER/NAME@REVISION/PATH`, which is a file of the
Hugging Face Hub by its plain HTTPS address. They are tried in order. `urllib3.util.Retry` decides how often a source is
tried again, and after which pause, where waiting may help (no connection, a stall, 429, 5xx); a torn transfer goes on
where it stopped. Whatever comes, the file appears under its name only when all its bytes are the pinned ones.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from attriboard.base.digests import digest_file
from attriboard.base.errors import DataError

if TYPE_CHECKING:
    from requests import Response
    from urllib3 import BaseHTTPResponse, Retry

Progress = Callable[[int, int], None]
BLOCK = 1 << 18
AGENT = "attriboard"
HUB = "https://huggingface.co"
WAITING_HELPS = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Pinned:
    """The one file that is wanted.

    Attributes:
        sha256: digest of its bytes.
        bytes: their number.
    """

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Patience:
    """How long to wait for what.

    Attributes:
        attempts: transfers in a row without progress from one source before the next is tried.
        pause: seconds; the second attempt follows at once, the third after two of it, and so on, doubled each time.
        longest_pause: seconds that a pause has at most, whatever a server asks for.
        silence: seconds without a byte after which a transfer has stalled.
        slowest: bytes per second, over such a time, below which it has stalled too.
        lock: seconds to wait for another process that fetches the same file.
    """

    attempts: int = 4
    pause: float = 1.0
    longest_pause: float = 60.0
    silence: float = 30.0
    slowest: float = 1024.0
    lock: float = 3600.0

    def retry(self) -> "Retry":
        """The policy for one source."""
        from urllib3 import Retry

        return Retry(
            self.attempts - 1,
            status_forcelist=WAITING_HELPS,
            backoff_factor=self.pause,
            backoff_max=self.longest_pause,
            backoff_jitter=self.pause / 4,  # keeps many that failed together from coming back together
            retry_after_max=int(self.longest_pause),
        )


class _AgainError(Exception):
    """This attempt failed; the same source may work later, when its response, if there is one, says."""

    def __init__(self, reason: str, response: "BaseHTTPResponse | None" = None) -> None:
        super().__init__(reason)
        self.response = response


class _GiveUpError(Exception):
    """This source does not have the file."""


def offline() -> bool:
    """Whether `ATTRIBOARD_OFFLINE` forbids the network."""
    return os.environ.get("ATTRIBOARD_OFFLINE", "").lower() not in ("", "0", "false", "no")


def address(source: str) -> str:
    """The plain URL of a source: `hf://…` becomes an address of the Hub, a path without a scheme a `file:` URL.

    Raises:
        DataError: a scheme that is none of ours, or an `hf://` that names no file at a revision.
    """
    scheme = source.partition(":")[0].lower() if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", source) else ""
    if scheme in ("https", "http", "file"):
        return source
    if not scheme:
        return Path(source).absolute().as_uri()
    match = re.fullmatch(r"hf://datasets/([\w.-]+/[\w.-]+)@([\w.-]+)/([\w./-]+)", source, re.A)
    if scheme != "hf" or match is None or ".." in source:
        raise DataError(
            f"{source}: no source of files; give https://…, http://…, file:///…, a folder, or "
            "hf://datasets/OWNER/NAME@REVISION/PATH"
        )
    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    return f"{hub}/datasets/{match[1]}/resolve/{match[2]}/{quote(match[3])}"


def fetch_file(
    target: Path,
    pinned: Pinned,
    sources: Sequence[str],
    *,
    patience: Patience = Patience(),
    progress: Progress = lambda done, total: None,
) -> Path:
    """Make sure that a file is there with its pinned bytes.

    Several processes may ask for the same file at once: one fetches, the others wait and find it.

    Args:
        target: where it belongs.
        pinned: its bytes.
        sources: places that have it, best first.
        patience: how long to wait.
        progress: called with bytes so far and in all.

    Returns:
        `target`.

    Raises:
        DataError: no source has it; the message has a line for each.
    """
    from filelock import FileLock, Timeout

    if _is(target, pinned):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(target.with_name(f".{target.name}.lock"), timeout=patience.lock):
            if not _is(target, pinned):
                _fetch_any(target, pinned, sources, patience, progress)
    except Timeout as error:
        raise DataError(f"{target}: another process has been fetching it for {patience.lock:g} s; end it") from error
    return target


def _is(path: Path, pinned: Pinned) -> bool:
    return path.is_file() and path.stat().st_size == pinned.bytes and digest_file(path) == pinned.sha256


def _fetch_any(target: Path, pinned: Pinned, sources: Sequence[str], patience: Patience, progress: Progress) -> None:
    failures = []
    # Named after the digest: what an earlier run left of these bytes, from whatever source, is the beginning of them.
    part = target.with_name(f".{pinned.sha256[:16]}.part")
    for source in sources:
        try:
            _fetch(source, part, pinned, patience, progress)
        except (_GiveUpError, DataError) as error:
            failures.append(f"{source}: {error}")
            continue
        part.chmod(0o644)
        part.replace(target)
        return
    tried = "\n".join(f"  {failure}" for failure in failures) or "  no source is known; name one with --from URL"
    raise DataError(f"{target.name}: no source has it:\n{tried}")


def _fetch(source: str, part: Path, pinned: Pinned, patience: Patience, progress: Progress) -> None:
    """Bring the part to its full, right bytes from one source.

    Raises:
        _GiveUpError: it does not have them.
    """
    from urllib3.exceptions import MaxRetryError

    url = address(source)
    if offline() and not url.startswith("file:"):
        raise _GiveUpError("not tried, ATTRIBOARD_OFFLINE is set")
    retry = patience.retry()
    while True:
        before = _size(part)
        try:
            if before < pinned.bytes:
                _transfer(url, part, pinned, patience, progress)
            if _is(part, pinned):
                return
            if _size(part) < pinned.bytes:
                raise _AgainError(f"{_size(part)} of {pinned.bytes} bytes came")
            # The beginning may have been another source's, or torn by a crash: a transfer of the whole decides.
            part.unlink()
            if before == 0:
                raise _GiveUpError("has other bytes than those pinned by SHA-256; the file there is torn or altered")
        except _AgainError as again:
            if _size(part) >= before + BLOCK:
                retry = patience.retry()
            try:
                retry = retry.increment("GET", url, error=again)
            except MaxRetryError:
                raise _GiveUpError(f"{again} ({patience.attempts} attempts)") from again
            retry.sleep(again.response)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _transfer(url: str, part: Path, pinned: Pinned, patience: Patience, progress: Progress) -> None:
    """One transfer: append what the part lacks, at most up to the pinned size."""
    start = _size(part)
    opened = _open_file(url, start) if url.startswith("file:") else _open_url(url, start, pinned, patience)
    with opened as (offset, blocks), part.open("r+b" if part.exists() else "wb") as file:
        file.truncate(offset)
        file.seek(offset)
        done = offset
        progress(done, pinned.bytes)
        for block in blocks:
            if done + len(block) > pinned.bytes:
                raise _GiveUpError(f"sends more than the {pinned.bytes} bytes that the file has")
            _write(file, block, part)
            done += len(block)
            progress(done, pinned.bytes)
        os.fsync(file.fileno())


def _write(file: BinaryIO, block: bytes, part: Path) -> None:
    try:
        file.write(block)
        file.flush()
    except OSError as error:  # a full disk does not say whose
        raise OSError(error.errno, error.strerror, str(part)) from error


@contextmanager
def _open_file(url: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    try:
        file = Path(unquote(urlsplit(url).path)).open("rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise _GiveUpError(getattr(error, "strerror", None) or str(error)) from error
    with file:
        file.seek(start)
        yield start, iter(lambda: file.read(BLOCK), b"")


@contextmanager
def _open_url(url: str, start: int, pinned: Pinned, patience: Patience) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The bytes from `start` on, or from 0 where the server does not go on in the middle."""
    import requests

    # Not compressed: what is pinned are the file's bytes, and a few compressed ones may unfold without end.
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.Session() as session:
        session.max_redirects = 5
        try:
            answer = session.get(url, headers=headers, stream=True, timeout=patience.silence)
        except requests.TooManyRedirects as error:
            raise _GiveUpError("redirects without end") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _AgainError(_short(error)) from error
        except (requests.RequestException, ValueError, OSError) as error:
            raise _GiveUpError(f"leads to no address: {_short(error)}") from error
        with answer:
            yield _offset(answer, start, pinned), _blocks(answer, patience)


def _blocks(answer: "Response", patience: Patience) -> Iterator[bytes]:
    """What comes, as long as it comes fast enough.

    Raises:
        _AgainError: the connection broke or stalled.
    """
    from urllib3.exceptions import HTTPError

    since, received = time.monotonic(), 0
    while True:
        try:
            # What is there, not a full block: a server that drips would keep us here.
            block = answer.raw.read1(BLOCK, decode_content=False)
        except (HTTPError, OSError) as error:
            raise _AgainError(_short(error)) from error
        if not block:
            return
        yield block
        received += len(block)
        passed = time.monotonic() - since
        if passed > patience.silence:
            if received < patience.slowest * passed:
                raise _AgainError(f"stalled: {received} bytes in {passed:.1f} s")
            since, received = time.monotonic(), 0


def _offset(answer: "Response", start: int, pinned: Pinned) -> int:
    """Where the answer's bytes begin.

    Raises:
        _AgainError: the server asks to come back.
        _GiveUpError: it does not have the file.
    """
    status = answer.status_code
    if status in WAITING_HELPS:
        raise _AgainError(f"HTTP {status}", answer.raw)
    if status not in (200, 206):
        raise _GiveUpError(f"HTTP {status}")
    offset = 0
    if status == 206:
        match = re.match(r"bytes (\d{1,18})-", answer.headers.get("Content-Range", ""), re.A)
        offset = int(match[1]) if match else -1
        if offset != start:
            raise _GiveUpError(f"answers a request for the bytes from {start} on with {offset if match else 'others'}")
    length = answer.headers.get("Content-Length", "")
    if re.fullmatch(r"\d{1,18}", length, re.A) and offset + int(length) > pinned.bytes:
        raise _GiveUpError(f"has {offset + int(length)} bytes, the file has {pinned.bytes}")
    return offset


def _short(error: BaseException) -> str:
    text = re.sub(r"<[^>]* object at 0x[0-9a-f]+>:? ?", "", re.sub(r"\s+", " ", str(error)))
    return f"{type(error).__name__}: {text[:200]}"
