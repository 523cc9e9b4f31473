"""The live site: nothing outside the runs' folder, nobody by another name, no traceback whatever happens below."""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import shutil
import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from urllib.parse import quote

import pytest

from benchmark.errors import UserError
from benchmark.launch.launch_options import LaunchOptions
from benchmark.launch.sweep_record import write_sweep
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import State
from benchmark.site.reading import FILES
from benchmark.site.server import Server

from .conftest import HOSTILE

SECRET = "what nobody may read"


@pytest.fixture
def serve():
    """Serve a folder: `serve(root)` returns a function that asks for a path, giving (status, body, headers)."""
    running = []

    def begin(root, host="127.0.0.1"):
        server = Server(root, host, 0)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))

        def ask(path="/", method="GET", **headers):
            connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                for one in [value] if isinstance(value, str) else value:
                    connection.putheader(name.replace("_", "-"), one)
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read().decode()
            connection.close()
            return answer.status, body, answer.headers

        ask.server = server
        return ask

    yield begin
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def root(whole_run, tmp_path):
    """Return a runs' folder with two finished runs, beside it a secret."""
    whole_run("aug", 0)
    whole_run("ogm", 1)
    (tmp_path / "secret.txt").write_text(SECRET)
    return tmp_path / "runs"


def run_links(body):
    return [part.partition('"')[0] for part in body.split('href="')[1:] if part.startswith("runs/")]


def test_every_page_and_what_it_needs_is_served(root, serve):
    ask = serve(root)
    status, body, headers = ask()
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    links = run_links(body)
    assert len(links) == 2
    page = ask(f"/{links[0]}")[1]
    assert "Most confidently wrong" in page
    assert "live.js" in page
    configs = page.partition('data-configs="..')[2].partition('"')[0]
    for path, kind in (("/index.html", "html"), (configs, "javascript"), ("/assets/site.css", "css"),
                       ("/assets/sweep.js", "javascript"), ("/assets/plotly.min.js", "javascript")):  # fmt: skip
        status, body, headers = ask(path)
        assert (status, bool(body)) == (200, True), path
        assert kind in headers["Content-Type"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "script-src 'self'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/runs/../../secret.txt", "/assets/../../../secret.txt", "//etc/passwd", "//[", "/#",
        "/etc/passwd",
        "/%2e%2e/secret.txt", "/runs/%2e%2e%2f%2e%2e%2fsecret.txt", "/runs/..%5c..%5csecret.txt", "/assets/%00",
        "/runs/%252e%252e/secret.txt", "/assets/..", "/assets/", "/runs/", "/runs", "/configs/", "/assets/site.css/",
        "/runs/../runs/x", "/./", "/runs/..;/x", "/%ff%fe", "/" + "a" * 5000, "/blobs/aug/s0-0000000000/log.txt",
        "/runs/blobs/aug/s0-0000000000/spec.yaml", "file:///etc/passwd", "*", "/?x=/../secret.txt/../nothing/..",
    ],
)  # fmt: skip
def test_no_path_leads_out_or_to_a_file(root, serve, tmp_path, path):
    for wanted in (path, path.replace("secret.txt", quote(str(tmp_path / "secret.txt")))):
        status, body, _ = serve(root)(wanted)
        assert status == (200 if wanted.startswith("/?") else 404), wanted
        assert SECRET not in body
        assert "root:" not in body


def test_a_secret_name_of_a_page_shows_that_the_test_can_see_one(root, serve):
    (next(root.rglob("log.txt"))).write_text(SECRET)
    ask = serve(root)
    assert any(SECRET in ask(f"/{link}")[1] for link in run_links(ask()[1]))


@pytest.mark.parametrize("name", [*FILES, ".lock"])
@pytest.mark.parametrize("how", ["outside", "circle", "pipe"])
def test_files_that_lead_out_or_are_none_are_not_read(root, serve, tmp_path, name, how):
    path = next(root.rglob("log.txt")).with_name(name)
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    (tmp_path / "outside").write_bytes(content + SECRET.encode())
    if how == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "outside" if how == "outside" else path)
    ask = serve(root)
    status, body, _ = ask()
    assert status == 200
    pages = [ask(f"/{link}") for link in run_links(body)]
    assert [page[0] for page in pages] == [200] * 2
    assert not [page for page in pages if SECRET in page[1]]
    assert any(words in body for words in ("leads out of the runs", "cannot be read", "expected a file"))
    assert (tmp_path / "outside").read_bytes() == content + SECRET.encode(), "and are not written to"


def test_a_run_that_is_a_link_out_of_the_folder_is_not_read_and_one_inside_is(root, serve, tmp_path):
    run = next(root.rglob("log.txt")).parent
    (run / "log.txt").write_text(SECRET)
    shutil.move(run, tmp_path / "moved")
    run.symlink_to(tmp_path / "moved")
    other = next(path for path in root.rglob("log.txt") if path.parent != run).parent
    other.with_name("s5-inside").symlink_to(other)
    ask = serve(root)
    body = ask()[1]
    assert len(run_links(body)) == 3
    assert body.count("leads out of the runs") == 1
    assert not [link for link in run_links(body) if SECRET in ask(f"/{link}")[1]]


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True), ("localhost:1", True), ("127.0.0.1:8642", True), ("[::1]:8642", True), ("LOCALHOST", True),
        ("192.168.0.7:8642", True), (socket.gethostname(), True), ("evil.example", False), ("evil.example:8642", False),
        ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("", False), ("[", False), (":80", False),
        ("evil.example@localhost.evil", False),
    ],
)  # fmt: skip
def test_only_requests_to_a_name_of_ours_are_answered(root, serve, host, own):
    status, body, _ = serve(root)("/", Host=host)
    assert status == (200 if own else 421)
    assert ("aug" in body) is own


def test_a_request_with_two_hosts_or_none_is_refused(root, serve):
    ask = serve(root)
    assert ask("/", Host=["localhost", "localhost"])[0] == 421
    with socket.create_connection(ask.server.server_address[:2]) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b" 421 " in connection.recv(100)


def test_only_reading_is_offered(root, serve):
    ask = serve(root)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask("/", method)[0] == 501
    status, body, headers = ask("/", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 1000


def test_a_page_is_sent_again_only_when_a_file_has_changed(root, serve, whole_run):
    ask = serve(root)
    status, body, headers = ask()
    page = f"/{run_links(body)[0]}"
    tags = {path: ask(path)[2]["ETag"] for path in ("/", page)}
    assert tags["/"] == headers["ETag"]
    assert [ask(path, If_None_Match=tag)[0] for path, tag in tags.items()] == [304, 304]
    whole_run("mla", 3)
    status, body, _ = ask("/", If_None_Match=tags["/"])
    assert status == 200
    assert len(run_links(body)) == 3
    assert ask(page, If_None_Match=tags[page])[0] == 304
    for log in root.rglob("log.txt"):
        log.write_text("a new line")
    assert "a new line" in ask(page, If_None_Match=tags[page])[1]


def test_a_run_that_goes_on_is_seen_to(root, serve, made_up):
    folder = made_up("mla", 5, state=State.RUNNING)
    ask = serve(root)
    with folder.lock():
        assert "running" in ask()[1]
    assert "running</span>" not in ask()[1], "no file has changed, but its process is gone"
    assert "interrupted" in ask()[1]
    folder.append_history({"epoch": 2, "valid": {"fused": {"accuracy": 0.987}}})
    assert "to 98.7 %" in ask()[1]


def test_runs_that_no_worker_has_begun_are_shown(tmp_path, serve, blobs):
    planned = plan(Sweep(["concat", "late_sum"], [blobs], range(6))).runs
    write_sweep(LaunchOptions(out=tmp_path), {}, planned)
    assert [row.state for row, _ in serve(tmp_path).server.site._look()[0]] == [State.PLANNED] * 12


def test_what_is_removed_is_gone_and_what_comes_is_there(root, serve, whole_run):
    ask = serve(root)
    links = run_links(ask()[1])
    assert ask(f"/{links[0]}")[0] == 200
    shutil.rmtree(root)
    assert ask(f"/{links[0]}")[0] == 404
    status, body, _ = ask()
    assert status == 200
    assert "There are no runs here yet." in body
    whole_run("aug", 0)
    assert len(run_links(ask()[1])) == 1


def test_texts_of_users_are_escaped_in_messages_too(hostile_runs, serve):
    ask = serve(hostile_runs)
    for text in HOSTILE:
        status, body, _ = ask(f"/runs/{quote(text)}")
        assert status == 404
        assert text not in body
    for log in hostile_runs.rglob("log.txt"):
        log.unlink()
        log.symlink_to("/etc/hostname")
    for link in run_links(ask()[1]):
        assert "<script>alert" not in ask(f"/{link}")[1]


def test_no_page_fails_while_runs_are_written_damaged_and_removed(root, serve, whole_run, caplog):
    caplog.set_level(logging.ERROR)
    ask, over, wrong = serve(root), threading.Event(), []

    def read(seed):
        rng = random.Random(seed)
        while not over.is_set():
            status, body, _ = ask()
            links = run_links(body)
            path = rng.choice([*links, "configs/blobs-x.js"])
            found = ask(f"/{path}")[0]
            if status != 200 or found not in (200, 404):
                wrong.append((path, status, found))

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    rng = random.Random(7)
    for _ in range(40):
        with suppress(FileExistsError):
            whole_run(rng.choice(["aug", "mla"]), rng.randrange(5))
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        path = rng.choice(paths)
        if rng.random() < 0.5:
            path.write_bytes(path.read_bytes()[: rng.randrange(200)])
        elif len(paths) > 20:
            shutil.rmtree(path.parent, ignore_errors=True)
    over.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert not caplog.records


def test_a_mistake_of_ours_shows_no_traceback(root, serve, monkeypatch):
    ask = serve(root)
    monkeypatch.setattr(ask.server.site, "find", lambda path: 1 / 0)
    status, body, _ = ask()
    assert status == 500
    assert "Traceback" not in body
    assert "ZeroDivision" not in body


def test_a_port_that_is_taken_is_told(root):
    with Server(root, "127.0.0.1", 0) as server, pytest.raises(UserError, match="Give another --port"):
        Server(root, "127.0.0.1", server.server_address[1])
    with pytest.raises(UserError, match="expected an address that is free"):
        Server(root, "no.such.host.invalid", 0)


def test_who_may_read_is_known():
    with Server.__new__(Server) as server:
        server.socket = socket.socket()
        for address, is_open in (("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("192.168.0.7", True)):
            server.server_address = (address, 1)
            assert server.is_open_to_others is is_open


def test_the_command_serves_until_it_is_interrupted(root, start):
    process = start("serve", "--out", root, "--port", "0")
    line = process.stdout.readline()
    assert "Ctrl-C" in line
    port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
    assert "Stopped." in stdout


def test_a_folder_that_is_none_is_told(bench):
    done = bench("serve", "--out", "nowhere")
    assert done.rc == 2
    assert "expected a folder, got nowhere" in done.said


def test_the_settings_of_other_runs_come_as_a_script(root, serve):
    ask = serve(root)
    page = ask(f"/{run_links(ask()[1])[0]}")[1]
    path = page.partition('data-configs="..')[2].partition('"')[0]
    script = ask(path)[1]
    content = json.loads(script.removeprefix("window.CONFIGS = ").removesuffix(";\n"))
    assert len(content) == 2
    assert {one["config"]["method.name"] for one in content.values()} == {"aug", "ogm"}


@pytest.mark.full
def test_a_thousand_requests_of_a_hundred_clients_at_once_are_all_answered(root):
    """The first hundred connect before the server takes up one of them, as when it is slower than they are."""
    with Server(root, "127.0.0.1", 0) as server:
        address = server.server_address[:2]
        first = [socket.create_connection(address, timeout=5) for _ in range(100)]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with ThreadPoolExecutor(100) as clients:
                found = [one for each in clients.map(partial(ask_ten_times, address), first) for one in each]
        finally:
            server.shutdown()
            thread.join()
    assert Counter(found) == {200: 500, 404: 500}


def ask_ten_times(address, first):
    """Return the status of ten answers, the first by a connection that was made before."""
    found = []
    for number in range(10):
        connection = http.client.HTTPConnection(*address, timeout=60)
        connection.sock = None if number else first
        connection.request("GET", "/nowhere" if number % 2 else "/")
        answer = connection.getresponse()
        answer.read()
        connection.close()
        found.append(answer.status)
    return found
