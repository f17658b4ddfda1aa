"""Draw, morph, samples, contrast: what is shown is what the server says."""

import base64
import io
import os
import re
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, Pixels, base64_png, from_base64, png
from tests.explorer.conftest import Visit, canvas_pixels, grey, rest

AXE = ROOT / "tests/clients/node_modules/axe-core/axe.min.js"

PAD = "#draw .pad-canvas"
SEVEN = [(0.25, 0.25), (0.75, 0.22), (0.45, 0.8)]
SCORED = "#draw .nats dd[data-member=elbo]:has-text('nats')"
LATENT = "#map .pinned canvas[data-latent='{}']"


def near(page: Any, panel: str) -> Any:
    """The panel, in view: panels ask nothing before they come near it."""
    page.eval_on_selector(f"#{panel}", "section => section.scrollIntoView({behavior: 'instant'})")
    return page.locator(f"#{panel}")


def draw(page: Any, corners: list[tuple[float, float]]) -> None:
    """One stroke with the mouse through these shares of the pad."""
    near(page, "draw")
    page.eval_on_selector(PAD, "pad => pad.scrollIntoView({block: 'center', behavior: 'instant'})")
    area = page.locator(PAD).bounding_box()
    places = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def settled(page: Any, requests: list[Any]) -> None:
    """Until all that was asked has its answer, and nothing more is asked for half a second."""
    count = -1
    while count != len(requests):
        count = len(requests)
        for request in requests:
            request.response()
        rest(page, 500)


def listen(page: Any, path: str) -> list[Any]:
    """The requests of a path, as they come."""
    found: list[Any] = []
    page.on("request", lambda request: found.append(request) if f"/{path}?" in request.url else None)
    return found


def post(request: Any) -> Any:
    """The answer to a request of the page, asked anew."""
    return httpx2.post(request.url, json=request.post_data_json).raise_for_status().json()


def number(text: str) -> float:
    return float(text.removesuffix(" nats").replace("\u2212", "-"))


def state(page: Any) -> dict[str, str]:
    rest(page, 300)
    found: dict[str, str] = page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")
    return found


def points(page: Any) -> list[str]:
    found: list[str] = page.locator("#morph .point > .small").all_inner_texts()
    return found


def test_a_stroke_is_encoded_scored_and_explained(visit: Visit) -> None:
    page = visit()
    asked = listen(page, "score")
    draw(page, SEVEN)
    page.wait_for_selector(SCORED)
    settled(page, asked)
    answer, pictures = post(asked[-1]), asked[-1].post_data_json["images"]
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as exported:
        assert (exported.format, exported.size) == ("PNG", (280, 280))
        assert np.asarray(exported.convert("RGBA"))[..., 3].min() == 255
    for member in ("log_likelihood", "elbo", "reconstruction", "kl"):
        shown = number(page.locator(f"#draw dd[data-member={member}]").inner_text())
        assert shown == pytest.approx(answer[member][0], abs=0.006)
    stranger = 100 - answer["score_percentile"][0]
    assert f"{stranger:.{int(stranger > 99)}f} % of real digits" in page.locator("#draw .verdict").inner_text()
    low, high = answer["explanation_nats"][0]
    assert page.locator("#draw .heat-legend").inner_text().split() == [f"{low:.1f}", f"{high:.1f}", "nats"]

    base, body = asked[-1].url.partition("/score")[0], {"images": pictures}
    mean = httpx2.post(f"{base}/encode?model=mnist-2d", json=body).json()["mean"][0]
    page.wait_for_selector(LATENT.format(",".join(f"{round(value, 4):g}" for value in mean)))
    again = httpx2.post(f"{base}/reconstruct?model=mnist-2d", json=body).json()["images"][0]
    assert page.locator("#draw .place img").get_attribute("src") == f"data:image/png;base64,{again}"


def test_the_heat_is_where_the_terms_are(visit: Visit) -> None:
    page = visit()
    asked = listen(page, "score")
    draw(page, SEVEN)
    page.wait_for_selector(SCORED)
    settled(page, asked)
    terms = from_base64(post(asked[-1])["explanation"][0])
    heat = canvas_pixels(page, "#draw .heat > canvas")
    assert heat.shape == terms.shape == (28, 28)
    assert heat[terms == 255].min() > 240
    assert heat[terms < 3].mean() < heat[terms > 100].mean()


def test_a_drawing_is_centred_as_mnist_is_unless_it_shall_not(visit: Visit) -> None:
    page = visit()
    asked = listen(page, "score")
    draw(page, [(0.05, 0.1), (0.3, 0.1), (0.15, 0.35)])  # small, in a corner
    page.wait_for_selector(SCORED)
    settled(page, asked)
    page.get_by_label("Center like MNIST").uncheck()
    settled(page, asked)
    centred, as_drawn = (
        np.asarray(from_base64(asked[i].post_data_json["images"][0]))[..., 0] / 255.0 for i in (-2, -1)
    )
    across, down = np.meshgrid(np.arange(280) + 0.5, np.arange(280) + 0.5)
    middle = [(centred * part).sum() / centred.sum() for part in (across, down)]
    assert middle == pytest.approx([140, 140], abs=2)
    inked = [np.ptp(np.flatnonzero((centred > 0.5).any(axis=axis))) + 1 for axis in (0, 1)]
    assert max(inked) == pytest.approx(200, abs=6)
    assert np.flatnonzero((as_drawn > 0.5).any(axis=0)).max() < 110


def test_a_drawing_with_keys_alone_and_taken_back(visit: Visit) -> None:
    page = visit()
    near(page, "draw")
    page.locator(PAD).focus()
    for key in (*["ArrowUp"] * 8, "Space", *["ArrowDown"] * 16, "Space"):
        page.keyboard.press(key)
    page.wait_for_selector(SCORED)
    page.get_by_role("button", name="Undo").press("Enter")
    page.wait_for_selector(SCORED, state="detached")
    assert not canvas_pixels(page, PAD).any()
    assert page.get_by_role("button", name="Undo").is_disabled()


COUNTED = """
    const ask = window.fetch;
    [window.flying, window.most, window.asked] = [0, 0, 0];
    window.fetch = async (url, options) => {
        const isOfPad = /^(encode|reconstruct|score)\\?/.test(url);
        asked += isOfPad;
        flying += isOfPad;
        most = Math.max(most, flying);
        return ask(url, options).finally(() => (flying -= isOfPad));
    };
"""


def test_there_is_at_most_one_request_of_the_pad_at_a_time(visit: Visit) -> None:
    page = visit(prepare=lambda page: page.add_init_script(COUNTED))
    draw(page, SEVEN * 3)
    page.wait_for_selector(SCORED)
    page.wait_for_function("() => flying === 0")
    assert page.evaluate("asked") >= 3
    assert page.evaluate("most") == 1


def test_an_autoencoder_says_that_it_has_no_likelihood(visit: Visit) -> None:
    page = visit(query={"model": "digits-ae"})
    scored = listen(page, "score")
    draw(page, SEVEN)
    page.get_by_text("cannot say how likely").wait_for()
    page.wait_for_selector("#draw .place img[src]")
    assert not scored


def test_an_example_to_start_from(visit: Visit) -> None:
    page = visit()
    near(page, "draw").get_by_role("button", name="Start from example 2").click()
    page.wait_for_selector(SCORED)
    assert canvas_pixels(page, PAD).max() > 200


def drawn(request: Any) -> Pixels:
    """The picture that a request sends, `[H, W, 3]`."""
    with Image.open(io.BytesIO(base64.b64decode(request.post_data_json["images"][0]))) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_model_of_colour_is_drawn_for_in_colour_on_its_paper(visit: Visit) -> None:
    page = visit(query={"model": "emoji"})
    asked = listen(page, "score")
    near(page, "draw").get_by_label("Color", exact=True).fill("#c01020")
    assert not page.get_by_label("Center like MNIST").is_visible()
    draw(page, SEVEN)
    page.wait_for_selector(SCORED)
    settled(page, asked)
    picture = drawn(asked[-1])
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert (picture == [0xC0, 0x10, 0x20]).all(axis=-1).sum() > 1000
    assert re.search("than .* real images", page.locator("#draw .verdict").inner_text())


def test_a_picture_from_a_file_is_drawn_on(visit: Visit) -> None:
    """Its middle square, on the model's paper where it is transparent."""
    page = visit(query={"model": "emoji"})
    asked = listen(page, "score")
    picture = np.zeros((40, 60, 4), np.uint8)
    picture[:20, 10:50] = (0, 128, 0, 255)
    with page.expect_file_chooser() as chosen:
        near(page, "draw").get_by_role("button", name="Open an image").click()
    chosen.value.set_files({"name": "a.png", "mimeType": "image/png", "buffer": png(picture)})
    page.wait_for_selector(SCORED)
    settled(page, asked)
    sent = drawn(asked[-1])
    side = len(sent)
    assert (sent[: side // 2 - 12] == [0, 128, 0]).all()
    assert (sent[side // 2 + 12 :] == 255).all()


def test_classes_that_have_names_are_called_by_them(visit: Visit) -> None:
    page = visit(query={"model": "emoji", "points": "c2;c3"})
    assert page.locator("#map .class").all_inner_texts()[:4] == ["smileys", "people", "animals", "food"]
    options = near(page, "samples").locator("select").first.locator("option")
    options.nth(3).wait_for(state="attached")
    assert options.all_inner_texts()[:4] == ["all", "smileys", "people", "animals"]
    near(page, "morph").get_by_text("2 points").wait_for()
    assert points(page) == ["animals", "food"]


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_an_animation_downloads(visit: Visit, format: str) -> None:
    page = visit(query={"points": "c3;0.5,-1.2;c7"})
    near(page, "morph").get_by_role("radio", name={"gif": "GIF", "webp": "WebP"}[format]).check()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save animation").click()
    assert waiting.value.suggested_filename == f"mnist-2d-lerp.{format}"
    with Image.open(waiting.value.path()) as animation:
        assert animation.format == format.upper()
        assert animation.n_frames == 2 * 15 + 1  # 16 pictures from each point to the next


def test_lerp_beside_slerp(visit: Visit, address: str) -> None:
    page = visit(query={"points": "c3;c8"})
    morph = near(page, "morph")
    morph.get_by_text("/ 16").wait_for()
    step = page.locator("#morph input[type=range]")
    step.fill("7")
    for i, method in enumerate(("lerp", "slerp")):
        body = {"points": [{"label": 3}, {"label": 8}], "steps": 16, "method": method}
        strip = grey(httpx2.post(f"{address}/interpolate/image?model=mnist-2d", json=body).content)
        selector = f"#morph .ways > figure:nth-child({i + 1}) .morph-large"
        assert np.array_equal(canvas_pixels(page, selector), strip[:, 7 * 28 : 8 * 28])


def test_a_morph_by_keyboard_alone(visit: Visit) -> None:
    """Points are removed, added, and put in order, and the way is played, without a mouse."""
    page = visit()
    morph = near(page, "morph")
    assert points(page) == ["class 3", "class 8"]
    for name in ("Add class 1", "The map\u2019s point"):
        morph.get_by_role("button", name=name).press("Enter")
    assert points(page) == ["class 3", "class 8", "class 1", "map"]
    morph.get_by_role("button", name="Move earlier: 3, class 1").press("Enter")
    page.keyboard.press("Enter")  # the focus went with the point
    assert points(page) == ["class 1", "class 3", "class 8", "map"]
    morph.get_by_role("button", name="Remove: 3, class 8").press("Space")
    assert points(page) == ["class 1", "class 3", "map"]
    assert state(page)["points"].startswith("c1;c3;")
    morph.get_by_text("/ 31").wait_for()
    step = page.locator("#morph input[type=range]")
    before = step.input_value()
    morph.get_by_role("button", name="Play").press("Enter")
    page.wait_for_function("before => document.querySelector('#morph input[type=range]').value !== before", arg=before)
    morph.get_by_role("button", name="Stop").press("Enter")
    page.keyboard.press("Tab")
    step.press("Home")
    assert step.get_attribute("aria-valuetext") == "1 / 31"


def test_a_picture_from_a_file_is_a_point(visit: Visit, address: str, digits: Pixels) -> None:
    page = visit()
    morph = near(page, "morph")
    with page.expect_file_chooser() as chosen:
        morph.get_by_role("button", name="An image file").click()
    chosen.value.set_files({"name": "digit.png", "mimeType": "image/png", "buffer": png(digits[0])})
    morph.get_by_text("3 points").wait_for()
    assert points(page) == ["class 3", "class 8", "image"]
    body = {"images": [base64_png(digits[0])]}
    (mean,) = httpx2.post(f"{address}/encode?model=mnist-2d&version=2", json=body).json()["mean"]
    assert [float(value) for value in state(page)["points"].split(";")[2].split(",")] == pytest.approx(mean, abs=1e-5)


def test_a_file_that_is_no_picture_is_told_in_words(visit: Visit) -> None:
    page = visit(allow="422")
    near(page, "morph")
    page.set_input_files("#morph input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.get_by_text("not a PNG, JPEG, WEBP or GIF image").wait_for()
    assert points(page) == ["class 3", "class 8"]


def test_a_morph_needs_two_points(visit: Visit) -> None:
    page = visit()
    morph = near(page, "morph")
    morph.get_by_role("button", name="Remove all").click()
    assert morph.get_by_text("needs two points").is_visible()
    assert morph.get_by_role("button", name="Save animation").is_disabled()
    morph.get_by_role("button", name="Add class 4").click()
    assert morph.get_by_role("button", name="Play").is_disabled()
    morph.get_by_role("button", name="Add class 9").click()
    assert morph.get_by_role("button", name="Save animation").is_enabled()


def shown_samples(page: Any, wall: int = 0) -> list[str]:
    tiles = page.locator("#samples figure:visible .image-grid").nth(wall).locator("img")
    tiles.first.wait_for()
    return [src.partition(",")[2] for src in tiles.evaluate_all("images => images.map(image => image.src)")]


def test_the_address_restores_seed_and_source(visit: Visit, address: str) -> None:
    query = {"seed": 77, "source": "aggregate", "label": 4, "n": 16, "temperature": 0.5, "truncation": 1.5}
    page = visit(query=query)
    samples = near(page, "samples")
    expected = httpx2.get(f"{address}/sample", params={"model": "mnist-2d", **query}).json()["images"]
    assert shown_samples(page) == expected
    assert page.get_by_label("Seed", exact=True).input_value() == "77"
    assert samples.get_by_role("radio", name="Aggregated posterior").is_checked()
    assert samples.get_by_role("combobox", name="Class").input_value() == "4"


def test_another_seed_of_both_sources_and_of_one(visit: Visit, address: str) -> None:
    page = visit()
    samples = near(page, "samples")
    before = shown_samples(page)
    samples.get_by_role("button", name="Another seed").click()
    page.wait_for_function("src => document.querySelector('#samples img').src.split(',')[1] !== src", arg=before[0])
    page.wait_for_load_state("networkidle")
    seed = state(page)["seed"]
    for wall, source in enumerate(("prior", "aggregate")):
        query = {"model": "mnist-2d", "n": 36, "seed": seed, "source": source}
        assert shown_samples(page, wall) == httpx2.get(f"{address}/sample", params=query).json()["images"]
    samples.get_by_role("radio", name="Prior").check()
    assert state(page)["source"] == "prior"
    assert page.locator("#samples figure:visible").count() == 1
    assert samples.get_by_role("combobox", name="Class").is_disabled()


def test_a_chosen_sample_is_on_the_map_and_may_join_the_morph(visit: Visit, address: str) -> None:
    page = visit(query={"seed": 5})
    samples = near(page, "samples")
    shown_samples(page)
    latents = httpx2.get(f"{address}/sample", params={"model": "mnist-2d", "n": 36, "seed": 5}).json()["latents"]
    samples.get_by_role("button", name="Sample of the prior 1", exact=True).focus()
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    latent = latents[7]  # the walls of 36 have 6 columns
    page.wait_for_selector(LATENT.format(",".join(f"{round(value, 4):g}" for value in latent)))
    assert [float(value) for value in state(page)["z"].split(",")] == pytest.approx(latent, abs=1e-4)
    samples.get_by_role("button", name="Add to morph").click()
    assert points(page) == ["class 3", "class 8", "sample"]


def test_the_contrast_shows_both(visit: Visit, address: str) -> None:
    page = visit()
    contrast = near(page, "contrast")
    contrast.get_by_text("% of real digits lie in the circle").nth(1).wait_for()
    page.wait_for_selector("#contrast .side-of:nth-child(2) img")
    for i, (model, side) in enumerate((("digits-ae", 1), ("mnist-2d", 2))):
        means = np.array(httpx2.get(f"{address}/posteriors", params={"model": model, "version": 1}).json()["mean"])
        inside = 100 * (np.hypot(*means.T) <= 2.448).mean()
        assert f"{inside:.0f} % of real digits" in contrast.locator(".share").nth(i).inner_text()
        query = {"model": model, "version": 1, "n": 25, "seed": 1}
        expected = httpx2.get(f"{address}/sample", params=query).json()["images"]
        shown = page.locator(f"#contrast .side-of:nth-child({side}) img")
        assert [src.partition(",")[2] for src in shown.evaluate_all("all => all.map(one => one.src)")] == expected
        assert canvas_pixels(page, f"#contrast .side-of:nth-child({side}) .scatter-canvas").any()


def test_a_server_without_both_says_so(visit: Visit) -> None:
    def without(page: Any) -> None:
        def answer(route: Any) -> None:
            served = route.fetch().json()
            kept = [model for model in served["models"] if model["name"] != "digits-ae"]
            route.fulfill(json=served | {"models": kept})

        page.route("**/models", answer)

    page = visit(prepare=without)
    assert near(page, "contrast").get_by_text("does not have both").is_visible()
    assert page.locator("#contrast canvas").count() == 0


def test_another_model_takes_the_panels_along(visit: Visit) -> None:
    page = visit(query={"points": "0.5,-1.2;c7"})
    for panel in ("morph", "samples", "contrast"):
        near(page, panel)
    page.select_option("#model", index=0)
    page.wait_for_selector("#morph .point-actions")
    assert "points" not in state(page)
    draw(page, SEVEN)
    page.wait_for_selector("#draw .place img[src]")


def test_nothing_moves_when_pictures_come(visit: Visit) -> None:
    """The layout shift of the panels, while they are scrolled into view one after the other, is none to speak of."""
    page = visit()
    page.evaluate(
        """() => {
            window.shift = 0;
            new PerformanceObserver(list => list.getEntries().forEach(entry => (shift += entry.value)))
                .observe({type: "layout-shift"});
        }"""
    )
    for panel in ("draw", "morph", "samples", "contrast"):
        near(page, panel)
        rest(page, 500)
    assert page.evaluate("shift") < 0.05


@pytest.mark.parametrize("panel", ["draw", "morph", "samples", "contrast"])
def test_a_phone_shows_all_of_a_panel(visit: Visit, panel: str) -> None:
    page = visit(viewport={"width": 390, "height": 844})
    near(page, panel)
    rest(page, 300)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("options", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=["light", "dark"])
def test_an_audit_of_what_the_panels_show_finds_nothing_serious(visit: Visit, options: dict[str, Any]) -> None:
    if not AXE.exists():
        missing = "install axe-core: npm ci --prefix tests/clients"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    page = visit(query={"source": "both"}, **options)
    draw(page, SEVEN)
    page.wait_for_selector(SCORED)
    for panel in ("morph", "samples", "contrast"):
        near(page, panel)
        rest(page, 400)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations")
    serious = [item for item in found if item["impact"] in ("serious", "critical")]
    assert not [(item["id"], item["help"], [node["html"][:200] for node in item["nodes"]]) for item in serious]
