"""The same pages, live: rendered when they are asked for, again only when files have changed."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import socket
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import unquote, urlsplit

from benchmark.errors import Problem, UserError
from benchmark.records import RunFolder, RunView, State, scan
from benchmark.site.pages import Found, Pages, assets, configs, in_order
from benchmark.site.reading import Stamp, read_history, read_run, refusal, stamp_of
from benchmark.site.rows import Row, summarise

log = logging.getLogger(__name__)

MOST_PAGES = 64
"""Pages of single runs that are kept for the next request."""
PATIENCE = 30.0
"""Seconds to wait for a client that does not go on."""

TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site may read the settings by loading them as a script
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Seen:
    """A run as it was read, and the stamp of its files at that time."""

    stamp: Stamp
    run: RunView
    row: Row
    refused: str
    """Why none of its files may be read; empty if they may."""

    @property
    def may_change(self) -> bool:
        """Whether its state depends on more than its files: on a process that lives."""
        return self.run.status.state in (State.RUNNING, State.INTERRUPTED)


class LiveSite:
    """The pages of the runs under a folder as they are now.

    A path of a request is only ever looked up among the pages that exist: no file is opened by a name that came in.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pages = Pages(live=True)
        self._lock = Lock()
        self._seen: dict[Path, Seen] = {}
        self._sweep: tuple[list[Row], str, bytes] = ([], "", b"")
        self._runs: dict[str, tuple[Seen, bytes]] = {}

    def find(self, path: str) -> bytes | None:
        """Return the content of a path, None where there is none."""
        match path.split("/")[1:]:
            case [""] | ["index.html"]:
                with self._lock:
                    return self._sweep_page()
            case ["runs", name]:
                with self._lock:
                    return self._run_page(name)
            case ["configs", name]:
                with self._lock:
                    return configs(self._look()[0]).get(name)
            case ["assets", name]:
                return assets().get(name)
        return None

    def missing(self) -> bytes:
        """Return the page for a path without content."""
        return self._pages.message("Not found", "There is no such page, or the run is gone.")

    def _look(self) -> tuple[Found, str]:
        """Read the runs whose files have changed; return all, and what went wrong, in words."""
        before, self._seen, alert = self._seen, {}, ""
        try:
            list(scan(self.root, lambda folder: self._read(folder, before.get(folder.path))))
        except OSError as error:  # a folder went away while we walked
            self._seen = {**before, **self._seen}
            alert = f"The runs cannot all be read: {error.strerror or error}."
        return in_order((seen.row, seen.run) for seen in self._seen.values()), alert

    def _read(self, folder: RunFolder, before: Seen | None) -> RunView:
        stamp = stamp_of(folder)
        if before is None or before.may_change or before.stamp != stamp:
            refused = refusal(folder, self.root)
            run = RunView(folder, problem=refused) if refused else read_run(folder)
            history = [] if refused else read_history(folder)
            before = Seen(stamp, run, summarise(run, self.root, history), refused)
        self._seen[folder.path] = before
        return before.run

    def _sweep_page(self) -> bytes:
        found, alert = self._look()
        rows = [row for row, _ in found]
        if not self._sweep[2] or (rows, alert) != self._sweep[:2]:
            self._sweep = rows, alert, self._pages.sweep(rows, alert=alert)
        return self._sweep[2]

    def _run_page(self, name: str) -> bytes | None:
        known = [seen for seen in self._seen.values() if seen.row.page == name]
        if known:  # one run must not hide the others
            self._read(known[0].run.folder, known[0])
        else:
            self._look()
            known = [seen for seen in self._seen.values() if seen.row.page == name]
        if not known or not known[0].run.folder.path.is_dir():
            return None
        seen = self._seen[known[0].run.folder.path]
        kept, page = self._runs.pop(name, (None, b""))
        if kept != seen and seen.refused:
            page = self._pages.message(seen.row.title, seen.refused)
        elif kept != seen:
            page = self._pages.run(seen.run, seen.row)
        self._runs[name] = seen, page  # at the end: the first one is the one not asked for longest
        if len(self._runs) > MOST_PAGES:
            del self._runs[next(iter(self._runs))]
        return page


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: Server
    server_version = "ModalBench"
    sys_version = ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        log.debug(format, *args)

    def _answer(self, with_body: bool) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.is_own(hosts[0]):
            # a page elsewhere may have given its name our address, to read us as if we were that page
            self._send(HTTPStatus.MISDIRECTED_REQUEST, "html", b"This server goes by another name.\n", with_body)
            return
        path = unquote(self.path.partition("?")[0], errors="replace")
        try:
            body = self.server.site.find(path)
        except Exception:
            log.exception("cannot make %r", path)
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "html", b"This page cannot be made.\n", with_body)
            return
        if body is None:
            self._send(HTTPStatus.NOT_FOUND, "html", self.server.site.missing(), with_body)
        else:
            self._send(HTTPStatus.OK, path.rpartition(".")[2] if "." in path else "html", body, with_body)

    def _send(self, status: HTTPStatus, suffix: str, body: bytes, with_body: bool) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        unchanged = status is HTTPStatus.OK and self.headers.get("If-None-Match") == tag
        self.send_response(HTTPStatus.NOT_MODIFIED if unchanged else status)
        for name, value in {**HEADERS, "ETag": tag}.items():
            self.send_header(name, value)
        if not unchanged:
            self.send_header("Content-Type", TYPES.get(suffix, TYPES["html"]))
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body and not unchanged:
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Serves the runs under a folder.

    Args:
        root: the runs' folder.
        host: name or address to listen at.
        port: 0 for any that is free.

    Raises:
        UserError: when it cannot listen there.
    """

    daemon_threads = True
    request_queue_size = 1024  # of connections that wait to be taken up; the system may allow fewer

    def __init__(self, root: Path, host: str, port: int) -> None:
        self.site = LiveSite(root)
        self.host = host
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            got = f"{host}:{port} ({getattr(error, 'strerror', None) or error})"
            fix = "Give another --port, or 0 for any that is free."
            raise UserError(Problem("--host/--port", "an address that is free", got, fix)) from None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    @property
    def is_open_to_others(self) -> bool:
        """Whether other machines may reach it."""
        return not ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def is_own(self, host: str) -> bool:
        """Return whether a request's Host is a name of ours: an address, this machine's name, or the one given."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in {"localhost", self.host.lower(), socket.gethostname().lower()} or _is_address(name)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that disconnected is not an error of the server."""
        log.debug("lost %s", client_address, exc_info=True)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
