"""BYOL pretraining.

    python -m byol_jax.main_loop --config=configs/byol.py:PRESET

| preset | data, encoder | hardware and time | result |
|---|---|---|---|
| patterns (default) | embedded, 32 px; micro_resnet | 2 CPU cores, 2 min | kNN 93 %, linear 94 % |
| cifar10 | CIFAR-10 from TFDS; micro_resnet | 2 CPU cores, 10 min | kNN 46 %, linear 50 % (+) |
| folder | your own images in data.dir; the rest by budget_minutes and the images | any | (x) |
| imagenette | Imagenette at 128 px, ResNet-18, 1000 epochs | 1 V100, 4 h (*) | 92.3 % online (*) |
| imagenet-1000 | ImageNet at 224 px, ResNet-50 | 512 TPU v3, 8 h (*) | 74.0 to 74.5 % linear (*) |
| imagenet-300, -100, -40 | as above, by the number of epochs | | -40: 61.5 % linear (*) |
| imagenet-N | as above, N epochs, settings interpolated between those | | |
| imagenet-small-batch | batch 512, 1000 epochs (paper, appendix G) | | 73.7 % linear (*) |
| imagenet-ablation, -ablation-B | 300 epochs (section 5); batches of B | | 72.5 % linear (*) |

The paper's smaller batches (table 16) are micro-batches of a batch of 4096, whose gradients are
averaged and whose learning rate, tau and weight decay stay: `accumulate` = 4096 / B.

(x) docs/recipes.md: what is chosen and what it gave; typed values always win.
(+) on a fifth of CIFAR-10, experiments/cifar10; on all of it, other numbers and more images.
(*) what the reference's authors report ; not run here. These presets have their
values; their data has to be prepared by TFDS (docs/your_images.md).
"""

import re

import ml_collections
from ml_collections import config_dict

from byol_jax import config as config_lib
from byol_jax.training import paper_settings

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def get_config(preset: str = "patterns") -> ml_collections.ConfigDict:
    """The config of a preset."""
    config = _reference()
    config.preset = preset
    other = re.fullmatch(r"imagenet(-ablation)?-(\d+)", preset)
    if other and preset not in PRESETS:
        (_ablation if other[1] else _imagenet)(config, int(other[2]))
    else:
        config_lib.lookup(PRESETS, preset, key="preset")(config)
    return config


def _reference() -> ml_collections.ConfigDict:
    """What all presets share: the paper's method as its authors' code has it."""
    config = ml_collections.ConfigDict()
    config.task = "pretrain"
    config.preset = ""
    config.seed = 0
    config.batch_size = 4096  # of all devices together
    config.accumulate = 1  # micro-batches that a device makes of its part of the batch
    config.accumulate_statistics = "micro"  # micro | exact: batch norm over each, or over all
    # Steps count if they are set, unless epochs were typed (--config.total_epochs=...).
    config.total_steps = config_dict.placeholder(int)
    config.total_epochs = config_dict.placeholder(float)
    # Decides what is unset, in the preset folder: encoder, image size, length (docs/recipes.md).
    config.budget_minutes = config_dict.placeholder(float)  # that the whole run may take
    config.checkpoint = ""  # start from the networks of this run, export or file
    config.checkpoint_every_steps = 1000
    config.keep_checkpoints = 3  # the newest
    config.keep_every_steps = 0  # those at its multiples stay for good; 0: none
    config.accept_changes = False  # go on in a workdir of another config
    config.plugins = ()  # modules to import, which register parts: "('my_lab.parts',)"
    config.log_every_steps = 100

    config.data = _data()
    config.model = _model()
    config.objective = _objective()
    config.collapse = _collapse()
    config.optimizer = _optimizer()
    config.augment = ml_collections.ConfigDict()
    config.augment.crop = ml_collections.ConfigDict()
    config.augment.crop.enabled = True  # False: the largest square, the same for both views
    config.augment.crop.min_area = 0.08
    config.augment.crop.max_area = 1.0
    config.augment.crop.method = "cubic"  # cubic | linear; of images in memory
    config.augment.view1 = _view(blur_probability=1.0, solarize_probability=0.0)
    config.augment.view2 = _view(blur_probability=0.1, solarize_probability=0.2)
    config.probe = ml_collections.ConfigDict()
    config.probe.every_steps = 5000
    config.probe.max_images = 20_000
    config.probe.k = 20
    config.probe.temperature = 0.1
    config.gallery = ml_collections.ConfigDict()
    config.gallery.max_images = 5000  # of the evaluation split, on the report's map; 0: no pictures
    config.wandb_project = ""  # of Weights & Biases, to log there too; needs '.[wandb]'
    return config


def _data() -> ml_collections.ConfigDict:
    data = ml_collections.ConfigDict()
    data.name = "imagenet2012"
    data.dir = ""  # images, or prepared TFDS sets (empty: $TFDS_DATA_DIR or its default)
    data.train_split = "train"
    data.eval_split = "test"
    data.image_size = 224
    data.mean = config_dict.placeholder(tuple)  # of the channels; unset: measured
    data.std = config_dict.placeholder(tuple)
    data.max_bad_share = 0.01  # of the training images; with more the run stops
    data.labels = "folders"  # folders | none | a CSV file with the columns file,label
    data.threads = 0  # that read and decode; 0: as many as processors
    data.workers = 0  # processes to do so in; 0: none, threads only
    return data


def _model() -> ml_collections.ConfigDict:
    model = ml_collections.ConfigDict()
    model.encoder = "resnet50"
    model.width_multiplier = 1
    model.resnet_v2 = False
    model.stem = "imagenet"  # imagenet | cifar | cifar_margin | patch
    model.zero_init_residual = True  # as the reference's code; the paper: False
    model.padding = "same"  # same | torch (and its shortcuts): loads into torchvision as it is
    model.norm = "batch"  # batch | group | layer | none: of the encoder
    model.head_norm = "batch"  # the same, of projector and predictor
    model.norm_groups = 16  # of a group norm
    model.weight_standardization = False  # of convolutions, and of hidden layers of heads
    model.projector_hidden_size = 4096
    model.projector_hidden_layers = 1  # 0: linear
    model.projector_output_size = 256
    # Batch norm at the end of the projector: none | batch_scale (no offset) | batch_plain (neither)
    model.projector_output_norm = "none"
    model.predictor = "mlp"  # mlp | linear | directpred | directcopy | none
    model.predictor_hidden_size = 4096
    model.predictor_hidden_layers = 1
    model.head_bias = False  # of the last layers of the heads; the paper, appendix J.2: True
    model.bn_decay_rate = 0.9
    model.bn_eps = 1e-5
    model.bn_group_size = config_dict.placeholder(int)  # devices with common statistics; unset: all
    # Of convolutions and linear layers in training: float32 | bfloat16; unset, as in presets of
    # ImageNet: bfloat16 on GPUs and TPUs. A run keeps what it began with.
    model.dtype = "float32"
    model.remat = False  # compute residual blocks again for the gradient instead of storing them
    return model


def _objective() -> ml_collections.ConfigDict:
    """Which method; docs/methods.md says what each is."""
    objective = ml_collections.ConfigDict()
    objective.name = "byol"  # a row of byol_jax/objectives/table.py; each has settings of its own
    # Heads, optimizer and schedules where the method is typed and they are not: method (as its
    # authors published them) | preset (as here). A run keeps what it began with.
    objective.recipe = "method"
    objective.predictor = config_dict.placeholder(bool)  # unset: as the method has it
    objective.target = config_dict.placeholder(str)  # ema | copy | frozen | stop_gradient | none
    objective.base_target_ema = 0.996
    objective.target_ema_schedule = "cosine"  # cosine (to 1) | constant
    objective.target_init = "drawn"  # drawn by itself | online: equal to that network
    _objective_settings(objective)
    return objective


def _objective_settings(objective: ml_collections.ConfigDict) -> None:
    """A section for each objective that has keys of its own."""
    names = "byol infonce simclr moco_v2 moco_v3 barlow_twins vicreg swav dino ssl_hsic raft"
    for name in names.split():
        objective[name] = ml_collections.ConfigDict()
    objective.byol.normalization = "l2"  # l2 | layer_norm | batch_norm | none: before comparing
    objective.infonce.temperature = 0.1  # alpha of the paper's equation 8
    objective.infonce.weight = 1.0  # beta, of negatives; 0 with predictor and target ema is BYOL
    objective.simclr.temperature = 0.1
    objective.moco_v2.temperature = 0.2
    objective.moco_v2.queue_size = 65536  # a multiple of batch_size
    objective.moco_v3.temperature = 1.0
    objective.barlow_twins.redundancy_weight = 0.0051  # lambda
    objective.barlow_twins.scale = 0.024  # of the whole loss
    objective.vicreg.invariance_weight = 25.0
    objective.vicreg.variance_weight = 25.0
    objective.vicreg.covariance_weight = 1.0
    objective.swav.temperature = 0.1
    objective.swav.epsilon = 0.05  # of Sinkhorn's assignments
    objective.swav.iterations = 3
    objective.swav.prototypes = 3000
    objective.swav.frozen_steps = 313  # in which prototypes stay as drawn
    objective.swav.queue_size = 0  # a multiple of batch_size; for small batches: 3840
    objective.swav.queue_start_steps = 0  # before which no embedding is kept
    objective.dino.student_temperature = 0.1
    objective.dino.teacher_temperature = 0.04
    objective.dino.center_momentum = 0.9
    objective.ssl_hsic.features = 512  # of its kernels, drawn in every step
    objective.ssl_hsic.regularization_weight = 3.0
    objective.raft.alignment_weight = 1.0
    objective.raft.escape_weight = 1.0


def _collapse() -> ml_collections.ConfigDict:
    """Of projections, at every log; beyond one of the limits, nothing is learned."""
    collapse = ml_collections.ConfigDict()
    collapse.action = "warn"  # warn | stop
    collapse.patience = 3  # logs in a row
    collapse.min_feature_std = 0.1
    collapse.min_effective_rank = 2.0
    collapse.max_target_cosine = 0.995
    return collapse


def _optimizer() -> ml_collections.ConfigDict:
    optimizer = ml_collections.ConfigDict()
    optimizer.name = "lars"  # each optimizer has settings of its own, below
    optimizer.multipliers = ""  # of the learning rate, by module, such as predictor=10
    optimizer.warmup_steps = config_dict.placeholder(int)  # as total_steps: counts if set
    optimizer.warmup_epochs = 10.0
    optimizer.lars = ml_collections.ConfigDict()
    optimizer.lars.base_learning_rate = 0.2  # x batch_size / 256, as for the others
    optimizer.lars.weight_decay = 1.5e-6
    optimizer.lars.momentum = 0.9
    optimizer.lars.trust_coefficient = 1e-3
    optimizer.sgd = ml_collections.ConfigDict()
    optimizer.sgd.base_learning_rate = 0.05
    optimizer.sgd.weight_decay = 5e-4
    optimizer.sgd.momentum = 0.9
    optimizer.adamw = ml_collections.ConfigDict()
    optimizer.adamw.base_learning_rate = 5e-4
    optimizer.adamw.weight_decay = 1e-6
    optimizer.adamw.b1 = 0.9
    optimizer.adamw.b2 = 0.999
    return optimizer


def _view(*, blur_probability: float, solarize_probability: float) -> ml_collections.ConfigDict:
    view = ml_collections.ConfigDict()
    view.flip_probability = 0.5
    view.jitter_probability = 0.8
    view.brightness = 0.4
    view.contrast = 0.4
    view.saturation = 0.2
    view.hue = 0.1
    view.grayscale_probability = 0.2
    view.blur_probability = blur_probability
    view.blur_sigma_min = 0.1
    view.blur_sigma_max = 2.0
    view.solarize_probability = solarize_probability
    view.solarize_threshold = 0.5
    view.extra = ()  # of yours, by name, after all others: "('my_noise',)"; see plugins
    return view


def _patterns(config: ml_collections.ConfigDict) -> None:
    config.batch_size = 64
    config.total_steps = 1600
    config.checkpoint_every_steps = 400
    config.log_every_steps = 50
    config.data.name = "patterns"
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.image_size = 32
    config.model.encoder = "micro_resnet"
    config.model.stem = "patch"
    config.model.projector_hidden_size = 256
    config.model.projector_output_size = 64
    config.model.predictor_hidden_size = 256
    config.objective.base_target_ema = 0.99
    config.optimizer.warmup_steps = 160
    config.optimizer.adamw.base_learning_rate = 0.012
    config.optimizer.lars.base_learning_rate = 2.0
    config.optimizer.lars.weight_decay = 1e-6
    config.optimizer.lars.trust_coefficient = 0.003
    config.augment.crop.min_area = 0.4
    config.augment.crop.method = "linear"
    for view in (config.augment.view1, config.augment.view2):
        view.jitter_probability = 1.0
        view.brightness = 0.2
        view.saturation = 0.8
        view.hue = 0.5
        view.grayscale_probability = 0.5
        view.blur_probability = 0.0
    config.probe.every_steps = 400
    config.gallery.max_images = 1000


def _cifar10(config: ml_collections.ConfigDict) -> None:
    _patterns(config)
    config.total_steps = 6000
    config.checkpoint_every_steps = 1000
    config.log_every_steps = 100
    config.data.name = "cifar10"
    config.objective.base_target_ema = 0.98
    config.optimizer.name = "adamw"
    config.optimizer.warmup_steps = 600
    config.optimizer.adamw.base_learning_rate = 0.008
    config.augment.crop.min_area = 0.3
    for view in (config.augment.view1, config.augment.view2):
        view.jitter_probability = 0.8
        view.brightness = 0.4
        view.saturation = 0.2
        view.hue = 0.1
        view.grayscale_probability = 0.2
    config.probe.every_steps = 1000


def _folder(config: ml_collections.ConfigDict) -> None:
    """What is unset follows from images, machine and time (docs/recipes.md)."""
    config.batch_size = config_dict.placeholder(int)
    config.data.name = "folder"
    config.data.image_size = config_dict.placeholder(int)
    for key in ("encoder", "stem", "padding"):
        config.model[key] = config_dict.placeholder(str)
    for key in ("width_multiplier", "projector_hidden_size", "projector_output_size"):
        config.model[key] = config_dict.placeholder(int)
    config.model.predictor_hidden_size = config_dict.placeholder(int)
    config.model.resnet_v2 = config_dict.placeholder(bool)
    config.objective.base_target_ema = config_dict.placeholder(float)
    config.optimizer.warmup_epochs = config_dict.placeholder(float)
    for key in ("base_learning_rate", "weight_decay", "trust_coefficient"):
        config.optimizer.lars[key] = config_dict.placeholder(float)
    config.augment.crop.min_area = config_dict.placeholder(float)
    for view in (config.augment.view1, config.augment.view2):
        for key in (
            *("jitter_probability", "brightness", "contrast", "saturation", "hue"),
            *("grayscale_probability", "blur_probability", "solarize_probability"),
        ):
            view[key] = config_dict.placeholder(float)
    config.probe.every_steps = 1000
    config.probe.max_images = 5000


def _imagenette(config: ml_collections.ConfigDict) -> None:
    config.batch_size = 256
    config.total_epochs = 1000.0
    config.data.name = "imagenette/160px-v2"
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.eval_split = "validation"
    config.data.image_size = 128
    config.model.encoder = "resnet18"
    config.optimizer.lars.base_learning_rate = 2.0


def _imagenet(config: ml_collections.ConfigDict, epochs: float, **settings: float) -> None:
    """Settings that are left out are the reference's for the length that the run has."""
    config.model.dtype = config_dict.placeholder(str)
    config.data.train_split = "train_and_valid"  # 1,281,167 images, as the reference
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.total_epochs = float(epochs)
    paper_settings.assign(config, settings)


def _small_batch(config: ml_collections.ConfigDict) -> None:
    _imagenet(config, 1000.0, **paper_settings.SMALL_BATCH._asdict())
    config.batch_size = 512


def _ablation(config: ml_collections.ConfigDict, batch_size: int = 4096) -> None:
    """The batch is a micro-batch, and changes no setting (paper, appendix F.2)."""
    _imagenet(config, 300.0, **paper_settings.ABLATION._asdict())
    config.accumulate, rest = divmod(config.batch_size, max(batch_size, 1))
    if rest or not batch_size:
        raise config_lib.UsageError(f"{config.preset}: {batch_size} does not divide 4096.")


PRESETS = {
    "patterns": _patterns,
    "cifar10": _cifar10,
    "folder": _folder,
    "imagenette": _imagenette,
    "imagenet-40": lambda config: _imagenet(config, 40.0),
    "imagenet-100": lambda config: _imagenet(config, 100.0),
    "imagenet-300": lambda config: _imagenet(config, 300.0),
    "imagenet-1000": lambda config: _imagenet(config, 1000.0),
    "imagenet-small-batch": _small_batch,
    "imagenet-ablation": _ablation,
}
