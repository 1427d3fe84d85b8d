"""A loopback server for looking at a built site."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from attriboard.base.errors import InputError


def serve_folder(folder: Path, port: int) -> None:
    """Serve a folder on 127.0.0.1 until interrupted.

    Raises:
        InputError: the port is taken.
    """
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror}; choose another with --port") from error
    with server:
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)", flush=True)
        server.serve_forever()
