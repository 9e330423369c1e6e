"""The page in a real browser: what a person does with it, by mouse, by keyboard and on a phone."""

import re
import shutil
import time

import pytest
from playwright.sync_api import expect, sync_playwright

from services.local.__main__ import CATALOGUE
from tests.conftest import missing
from tests.gateway.http.conftest import COLLECTION, PHOTO, PRODUCT, lone_gateway
from tests.security.secured import token, token_entry
from vitrine.v1 import search_pb2

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
PATIENCE_MS = 30_000
LISTEN = """
    const fetched = fetch;
    window.asked = [];
    window.fetch = async (address, options = {}) => {
        if (options.body instanceof FormData) {
            const photo = options.body.get('image');
            asked.push({request: JSON.parse(options.body.get('request')), photo: photo && await photo.text()});
        }
        return fetched(address, options);
    };
"""
"""What the page sends: the browser's own tools show no body with a file in it."""


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium")
    if path is None:
        missing("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, site):
    """Opens the page; afterwards nothing may have gone wrong that the test did not name in `page.expected`."""
    opened = []

    def open_page(address=site.address, **options):
        context = browser.new_context(**{**DESKTOP, **options})
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.add_init_script(LISTEN)
        page.expected, page.troubles = [], []
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("console", lambda said: said.type == "error" and page.troubles.append(said.text))
        page.on("request", lambda asked: foreign(asked.url, address) and page.troubles.append(f"loads {asked.url}"))
        opened.append((context, page))
        page.goto(address)
        expect(page.locator("#size:not(:empty), #sign-in[open]").first).to_be_visible(timeout=PATIENCE_MS)
        return page

    def foreign(url, own):
        return not url.startswith((own, "blob:", "data:"))

    yield open_page
    for context, page in opened:
        context.close()
        assert [each for each in page.troubles if not any(re.search(one, each) for one in page.expected)] == []


def show_photo(page, photo=PHOTO):
    with page.expect_response("**/v1/search") as answered:
        page.set_input_files("#file", str(photo))
    expect(page.locator("article.card").first).to_be_visible(timeout=PATIENCE_MS)
    settled(page)
    return answered.value


def settled(page):
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true", timeout=PATIENCE_MS)


def titles(page):
    return page.locator("article.card h3").all_inner_texts()


def asked(page):
    """Returns the search that the page asked for last."""
    return page.evaluate("asked.at(-1).request")


def test_a_photo_finds_its_product_and_says_what_the_answer_is_worth(open_page, site):
    page = open_page()
    expect(page.locator("#size")).to_have_text("116 products")
    show_photo(page)
    first = page.locator("article.card").first
    expect(first.locator("h3")).to_have_text("Deck chair")
    expect(first.locator(".price")).to_have_text("150.99")
    expect(first.locator(".stock")).to_have_text("In stock")
    expect(first.locator(".score")).to_have_text(re.compile(r"^[01]\.\d\d$"))
    assert first.locator("img").evaluate("async image => { await image.decode(); return image.naturalWidth }") > 0
    expect(page.locator("#told")).to_have_text(re.compile(r"First 24 products in \d+ ms, out of 348 pictures"))
    expect(page.locator("#live")).to_have_text(re.compile("First 24 products found. Best: Deck chair."))
    expect(page.locator("#banner")).to_be_hidden()
    page.click("#timings summary")
    expect(page.locator("#stages")).to_contain_text("model")
    expect(page.locator("#origin")).to_contain_text("2 of 2 shards answered")
    page.click("#more")
    expect(page.locator("article.card")).to_have_count(48)
    assert len(set(page.locator("article.card .picture").evaluate_all("all => all.map(each => each.ariaLabel)"))) > 20


def test_the_box_is_drawn_moved_and_resized_by_mouse(open_page):
    page = open_page()
    show_photo(page)
    stage = page.locator("#stage").bounding_box()

    def at(x, y):
        return stage["x"] + x * stage["width"], stage["y"] + y * stage["height"]

    def drag(start, end):
        with page.expect_request("**/v1/search"):
            page.mouse.move(*at(*start))
            page.mouse.down()
            page.mouse.move(*at(*end), steps=5)
            page.mouse.up()
        return asked(page)["query"][0]["box"]

    page.click("#use-whole")
    settled(page)
    near = lambda box, *values: all(  # noqa: E731
        abs(box[name] - value) < 0.02 for name, value in zip(("x", "y", "width", "height"), values, strict=True)
    )
    assert near(drag((0.2, 0.2), (0.6, 0.7)), 0.2, 0.2, 0.4, 0.5)
    assert near(drag((0.4, 0.4), (0.5, 0.5)), 0.3, 0.3, 0.4, 0.5)
    assert near(drag((0.7, 0.8), (0.9, 0.9)), 0.3, 0.3, 0.6, 0.6)
    assert near(drag((0.5, 0.5), (5, 5)), 0.4, 0.4, 0.6, 0.6)
    expect(page.locator("#box-told")).to_have_text("Searched by the part in the box.")
    expect(page.locator("#use-box")).to_have_attribute("aria-pressed", "true")


def test_everything_is_reached_by_keyboard(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    show_photo(page)
    page.click("#use-box")
    settled(page)
    expect(page.locator("#box")).to_be_focused()
    before = page.locator("#box").evaluate("box => [box.style.left, box.style.width]")
    with page.expect_request("**/v1/search"):
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Shift+ArrowRight")
    box = asked(page)["query"][0]["box"]
    assert [page.locator("#box").evaluate("box => [box.style.left, box.style.width]")] != [before]
    expect(page.locator("#live")).to_have_text(re.compile("Box: .* percent|products found"))
    assert box["x"] + box["width"] <= 1
    page.keyboard.press("Tab")
    expect(page.locator('[data-corner="nw"]')).to_be_focused()
    with page.expect_request("**/v1/search"):
        page.keyboard.press("ArrowDown")
    assert asked(page)["query"][0]["box"]["y"] > box["y"]
    settled(page)
    card = page.locator("article.card").first
    card.locator(".picture").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#product")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#product")).to_be_hidden()
    expect(card.locator(".picture")).to_be_focused()
    unnamed = page.locator("button, input, select, a").evaluate_all(
        "all => all.filter(each => !(each.ariaLabel || each.innerText || each.labels?.length || each.title))"
        ".map(each => each.outerHTML)"
    )
    assert unnamed == []


def test_facets_price_and_line_filter_together(open_page):
    page = open_page()
    show_photo(page)

    def choose(action):
        with page.expect_request("**/v1/search"):
            action()
        settled(page)
        return asked(page)["filter_text"]

    choice = page.locator(".choice", has_text="Living room").first
    assert choose(choice.click) == 'category = "Living room"'
    expect(page.locator("#filter-count")).to_have_text("1")
    price = page.locator("#price-high")
    price.fill("100")
    assert choose(lambda: price.press("Enter")) == 'category = "Living room" and price <= 100'
    line = page.locator("#line")
    line.fill("in_stock = 1 or price < 5")
    assert choose(lambda: line.press("Enter")) == (
        '(in_stock = 1 or price < 5) and category = "Living room" and price <= 100'
    )
    expect(page.locator("article.card").first).to_be_visible()
    for told in page.locator(".card .price").all_inner_texts():
        assert float(told) <= 100
    page.expected.append("400")
    line.fill("price <")
    line.press("Enter")
    expect(page.locator("#line-error")).to_contain_text("Character 8: expected a number")
    expect(line).to_have_attribute("aria-invalid", "")
    expect(page.locator("article.card").first).to_be_visible()
    page.click("#clear-filters")
    settled(page)
    expect(page.locator("#line-error")).to_be_hidden()
    expect(page.locator("#filter-count")).to_be_hidden()
    line.fill('category = "None at all"')
    line.press("Enter")
    expect(page.locator("#empty")).to_contain_text("No product passes the filters")
    page.click("#empty-clear")
    expect(page.locator("article.card").first).to_be_visible()


def test_words_alone_and_with_a_photo(open_page):
    page = open_page()
    page.fill("#words", "oak chair")
    page.keyboard.press("Enter")
    expect(page.locator("article.card h3").first).to_have_text("Oak chair")
    with page.expect_request("**/v1/search"):
        page.set_input_files("#file", str(PHOTO))
    assert asked(page)["query"] == [{"image": "image", "auto_crop": True}, {"text": "oak chair"}]
    settled(page)
    page.fill("#words", "zzzzzz qqqqqq")
    page.keyboard.press("Enter")
    settled(page)
    expect(page.locator("#error")).to_be_hidden()


def test_more_like_this_and_back(open_page):
    page = open_page()
    show_photo(page)
    found = titles(page)
    with page.expect_request("**/v1/search"):
        page.locator(".more-like").first.click()
    assert asked(page)["query"][0]["stored"]["product_id"] == PRODUCT
    expect(page.locator("#like-title")).to_have_text("Deck chair")
    settled(page)
    assert "Deck chair" not in titles(page)[:1]
    page.click("#back")
    expect(page.locator("#photo")).to_be_visible()
    expect(page.locator("article.card h3").first).to_have_text(found[0])
    page.locator("article.card .picture").nth(1).click()
    expect(page.locator("#product-images button")).to_have_count(3)
    page.click("#product-like")
    expect(page.locator("#like-title")).to_have_text(found[1])


def test_thumbs_are_kept_as_feedback(open_page, site):
    page = open_page()
    with page.expect_response("**/v1/search") as answered:
        page.set_input_files("#file", str(PHOTO))
    query_id = answered.value.json()["query_id"]
    card = page.locator("article.card").first
    card.locator(".up").click()
    expect(card.locator(".up")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#toast")).to_have_text("Noted: this fits.")
    second = page.locator("article.card").nth(1)
    second.locator(".down").click()
    expect(second.locator(".down")).to_have_attribute("aria-pressed", "true")
    expect(second.locator(".up")).to_have_attribute("aria-pressed", "false")
    with page.expect_response("**/v1/feedback") as seen:
        second.locator(".picture").click()
    assert seen.value.status == 204
    (record,) = (each for each in site.kept_feedback() if each.query_id == query_id)
    kept = [(each.rank, search_pb2.FeedbackAction.Name(each.action)) for each in record.events]
    assert kept == [(1, "FEEDBACK_ACTION_CLICK"), (2, "FEEDBACK_ACTION_REJECT"), (2, "FEEDBACK_ACTION_VIEW")]


def test_a_part_of_the_index_that_is_away_is_told(open_page, stack):
    page = open_page()
    show_photo(page)
    expect(page.locator("#banner")).to_be_hidden()
    try:
        page.expected.append("503")  # pictures of the products of that shard
        stack.do(stack.supervisor.kill("indexer-1"))
        page.click("#use-whole")
        expect(page.locator("#banner")).to_contain_text("1 of 2 shards answered: results may be missing")
        expect(page.locator("article.card").first).to_be_visible()
    finally:
        stack.do(stack.supervisor.restart("indexer-1"))
    until = time.monotonic() + 90
    while page.locator("#banner").is_visible():  # until the gateway's breaker has tried it again
        assert time.monotonic() < until
        page.wait_for_timeout(500)
        page.click("#use-whole")
        settled(page)


def test_a_gateway_that_wants_a_token_is_given_one(open_page, stack, tmp_path):
    (tmp_path / "callers.toml").write_text(token_entry("reader", ["read"]))
    settings = {
        "AUTH_FILE": tmp_path / "callers.toml",
        "EMBEDDER": stack.embedder,
        "INDEXERS": ",".join(stack.indexers),
        "IMAGE_ROOTS": CATALOGUE,
    }
    with lone_gateway(tmp_path, **settings) as guarded:
        page = open_page(guarded.address)
        page.expected.append("401")
        for wrong in ("no token of ours", token("stranger")):
            page.fill("#token", wrong)
            page.keyboard.press("Enter")
            expect(page.locator("#token-error")).to_contain_text("token")
        page.fill("#token", token("reader"))
        page.keyboard.press("Enter")
        expect(page.locator("#size")).to_have_text("116 products")
        expect(page.locator("#sign-in")).to_be_hidden()
        show_photo(page)
        picture = page.locator("article.card img").first
        expect(picture).to_have_attribute("src", re.compile("^blob:"))
        assert picture.evaluate("async image => { await image.decode(); return image.naturalWidth }") > 0


def test_dropped_and_pasted_photos(open_page):
    page = open_page()
    hand = f"""async kind => {{
        const file = new File([await (await fetch('/v1/images/{COLLECTION}/{PRODUCT}/{PRODUCT}_0')).blob()], 'a.jpg',
                              {{type: 'image/jpeg'}});
        const data = new DataTransfer();
        data.items.add(file);
        const options = {{bubbles: true, cancelable: true}};
        const event = kind === 'paste' ? new ClipboardEvent(kind, {{...options, clipboardData: data}})
                                       : new DragEvent(kind, {{...options, dataTransfer: data}});
        document.body.dispatchEvent(event);
    }}"""
    page.evaluate(hand, "dragenter")
    expect(page.locator("#overlay")).to_have_class("overlay visible")
    page.evaluate(hand, "drop")
    expect(page.locator("#overlay")).not_to_have_class("overlay visible")
    expect(page.locator("article.card h3").first).to_have_text("Deck chair")
    page.goto(page.url)
    page.evaluate(hand, "paste")
    expect(page.locator("article.card h3").first).to_have_text("Deck chair")


def test_what_is_no_picture_is_said_to_be_none(open_page, tmp_path):
    page = open_page()
    (tmp_path / "notes.txt").write_text("no picture")
    page.set_input_files("#file", str(tmp_path / "notes.txt"))
    expect(page.locator("#error")).to_contain_text("cannot be read as a picture")
    expect(page.locator("#retry")).to_be_hidden()


def test_large_photos_are_scaled_down_and_stripped_before_they_leave(open_page, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    exif[0x010F] = "a camera with a name"
    Image.open(PHOTO).resize((4000, 3000)).save(tmp_path / "large.jpg", exif=exif)
    page = open_page()
    with page.expect_request("**/v1/search"):
        page.set_input_files("#file", str(tmp_path / "large.jpg"))
    sent = page.evaluate("asked.at(-1).photo")
    assert "JFIF" in sent
    assert "a camera with a name" not in sent
    assert len(sent) < 1_500_000
    size = page.locator("#shown").evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert size == [1200, 1600]


def test_on_a_phone(open_page):
    page = open_page(**PHONE)
    expect(page.locator("#take")).to_be_visible()
    assert page.locator("#camera").get_attribute("capture") == "environment"
    show_photo(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.locator("#filters")).not_to_have_attribute("open", "")
    page.locator("#use-box").tap()
    settled(page)
    small = page.locator("button:visible").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect()).filter(box => Math.min(box.width, box.height) < 24)"
    )
    assert small == []
    before = asked(page)["query"][0]["box"]
    touch = page.context.new_cdp_session(page)
    corner = page.locator('[data-corner="se"]').bounding_box()
    x, y = corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2
    with page.expect_request("**/v1/search"):
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        for step in range(1, 6):
            point = {"x": x - 8 * step, "y": y - 4 * step}
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    box = asked(page)["query"][0]["box"]
    assert (box["x"], box["y"]) == (before["x"], before["y"])
    assert box["width"] < before["width"]
    assert box["height"] < before["height"]


CONTRAST = """() => {
    const parse = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (let each = element; each; each = each.parentElement) {
            const colour = parse(getComputedStyle(each).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
        }
    };
    const poor = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some(each => each.nodeType === 3 && each.textContent.trim());
        if (!own || !element.checkVisibility({opacityProperty: true})) continue;
        const style = getComputedStyle(element);
        if (style.clipPath !== 'none') continue;
        const [a, b] = [light(parse(style.color)), light(behind(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) poor.push(`${element.outerHTML.slice(0, 80)} ${ratio.toFixed(2)}`);
    }
    return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(open_page, scheme):
    page = open_page(color_scheme=scheme, reduced_motion="reduce")
    assert page.evaluate(CONTRAST) == []
    show_photo(page)
    page.click("#timings summary")
    assert page.evaluate(CONTRAST) == []
    page.locator("article.card .picture").first.click()
    assert page.evaluate(CONTRAST) == []
