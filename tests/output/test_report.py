import base64
import io
import json
import re
import zlib
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from disinr_monai.handlers.loss_report import LossReport
from disinr_monai.output.orientation import radiological
from disinr_monai.output.pictures import _plane
from disinr_monai.output.report import Report, report
from disinr_monai.output.report.charts import curve
from disinr_monai.output.report.pixels import LEVELS, pack, png, quantise, smaller, windowed
from disinr_monai.runtime.names import Names
from disinr_monai.runtime.run import RUN
from tests.browser import open_page


@pytest.fixture(autouse=True)
def _no_warnings_of_other_tests():
    RUN.begin({})


HOSTILE = """"><script>document.title='broken in'</script><img src=x onerror="document.title='broken in'">'&"""
AFFINE = np.diag([1.5, 1.0, 3.0, 1.0])


def image(shape=(24, 20), seed=0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 200, shape)
    values[: shape[0] // 2, : shape[1] // 3] = 600  # asymmetric
    return values.astype(np.float32)


def fill(page: Report, name="case", reference=True, shape=(24, 20), **more) -> None:
    rows = [{"method": "disinr", "case": name, "subject": "s", "psnr": 31.234, "ssim": 0.9, "seconds": 1.0}]
    page.add_case(
        rows,
        {"direct inverse": image(shape, 1), "disinr": image(shape, 2)},
        reference=image(shape, 3) if reference else None,
        affine=AFFINE,
        units="HU",
        history=more.pop("history", [{"iteration": i, "loss": 1 / i} for i in (25, 50, 75)]),
        **more,
    )


def write(page: Report, **more) -> str:
    summary = {"disinr": {"n_subjects": 1, "psnr": 31.234, "psnr_std": 0.0}}
    return page.write(summary=summary, **more).read_text()


class Checker(HTMLParser):
    """Counts what is opened and not closed, and collects what loads or runs."""

    VOID = {"meta", "img", "input", "br", "line", "polyline"}

    def __init__(self):
        super().__init__()
        self.open, self.errors, self.sources, self.scripts, self.unlabelled, self.labels = [], [], [], 0, [], set()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in self.VOID or (tag == "polyline" and not self.get_starttag_text().endswith("/>")):
            self.open.append(tag)
        self.sources += [attributes[k] for k in ("src", "href", "action", "data") if k in attributes]
        self.errors += [k for k in attributes if k.startswith("on")]
        self.scripts += tag == "script"
        if tag == "label":
            self.labels.add(attributes["for"])
        if tag == "img" and not attributes.get("alt"):
            self.unlabelled.append(tag)
        if tag in ("input", "select") and attributes.get("id") not in self.labels:
            self.unlabelled.append(attributes)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}>")


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert checker.errors == []
    assert checker.unlabelled == []
    return checker


def test_the_page_is_one_well_formed_file_that_loads_nothing(tmp_path):
    page = Report(tmp_path, "Title", settings={"lr": 0.1}, seed=3)
    fill(page)
    fill(page, reference=False)
    text = write(page, failures=["bad.h5: broken"])
    checker = checked(text)
    assert all(source.startswith("data:image/png;base64,") for source in checker.sources)
    assert len(checker.sources) == 4 + 2  # direct, result, reference, error; direct, result
    assert "url(" not in text
    assert not re.search(r"@import|https?://", text)
    assert checker.scripts == 1
    for expected in ("31.23", "bad.h5: broken", "torch", "hardware", "lr", "seed 3", "not for clinical use"):
        assert expected in text


def test_every_string_is_escaped(tmp_path, caplog):
    from disinr_monai.output.dicom import logger

    RUN.begin({})
    logger.warning("careful: %s", HOSTILE)
    page = Report(tmp_path, HOSTILE, method=HOSTILE, settings={HOSTILE: HOSTILE}, seed=0)
    page.add_case(
        [{"case": HOSTILE, "subject": HOSTILE, "method": HOSTILE, "seconds": 1.0}],
        {HOSTILE: image(), "disinr": image(seed=1)},
        reference=image(seed=2), units=HOSTILE, history=[{"iteration": i, "loss": i + 1.0} for i in (1, 2)],
        info={HOSTILE: HOSTILE},
    )  # fmt: skip
    text = write(page, failures=[HOSTILE])
    RUN.begin({})
    checker = checked(text)
    assert checker.scripts == 1
    assert "<script>document" not in text
    assert "careful: " in text
    (tmp_path / "without_policy.html").write_text(re.sub(r'<meta http-equiv="Content-Security[^>]*>', "", text))
    for name in ("report.html", "without_policy.html"):  # the escaping holds without the policy, too
        dom = open_page(tmp_path / name, tmp_path / "profile", until='data-ready="true"')
        assert "<title>broken in" not in dom
        assert 'data-ready="true"' in dom


PROBE = """<script>const waiting = setInterval(() => {
  const root = document.querySelector("article");
  if (!root.dataset.ready) return;
  clearInterval(waiting);
  const canvases = () => [...root.querySelectorAll("canvas")].map((c) =>
    ({ size: [c.width, c.height], grey: [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data] }));
  const set = (name, value) => { const e = root.querySelector(`[data-control=${name}]`); e.value = value;
    e.dispatchEvent(new Event("input")); };
  const out = [canvases()];
  for (const [name, value] of STEPS) { set(name, value); out.push(canvases()); }
  const labels = [...root.querySelectorAll("canvas")].map((c) => c.ariaLabel);
  document.body.dataset.probe = JSON.stringify({ out, labels });
}, 100);</script></body>"""


def probe(tmp_path, text: str, steps: list) -> dict:
    """What the canvases show at first and after each change of a control, in a real browser."""
    text = re.sub(r'<meta http-equiv="Content-Security[^>]*>', "", text)  # it would not let the probe run
    (tmp_path / "probe.html").write_text(text.replace("</body>", PROBE.replace("STEPS", json.dumps(steps))))
    dom = open_page(tmp_path / "probe.html", tmp_path / "profile", until="data-probe")
    found = json.loads(re.search(r'data-probe="([^"]*)"', dom)[1].replace("&quot;", '"'))
    found["out"] = [
        [np.array(c["grey"], np.uint8).reshape(c["size"][1], c["size"][0], 4)[..., :3] for c in step]
        for step in found["out"]
    ]
    return found


def test_window_controls_show_the_values_in_a_browser(tmp_path):
    page = Report(tmp_path, "Title")
    fill(page)
    found = probe(tmp_path, write(page), [("level", 100), ("width", 300), ("preset", "40,400")])
    low, high = (float(re.search(f'data-{k}="([^"]*)"', page._fragments[0])[1]) for k in ("low", "high"))
    result, reference = (radiological(image(seed=s), AFFINE)[0] for s in (2, 3))

    def expected(values, level, width):
        return windowed(low + quantise(values, low, high) * ((high - low) / LEVELS), level, width)

    for shown, (level, width) in zip(found["out"], [(-200, 1200), (100, 1200), (100, 300), (40, 400)], strict=True):
        assert len(shown) == 4
        level = round((level - low) / ((high - low) / 1000)) * ((high - low) / 1000) + low if level == 100 else level
        difference = shown[1][..., 0].astype(int) - expected(result, level, width)
        assert np.abs(difference).max() <= max(1, 255 * 2 * (high - low) / 1000 / width)
        error = np.abs(quantise(result, low, high).astype(int) - quantise(reference, low, high)) * (high - low) / LEVELS
        red = np.clip(3 * 5 * error / width, 0, 1) * 255
        assert np.abs(shown[3][..., 0].astype(int) - red).max() <= 6
    assert not np.array_equal(found["out"][0][1], found["out"][2][1])
    assert found["labels"][1] == "disinr of case"


def test_a_volume_is_seen_from_three_sides(tmp_path):
    page = Report(tmp_path, "Title")
    fill(page, shape=(12, 10, 6))
    steps = [("slice", 5), ("plane", 1), ("plane", 2), ("slice", 1)]
    found = probe(tmp_path, write(page), steps)
    low, high = (float(re.search(f'data-{k}="([^"]*)"', page._fragments[0])[1]) for k in ("low", "high"))
    volume = radiological(image((12, 10, 6), 2), AFFINE)[0]  # slices from the feet, rows to the back
    assert volume.shape == (6, 10, 12)
    np.testing.assert_array_equal(volume[4, 0, 0], image((12, 10, 6), 2)[11, 9, 4])
    planes = [volume[3], volume[5], volume[::-1, 5], volume[::-1, :, 6], volume[::-1, :, 1]]
    for shown, plane in zip(found["out"], planes, strict=True):
        expected = windowed(low + quantise(plane, low, high) * ((high - low) / LEVELS), -200, 1200)
        assert shown[1].shape[:2] == plane.shape
        assert np.abs(shown[1][..., 0].astype(int) - expected).max() <= 1


def test_the_page_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PICTURE_BYTES", 200_000)
    page = Report(tmp_path, "Title")
    for number in range(60):
        fill(page, name=f"case {number}", shape=(64, 64))
    text = write(page)
    assert len(text) < 200_000 + 60 * 500 + 30_000
    shown = text.count("<article")
    assert 0 < shown < 60
    assert f"{shown} cases have pictures here" in text
    for number in range(60):
        link = f'<a href="case%20{number}/case%20{number}_recon.png">case {number}</a>'
        assert (link in text) == (number >= shown)
    checked(text)


def test_neutral_names_reach_every_part(tmp_path):
    cases = [{"name": "doe_john", "subject": "doe_john", "path": str(tmp_path / "data" / "doe_john.h5")}]
    names = Names(cases, [tmp_path / "data"], anonymize="true")
    page = Report(tmp_path, "Title", settings={"dataset_dir": str(tmp_path / "data"), "x": "doe_john.h5"}, names=names)
    fill(page, name="case-001")
    text = write(page, failures=[f"{tmp_path}/data/doe_john.h5: broken"])
    assert "doe_john" not in text
    assert str(tmp_path) not in text
    assert "case-001: broken" in text


def test_the_report_of_a_training(tmp_path):
    from ignite.engine import Engine

    engine = Engine(lambda e, b: {"loss": 1.0 / e.state.iteration})
    LossReport(Report(tmp_path, "Pre-training: ct", seed=0), every=5).attach(engine)
    engine.run(range(23), max_epochs=1)
    text = (tmp_path / "report.html").read_text()
    assert "Loss of the pre-training: from 1 to 0.0435 in 23 iterations" in text
    assert text.count("<polyline") == 1
    checked(text)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "SRP", "IAL"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 5)])
def test_pictures_lie_as_those_of_the_png(codes, shape):
    import nibabel
    import torch

    affine = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(codes), (9, 7, 5))
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    shown, turned = radiological(values, affine)
    if len(shape) == 2:
        np.testing.assert_array_equal(shown, _plane(torch.from_numpy(values)[None], affine))
    else:
        world = nibabel.orientations.apply_orientation(values, nibabel.io_orientation(affine))  # R, A, S
        np.testing.assert_array_equal(shown, world.transpose(2, 1, 0)[:, ::-1, ::-1])
    corner = [0] * len(shape)
    stored = np.argwhere(values == shown[tuple(corner)])[0]  # the same voxel has the same place in the patient
    place = affine @ np.append(np.pad(stored, (0, 3 - len(shape))), 1)
    np.testing.assert_allclose(turned @ [0, 0, 0, 1], place)


def test_pixels_survive_the_page():
    values = image((33, 17))
    low, high = float(values.min()), float(values.max())
    planes = np.frombuffer(zlib.decompress(base64.b64decode(pack(values, low, high))), np.uint8).reshape(2, -1)
    stored = np.cumsum(planes[0] + planes[1].astype(np.uint16) * 256, dtype=np.uint16).reshape(33, 17)
    assert np.abs(low + stored * ((high - low) / LEVELS) - values).max() <= 0.51 * (high - low) / LEVELS
    for picture in (np.arange(60, dtype=np.uint8).reshape(10, 6), np.arange(180, dtype=np.uint8).reshape(10, 6, 3)):
        content = base64.b64decode(png(picture).split(",")[1])
        shown = np.rint(matplotlib.image.imread(io.BytesIO(content), format="png") * 255)
        np.testing.assert_array_equal(shown[..., 0] if picture.ndim == 2 and shown.ndim == 3 else shown, picture)


def test_smaller_keeps_the_mean_and_says_nothing_new():
    values = image((64, 48))
    assert smaller(values, 64) is values
    assert smaller(values, 16).shape == (16, 16)
    np.testing.assert_allclose(smaller(values, 16).mean(), values.mean(), rtol=1e-5)


def test_curve_needs_two_points_and_skips_what_is_not_a_number():
    assert curve("loss", [1], {"loss": [0.5]}) == ""
    assert curve("loss", [1, 2, 3], {"loss": [float("nan"), 0.0, -1.0]}) == ""
    drawn = curve("loss", [1, 2, 3], {"loss": [1.0, float("inf"), 0.1]})
    assert len(drawn.split('points="')[1].split('"')[0].split()) == 2  # the infinite one is left out
