"""Feature extraction: F(X; θ) is the plain forward pass, computed once, written whole, whoever computes it."""

import copy
import errno
import multiprocessing
import os
import platform
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tlbook as tl
from tlbook import cache, device, forward
from tlbook.data import Dataset

TINY = "test_resnet"  # timm's own test model: a whole ResNet of 0.5 million parameters


def tiny_backbone(name=TINY, seed=0):
    torch.manual_seed(seed)
    return tl.load_backbone(name, weights=None)


def images(n=70, side=32, channels=1):
    return torch.randint(
        0, 256, (n, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def dataset(inputs, groups=True):
    labels = np.arange(len(inputs)) % 2
    return Dataset(inputs, labels, ("no", "yes"), np.arange(len(inputs)) // 7 if groups else None)


@pytest.fixture
def backbone():
    return tiny_backbone()


@pytest.fixture
def data():
    return dataset(list(images()))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TLBOOK_ENGINE", "torch")
    return tmp_path / "cache" / "features"


@pytest.fixture
def passes(backbone, monkeypatch):
    """How many batches went through the backbone."""
    count, forward_stages = [], type(backbone).forward_stages
    monkeypatch.setattr(type(backbone), "forward_stages", lambda *a: count.append(1) or forward_stages(*a))
    return count


@pytest.mark.parametrize("stages", [("final",), ("layer2", "final"), ("final", "stem")])
def test_features_equal_a_plain_forward_pass(backbone, data, stages):
    features = tl.extract(backbone, data, stages=stages, precision="float32")
    x = (images().expand(-1, 3, -1, -1) / 255 - torch.tensor(backbone.mean).view(3, 1, 1)) / torch.tensor(
        backbone.std
    ).view(3, 1, 1)
    model = copy.deepcopy(backbone.model).cpu().eval()
    with torch.inference_mode():
        stem = model.maxpool(model.act1(model.bn1(model.conv1(x))))
        expected = {
            "stem": stem.mean((2, 3)),
            "layer2": model.layer2(model.layer1(stem)).mean((2, 3)),
            "final": model.forward_head(model.forward_features(x), pre_logits=True),
        }
    assert list(features.blocks) == list(stages)
    for stage in stages:
        assert np.allclose(features.X[:, features.blocks[stage]], expected[stage], atol=1e-4)
    assert features.X.dtype == np.float32
    assert np.array_equal(features.y, data.labels) and np.array_equal(features.groups, data.groups)


@pytest.mark.parametrize("batch_size", [1, 7, 70, 500])
def test_the_batch_size_does_not_matter(backbone, data, batch_size):
    a, b = (tl.extract(backbone, data, precision="float32", cache=False, batch_size=size) for size in (32, batch_size))
    assert np.allclose(a.X, b.X, atol=1e-4)


def test_a_second_call_reads_the_cache_and_runs_nothing(backbone, data, passes):
    first = tl.extract(backbone, data)
    ran = len(passes)
    second = tl.extract(backbone, data)
    assert 0 < ran == len(passes)
    assert isinstance(second.X, np.memmap) and np.array_equal(first.X, second.X)
    relabelled = Dataset(data.inputs, 1 - data.labels, data.class_names)
    assert np.array_equal(tl.extract(backbone, relabelled).y, 1 - data.labels) and len(passes) == ran


def test_each_ingredient_changed_alone_is_computed_anew(backbone, data, passes, own_cache):
    def pixel():
        data.inputs[69][0, 0, 0] ^= 1

    def weight():
        backbone.model.layer1[0].conv1.weight.data[0, 0, 0, 0] += 1

    def statistic():
        backbone.model.bn1.running_var[0] *= 2

    def preparation():
        backbone.mean = (0.1, 0.2, 0.3)

    def nothing():
        pass

    tl.extract(backbone, data, precision="float32")
    for change in (pixel, weight, statistic, preparation):
        change()
        passes.clear()
        tl.extract(backbone, data, precision="float32")
        assert passes, change.__name__
    for options in ({"stages": ["layer1"]}, {"views": ["hflip"]}, {"precision": "bfloat16"}):
        passes.clear()
        tl.extract(backbone, data, **({"precision": "float32"} | options))
        assert passes, options
    assert len(list(own_cache.glob("*.npy"))) == 8


def test_without_the_cache_nothing_is_kept(backbone, data, own_cache):
    tl.extract(backbone, data, cache=False)
    assert not own_cache.exists()


class Deadly(list):
    """Images that can be gone through for a fingerprint; to extract from the one called last kills the process."""

    def __iter__(self):
        return (list.__getitem__(self, i) for i in range(len(self)))

    def __getitem__(self, i):
        if i == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return list.__getitem__(self, i)


def left_in(folder):
    return [path.suffix for path in folder.iterdir() if path.suffix != ".lock"]


def extract_in_child(folder, last, barrier):
    os.environ["TLBOOK_CACHE"], os.environ["TLBOOK_DEVICE"] = str(folder), "cpu"
    torch.set_num_threads(1)
    cache.SAVE_SECONDS = 0
    data = dataset(list(images()) if last is None else Deadly(images()))
    if last is not None:
        data.inputs.last = last
    if barrier is not None:
        barrier.wait()
    tl.extract(tiny_backbone(), data, precision="float32", batch_size=10)


@pytest.fixture(scope="module")
def children():
    """A server that has the heavy imports done, and forks from there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timm", "tlbook.feature_extraction", "tlbook.backbones"])
    return context


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("last", [9, 25, 69])
def test_an_extraction_that_is_killed_goes_on_where_it_was(
    one_thread_and_own_cache, children, own_cache, backbone, data, passes, last
):
    child = children.Process(target=extract_in_child, args=(own_cache.parent, last, None))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert sorted(left_in(own_cache)) == [".done", ".partial"]
    whole = tl.extract(backbone, data, precision="float32", batch_size=10, cache=False).X
    passes.clear()
    resumed = tl.extract(backbone, data, precision="float32", batch_size=10).X
    read_ahead = forward.AHEAD + 3  # batches that were read or computed when the process died, but not yet kept
    assert len(passes) <= 7 - max(0, last // 10 - read_ahead)
    assert np.array_equal(resumed, whole) and left_in(own_cache) == [".npy"]


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_file_of_the_cache_is_computed_anew(backbone, data, own_cache, damage):
    whole = np.array(tl.extract(backbone, data).X)
    (path,) = own_cache.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-4] if damage is None else damage)
    assert np.array_equal(tl.extract(backbone, data).X, whole)


def test_features_of_the_cache_that_belong_to_another_user_are_used(backbone, data, own_cache, passes, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    whole = np.array(tl.extract(backbone, data).X)
    passes.clear()
    monkeypatch.setattr(os, "utime", refused)
    assert np.array_equal(tl.extract(backbone, data).X, whole) and not passes


def test_the_files_that_were_not_used_for_longest_leave_the_cache(tmp_path):
    for i, name in enumerate(["used.bin", "old.bin", "older.bin", "of_another_kind.npy"]):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1000 - i, 1000 - i))
    cache.note_use(tmp_path / "older.bin")
    cache.trim(tmp_path, ".bin", limit=20)
    assert {path.name for path in tmp_path.iterdir()} == {"used.bin", "older.bin", "of_another_kind.npy"}


def test_a_full_disk_is_said_before_anything_is_computed(backbone, data, own_cache, passes, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"MB are needed in .*no room.*TLBOOK_CACHE"):
        tl.extract(backbone, data)
    assert not passes and left_in(own_cache) == []


def test_features_of_a_backbone_with_a_hook_are_not_kept(backbone, data, own_cache):
    plain = tl.extract(backbone, data, precision="float32").X
    backbone.model.layer4.register_forward_hook(lambda module, inputs, output: output + 1)
    hooked = tl.extract(backbone, data, precision="float32").X
    assert not np.allclose(hooked, plain) and len(list(own_cache.glob("*.npy"))) == 1


class SharedFile:
    """A data set whose examples all seek in one open file, as many do: two threads at once would mix them up."""

    def __init__(self, path):
        self.file, self.inside = open(path, "rb"), False

    def __len__(self):
        return 70

    def __getitem__(self, i):
        assert not self.inside, "called by two threads at once"
        self.inside = True
        self.file.seek(i * 1024)
        time.sleep(0.001)
        x = torch.frombuffer(bytearray(self.file.read(1024)), dtype=torch.uint8).view(1, 32, 32)
        self.inside = False
        return x, i % 2


def test_a_data_set_that_shares_a_file_is_read_by_one_thread_at_a_time(backbone, data, tmp_path):
    (tmp_path / "pixels").write_bytes(images().numpy().tobytes())
    shared = tl.data.from_dataset(SharedFile(tmp_path / "pixels"))
    assert np.array_equal(tl.extract(backbone, shared, cache=False).X, tl.extract(backbone, data, cache=False).X)


@pytest.mark.skipif(os.name == "nt", reason="needs a fork server")
def test_two_processes_that_extract_the_same_at_once_both_succeed(
    one_thread_and_own_cache, children, own_cache, backbone, data, passes
):
    barrier = children.Barrier(2)
    pair = [children.Process(target=extract_in_child, args=(own_cache.parent, None, barrier)) for _ in range(2)]
    for child in pair:
        child.start()
    for child in pair:
        child.join()
    assert [child.exitcode for child in pair] == [0, 0]
    assert left_in(own_cache) == [".npy"]
    found = tl.extract(backbone, data, precision="float32")
    assert not passes
    assert np.allclose(found.X, tl.extract(backbone, data, precision="float32", cache=False).X, atol=1e-4)


@pytest.mark.skipif(shutil.which(str(Path(sys.executable).with_name("torchrun"))) is None, reason="needs torchrun")
def test_two_processes_under_torchrun_write_the_same_file_as_one(tmp_path, monkeypatch):
    script = tmp_path / "two.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import os, numpy as np, torch, tlbook as tl\n"
        "import test_feature_extraction as t\n"
        "torch.set_num_threads(1)\n"
        "f = tl.extract(t.tiny_backbone(), t.dataset(list(t.images())), precision='float32', batch_size=16)\n"
        "from torch import distributed\n"
        "assert distributed.get_world_size() == 2; print(f.X.shape, flush=True)\n"
        "distributed.destroy_process_group()\n"
    )
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"TLBOOK_CACHE": str(tmp_path / "two"), "TLBOOK_DEVICE": "cpu"}
    done = subprocess.run(torchrun, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(70, 96)") == 2  # the two ranks may write into each other's line
    monkeypatch.setenv("TLBOOK_DEVICE", "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tl.extract(tiny_backbone(), dataset(list(images())), precision="float32", batch_size=16)
    torch.set_num_threads(threads)
    (two,), (one,) = ((tmp_path / name / "features").iterdir() for name in ("two", "cache"))
    assert two.name == one.name and two.read_bytes() == one.read_bytes()


def test_a_nan_in_the_weights_names_the_first_example(backbone, data, own_cache):
    backbone.model.conv1[0].weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="features of example 0 are not finite"):
        tl.extract(backbone, data)
    assert left_in(own_cache) == []


def test_features_that_are_not_finite_name_their_example(backbone, data):
    def break_one(module, inputs, output):
        bright = inputs[0].amin((1, 2, 3)) > 0.99
        return output.masked_fill(bright.view(-1, 1, 1, 1), float("inf"))

    data.inputs[41].fill_(255)
    backbone.model.conv1.register_forward_hook(break_one)
    with pytest.raises(ValueError, match="features of example 41 are not finite"):
        tl.extract(backbone, data, precision="float32")


@pytest.mark.parametrize("shape", [(1, 32, 40), (3, 32, 32)])
@pytest.mark.parametrize("i", [5, 32, 69])
def test_an_example_of_another_shape_is_named(backbone, data, shape, i, own_cache):
    data.inputs[i] = torch.zeros(shape, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"example {i} has shape .*example 0"):
        tl.extract(backbone, data)
    assert left_in(own_cache) == []


def test_an_example_that_cannot_be_read_is_named(backbone):
    class Broken(list):
        def __getitem__(self, i):
            if i == 44:
                raise OSError("truncated JPEG")
            return list.__getitem__(self, i)

    with pytest.raises(ValueError, match="example 44 cannot be read: truncated JPEG"):
        tl.extract(backbone, dataset(Broken(images())), cache=False)


def test_photographs_of_all_sizes_are_taken(backbone):
    photos = [Image.fromarray(np.full((s, 200, 3), s, np.uint8)) for s in (170, 180, 250)]
    features = tl.extract(backbone, dataset(photos), precision="float32")
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = backbone.forward_stages(backbone.prepare(photos))["final"].cpu()
    assert np.allclose(features.X, expected, atol=1e-4)


def test_views_are_the_same_extractor_shown_something_else(backbone):
    x = images()
    views = {"identity": x, "hflip": x.flip(-1), "vflip": x.flip(-2), "rot90": x.rot90(1, (-2, -1))}
    views["crop:0.5"] = x[..., 8:24, 8:24]
    features = tl.extract(backbone, dataset(list(x)), views=list(views), precision="float32")
    assert list(features.blocks) == [f"final/{view}" for view in views]
    for view, seen in views.items():
        expected = tl.extract(backbone, dataset(list(seen.contiguous())), precision="float32").X
        assert np.allclose(features.select(f"final/{view}").X, expected, atol=1e-4), view
    half = tl.extract(backbone, dataset(list(torch.full((2, 1, 32, 32), 99, dtype=torch.uint8))), views=["scale:0.5"])
    same = tl.extract(backbone, dataset(list(torch.full((2, 1, 16, 16), 99, dtype=torch.uint8))))
    assert np.allclose(half.X, same.X, atol=1e-2)


def test_a_sum_adds_the_views_and_of_one_extractor_is_that_extractor(backbone, data):
    views = ["identity", "hflip"]
    parts = tl.extract(backbone, data, views=views)
    total = tl.extract(backbone, data, views=views, combine="sum")
    assert total.blocks == {"sum": slice(0, total.X.shape[1])}
    assert np.array_equal(total.y, data.labels) and np.array_equal(total.groups, data.groups)
    assert np.array_equal(total.X, sum(parts.X[:, block] for block in parts.blocks.values()))
    assert np.array_equal(tl.extract(backbone, data, combine="sum").X, tl.extract(backbone, data).X)


def test_a_linear_map_of_the_concatenation_is_a_sum_of_projections(backbone, data):
    features = tl.extract(backbone, data, stages=["layer1", "final"], precision="float32")
    rng = np.random.default_rng(0)
    W = rng.normal(size=(features.X.shape[1], 4)).astype(np.float32)
    total = features.sum({name: W[block] for name, block in features.blocks.items()})
    assert np.allclose(total.X, features.X @ W, atol=1e-5 * np.abs(features.X @ W).max())
    exact = features.sum({name: W[block].astype(np.float64) for name, block in features.blocks.items()})
    assert total.X.dtype == exact.X.dtype == np.float32
    with pytest.raises(ValueError, match="projections are for"):
        features.sum({"layer1": W})


def test_a_sum_of_unequal_widths_is_an_error_that_names_them(backbone, data):
    with pytest.raises(ValueError, match="equal widths, got .*'layer1': .*'final': "):
        tl.extract(backbone, data, stages=["layer1", "final"], combine="sum")


def test_several_backbones_give_a_block_each_in_their_own_preparation(backbone, data):
    other = tiny_backbone("test_efficientnet")
    both = tl.extract([backbone, other], data, precision="float32")
    assert list(both.blocks) == [f"{TINY}/final", "test_efficientnet/final"]
    for name, b in zip(both.blocks, (backbone, other), strict=True):
        assert np.allclose(both.select(name).X, tl.extract(b, data, precision="float32").X, atol=1e-5)
    with pytest.raises(ValueError, match="two backbones are called"):
        tl.extract([backbone, tiny_backbone(seed=1)], data)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"stages": ["layer9"]}, "no stage 'layer9'"),
        ({"stages": []}, "at least one"),
        ({"views": ["flip"]}, "unknown view 'flip'"),
        ({"views": ["scale:big"]}, "unknown view 'scale:big'"),
        ({"views": []}, "at least one"),
        ({"combine": "mean"}, "'concat' or 'sum'"),
        ({"precision": "float64"}, "precision must be"),
    ],
)
def test_an_argument_that_makes_no_sense_is_an_error(backbone, data, options, says):
    with pytest.raises(ValueError, match=says):
        tl.extract(backbone, data, **options)


def test_no_examples_or_no_backbone_is_an_error(backbone, data):
    for arguments in ((backbone, data.subset([])), ([], data)):
        with pytest.raises(ValueError, match="at least one"):
            tl.extract(*arguments)


@pytest.mark.parametrize("fails", [False, True])
def test_the_backbone_is_left_as_it_was(backbone, data, fails):
    backbone.train()
    backbone.model.layer1.eval()
    modes = [module.training for module in backbone.modules()]
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    if fails:
        data.inputs[50] = torch.zeros(1, 8, 8, dtype=torch.uint8)
        with pytest.raises(ValueError):
            tl.extract(backbone, data)
    else:
        tl.extract(backbone, data)
    assert [module.training for module in backbone.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in backbone.parameters())


@pytest.mark.parametrize("groups", [None, np.arange(70) // 7, np.repeat(["panel a", "panel b"], 35)])
def test_saved_features_come_back(backbone, data, tmp_path, groups):
    data = Dataset(data.inputs, data.labels, data.class_names, groups)
    features = tl.extract(backbone, data, stages=["layer1", "final"])
    features.save(tmp_path / "f.safetensors")
    back = tl.load_features(tmp_path / "f.safetensors")
    assert np.array_equal(back.X, features.X) and np.array_equal(back.y, features.y)
    assert back.blocks == features.blocks
    assert (back.groups is None) if groups is None else back.groups.tolist() == groups.tolist()


def test_saved_features_are_as_readable_as_any_file_and_a_full_disk_is_an_error_of_the_system(backbone, data, tmp_path):
    features, before = tl.extract(backbone, data), os.umask(0o027)
    try:
        features.save(tmp_path / "f.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f.safetensors").stat().st_mode) == 0o640
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file may grow longer
    try:
        with pytest.raises(OSError, match="takes 0 MB"):
            features.save(tmp_path / "g.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["f.safetensors"]


@pytest.mark.parametrize("damage", ["truncated", "other", "text"])
def test_a_damaged_file_of_features_is_an_error(backbone, data, tmp_path, damage):
    from safetensors.numpy import save_file

    path = tmp_path / "f.safetensors"
    tl.extract(backbone, data).save(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "other":
        save_file({"X": np.zeros(3)}, path)
    else:
        path.write_text("not features")
    with pytest.raises(ValueError, match="does not hold features"):
        tl.load_features(path)


def test_blocks_are_selected_by_name(backbone, data):
    features = tl.extract(backbone, data, stages=["stem", "layer1", "final"])
    some = features.select("final", "stem")
    assert np.array_equal(some.y, features.y) and np.array_equal(some.groups, features.groups)
    assert list(some.blocks) == ["final", "stem"]
    assert np.array_equal(some.X[:, some.blocks["stem"]], features.X[:, features.blocks["stem"]])
    assert np.shares_memory(features.select("stem").X, features.X)  # one block of a mapped file is not read into memory
    for names in (["layer9"], []):
        with pytest.raises(ValueError, match="the blocks are"):
            features.select(*names)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back at every layer")
def test_memory_is_kept_between_layers_and_given_back_at_the_end():
    resource = pytest.importorskip("resource")
    blocks = [torch.ones(4_000_000) for _ in range(2)]  # 16 MB each

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            blocks[0] = blocks[1] = None
            blocks[0], blocks[1] = torch.ones(4_000_000), torch.ones(5_000_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def held():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    with device.memory_kept():
        faults()
        assert faults() < 2_000  # of 4 KB: 180,000 if every block were cleared anew
        blocks.clear()
        before = held()
    assert before - held() > 20e6
