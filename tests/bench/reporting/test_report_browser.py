"""The report in a real browser: it opens quietly, all its controls work, by keyboard and on a phone too.

Needs Debian's chromium and chromium-driver; skipped by name where they are not there.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from report_records import ROWS, TEXTS, made_page, selection

from bench import records
from patchers import create

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
QUIET = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-dev-shm-usage", "force-color-profile=srgb"),
    "force-prefers-reduced-motion",  # nothing scrolls while it is pointed at
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None, reason="no chromium with chromedriver (Debian: chromium chromium-driver)"
    ),
]


class Tab:
    """The page in a browser, and what we ask of it."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self, width: int = 1280, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(self.url)
        assert self.run("return document.documentElement.dataset.ready") == "yes"

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(getattr(Keys, key, key))
        chain.perform()

    def choose(self, option: str) -> None:
        self.run(
            "const box = document.getElementById('text-choice'); box.value = arguments[0];"
            "box.dispatchEvent(new Event('input', {bubbles: true}))",
            option,
        )

    def wait(self, script: str) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, 20).until(lambda _: self.run(f"return {script}"))


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    path.write_text(made_page([selection("standard"), selection("leaks", about="")]), encoding="utf-8")
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in (*QUIET, f"user-data-dir={folder / 'profile'}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(str(DRIVER)))
    try:
        yield Tab(driver, path.as_uri())
    finally:
        driver.quit()


def test_it_opens_without_a_word_and_without_a_request(tab: Tab) -> None:
    tab.open()
    tab.choose("typed")
    tab.one("button.row").click()
    tab.wait("document.querySelectorAll('.record .key').length > 5")
    assert tab.driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in tab.driver.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    schemes = {url.partition(":")[0] for url in asked} - {"chrome"}  # the browser's own new tab
    assert schemes <= {"file", "data", "blob"}, asked
    assert sum(url.startswith("file:") for url in asked) <= 1


def test_tables_sort_by_click_and_by_key(tab: Tab) -> None:
    tab.open()
    panel = "#standard-table-0"
    original = tab.texts(f"{panel} tbody th")
    assert original == [*ROWS, "hnet"]
    head = next(h for h in tab.all(f"{panel} thead th") if h.text.startswith("FLOPs"))
    head.find_element("css selector", "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert tab.texts(f"{panel} tbody th") == ["stride", "whitespace", "bpe", "byte_lm", "bpe-leaky", "hnet"]
    tab.press("ENTER")  # the button has the focus
    assert head.get_attribute("aria-sort") == "descending"
    assert tab.texts(f"{panel} tbody th") == ["byte_lm", "bpe", "whitespace", "stride", "bpe-leaky", "hnet"]
    tab.press("SPACE")
    assert head.get_attribute("aria-sort") is None
    assert tab.texts(f"{panel} tbody th") == original
    tab.one(f"{panel} thead th button").click()
    assert tab.texts(f"{panel} tbody th") == ["bpe", "byte_lm", "stride", "whitespace", "bpe-leaky", "hnet"]
    others = tab.texts("#leaks-table-0 tbody th")
    assert others == original, "another table stays as it was"


def test_tabs_show_one_table_at_a_time(tab: Tab) -> None:
    tab.open()
    tabs = tab.all("#standard [role=tab]")
    assert [t.text for t in tabs[:3]] == ["Results", "Compute", "Speed and memory"]

    def shown() -> list[bool]:
        return [panel.is_displayed() for panel in tab.all("#standard [role=tabpanel]")]

    assert shown() == [True] + [False] * (len(tabs) - 1)
    tabs[1].click()
    assert shown()[:2] == [False, True]
    tab.press("ARROW_RIGHT")
    assert shown()[:3] == [False, False, True]
    assert tabs[2].get_attribute("aria-selected") == "true"
    assert tab.run("return document.activeElement.textContent") == "Speed and memory"
    tab.press("HOME")
    assert shown()[0]


def test_a_record_is_a_click_away(tab: Tab) -> None:
    tab.open()
    record = next(r for r in selection("standard").records if r["row"] == "whitespace" and r["seed"] == 1)
    button = next(b for b in tab.all("#standard-table-0 button.row") if b.text == "whitespace")
    button.click()
    assert tab.one("#record-dialog").is_displayed()
    assert tab.one("#record-title").text == "standard · whitespace"
    assert tab.texts(".seeds button") == ["seed 0", "seed 1"]
    tab.all(".seeds button")[1].click()
    tab.wait(f"document.querySelector('.record').textContent.includes('{record['run_id']}')")
    keys = tab.texts(".record > * > .key, .record > details > summary > .key")
    assert keys[:4] == ["schema", "run_id", "suite", "row"], "in the order of its file"
    summary = next(s for s in tab.all(".record > details > summary") if s.text.startswith("flops"))
    summary.click()
    assert "per_byte" in tab.one(".record").text
    assert tab.one(".download").get_attribute("href").startswith("blob:")
    assert tab.one(".download").get_attribute("download") == f"{record['run_id']}.json"
    tab.press("ESCAPE")
    assert not tab.one("#record-dialog").is_displayed()
    assert tab.run("return document.activeElement.textContent") == "whitespace", "the focus is where it was"
    button.click()
    tab.one("#record-dialog .close").click()
    assert not tab.one("#record-dialog").is_displayed()


def test_what_is_unpacked_is_the_file(tab: Tab) -> None:
    tab.open()
    for suite in ("standard", "leaks"):
        record = selection(suite).records[3]
        script = (
            "const done = arguments[1], packed = document.getElementById(arguments[0]).textContent;"
            "const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));"
            "new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).text().then(done)"
        )
        text = tab.driver.execute_async_script(script, f"record-{suite}/{record['run_id']}")
        assert text.encode() == records.content(record)


def patches(tab: Tab, strip: int) -> list[str]:
    return list(
        tab.run(
            "return [...document.querySelectorAll('.strip')[arguments[0]].querySelectorAll('.patch')]"
            ".map((patch) => patch.textContent)",
            strip,
        )
    )


def test_stored_texts_show_cuts_and_bits(tab: Tab) -> None:
    tab.open()
    assert tab.texts(".strip h4") == list(ROWS)
    text = TEXTS[1][1]
    tab.choose("0/1")
    for strip, name in enumerate(("stride", "whitespace", "space_words")):
        starts = [*np.flatnonzero(create(name).segment(text)).tolist(), len(text)]
        whole = [text[a:b].decode() for a, b in itertools.pairwise(starts) if _is_utf8(text[a:b])]
        shown = patches(tab, strip)
        assert len(shown) == len(starts) - 1
        assert [patch for patch in shown if "‹" not in patch] == whole
    assert tab.all(".strip")[4].find_elements("css selector", ".patch") == [], "byte_lm has no patches"
    assert "no patches" in tab.all(".strip .facts")[4].text
    assert "% of the bits on boundaries" in tab.all(".strip .facts")[2].text
    heights = tab.run(
        "return [...document.querySelectorAll('.strip i')].map((i) => getComputedStyle(i).backgroundSize)"
    )
    assert len(set(heights)) > 10, "bars differ"


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_byte_is_looked_at_in_all_strips_at_once(tab: Tab) -> None:
    from selenium.webdriver import ActionChains

    tab.open()
    cell = tab.all(".strip i")[5]
    ActionChains(tab.driver).move_to_element(cell).perform()
    assert len(tab.all("i.here")) == len(ROWS)
    assert all(" bits" in told for told in tab.texts(".told"))
    tab.run("document.querySelector('.text').focus()")
    tab.press("HOME")
    assert tab.one(".where").text.startswith("Byte 0 of")
    tab.press("ARROW_RIGHT", "ARROW_RIGHT")
    assert tab.one(".where").text.startswith("Byte 2 of")
    tab.press("END", "ARROW_RIGHT", "ARROW_LEFT")
    assert tab.one(".where").text.startswith(f"Byte {len(TEXTS[0][1]) - 2} of")


def test_rows_can_be_taken_away(tab: Tab) -> None:
    tab.open()
    tab.all(".chip input")[0].click()
    assert tab.texts(".strip h4") == list(ROWS)[1:]
    tab.choose("0/1")
    assert tab.texts(".strip h4") == list(ROWS)[1:], "with another text too"
    tab.all(".chip input")[0].click()
    assert tab.texts(".strip h4") == list(ROWS)


def test_a_typed_text_is_cut_by_the_rules(tab: Tab) -> None:
    tab.open()
    assert not tab.one("#typed-text").is_displayed()
    tab.choose("typed")
    box = tab.one("#typed-text")
    assert "cannot run a model" in tab.one(".typing").text
    box.clear()
    typed = "Two words, 3.14\nnaïve <b>x</b>"
    box.send_keys(typed)
    labels = tab.texts(".strip h4")
    assert labels == ["whitespace", "words", "space_words", "stride 4.5", "codepoint", "bytes"]
    data = typed.encode()
    for strip, label in enumerate(labels):
        name = label.split()[0]
        patcher = create(name, stride=4.5) if name == "stride" else create(name)
        assert len(patches(tab, strip)) == int(patcher.segment(data).sum()), label
    assert "".join(patches(tab, 1)).replace("␊", "\n") == typed
    number = tab.one("#typed-stride")
    number.clear()
    number.send_keys("2")
    assert "stride 2" in tab.texts(".strip h4")
    tab.run("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", box)
    assert all(text.startswith("0 patches") for text in tab.texts(".facts"))
    assert tab.driver.get_log("browser") == []


def background(tab: Tab) -> str:
    return str(tab.run("return getComputedStyle(document.body).backgroundColor"))


def test_light_and_dark(tab: Tab) -> None:
    def system(scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    tab.open()
    system("light")
    light = background(tab)
    system("dark")
    dark = background(tab)
    assert light != dark, "the system is followed"
    tab.one(".themes [value=light]").find_element("xpath", "..").click()
    assert background(tab) == light
    tab.press("ARROW_RIGHT")
    assert background(tab) == dark, "radio buttons answer to arrows"
    system("light")
    assert background(tab) == dark
    tab.open()
    assert background(tab) == dark, "kept"
    tab.one(".themes [value=auto]").find_element("xpath", "..").click()
    assert background(tab) == light


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_one_way_only(tab: Tab, width: int) -> None:
    tab.open(width, 800)

    def fits() -> bool:
        return bool(tab.run("return document.documentElement.scrollWidth <= innerWidth"))

    assert fits()
    for button in tab.all("#standard [role=tab]"):
        button.click()
        assert fits(), button.text
    tab.choose("typed")
    assert fits()
    tab.run("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert fits()
    tab.one("#standard [role=tab]").click()
    tab.run("document.querySelector('button.row').click()")
    tab.wait("document.querySelectorAll('.record .key').length > 5")
    assert fits()
    dialog = tab.one("#record-dialog").rect
    assert dialog["x"] >= 0
    assert dialog["x"] + dialog["width"] <= width
    tab.press("ESCAPE")


def test_the_keyboard_reaches_everything_and_one_sees_where_it_is(tab: Tab) -> None:
    tab.open()
    wanted = tab.run(
        "return [...document.querySelectorAll('a[href], button, select, textarea, input, summary, [tabindex=\"0\"]')]"
        ".filter((e) => e.checkVisibility({visibilityProperty: true}) && e.tabIndex >= 0 && !e.closest('dialog')"
        " && !(e.type === 'radio' && !e.checked)).length"
    )
    assert wanted > 40
    reached, unseen = 0, []
    tab.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    for _ in range(wanted + 5):
        tab.press("TAB")
        state = tab.run(
            "const e = document.activeElement; if (!e || e === document.body) return null;"
            "const seen = e.dataset.reached; e.dataset.reached = 'yes';"
            "const marked = (x) => x && getComputedStyle(x).outlineStyle !== 'none';"
            "return [seen, marked(e) || marked(e.closest('label')), e.outerHTML.slice(0, 80)]"
        )
        if state is None or state[0]:
            break
        reached += 1
        if not state[1]:
            unseen.append(state[2])
    assert reached == wanted
    assert unseen == []


CONTRAST = """
const parse = (c) => { const n = c.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
const lum = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((a, v, i) => a + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
  if (c[3] > 0.99) return c; } return [255, 255, 255, 1]; };
const low = [];
for (const e of document.querySelectorAll('body *')) {
  if (e.closest('script, dialog') || !e.checkVisibility() || e.matches('.arrow, .raw')) continue;
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own) continue;
  const style = getComputedStyle(e), svg = e.closest('svg');
  const ink = parse(svg ? style.fill : style.color), paper = behind(e);
  const [a, b] = [lum(ink), lum(paper)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) low.push([e.outerHTML.slice(0, 90), style.color, ratio.toFixed(2)]);
}
return low;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_can_be_read(tab: Tab, theme: str) -> None:
    """Contrast of 4.5 to 1, as WCAG asks of text, in tables, pictures and the viewer."""
    tab.open()
    tab.one(f".themes [value={theme}]").find_element("xpath", "..").click()
    tab.run("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert tab.run(CONTRAST) == []


def test_everything_that_acts_has_a_name(tab: Tab) -> None:
    tab.open()
    nameless = tab.run(
        "const roles = ['img', 'region', 'tab', 'tablist', 'tabpanel', 'group'].map((role) => `[role=${role}]`);"
        "return [...document.querySelectorAll(['button, a[href], select, textarea, input, dialog', ...roles].join())]"
        ".filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')"
        " || (e.labels && e.labels.length))).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert nameless == []


def test_the_foot_counts_the_runs(tab: Tab) -> None:
    tab.open()
    assert "22 runs, 2 of them failed" in tab.one("footer").text
