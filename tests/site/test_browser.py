"""The pages in a real browser: no errors, sorting and filtering, keys alone, both widths, both schemes, contrast."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from benchmark.records import State, scan
from benchmark.site.pages import write_site
from benchmark.site.server import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (1280, 400)

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]

CONTRASTS = """() => {
  const parse = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const share = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * share(r) + 0.7152 * share(g) + 0.0722 * share(b);
  const ground = element => {
    for (let one = element; one; one = one.parentElement) {
      const found = parse(getComputedStyle(one).backgroundColor);
      if (found[3] === 1) return found;
    }
    return [255, 255, 255, 1];
  };
  const low = [];
  let seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, script")) continue;
    const [one, two] = [light(parse(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (two + 0.05);
    seen += 1;
    if (ratio < 4.5) low.push(`${element.outerHTML.slice(0, 60)} ${ratio.toFixed(2)}`);
  }
  return { low, seen };
}"""

NAMELESS = """() => [...document.querySelectorAll("a, button, input, select, [role=img], [role=region], summary")]
  .filter(one => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim()))
  .map(one => one.outerHTML.slice(0, 100))"""

REPEATED = """() => {
  const ids = [...document.querySelectorAll("[id]")].map(one => one.id);
  return ids.filter((id, position) => ids.indexOf(id) !== position);
}"""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser):
    """Open a page: `open_page(url, width, scheme)`; that it wrote no error to the console is checked at the end."""
    contexts, errors = [], []

    def begin(url, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("dialog", lambda dialog: errors.append(f"dialog {dialog.message}"))
        page.on("requestfailed", lambda request: errors.append(request.url))
        page.goto(url)
        page.wait_for_load_state("networkidle")
        return page

    yield begin
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def runs(whole_run, tmp_path):
    """Write 3 methods by 4 seeds with known scores, two of them not done; return the runs' folder."""
    for number, method in enumerate(("aug", "concat", "ogm")):
        for seed in range(4):
            state = {("ogm", 3): State.FAILED, ("concat", 0): State.INTERRUPTED}.get((method, seed), State.DONE)
            options = {
                "dataset": "one" if seed < 2 else "two",
                "state": state,
                "cause": "out of luck" if number else "",
            }
            whole_run(method, seed, accuracy=0.1 + 0.2 * number + 0.03 * ((seed * 3) % 4), **options)
    return tmp_path / "runs"


@pytest.fixture
def site(runs, tmp_path):
    """Return the address of the site of the runs, on disk."""
    return write_site(scan(runs), runs, tmp_path / "report").as_uri()


def column(page, name):
    """Return the texts of a column as they stand."""
    headers = [text.rstrip("↕▲▼ \xa0") for text in page.locator("#runs thead th").all_inner_texts()]
    return page.locator(f"#runs tbody tr > :nth-child({headers.index(name) + 1})").all_inner_texts()


def run_page(page):
    return page.locator("#runs tbody a").first


def test_sorting_puts_numbers_in_order_and_what_is_missing_last(site, open_page):
    page = open_page(site)
    button = page.get_by_role("button", name="test acc (epoch: best valid)")
    header = page.locator("th", has=button)
    button.click()
    falling = column(page, "test acc (epoch: best valid)")
    numbers = [float(text) for text in falling[:10]]
    assert falling[10:] in (["—", "✗"], ["✗", "—"])
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == 10
    assert header.get_attribute("aria-sort") == "descending"
    button.click()
    assert [float(text) for text in column(page, "test acc (epoch: best valid)")[:10]] == sorted(numbers)
    assert sorted(column(page, "test acc (epoch: best valid)")[10:]) == ["—", "✗"]
    assert header.get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="method").click()
    assert column(page, "method") == ["aug"] * 4 + ["concat"] * 4 + ["ogm"] * 4
    assert page.locator("[aria-sort=ascending], [aria-sort=descending]").count() == 1
    page.get_by_role("button", name="state").click()
    assert [text.split()[1] for text in column(page, "state")[:3]] == ["failed", "interrupted", "done"]


def test_filters_count_and_stay_in_the_address(site, open_page):
    page = open_page(site)
    shown = page.locator("#shown")
    assert shown.inner_text() == "12 of 12 runs"
    page.get_by_label("Search").fill("OGM two")
    assert shown.inner_text() == "2 of 12 runs"
    assert column(page, "method") == ["ogm", "ogm"]
    page.get_by_label("Search").fill("")
    page.get_by_label("Data set").select_option("one")
    assert shown.inner_text() == "6 of 12 runs"
    page.get_by_label("Method").select_option("concat")
    assert column(page, "seed") == ["0", "1"]
    page.get_by_role("checkbox", name="done").check()
    assert column(page, "seed") == ["1"]
    page.get_by_role("checkbox", name="interrupted").check()
    page.get_by_role("button", name="seed").click()
    assert column(page, "seed") == ["1", "0"]
    again = open_page(page.url)
    assert column(again, "seed") == ["1", "0"]
    assert again.locator("#shown").inner_text() == "2 of 12 runs"
    assert again.get_by_label("Method").input_value() == "concat"
    again.get_by_role("button", name="Clear").click()
    again.wait_for_function("document.getElementById('shown').textContent === '12 of 12 runs'")
    again.evaluate("location.hash = '#state=failed'")
    again.wait_for_function("document.getElementById('shown').textContent === '1 of 12 runs'")
    assert "out of luck" in column(again, "state")[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_can_be_read_and_are_named(site, open_page, width, scheme):
    page = open_page(site, width, scheme)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = page.evaluate(CONTRASTS)
        assert found["seen"] > 30
        assert not found["low"]
        assert not page.evaluate(NAMELESS)
        assert not page.evaluate(REPEATED)
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark is (scheme == "dark")
        if "/runs/" not in page.url:
            page.goto(f"{site.rpartition('/')[0]}/{run_page(page).get_attribute('href')}")
            page.wait_for_selector(".js-plotly-plot")
            for part in page.locator("details").all():
                part.evaluate("part => part.open = true")
            page.locator("#other").focus()
            page.wait_for_function("document.getElementById('other').options.length > 1")
            page.locator("#other").select_option(index=1)


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_texts_run_nothing_and_break_no_page(hostile_runs, tmp_path, open_page, width):
    index = write_site(scan(hostile_runs), hostile_runs, tmp_path / "report")
    for path in (index, *sorted(index.parent.glob("runs/*"))):
        page = open_page(path.as_uri(), width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        if page.locator("#other").count():
            page.locator("#other").focus()
            page.wait_for_function("document.getElementById('other').options.length > 1")
            page.locator("#other").select_option(index=1)
        assert page.locator("img, main script[src]").count() == 0


def test_the_theme_can_be_chosen_and_stays(site, open_page):
    page = open_page(site, scheme="dark")
    button = page.get_by_role("button", name="Theme")
    grounds = []
    for choice in ("light", "dark", "auto"):
        button.click()
        assert button.inner_text() == f"Theme: {choice}"
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] == "rgb(255, 255, 255)"
    assert grounds[1] == grounds[2] != grounds[0]
    button.click()
    page.reload()
    assert button.inner_text() == "Theme: light"
    run_page(page).click()
    page.wait_for_selector(".js-plotly-plot")
    axis = "getComputedStyle(document.querySelector('.xtick text')).fill"
    before = page.evaluate(axis)
    page.get_by_role("button", name="Theme").click()
    page.wait_for_function(f"{axis} !== '{before}'")


def test_keys_alone_do_everything(site, open_page):
    page = open_page(site)

    def press_until(wanted):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({wanted!r})"):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", "and the focus can be seen"
                return
        pytest.fail(f"no key leads to {wanted}")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert "#main" not in page.url
    press_until("[name=state][value=done]")
    page.keyboard.press("Space")
    assert page.locator("#shown").inner_text() == "10 of 12 runs"
    press_until("[name=q]")
    page.keyboard.type("aug")
    assert page.locator("#shown").inner_text() == "4 of 12 runs"
    press_until("#runs thead th:nth-child(3) button")
    page.keyboard.press("Enter")
    assert column(page, "seed") == ["3", "2", "1", "0"]
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    press_until("#runs tbody a")
    page.keyboard.press("Enter")
    page.wait_for_selector(".js-plotly-plot")
    assert page.locator("h1").inner_text().endswith("s3")
    press_until("#head")
    page.keyboard.press("ArrowDown")
    assert page.locator("#mistakes thead th").nth(2).inner_text() == "audio"
    press_until("#config summary")
    page.keyboard.press("Enter")
    assert page.locator("#config").get_attribute("open") is not None


def test_a_run_shows_its_curves_predictions_and_what_differs(site, open_page):
    page = open_page(site)
    run_page(page).click()
    page.wait_for_selector(".js-plotly-plot")
    drawn = page.locator("[data-chart].js-plotly-plot")
    assert drawn.evaluate_all("all => all.map(one => one.dataset.chart)") == ["valid", "loss", "signal-0", "test"]
    names = drawn.evaluate_all("all => all.map(one => one.data.map(trace => trace.name))")
    assert names[0] == names[3] == ["fused", "audio", "video"]
    assert page.locator("#test [data-chart=test]").count() == 1
    assert page.locator("#curves [data-chart=test]").count() == 0
    assert "Not for choosing" in page.locator("#test").inner_text()
    counts = page.locator("#confusion").evaluate("one => one.data[0].z.flat().reduce((sum, n) => sum + n, 0)")
    assert counts == 30
    assert page.locator("#mistakes tbody tr").count() == 10
    page.locator("#other").focus()
    page.wait_for_function("document.getElementById('other').options.length === 6")
    titles = page.locator("#other option").all_inner_texts()
    page.locator("#other").select_option(label=next(title for title in titles if title.startswith("one ogm s1")))
    lines = page.locator("#difference tbody tr").all_inner_texts()
    assert [line.split("\t") for line in lines] == [
        ["method.label", "aug", "ogm"], ["method.name", "aug", "ogm"], ["seed", "0", "1"]
    ]  # fmt: skip


def test_a_live_page_follows_the_runs_and_keeps_filters_focus_and_place(runs, whole_run, open_page):
    with Server(runs, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            page = open_page(server.url, 400)
            page.get_by_label("Method").select_option("aug")
            page.get_by_role("button", name="seed").click()
            page.locator("#runs tbody a").nth(1).focus()
            page.evaluate("document.querySelector('.scroller').scrollLeft = 120; scrollTo(0, 200)")
            place = page.evaluate("[document.querySelector('.scroller').scrollLeft, scrollY]")
            whole_run("aug", 4, dataset="two")
            page.get_by_text("5 of 13 runs").wait_for()
            assert column(page, "seed") == ["4", "3", "2", "1", "0"]
            assert page.evaluate("document.activeElement.closest('tr').cells[2].textContent") == "2"
            assert page.evaluate("[document.querySelector('.scroller').scrollLeft, scrollY]") == place
            assert page.get_by_label("Method").input_value() == "aug"
            page.goto(server.url + run_page(page).get_attribute("href"))
            page.wait_for_selector(".js-plotly-plot")
            page.locator("#rule").select_option("last")
            page.locator("#env summary").click()
            for log in Path(runs).rglob("log.txt"):
                log.write_text("a line that was not there")
            page.get_by_text("a line that was not there").wait_for()
            assert page.locator("#rule").input_value() == "last"
            assert page.locator("#env").get_attribute("open") is not None
            assert page.locator("[data-chart=valid] .main-svg").count()
        finally:
            server.shutdown()
            thread.join()
