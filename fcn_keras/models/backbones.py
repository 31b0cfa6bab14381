"""ResNet backbones: a normalised image -> its features at strides 8, 16 and 32."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import keras

from fcn_keras.errors import UserError
from fcn_keras.files.published import SUFFIXES, fetched, published, require_kind
from fcn_keras.files.torch_networks import backbone_of, read_backbone
from fcn_keras.models.dilation import dilate
from fcn_keras.models.torchvision_names import set_torchvision_weights
from fcn_keras.models.untrusted import check_preset_folder

STRIDES = (8, 16, 32)
SECONDS_TO_ANSWER = 5  # else a host counts as unreachable
# He et al. 2016, table 1: residual blocks in each of the four stages.
RESNETS = {
    "resnet18": ("basic_block", [2, 2, 2, 2]),
    "resnet34": ("basic_block", [3, 4, 6, 3]),
    "resnet50": ("bottleneck_block", [3, 4, 6, 3]),
    "resnet101": ("bottleneck_block", [3, 4, 23, 3]),
    "resnet152": ("bottleneck_block", [3, 8, 36, 3]),
    # For tests where the size of the network does not matter: 8 to 64 filters. TensorFlow 2.21
    # crashes in its gradient on whole photographs (convolutions with fewer than 16 channels).
    "tiny": ("basic_block", [1, 1, 1, 1]),
}


def build_features(
    backbone="resnet18", weights: str | None = "imagenet", dtype=None, dilated: bool = False
) -> keras.Model:
    """Builds the feature extractor of an FCN.

    Args:
        backbone: A key of `RESNETS`, or a KerasHub backbone with
            `pyramid_outputs` P3, P4 and P5, which keeps its own weights.
        weights: `"imagenet"` for KerasHub's preset, `None` for random values, a
            directory that holds a preset (KerasHub's own layout or timm's),
            a `.pth` file of torchvision's ResNet or FCN, a published one, such as
            `"torchvision/resnet18"`, or any preset name or handle that KerasHub
            understands, such as `"hf://timm/resnet18.tv_in1k"`.
        dtype: Dtype policy of its layers; Keras's global policy where `None`.
        dilated: Whether all features have stride 8 (see `dilate`).

    Returns:
        A model named `"backbone"` that maps normalised images `(B, H, W, 3)` to
        a list of features: `(B, ceil(H / s), ceil(W / s), channels)` for s in
        8, 16, 32, or three times 8.

    Raises:
        UserError: If the backbone is unknown or cannot be dilated, or the weights are not available
            or belong to another network.
    """
    name = backbone if isinstance(backbone, str) else None
    if name:
        backbone = _load_resnet(name, weights, dtype or keras.config.dtype_policy())
    pyramid = getattr(backbone, "pyramid_outputs", {})
    missing = {"P3", "P4", "P5"} - set(pyramid)
    if missing:
        raise UserError(
            "A backbone needs features at strides 8, 16 and 32, in KerasHub's pyramid_outputs "
            f"P3, P4 and P5. Received: {backbone!r} without {sorted(missing)}."
        )
    # A plain functional model: saved files then load without KerasHub's classes.
    outputs = [pyramid[level] for level in ("P3", "P4", "P5")]
    features = keras.Model(backbone.input, outputs, name="backbone")
    features = _narrowed(features) if name == "tiny" else features
    return dilate(features) if dilated else features


def _narrowed(features: keras.Model) -> keras.Model:
    """A copy whose convolutions have an eighth of the filters: KerasHub's begin with 64."""

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            config["filters"] //= 8
        return type(layer).from_config(config)

    return keras.models.clone_model(features, clone_function=clone)


def _load_resnet(name: str, weights: str | None, dtype):
    if name not in RESNETS:
        offered = ", ".join(name for name in RESNETS if name != "tiny")
        raise UserError(f"backbone must be one of {offered}. Received: {name!r}.")
    from keras_hub.models import ResNetBackbone  # takes a second to import

    if weights is None:
        return _random_resnet(name, dtype)
    if name == "tiny":
        raise UserError(f"tiny has random weights only. Use --weights none. Received: {weights!r}.")
    if published(weights) or (weights.endswith(SUFFIXES) and not os.path.isdir(weights)):
        return _load_torch_resnet(name, weights, dtype)
    if weights == "imagenet" and name == "resnet34":
        raise UserError(
            "KerasHub has no ImageNet weights for resnet34. Use --weights torchvision/resnet34, "
            "none, or another backbone."
        )
    preset = f"resnet_{name.removeprefix('resnet')}_imagenet" if weights == "imagenet" else weights
    resnet = _load_preset(ResNetBackbone, preset, name, dtype)
    _require_form(name, weights, resnet.block_type, list(resnet.stackwise_num_blocks))
    return resnet


def _random_resnet(name: str, dtype):
    from keras_hub.models import ResNetBackbone

    block_type, num_blocks = RESNETS[name]
    return ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=num_blocks,
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=block_type,
        dtype=dtype,
    )


def _load_torch_resnet(name: str, weights: str, dtype):
    """A ResNet with the weights of a `.pth` file, or published ones."""
    if published(weights):
        require_kind(weights, is_fcn=False)
        path = fetched(weights)
    else:
        path = Path(weights)
    state = read_backbone(path)
    _require_form(name, weights, *backbone_of(state, prefix=""))
    resnet = _random_resnet(name, dtype)
    set_torchvision_weights(resnet, state, path)
    return resnet


def _require_form(name: str, weights: str, block_type: str, num_blocks: list[int]) -> None:
    form = block_type, num_blocks
    if form != RESNETS[name]:
        owner = next((other for other in RESNETS if RESNETS[other] == form), None)
        remedy = f"Choose --backbone {owner}." if owner else "Choose other weights."
        raise UserError(
            f"The weights {weights!r} belong to a network other than {name}: they have "
            f"{block_type}s {num_blocks}, not {RESNETS[name][0]}s {RESNETS[name][1]}. {remedy}"
        )


def _load_preset(backbone_class, preset: str, name: str, dtype):
    known = "://" in preset or os.path.isdir(preset) or preset in backbone_class.presets
    if not known:
        raise UserError(
            "weights must be 'imagenet', 'none', a directory with a preset, a .pth file, a name "
            "that fcn-keras weights list prints, or a KerasHub handle. Received: "
            f"{preset!r}, which is none of these."
        )
    try:
        if os.path.isdir(preset):
            check_preset_folder(preset)
        with _no_long_retries(preset):
            return backbone_class.from_preset(preset, dtype=dtype)
    except UserError:
        raise
    except Exception as error:  # each hub raises its own kinds of errors
        if os.path.isdir(preset):
            raise UserError(
                f"{preset}: not a usable preset of {name} ({type(error).__name__}). It needs "
                "KerasHub's config.json and model.weights.h5, or timm's config.json and "
                "model.safetensors."
            ) from error
        reason = "no connection" if isinstance(error, OSError) else type(error).__name__
        raise UserError(
            f"The weights {preset!r} could not be downloaded ({reason}). Use --weights none for "
            "random values, or --weights DIR with a directory created on a connected machine by:",
            "  python -c 'import keras_hub; keras_hub.models.ResNetBackbone.from_preset("
            f'"{preset}").save_to_preset("DIR")\'',
        ) from error


@contextlib.contextmanager
def _no_long_retries(preset: str):
    """Uses only the local cache if a preset's host does not answer.

    The clients of Hugging Face and Kaggle would retry for minutes, and Kaggle's forever if
    something accepts the connection and then stays silent.
    """
    import huggingface_hub.constants as hub
    import requests

    own_scheme = "://" in preset and not preset.startswith("kaggle://")
    host = hub.ENDPOINT if preset.startswith("hf://") else "https://www.kaggle.com"
    offline, unreachable = hub.HF_HUB_OFFLINE, None
    proxies = {name: os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY")}
    try:
        if not os.path.isdir(preset) and (host == hub.ENDPOINT or not own_scheme):
            requests.head(host, timeout=SECONDS_TO_ANSWER)
    except requests.RequestException as error:
        hub.HF_HUB_OFFLINE, unreachable = True, error
        # Kaggle's client has no such switch, so it gets a port that refuses.
        os.environ.update(dict.fromkeys(proxies, "http://127.0.0.1:9"))
    try:
        yield
    except Exception as error:
        raise (unreachable or error) from error
    finally:
        hub.HF_HUB_OFFLINE = offline
        for name, value in proxies.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
