"""The page in a real browser: a game by clicks, an analysis, a review, two tabs, a phone, a server that dies."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="wants playwright, which .ci/run installs")
pytest.importorskip("uvicorn", reason="the page needs the extra `web`")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here"), pytest.mark.slow]
ROOT = Path(__file__).parents[3]
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SWITCHES += ["--disable-component-update", "--disable-sync"]
WAIT = 20_000
RECORD = "(;GM[1]SZ[5]KM[24.5]RU[Chinese]PB[<script>alert(1)</script>];B[cc];W[aa];B[cb];W[ab]C[<b>bold</b>];B[cd])"


class Server:
    """The command, as a person starts it."""

    def __init__(self, folder, port=0):
        command = [sys.executable, "-m", "experiments", "play", "--port", str(port), "--runs", str(folder)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert self.process.stderr
        for line in self.process.stderr:
            if "the page: " in line:
                break
        self.address = line.split()[2]
        self.port = int(self.address.rstrip("/").rpartition(":")[2])

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(30)
        self.process.stderr.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    here = Server(tmp_path_factory.mktemp("runs"))
    yield here
    here.end()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        began = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield began
        began.close()


@pytest.fixture
def tab(browser):
    """Opens a page, whose errors fail the test."""
    context, wrong = browser.new_context(locale="en-GB"), []

    def new(address, **size):
        page = context.new_page()
        if size:
            page.set_viewport_size(size)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"a script ran: {dialog.message}"))
        page.goto(address)
        return page

    yield new
    context.close()
    assert wrong == []


def point(page, vertex, size=5):
    """Click there."""
    script = """([vertex, size]) => {
        const svg = document.getElementById("board"), [column, row] = Board.place(vertex, size);
        const place = new DOMPoint(column + 1, row + 1).matrixTransform(svg.getScreenCTM());
        return [place.x, place.y];
    }"""
    page.locator("#board").scroll_into_view_if_needed()
    page.mouse.click(*page.evaluate(script, [vertex, size]))


def stones(page, black, white):
    """Wait until so many stand on the board."""
    counts = "([black, white]) => document.querySelectorAll('#board circle.black').length === black && "
    counts += "document.querySelectorAll('#board circle.white').length === white"
    page.wait_for_function(counts, arg=[black, white], timeout=WAIT)


def begin(page, **fields):
    for name, value in fields.items():
        field = page.locator(f"#{name}")
        field.fill(value) if name in ("limit", "komi") else field.select_option(value)
    page.click("#form button[type=submit]")
    page.wait_for_function("() => document.querySelector('#sides .turn')", timeout=WAIT)


def test_a_game_by_clicks(server, tab):
    page = tab(server.address)
    page.wait_for_selector("#player option", state="attached", timeout=WAIT)
    begin(page, player="alphazero:5x5", limit="20", mine="B", size="5")
    stones(page, 0, 0)
    point(page, "C3")
    stones(page, 1, 1)
    page.check("#think")
    page.wait_for_selector("#moves tr", timeout=WAIT)
    assert page.locator("#board .disc").count() > 0
    page.uncheck("#think")
    page.click("#undo")
    stones(page, 0, 0)
    # Black takes all, by whatever way: the sides are both mine now.
    begin(page, mine="BW")
    for number, move in enumerate(["C3", "A1", "C2"], 1):
        point(page, move)
        stones(page, (number + 1) // 2, number // 2)
    page.reload()
    stones(page, 2, 1)
    page.keyboard.press("ArrowLeft")
    stones(page, 1, 1)
    page.keyboard.press("End")
    stones(page, 2, 1)
    for _ in range(2):
        page.click("#pass")
    page.wait_for_selector("#counting:not([hidden])", timeout=WAIT)
    assert page.locator("#board .dead").count() == 1  # White's stone
    assert "B+0.5" in page.text_content("#counted")
    point(page, "A1")
    page.wait_for_function("() => !document.querySelector('#board .dead')", timeout=WAIT)
    with page.expect_download() as download:
        page.click("#save")
    assert ";B[cc];W[ae];B[cd];W[];B[]" in Path(download.value.path()).read_text()


def test_two_tabs_and_a_phone(server, tab):
    one, other = tab(server.address), tab(server.address, width=390, height=800)
    for page in (one, other):
        page.wait_for_selector("#player option", state="attached", timeout=WAIT)
        begin(page, player="random", mine="BW", size="5")
    point(one, "A1")
    stones(one, 1, 0)
    point(other, "B2")
    point(other, "B3")
    stones(other, 1, 1)
    stones(one, 1, 0)
    assert other.evaluate("document.documentElement.scrollWidth <= innerWidth")
    other.click("#nav button")
    assert other.text_content("#pass") == "통과"
    other.click("#nav button")


def test_a_record_is_reviewed_and_tried(server, tab, tmp_path):
    record = tmp_path / "game.sgf"
    record.write_text(RECORD)
    page = tab(f"{server.address}review")
    page.wait_for_selector("#player option", state="attached", timeout=WAIT)
    page.select_option("#player", "alphazero:5x5")
    page.fill("#simulations", "10")
    page.set_input_files("#file", record)
    page.wait_for_selector("#mistakes li", timeout=WAIT)
    assert "<script>" in page.text_content("#title") and page.locator("#title script").count() == 0
    page.keyboard.press("End")
    stones(page, 3, 2)
    assert page.locator("#summary tr").count() == 2
    with page.expect_download() as download:
        page.click("#save")
    assert "SBKV" in Path(download.value.path()).read_text()
    page.click("#retry")
    stones(page, 3, 2)
    page.goto(f"{server.address}review")
    page.fill("#text", "no record")
    page.click("#form button[type=submit]")
    page.wait_for_function("() => document.getElementById('status').textContent.includes('record')", timeout=WAIT)


def test_a_server_that_is_killed_and_another(tab, tmp_path):
    servers = [Server(tmp_path)]
    try:
        page = tab(servers[0].address)
        page.wait_for_selector("#player option", state="attached", timeout=WAIT)
        begin(page, player="random", mine="BW", size="5")
        point(page, "A1")
        stones(page, 1, 0)
        servers[0].end(signal.SIGKILL)
        page.wait_for_selector("#away:not([hidden])", timeout=WAIT)
        servers.append(Server(tmp_path, servers[0].port))
        page.wait_for_selector("#away[hidden]", state="attached", timeout=WAIT)
        point(page, "B2")
        stones(page, 1, 1)
    finally:
        for one in servers:
            if one.process.poll() is None:
                one.end()


def test_first_page(server, tab):
    """What it says of itself: its title, its language, a name for all that can be pressed."""
    for path in ("", "review", "watch"):
        page = tab(server.address + path)
        page.wait_for_load_state("networkidle")
        time.sleep(0.2)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, textarea, [role=slider], svg[role=img]")]
                .filter((each) => !(each.textContent.trim() || each.getAttribute("aria-label") || each.labels?.length))
                .map((each) => each.outerHTML.slice(0, 80))"""
        )
        assert nameless == [] and page.title() and page.evaluate("document.documentElement.lang")
