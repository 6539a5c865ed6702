"""An export as a repository of the Hugging Face Hub: written to a folder, then uploaded.

Where timm has the very network, ``config.json`` and ``model.safetensors`` are such that
``timm.create_model("hf-hub:OWNER/REPO")`` loads it; the export itself is in the folder `hub.OURS`.
"""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping
from typing import Any

from byol_jax import config as config_lib
from byol_jax.checkpoints import hub
from byol_jax.export import torch_export
from byol_jax.workdir import files

UsageError = config_lib.UsageError

NOT_COMMERCIAL = "cc-by-nc-4.0"
README = "README.md"


def place(workdir: pathlib.Path, name: str) -> pathlib.Path:
    """Where the folder of a repository goes.

    Raises:
      UsageError: no name of a repository, or there is something already.
    """
    hub.require_name(name, flag="--config.hub")
    folder = workdir.resolve().with_name(f"{workdir.resolve().name}-hub")
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(
            f"{folder} is there already, perhaps with a card that you have changed, and is left as "
            "it is: move it away, or give another --workdir."
        )
    return folder


def license_of(model: Mapping[str, Any], given: str) -> str:
    """The license of a card: the one of what it was made from, or else the one that is given.

    Raises:
      UsageError: another one is given than what it was made from allows.
    """
    start = (model["config"] or {}).get("checkpoint") or ""
    is_deepmind = "CC BY-NC" in model["licence"] or pathlib.Path(start).suffix == ".pkl"
    known = NOT_COMMERCIAL if is_deepmind else model["licence"]
    if known and given and given.lower() != known.lower():
        raise UsageError(
            f"--config.license={given}, but these weights are made from some under {known}, which "
            "they inherit: leave it out."
        )
    return (known or given or "other").lower()


def write(
    folder: pathlib.Path,
    export: pathlib.Path,
    name: str,
    model: Mapping[str, Any],
    *,
    license: str,
    classifier: Mapping[str, Any] | None = None,
) -> None:
    """Writes the folder of a repository, whole or not at all.

    Args:
      folder: where; missing or empty.
      export: the folder of the export, which is copied.
      name: OWNER/REPO.
      model: what its ``model.json`` holds.
      license: of the card.
      classifier: its card, if it is one.
    """
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        with files.writing(folder):
            shutil.copytree(export, part / hub.OURS)
            fits_timm = _fits_timm(model, part / hub.OURS)
            if fits_timm:
                shutil.copy(part / hub.OURS / torch_export.TENSORS, part / hub.WEIGHTS)
                config = json.dumps(timm_config(model, license=license), indent=2)
                (part / hub.CONFIG).write_text(config + "\n")
            text = card(name, model, license=license, fits_timm=fits_timm, classifier=classifier)
            (part / README).write_text(text, encoding="utf-8")
            for path in (*part.rglob("*"), part):
                files.sync(path)
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()
            os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fits_timm(model: Mapping[str, Any], export: pathlib.Path) -> bool:
    is_written = (export / torch_export.TENSORS).is_file()
    return is_written and (model.get("torch") or {}).get("plain_load") == "exact"


def timm_config(model: Mapping[str, Any], *, license: str) -> dict[str, Any]:
    """``config.json`` as timm reads it."""
    made, classes = model["card"], list(model.get("classes") or [])
    side = made["image_size"]
    return {
        "architecture": made["encoder"],
        "num_classes": len(classes),
        "num_features": model["output_size"] if not classes else None,
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "mean": list(made["mean"]),
            "std": list(made["std"]),
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "num_classes": len(classes),
            "label_names": classes or None,
            "first_conv": "conv1",
            "classifier": "fc",
            "license": license,
        },
    }


def card(
    name: str,
    model: Mapping[str, Any],
    *,
    license: str,
    fits_timm: bool,
    classifier: Mapping[str, Any] | None = None,
) -> str:
    """The text of README.md: facts in front, as the Hub reads them, then words."""
    library = "timm" if fits_timm else "byol_jax"
    kind = "image-classification" if classifier else "image-feature-extraction"
    front = {
        "license": license,
        "library_name": library,
        "pipeline_tag": kind,
        "tags": ["byol", "self-supervised", "jax", *(["timm"] if fits_timm else [])],
    }
    if classifier:
        front["model-index"] = [{"name": name, "results": [_measured(classifier)]}]
    lines = [f"{key}: {json.dumps(value)}" for key, value in front.items()]  # JSON is YAML
    return "\n".join(["---", *lines, "---", "", *_words(name, model, license, library)]) + "\n"


def _measured(classifier: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the Hub's ``model-index``."""
    data = classifier["data"]
    metrics = []
    for key, value in classifier["accuracy"].items():
        low, high = classifier["interval_95"][key]
        title = f"{key.replace('top', 'top-')} accuracy (95 % interval {low:.4f} to {high:.4f})"
        metrics.append({"type": "accuracy", "value": round(value, 6), "name": title})
    split = str(data.get("eval_split", ""))
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": data["name"], "type": data["name"], "split": split},
        "metrics": metrics,
    }


def _words(name: str, model: Mapping[str, Any], license: str, library: str) -> list[str]:
    made, data = model["card"], model["data"]
    origin = "Its file does not say how it was trained."
    if data:
        origin = (
            f"Trained without labels (BYOL, arXiv:2006.07733) by byol_jax on {data['train_split']} "
            f"of {data['name']}."
        )
    lines = [
        f"# {name.split('/')[1]}",
        "",
        f"{made['encoder']}, {model['output']} of {model['output_size']} numbers, images of "
        f"{made['image_size']} px. {origin} License: {license}.",
        "",
        "```python",
        "import byol_jax",
        "",
        f'encoder = byol_jax.load_encoder("hf://{name}")',
        "features = encoder.embed(images)  # uint8 [N, H, W, 3]",
        "```",
    ]
    if library == "timm":
        lines += ["", "```python", "import timm", ""]
        lines += [f'model = timm.create_model("hf-hub:{name}", pretrained=True)', "```"]
    return lines


def upload(folder: pathlib.Path, name: str) -> str:
    """Makes the repository, private, unless it is there, and uploads the folder.

    Returns:
      Its address.

    Raises:
      UsageError: no package, network or rights; the folder stays, and what to type is said.
    """
    by_hand = f"hf auth login && hf upload {name} {folder}"
    try:
        import huggingface_hub

        api = huggingface_hub.HfApi()
        api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder))
        return f"https://huggingface.co/{name}"
    except ImportError:
        reason = "the package huggingface_hub is missing: pip install '.[hub]'"
    except Exception as error:  # of a library with dozens of kinds, and of those below it
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise UsageError(
        f"{folder} is written whole, but not uploaded ({reason}). To do it by hand: {by_hand}"
    ) from None
