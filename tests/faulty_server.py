"""A static file server on this machine that misbehaves as real ones do, a fault per path: `/FAULT/name`."""

import gzip
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["FAULTS", "FaultyServer", "serving"]


class FaultyServer(http.server.ThreadingHTTPServer):
    """Serves one content under every path.

    Attributes:
        content: the right bytes.
        asked: (path, Range header) of every request.
        gate: what `/held/` waits for.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.asked: list[tuple[str, str | None]] = []
        self.gate = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def times(self, fault: str) -> int:
        """How often a fault was asked for."""
        return sum(path.startswith(f"/{fault}/") for path, _ in self.asked)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up on purpose here."""


@contextmanager
def serving(content: bytes) -> Iterator[FaultyServer]:
    server = FaultyServer(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def do_GET(self) -> None:
        fault = self.path.split("/")[1]
        self.server.asked.append((self.path, self.headers.get("Range")))
        FAULTS[fault](self)

    def log_message(self, *arguments: Any) -> None:
        """Silence."""

    # What faults are made of

    @property
    def start(self) -> int:
        asked = self.headers.get("Range", "")
        return int(asked[6:-1]) if asked.startswith("bytes=") else 0

    def head(self, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def answer(self, body: bytes, cut: int | None = None, length: int | None = None) -> None:
        """The body from the asked byte on; with `cut` the connection ends after so many bytes."""
        rest = body[self.start :]
        length = len(rest) if length is None else length
        if self.start:
            self.head(206, length, Content_Range=f"bytes {self.start}-{len(body) - 1}/{len(body)}")
        else:
            self.head(200, length)
        self.wfile.write(rest if cut is None else rest[:cut])
        if cut is not None:
            self.close_connection = True


def _good(handler: _Handler) -> None:
    handler.answer(handler.server.content)


def _held(handler: _Handler) -> None:
    """The file, once the gate is open."""
    handler.server.gate.wait(60)
    _good(handler)


def _slow(handler: _Handler) -> None:
    """The file, in a hundred small steps."""
    rest, total = handler.server.content[handler.start :], len(handler.server.content)
    if handler.start:
        handler.head(206, len(rest), Content_Range=f"bytes {handler.start}-{total - 1}/{total}")
    else:
        handler.head(200, len(rest))
    step = max(total // 100, 1)
    for position in range(0, len(rest), step):
        handler.wfile.write(rest[position : position + step])
        handler.wfile.flush()
        time.sleep(0.003)


def _no_ranges(handler: _Handler) -> None:
    """Breaks off once; then sends everything again, whatever part was asked for."""
    content = handler.server.content
    first = handler.server.times("no_ranges") == 1
    handler.head(200, len(content))
    handler.wfile.write(content[: len(content) // 2] if first else content)
    handler.close_connection = True


def _truncates(handler: _Handler) -> None:
    """Breaks every connection off after 300 kB."""
    handler.answer(handler.server.content, cut=300_000)


def _resets(handler: _Handler) -> None:
    """Sends 300 kB and a TCP reset, twice."""
    if handler.server.times("resets") > 2:
        _good(handler)
        return
    handler.answer(handler.server.content, cut=300_000)
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _stalls_once(handler: _Handler) -> None:
    """Falls silent in the middle of the first transfer."""
    if handler.server.times("stalls_once") > 1:
        _good(handler)
        return
    handler.head(200, len(handler.server.content))
    handler.wfile.write(handler.server.content[:300_000])
    handler.wfile.flush()
    time.sleep(3)


def _stalls(handler: _Handler) -> None:
    """Accepts, and says nothing."""
    time.sleep(3)
    handler.close_connection = True


def _drips(handler: _Handler) -> None:
    """A byte now and then, so that no time-out between bytes is ever reached."""
    handler.head(200, len(handler.server.content))
    for position in range(60):
        handler.wfile.write(handler.server.content[position : position + 1])
        handler.wfile.flush()
        time.sleep(0.05)
    handler.close_connection = True


def _busy_twice(handler: _Handler) -> None:
    """429 with a time to come back, then 503, then the file."""
    count = handler.server.times("busy_twice")
    if count > 2:
        _good(handler)
    else:
        handler.head(429 if count == 1 else 503, 0, **({"Retry_After": "0"} if count == 1 else {}))


def _always(status: int) -> Callable[[_Handler], None]:
    def answer(handler: _Handler) -> None:
        handler.head(status, 4)
        handler.wfile.write(b"oops")

    return answer


def _late(handler: _Handler) -> None:
    """503 with a time to come back that is an hour away."""
    handler.head(503, 0, Retry_After="3600")


def _other_bytes(handler: _Handler) -> None:
    handler.answer(bytes(byte ^ 1 for byte in handler.server.content))


def _other_end(handler: _Handler) -> None:
    """The right bytes but the last."""
    handler.answer(handler.server.content[:-1] + b"?")


def _html(handler: _Handler) -> None:
    """A login page with status 200, as hotels have it."""
    handler.answer(b"<html>please log in</html>")


def _too_long(handler: _Handler) -> None:
    handler.answer(handler.server.content + b"more")


def _endless(handler: _Handler) -> None:
    """Chunks without a length and without end."""
    handler.head(200, Transfer_Encoding="chunked")
    block = b"x" * 65536
    for _ in range(1000):
        handler.wfile.write(b"10000\r\n" + block + b"\r\n")


def _chunked(handler: _Handler) -> None:
    """The right bytes, without a length."""
    content = handler.server.content
    handler.head(200, Transfer_Encoding="chunked")
    for position in range(0, len(content), 100_000):
        block = content[position : position + 100_000]
        handler.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def _claims_more(handler: _Handler) -> None:
    """Content-Length is a hundred too large."""
    handler.answer(handler.server.content, cut=len(handler.server.content), length=len(handler.server.content) + 100)


def _claims_less(handler: _Handler) -> None:
    """Content-Length is half of the file."""
    content = handler.server.content[handler.start :]
    handler.head(200, len(content) // 2)
    handler.wfile.write(content)
    handler.close_connection = True


def _claims_nonsense(handler: _Handler) -> None:
    handler.head(200, Content_Length="many")
    handler.close_connection = True


def _wrong_range(handler: _Handler) -> None:
    """Breaks off once; then answers with another part than was asked for."""
    content = handler.server.content
    if not handler.start:
        handler.answer(content, cut=300_000)
        return
    handler.head(206, 10, Content_Range=f"bytes 5-14/{len(content)}")
    handler.wfile.write(content[5:15])


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(16 << 20))


def _gzip(handler: _Handler) -> None:
    """Says that it is compressed, and sends a bomb."""
    body = _bomb()
    handler.head(200, len(body), Content_Encoding="gzip")
    handler.wfile.write(body)


def _redirects(handler: _Handler) -> None:
    handler.head(302, 0, Location=f"/good/{handler.path.rpartition('/')[2]}")


def _redirects_in_circles(handler: _Handler) -> None:
    handler.head(302, 0, Location=handler.path)


def _redirects_to_a_file(handler: _Handler) -> None:
    handler.head(302, 0, Location="file:///etc/passwd")


def _no_http(handler: _Handler) -> None:
    handler.wfile.write(b"\x00\xff garbage\r\n\r\n")
    handler.close_connection = True


FAULTS: dict[str, Callable[[_Handler], None]] = {
    "good": _good,
    "held": _held,
    "slow": _slow,
    "chunked": _chunked,
    "no_ranges": _no_ranges,
    "truncates": _truncates,
    "resets": _resets,
    "stalls_once": _stalls_once,
    "busy_twice": _busy_twice,
    "redirects": _redirects,
    "stalls": _stalls,
    "drips": _drips,
    "404": _always(404),
    "403": _always(403),
    "429": _always(429),
    "500": _always(500),
    "late": _late,
    "other_bytes": _other_bytes,
    "other_end": _other_end,
    "html": _html,
    "too_long": _too_long,
    "endless": _endless,
    "claims_more": _claims_more,
    "claims_less": _claims_less,
    "claims_nonsense": _claims_nonsense,
    "wrong_range": _wrong_range,
    "gzip": _gzip,
    "redirects_in_circles": _redirects_in_circles,
    "redirects_to_a_file": _redirects_to_a_file,
    "no_http": _no_http,
}
SURVIVABLE = (
    "good", "held", "slow", "chunked", "no_ranges", "truncates", "resets", "stalls_once", "busy_twice", "redirects",
)  # fmt: skip
