"""The map: what it decodes, how fast, and by what it is moved."""

import statistics
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.explorer.conftest import READY, Visit, canvas_pixels, comes, grey, rest

MAP = "#map canvas[role=application]"
DIGIT = "#map .pinned canvas"
LENS = "#map .lens canvas"


def box(page: Any) -> dict[str, float]:
    page.eval_on_selector("#map .stage", "stage => stage.scrollIntoView({block: 'center', behavior: 'instant'})")
    found: dict[str, float] = page.locator(MAP).bounding_box()
    return found


def at(page: Any, across: float, down: float) -> tuple[float, float]:
    """A place on the map, as shares of its width and height."""
    area = box(page)
    return area["x"] + across * area["width"], area["y"] + down * area["height"]


def decoded(address: str, latent: str, model: str = "mnist-2d") -> Any:
    query = {"latent": latent.split(","), "model": model}
    return grey(httpx2.get(f"{address}/decode/image", params=query).raise_for_status().content)


def query(page: Any) -> dict[str, str]:
    """The state in the address."""
    rest(page, 300)
    found: dict[str, str] = page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")
    return found


def click(page: Any, across: float, down: float) -> str:
    """Click on the map, and wait for the picture of the latent that is pinned by that."""
    before = page.get_attribute(DIGIT, "data-latent")
    page.mouse.click(*at(page, across, down))
    page.wait_for_function(f"before => document.querySelector('{DIGIT}').dataset.latent !== before", arg=before)
    latent: str = page.get_attribute(DIGIT, "data-latent")
    return latent


def test_it_decodes_where_it_is_clicked(visit: Visit, address: str) -> None:
    page, seen = visit(), set()
    for across, down in ((0.3, 0.6), (0.55, 0.35), (0.7, 0.7)):
        latent = click(page, across, down)
        assert query(page)["z"] == latent
        assert np.array_equal(canvas_pixels(page, DIGIT), decoded(address, latent))
        seen.add(latent)
    assert len(seen) == 3


def test_the_click_is_where_the_posteriors_say(visit: Visit, address: str) -> None:
    """Where a digit's dot is clicked, its class is the nearest."""
    means = httpx2.get(f"{address}/posteriors", params={"model": "mnist-2d"}).json()
    zero = means["mean"][means["labels"].index(0)]
    page = visit(query={"view": f"{zero[0]},{zero[1]},0.5"})
    latent = [float(value) for value in click(page, 0.5, 0.5).split(",")]
    assert latent == pytest.approx(zero, abs=0.5 / 500)
    assert page.locator("#map .readout dd").last.inner_text() == "0"


def test_the_picture_follows_the_pointer(visit: Visit, address: str) -> None:
    page = visit()
    box(page)
    told = page.evaluate(
        f"""() => {{
            const map = document.querySelector('{MAP}');
            const told = new Promise(done => map.addEventListener("decoded", ({{ detail }}) => done(detail)));
            const {{left, top, width, height}} = map.getBoundingClientRect();
            map.dispatchEvent(new PointerEvent("pointermove",
                {{clientX: left + width * 0.45, clientY: top + height * 0.6, pointerId: 1, pointerType: "mouse"}}));
            return told;
        }}"""
    )
    assert page.locator("#map .lens").is_visible()
    assert np.array_equal(canvas_pixels(page, LENS), decoded(address, ",".join(map(str, told["latent"]))))
    page.mouse.move(*at(page, 0.4, 0.4))
    page.mouse.move(5, 5)
    page.wait_for_selector("#map .lens", state="hidden")


FETCH = """async step => {
    const began = performance.now();
    const answer = await fetch(`decode/image?model=mnist-2d&latent=${step / 30}&latent=0`);
    await createImageBitmap(await answer.blob());
    return performance.now() - began;
}"""
"""Milliseconds of a picture that nobody points at: a busy machine takes its share of both."""


def test_a_picture_comes_within_the_blink_of_an_eye(visit: Visit) -> None:
    page = visit()
    page.evaluate(
        f"""() => {{
            window.times = [];
            document.querySelector('{MAP}').addEventListener("decoded", event => times.push(event.detail.milliseconds));
        }}"""
    )
    left, top = at(page, 0.3, 0.3)
    alone = []
    for step in range(30):
        before = page.evaluate("times.length")
        page.mouse.move(left + 9 * step, top + 7 * step)
        page.wait_for_function("before => times.length > before", arg=before)
        alone.append(page.evaluate(FETCH, step))
    median, plain = statistics.median(page.evaluate("times")), statistics.median(alone)
    print(f"pointer to picture: {median:.1f} ms at the median of 30 moves; {plain:.1f} ms without it")
    assert median < 10 * plain + 100


def test_there_is_no_backlog(visit: Visit) -> None:
    """While one picture is decoded no other is asked for; then the one at the pointer is, and none between."""
    page = visit()
    page.mouse.move(*at(page, 0.3, 0.3))
    rest(page, 200)
    asked: list[Any] = []
    page.route("**/decode/image?*", lambda route: asked.append(route))
    left, top = at(page, 0.35, 0.35)
    for step in range(40):
        page.mouse.move(left + 5 * step, top)
    rest(page, 200)
    assert len(asked) == 1
    asked[0].continue_()
    assert comes(page, lambda: len(asked) == 2)
    asked[1].continue_()
    rest(page, 600)
    assert len(asked) == 2
    page.unroute("**/decode/image?*")


@pytest.mark.parametrize("model", ["mnist-2d", "mnist"])
def test_a_frame_takes_little_script_time(visit: Visit, model: str) -> None:
    page = visit(query={"model": model})
    page.evaluate(
        f"""() => {{
            window.frames_ = [];
            document.querySelector('{MAP}').addEventListener("drawn", event => frames_.push(event.detail));
        }}"""
    )
    page.mouse.move(*at(page, 0.6, 0.6))
    page.mouse.down()
    step = 0
    while page.evaluate("frames_.length") < 20:
        x, y = at(page, 0.6, 0.6)
        page.mouse.move(x - 4 * (step % 40), y - 2 * (step % 40))
        rest(page, 16)
        step += 1
    page.mouse.up()
    frames = page.evaluate("frames_")
    print(f"{model}: {len(frames)} frames, script time {min(frames):.2f} ms at least, {max(frames):.2f} at most")
    assert min(frames) < 8  # a busy machine interrupts the others


def test_wheel_drag_and_buttons_move_it(visit: Visit) -> None:
    page = visit()
    x, y = at(page, 0.5, 0.5)
    page.mouse.move(x - 20, y)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    page.wait_for_function("() => location.search.includes('view=')")
    nearer = [float(value) for value in query(page)["view"].split(",")]
    page.mouse.down()
    page.mouse.move(x + 50, y + 40, steps=5)
    page.mouse.up()
    moved = [float(value) for value in query(page)["view"].split(",")]
    assert moved[0] < nearer[0]
    assert moved[1] > nearer[1]
    assert moved[2] == nearer[2]
    page.get_by_role("button", name="Zoom in").click()
    assert float(query(page)["view"].split(",")[2]) < nearer[2]
    page.get_by_role("button", name="Show all").click()
    assert "view" not in query(page)


def test_the_page_scrolls_over_a_still_pointer(visit: Visit) -> None:
    page = visit(query={"z": "0,0"})
    page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    page.mouse.move(400, 700)
    page.mouse.move(400, 60)  # off the map
    for _ in range(6):
        page.mouse.wheel(0, 200)
        rest(page, 50)
    assert page.evaluate("scrollY") > 600
    assert "view" not in query(page)


def test_two_fingers_zoom(visit: Visit) -> None:
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    box(page)
    page.evaluate(
        f"""() => {{
            const map = document.querySelector('{MAP}');
            const {{left, top}} = map.getBoundingClientRect();
            const send = (type, pointerId, x, y) => map.dispatchEvent(new PointerEvent(type,
                {{pointerId, pointerType: "touch", clientX: left + x, clientY: top + y, bubbles: true}}));
            send("pointerdown", 11, 100, 150); send("pointerdown", 12, 200, 150);
            for (let i = 1; i <= 10; i++) {{
                send("pointermove", 11, 100 - 5 * i, 150);
                send("pointermove", 12, 200 + 5 * i, 150);
            }}
            send("pointerup", 11, 50, 150); send("pointerup", 12, 250, 150);
        }}"""
    )
    before = page.get_attribute(DIGIT, "data-latent")
    found = query(page)
    assert 0 < float(found["view"].split(",")[2]) < 5
    assert page.get_attribute(DIGIT, "data-latent") == before  # nothing is pinned by that


def test_keys_move_and_pin(visit: Visit, address: str) -> None:
    page = visit(query={"z": "0,0"})
    page.focus(MAP)
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => document.querySelector('{DIGIT}').dataset.latent !== '0,0'")
    first, second = (float(value) for value in page.get_attribute(DIGIT, "data-latent").split(","))
    assert 0 < first < second
    page.wait_for_function("() => document.querySelector('#map [aria-live]').textContent.includes('Nearest class')")
    assert page.locator("#map [aria-live]").inner_text().startswith("Latent z0 ")
    page.keyboard.press("+")
    assert "view" in query(page)
    page.keyboard.press("0")
    assert "view" not in query(page)


def test_the_address_restores_the_state(visit: Visit, address: str) -> None:
    page = visit()
    latent = click(page, 0.35, 0.65)
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Switch to the dark theme").click()
    state = query(page)
    assert (state["z"], state["theme"]) == (latent, "dark")
    again = visit(query=state)
    assert again.get_attribute(DIGIT, "data-latent") == latent
    assert query(again) == state
    assert again.get_attribute("html", "data-theme") == "dark"
    assert np.array_equal(canvas_pixels(again, DIGIT), decoded(address, latent))


def test_nonsense_in_the_address_is_passed_over(visit: Visit) -> None:
    page = visit(query={"model": "nope", "z": "1,x", "view": "a,b", "dims": "7", "theme": "blue"})
    assert page.locator(READY).count() == 1


def test_many_dimensions_have_sliders_by_kl(visit: Visit, address: str) -> None:
    page = visit(query={"model": "mnist", "version": 2})
    kl = httpx2.get(f"{address}/models/mnist?version=2").json()["manifest"]["metrics"]["kl_per_dimension"]
    order = sorted(range(32), key=lambda dim: -kl[dim])
    assert page.locator("#map .slider label").all_inner_texts() == [f"z{dim}" for dim in order[2:10]]
    page.get_by_role("button", name="The other 22").click()
    assert page.locator("#map .slider").count() == 30
    slider = page.locator(f"#slider-{order[2]}")
    slider.fill("1.5")
    page.wait_for_function(f"() => document.querySelector('{DIGIT}').dataset.latent.includes('1.5')")
    latent = page.get_attribute(DIGIT, "data-latent")
    assert float(latent.split(",")[order[2]]) == 1.5
    assert np.array_equal(canvas_pixels(page, DIGIT), decoded(address, latent, "mnist"))


def test_planes_of_dimensions_and_of_principal_axes(visit: Visit, address: str) -> None:
    page = visit(query={"model": "mnist"})
    page.get_by_label("Across").select_option("0")
    assert query(page)["dims"].startswith("0,")
    page.get_by_label("Across").select_option("axes")
    page.wait_for_function("() => document.querySelector('#map .readout dt').textContent === 'axis 1'")
    latent = [float(value) for value in click(page, 0.7, 0.5).split(",")]
    means = np.array(httpx2.get(f"{address}/posteriors", params={"model": "mnist", "space": "latent"}).json()["mean"])
    widest = np.linalg.eigh(np.cov(means.T))[1][:, ::-1]
    along = np.abs(np.array(latent) @ widest)
    assert along[0] > 1
    assert along[2:].max() < 0.01  # the click stays in the plane of the two widest


def test_the_nearest_dot_is_pinned_in_all_dimensions(visit: Visit, address: str) -> None:
    page = visit(query={"model": "mnist", "version": 2})
    page.get_by_role("button", name="Nearest dot").click()
    page.wait_for_function(f"() => !document.querySelector('{DIGIT}').dataset.latent.startsWith('0,0,')")
    latent = [float(value) for value in page.get_attribute(DIGIT, "data-latent").split(",")]
    means = np.array(httpx2.get(f"{address}/posteriors", params={"model": "mnist", "space": "latent"}).json()["mean"])
    assert np.abs(means - latent).max(1).min() < 1e-4


def test_a_class_stands_out(visit: Visit) -> None:
    page = visit()
    count = f"""() => {{
        const canvas = document.querySelector('{MAP}').previousSibling;
        const {{ data }} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.reduce((sum, value) => sum + value, 0);
    }}"""
    page.get_by_label("Dots", exact=True).check()
    rest(page, 400)
    before = page.evaluate(count)
    page.get_by_role("button", name="Class 3 alone").click()
    rest(page, 200)
    assert page.evaluate(count) < before
    page.get_by_role("button", name="Class 3 alone").click()
    page.mouse.move(5, 5)
    rest(page, 200)
    assert page.evaluate(count) == before
