"""A saved classifier is the one that was trained; nothing loses it, and what is edited or hostile is refused."""

import json
import os
import pickle
import resource
import shutil
import stat
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import damaged
from PIL import Image
from small import spots, tiny

import tlbook as tl
from tlbook import images, plots
from tlbook.backbones import Backbone
from tlbook.data import Dataset
from tlbook.table import Table
from tlbook.training import checkpoints, classifier
from tlbook.training.classifier import FineTuned

pytestmark = pytest.mark.usefixtures("one_thread_and_own_cache")

WHOLE = {"model.safetensors", "model.json", "README.md", "confusion_matrix.png", "worst_mistakes.png"}


def untrained(data, name="test_resnet"):
    """A classifier as `tl.finetune` returns it, but with a head at random; it errs."""
    model = tiny(name)
    torch.manual_seed(1)
    model.model.reset_classifier(len(data.class_names))
    return FineTuned(model.eval(), Table([{"epoch": 0, "val loss": float("nan")}]), 0, data.class_names)


SHARED_CACHE = os.environ["TLBOOK_CACHE"]
DATA = spots(24, K=3)
SPLIT = DATA.split(by="random", seed=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a model saved with its test."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    untrained(DATA).save(folder, data=DATA, split=SPLIT, trained="In a test.")
    return folder


def files_of(folder):
    return {path.name for path in folder.iterdir()}


def strict_json(path):
    """The value of a file of JSON proper, in which NaN is no word."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_bytes().decode(), parse_constant=refuse)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_saved_model_predicts_the_same(name, tmp_path):
    backbone = tiny(name)
    data = spots(24, side=backbone.input_size if name == "test_vit" else 32)
    split = data.split(seed=0)
    found = tl.finetune(backbone, data, split, recipe="head", epochs=1, batch_size=8)
    found.save(tmp_path, data=data, split=split)
    assert files_of(tmp_path) == WHOLE  # of a transformer, whose features are no map, too
    back = tl.load_finetuned(tmp_path)
    assert np.array_equal(back.predict(data), found.predict(data))
    assert repr(back.history) == repr(found.history)  # NaN is not equal to itself
    assert back.class_names == found.class_names and back.epoch == found.epoch and back.finished
    assert np.allclose(found.predict(data).sum(1), 1) and np.array_equal(
        found.predict([data[i][0] for i in range(3)]), found.predict(data.subset(range(3)))
    )
    with pytest.raises(ValueError, match="classes are"):
        found.evaluate(Dataset(data.inputs, data.labels, ("x", "y")), [0, 1])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tl.load_finetuned(tmp_path / "nothing")


def test_one_input_a_list_a_path_a_folder(folder):
    data = tl.data.image_folder(folder)
    found = untrained(data)
    p = found.predict(folder)
    assert p.shape == (36, 3) and np.allclose(p.sum(1), 1)
    assert np.allclose(found.predict(data), p, atol=1e-6)  # both in the order of the paths
    first = folder / "cat" / "00.jpg"
    for one in (first, str(first), Image.open(first), [first], [images.read(first)]):
        assert np.allclose(found.predict(one), p[:1], atol=1e-5)
    tensor = torch.from_numpy(np.array(images.read(first).resize((224, 224)))).permute(2, 0, 1)
    assert found.predict(tensor).shape == (1, 3)
    assert np.allclose(found.predict(data, batch_size=5), p, atol=1e-6)


def test_predict_refuses_what_is_no_input_and_no_batch_size(tmp_path):
    found = untrained(DATA)
    assert found.predict(DATA.subset([])).shape == (0, 3)
    with pytest.raises(ValueError, match="inputs is empty"):
        found.predict([])
    with pytest.raises(ValueError, match="has no images"):
        found.predict(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        found.predict(tmp_path / "none")
    for size in (0, "8", 2.5):
        with pytest.raises(ValueError, match=f"batch_size must be a whole number of at least 1, got {size!r}"):
            found.predict(DATA, batch_size=size)
    with pytest.raises(ValueError, match="index is empty"):
        found.evaluate(DATA, [])


def test_probabilities_are_the_mean_over_the_views_asked_for():
    found, mirrored = untrained(DATA), Dataset([x.flip(-1) for x in DATA.inputs], DATA.labels, DATA.class_names)
    one, other = found.predict(DATA), found.predict(mirrored)
    both = found.predict(DATA, views=("identity", "hflip"))
    assert np.allclose(both, (one + other) / 2) and not np.allclose(one, other)
    assert np.array_equal(found.predict(iter(DATA.inputs), views="hflip"), other)
    with pytest.raises(ValueError, match="unknown view 'upside'"):
        found.predict(DATA, views="upside")


def test_a_model_is_not_saved_over_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("my only copy")
    with pytest.raises(FileExistsError, match="choose another"):
        untrained(DATA).save(tmp_path)
    assert files_of(tmp_path) == {"thesis.tex"}


NAMES = {
    "dollars": ("$a_b", "$c^$", "50$"),
    "chinese": ("猫", "狗", "老虎"),
    "emoji": ("😀", "🫠", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"),
    "tables": ("a|b", "c\\d", "`e`"),
    "markdown": ("__init__", "<b>", "[x](y)"),
    "lines": ("two\nlines", "tab\there", "bell\x07"),
    "not UTF-8": ("caf\udce9", "b", "c"),
    "numbers": (0, np.int64(1), 2),
    "long": ("a" * 300, "b", "c"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_no_name_of_a_class_loses_a_model_or_its_figures(names, tmp_path):
    data = replace(DATA, class_names=names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not even a letter that the font lacks
        untrained(data).save(tmp_path / "model", data=data, split=SPLIT)
    assert files_of(tmp_path / "model") == WHOLE
    assert tl.load_finetuned(tmp_path / "model").class_names == names
    card = (tmp_path / "model" / "README.md").read_bytes().decode()
    table = [line for line in card.splitlines() if line.startswith(("| part", "| ---", "| test"))][:3]
    assert [line.replace("\\|", "").count("|") for line in table] == [5, 5, 5]


@pytest.mark.parametrize(
    "where, what, missing",
    [
        (plots, "confusion_matrix_figure", "confusion_matrix.png"),
        (plots, "worst_mistakes_figure", "worst_mistakes.png"),
        (classifier, "evaluate", "the scores"),
        (classifier, "_licence", "the licence"),
        (classifier, "_facts_of", "what is known of the images"),
        (classifier, "_card_of_scores", "README.md"),
    ],
)
def test_what_goes_wrong_beside_a_model_is_said_and_the_model_is_saved(where, what, missing, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("it rains")

    found = untrained(DATA)
    expected = found.predict(DATA)
    monkeypatch.setattr(where, what, broken)
    with pytest.warns(UserWarning, match=rf"{missing} is left out .*RuntimeError: it rains"):
        found.save(tmp_path / "model", data=DATA, split=SPLIT)
    gone = {missing} if missing in WHOLE else {name for name in WHOLE if name.endswith("png") and what == "evaluate"}
    assert files_of(tmp_path / "model") == WHOLE - gone
    card = tmp_path / "model" / "README.md"
    assert not card.exists() or all((name in card.read_text()) == (name not in gone) for name in WHOLE if "png" in name)
    assert np.array_equal(tl.load_finetuned(tmp_path / "model").predict(DATA), expected)


def test_a_package_that_is_not_installed_has_no_version_and_loses_nothing(tmp_path, monkeypatch):
    import timm

    monkeypatch.delattr(timm, "__version__")
    untrained(DATA).save(tmp_path / "model")
    assert strict_json(tmp_path / "model" / "model.json")["versions"]["timm"] == "not known"


def test_scores_that_are_not_defined_are_json_and_words(tmp_path):
    data = replace(DATA, groups=np.zeros(24))  # one group says nothing of how groups differ
    evaluation = untrained(data).save(tmp_path / "model", data=data, split=SPLIT)
    assert np.isnan(evaluation.interval["auc"]).all()
    about = strict_json(tmp_path / "model" / "model.json")
    assert about["scores"]["auc"]["interval"] == [None, None] and about["model"]["history"][0]["val loss"] is None
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.count("| too few groups for an interval |") == 4 and "nan" not in card
    assert "One group: nothing tells how groups differ." in card


def test_the_card_says_what_few_test_images_without_a_mistake_can_tell(tmp_path, monkeypatch):
    labels = DATA.labels[SPLIT.test]
    monkeypatch.setattr(FineTuned, "predict", lambda self, x, **options: np.eye(3)[x.labels] * 0.7 + 0.1)
    untrained(DATA).save(tmp_path / "model", data=replace(DATA, groups=None), split=SPLIT)
    share = f"{1 - 0.05 ** (1 / len(labels)):.0%}"
    said = f"No mistake was seen among {len(labels)} examples: up to {share} of others may be mistakes."
    assert said in (tmp_path / "model" / "README.md").read_text()


def test_without_a_test_part_a_model_is_saved_and_says_that_nothing_is_known(tmp_path):
    split = SPLIT._replace(test=SPLIT.test[:0])
    with pytest.warns(UserWarning, match="split.test is empty"):
        assert untrained(DATA).save(tmp_path / "model", data=DATA, split=split) is None
    assert files_of(tmp_path / "model") == {"model.safetensors", "model.json", "README.md"}
    assert "nothing is known here of how good it is" in (tmp_path / "model" / "README.md").read_text()


def test_scores_need_data_and_a_split_whose_test_was_not_trained_on(tmp_path):
    found = untrained(DATA)
    with pytest.raises(ValueError, match="data is given without split"):
        found.save(tmp_path / "model", data=DATA)
    with pytest.raises(ValueError, match="split is given without data"):
        found.save(tmp_path / "model", split=SPLIT)
    with pytest.raises(ValueError, match=f"example {SPLIT.val[0]} of split.test is in train or val too"):
        found.save(tmp_path / "model", data=DATA, split=SPLIT._replace(test=SPLIT.val))
    with pytest.raises(ValueError, match="classes are"):
        found.save(tmp_path / "model", data=replace(DATA, class_names=("x", "y", "z")), split=SPLIT)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_that_names_folder_and_size_and_leaves_nothing(tmp_path):
    found = untrained(DATA)
    size = sum(tensor.nbytes for tensor in found.model.model.state_dict().values())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))  # no file may grow longer
    try:
        with pytest.raises(OSError, match=f"{size / 1e6:,.0f} MB are needed in {tmp_path}"):
            found.save(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_saved_files_can_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        untrained(DATA).save(tmp_path / "model", data=DATA, split=SPLIT)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
    assert modes == dict.fromkeys(WHOLE, 0o640)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o750


def test_the_card_says_how_the_parts_were_made_and_which_class_was_not_tested(tmp_path):
    groups, part = np.arange(24) // 6, np.full(24, "train")
    part[SPLIT.val], part[SPLIT.test] = "val", "test"
    plain, grouped = replace(DATA, groups=None), replace(DATA, groups=groups)
    one_class = SPLIT._replace(test=SPLIT.test[DATA.labels[SPLIT.test] == 0])
    cases = {
        "drawn at random": (plain, SPLIT),
        "Groups were kept whole": (grouped, grouped.split(by="group", seed=0)),
        "on both sides of the test": (grouped, SPLIT),
        "The parts came with the images": (replace(plain, columns={"part": part}), SPLIT),
        "No test image shows b, c": (plain, one_class),
    }
    for i, (words, (data, split)) in enumerate(cases.items()):
        untrained(data).save(tmp_path / f"{i}", data=data, split=split)
        assert words in (tmp_path / f"{i}" / "README.md").read_text()


@pytest.mark.parametrize("of, said", [(1, True), (2, False)])
def test_the_card_says_where_one_group_chose_the_epoch(of, said, tmp_path):
    groups = np.arange(24)
    groups[SPLIT.val] = 100 + np.arange(len(SPLIT.val)) % of
    untrained(DATA).save(tmp_path / "m", data=replace(DATA, groups=groups), split=SPLIT)
    card = (tmp_path / "m" / "README.md").read_text()
    assert ("The validation images are of one group: nothing tells how groups differ." in card) == said


def test_a_training_that_stopped_early_is_saved_as_such(tmp_path):
    why = "the loss diverges (about 99) at step 7"
    found = replace(untrained(DATA), stopped=why, epoch=2)
    found.save(tmp_path / "model")
    back = tl.load_finetuned(tmp_path / "model")
    assert (back.stopped, back.epoch, back.finished) == (why, 2, False)
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"**Training stopped early**, because {why}. These are the weights of epoch 2" in card


def edit(path, change):
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def test_a_tampered_folder_is_refused_with_the_reason(saved, tmp_path):
    def tampered(how):
        model = tmp_path / how.__name__
        shutil.copytree(saved, model)
        how(model)
        return model

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    def a_pickle(model):
        (model / "model.pt").write_bytes(pickle.dumps(Hostile()))

    def climbs_out(model):
        edit(model / "model.json", lambda a: a["weights"].update(file="../../weights.safetensors"))

    def links_out(model):
        (model / "model.safetensors").rename(tmp_path / "elsewhere")
        (model / "model.safetensors").symlink_to(tmp_path / "elsewhere")

    def other_classes(model):
        edit(model / "model.json", lambda a: a["model"].update(class_names=["dog", "b", "c"]))

    def one_byte(model):
        content = bytearray((model / "model.safetensors").read_bytes())
        content[-1000] ^= 1
        (model / "model.safetensors").write_bytes(content)

    reasons = {
        a_pickle: "model.pt, which may run code",
        climbs_out: "only model.safetensors of the folder is read",
        links_out: "only model.safetensors of the folder is read",
        other_classes: "disagrees with .* in class_names",
        one_byte: "damaged or was exchanged",
    }
    for how, reason in reasons.items():
        with pytest.raises(ValueError, match=reason):
            tl.load_finetuned(tampered(how))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"architecture": "hf-hub:somebody/something"}, "no backbone is called 'hf-hub:somebody/something'"),
        ({"architecture": "../../elsewhere"}, "no backbone is called"),
        ({"architecture": 7}, "not as tlbook writes it: architecture"),
        ({"pretrained": True}, "not as tlbook writes it: pretrained"),
        ({"__class__": "os.system"}, "not as tlbook writes it: __class__"),
        ({"class_names": ["a", "b", "c", "d"]}, "fc.weight"),
        ({"class_names": "abc"}, "not as tlbook writes it: class_names"),
        ({"input_size": 10**6}, "not as tlbook writes it: input_size"),
        ({"input_size": [32]}, "not as tlbook writes it: input_size"),
        ({"mean": [0.5, "x", 0.5]}, "not as tlbook writes it: mean"),
        ({"std": [0, 1, 1]}, "not as tlbook writes it: std"),
        ({"crop_pct": 0}, "not as tlbook writes it: crop_pct"),
        ({"interpolation": "magic"}, "not as tlbook writes it: interpolation"),
        ({"history": [7]}, "not as tlbook writes it: history"),
        ({"epoch": None}, "not as tlbook writes it: epoch"),
    ],
)
def test_a_model_forged_with_all_its_digests_right_is_refused_too(changed, reason, saved, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    state, facts = checkpoints.read(model / "model.safetensors")
    checkpoints.write(model / "model.safetensors", state, facts | changed)
    digest = classifier._digest(model / "model.safetensors")
    edit(model / "model.json", lambda a: (a["model"].update(changed), a["weights"].update(sha256=digest)))
    with pytest.raises(ValueError, match=reason):
        tl.load_finetuned(model)


def fuzz_models(saved, tmp_path, n):
    rng, refused = np.random.default_rng(0), 0
    for i in range(n):
        model = tmp_path / f"{i}"
        shutil.copytree(saved, model)
        victim = model / ("model.json" if i % 2 else "model.safetensors")
        content = victim.read_bytes()
        if i % 4 == 0:  # its header alone: the rest of the file is numbers
            size = 8 + int.from_bytes(content[:8], "little")
            victim.write_bytes(damaged(content[:size], rng) + content[size:])
        else:
            victim.write_bytes(damaged(content, rng))
        before = files_of(tmp_path)
        try:
            tl.load_finetuned(model)
        except (ValueError, FileNotFoundError):
            refused += 1
        assert files_of(tmp_path) == before
        shutil.rmtree(model)
    assert refused > n / 2  # damage to the card's part of model.json does no harm


def test_damaged_models_are_refused_and_nothing_else(saved, tmp_path):
    fuzz_models(saved, tmp_path, 40)


@pytest.mark.prove
def test_many_damaged_models_are_refused_and_nothing_else(saved, tmp_path):
    fuzz_models(saved, tmp_path, 2000)


def answers_of_onnx(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": x})[0], session.get_modelmeta().custom_metadata_map


def test_a_model_is_served_at_the_size_that_it_was_trained_at(tmp_path, monkeypatch):
    """The same scores for the same cells as PIL images, and the same answers from ONNX."""
    monkeypatch.setenv("TLBOOK_CACHE", SHARED_CACHE)  # the cells are resized once for all tests
    cells = tl.data.solar_cells(64).subset(range(0, 2624, 4))
    split = cells.split(test=0.5, by="random")
    found = tl.finetune(tiny(), cells, split, recipe="head", epochs=1)
    found.save(tmp_path / "model")
    back, test = tl.load_finetuned(tmp_path / "model"), cells.subset(split.test)
    as_pil = [Image.fromarray(x[0].numpy()) for x, _ in test]
    p, q = found.predict(test), back.predict(as_pil)
    assert tl.evaluate(q, test.labels).auc == pytest.approx(tl.evaluate(p, test.labels).auc, abs=0.01)
    assert back.export(tmp_path / "model.onnx") <= 1e-4
    x = np.stack([x.expand(3, -1, -1).numpy() for x, _ in test]).astype(np.float32)
    onnx, about = answers_of_onnx(tmp_path / "model.onnx", x)
    assert (onnx.argmax(1) == p.argmax(1)).mean() > 0.99
    assert (about["height"], about["width"]) == ("64", "64") and "64 × 64" in (tmp_path / "model/README.md").read_text()


def test_images_that_are_no_squares_are_served_as_they_were_trained_on(tmp_path):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (24, 3, 40, 24), dtype=torch.uint8, generator=g)
    data = Dataset(list(x), np.arange(24) % 2, ("$", "猫"))
    found = tl.finetune(tiny(), data, data.split(by="random"), recipe="head", epochs=1)
    found.save(tmp_path / "model")
    back = tl.load_finetuned(tmp_path / "model")
    assert back.model.input_size == (40, 24)
    as_pil = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in x]
    assert np.abs(back.predict(as_pil) - found.predict(data)).max() < 1e-5
    back.export(tmp_path / "model.onnx")
    onnx, about = answers_of_onnx(tmp_path / "model.onnx", x.float().numpy())
    assert np.abs(onnx - found.predict(data)).max() < 1e-4
    assert (about["height"], about["width"], json.loads(about["class_names"])) == ("40", "24", ["$", "猫"])
    assert (
        os.path.dirname(tl.__file__).encode() not in (tmp_path / "model.onnx").read_bytes()
    )  # no path of this machine


def test_grad_cam_reads_a_map_whose_channels_come_last():
    """A Swin Transformer's: the weighted sum over channels, at each place, enlarged."""
    from timm.models.swin_transformer import SwinTransformer

    from tlbook.explain import grad_cam

    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2)}
    model = Backbone(SwinTransformer(**sizes, num_classes=2), "swin", [0.5] * 3, [0.5] * 3, 32, 1.0, "bicubic", True)
    x = [spots(1)[0][0]]
    A = model.forward_features(model.prepare(x)).detach().requires_grad_()  # (1, h, w, C)
    (gradient,) = torch.autograd.grad(model.forward_head(A)[0, 1], A)
    heat = torch.einsum("c,hwc->hw", gradient[0].mean((0, 1)), A[0]).relu()
    expected = torch.nn.functional.interpolate((heat / heat.max())[None, None], (32, 32), mode="bilinear")[
        0, 0
    ].detach()
    assert expected.any() and np.allclose(
        grad_cam(FineTuned(model, Table(), 0, ("a", "b")), x, [1])[0], expected / expected.max(), atol=1e-5
    )


def test_grad_cam_marks_what_speaks_for_the_class(folder):
    """Cover what the map marks, and what it does not: the logit falls more in the first case."""
    from tlbook.explain import grad_cam

    falls, found = [], FineTuned(tl.load_backbone(), Table(), 0, tuple(map(str, range(1000))))  # it knows cats and cups
    for path in sorted(folder.glob("*/*"))[::6]:
        x = found.model.as_tensor(images.read(path))
        k = found.predict(x)[0].argmax()
        hot = torch.from_numpy(grad_cam(found, [x], [k])[0])
        assert hot.shape == x.shape[1:] and 0 <= hot.min() and hot.max() <= 1.0001
        limit = hot.flatten().quantile(0.7)

        def logit(covered, x=x, k=k):
            with torch.inference_mode():
                return float(found.model(found.model.prepare([torch.where(covered, 127, x).to(torch.uint8)]))[0, k])

        falls.append(logit(hot < hot.flatten().quantile(0.3)) - logit(hot > limit))
    assert np.mean(falls) > 0


def line_of_text(width, height=40):
    return Image.fromarray(np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_fit_belongs_to_the_model_its_cache_key_and_its_folder(tmp_path):
    backbones_ = {fit: tiny() for fit in ("crop", "squeeze", "pad")}
    for fit, backbone in backbones_.items():
        backbone.set_fit(fit)
    assert len({backbone.fingerprint for backbone in backbones_.values()}) == 3
    data = tl.data.Dataset([line_of_text(400 + i) for i in range(8)], np.arange(8) % 2, ("a", "b"))
    found = tl.finetune(backbones_["pad"], data, data.split(by="random"), recipe="head", epochs=1)
    found.save(tmp_path / "m")
    back = tl.load_finetuned(tmp_path / "m")
    assert back.model.fit == "pad" and np.array_equal(back.predict(data), found.predict(data))
    assert "all of it, in a frame" in (tmp_path / "m" / "README.md").read_text()
    with pytest.raises(ValueError, match="fit must be one of crop, squeeze, pad, got 'stretch'"):
        tiny().set_fit("stretch")
