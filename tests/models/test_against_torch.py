"""Our FCN-32s against d2l's, written in PyTorch."""

import copy
import json

import numpy as np
import pytest
from support.d2l_reference import d2l_kernel

from fcn_keras.data import load_split
from fcn_keras.data.augmentation import Augmentation
from fcn_keras.data.pipeline import training_batches
from fcn_keras.models.fcn import build_fcn
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.recipes import RECIPES
from fcn_keras.training.objectives import SegmentationCrossentropy
from fcn_keras.training.optimizers import make_optimizer

torch = pytest.importorskip("torch")
nn = torch.nn
CLASSES = 21


class BasicBlock(nn.Module):
    """Residual block of ResNet-18, with torchvision's and timm's parameter names."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths = [64, 64, 128, 256, 512]
        for stage in range(4):
            inputs, outputs = widths[stage], widths[stage + 1]
            blocks = [BasicBlock(inputs, outputs, 1 if stage == 0 else 2)]
            self.add_module(
                f"layer{stage + 1}", nn.Sequential(*blocks, BasicBlock(outputs, outputs, 1))
            )

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


@pytest.fixture(scope="module")
def torch_fcn():
    torch.manual_seed(0)
    backbone = ResNet18()
    for module in backbone.modules():  # statistics as after training, not 0 and 1
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    head = [
        nn.Conv2d(512, CLASSES, 1),
        nn.ConvTranspose2d(CLASSES, CLASSES, kernel_size=64, padding=16, stride=32),
    ]
    head[1].weight.data = torch.from_numpy(d2l_kernel(CLASSES, CLASSES, 64).astype("float32"))
    return nn.Sequential(backbone, *head).eval()


def write_timm_folder(backbone, folder):
    from safetensors.torch import save_file

    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    save_file(backbone.state_dict(), str(folder / "model.safetensors"))


def our_fcn(torch_fcn, folder):
    """Our network with the weights of PyTorch's."""
    backbone, score, upscore = torch_fcn
    write_timm_folder(backbone, folder)
    ours = build_fcn("resnet18", CLASSES, weights=str(folder))
    for name, layer in {"score_32": score, "upscore_32": upscore}.items():
        kernel = layer.weight.detach().numpy().transpose(2, 3, 1, 0)
        ours.get_layer(name).set_weights([kernel, layer.bias.detach().numpy()])
    return ours


def normalised(images):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scaled = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    return torch.from_numpy(scaled.astype("float32"))


def test_logits_agree(torch_fcn, tmp_path):
    ours = our_fcn(torch_fcn, tmp_path)
    image = np.random.default_rng(0).uniform(0, 255, (2, 320, 480, 3)).astype("float32")
    with torch.no_grad():
        theirs = torch_fcn(normalised(image)).numpy().transpose(0, 2, 3, 1)
    assert theirs.shape == (2, 320, 480, CLASSES)
    assert theirs.std() > 0.1  # logits that differ from pixel to pixel
    assert np.abs(ours(image) - theirs).max() < 1e-3


@pytest.mark.slow
def test_six_steps_of_the_chapter_agree(torch_fcn, tmp_path):
    """Losses, BatchNorm's averages and weights, on crops of the sample's pictures."""
    theirs = copy.deepcopy(torch_fcn).train()
    # An eighth of the recipe's rate: from random weights, float error grows fast at the whole.
    rate, decay = 0.004, 1e-6 / 0.004
    settings = RECIPES["voc2012"] | {"learning_rate": rate, "weight_decay": decay}
    ours, config = our_fcn(torch_fcn, tmp_path), TrainConfig(**settings)
    ours.compile(make_optimizer(config, ours, 6), SegmentationCrossentropy(), jit_compile=False)
    optimizer = torch.optim.SGD(theirs.parameters(), rate, weight_decay=decay)
    crops = training_batches(
        load_split("sample", "train"), Augmentation((96, 160)), 8, epochs=(0, 1), seed=0
    )
    losses = []
    for images, masks in crops.take(6).as_numpy_iterator():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(
            theirs(normalised(images)), torch.from_numpy(masks.astype("int64")), ignore_index=255
        )
        loss.backward()
        optimizer.step()
        losses.append((float(ours.train_on_batch(images, masks)), loss.item()))
        ours.reset_metrics()
    assert losses[-1][0] < 0.8 * losses[0][0]
    np.testing.assert_allclose(*np.transpose(losses), rtol=0.01)
    features, (backbone, score, upscore) = ours.get_layer("backbone"), theirs
    pairs = {"conv1_bn": backbone.bn1, "stack3_block1_2_bn": backbone.layer4[1].bn2}
    for name, norm in pairs.items():
        layer = features.get_layer(name)
        require_close(layer.gamma, norm.weight, 0.002)
        require_close(layer.moving_mean, norm.running_mean, 0.02)
        require_close(layer.moving_variance, norm.running_var, 0.02)
    for name, layer in {"score_32": score, "upscore_32": upscore}.items():
        require_close(ours.get_layer(name).kernel, layer.weight.permute(2, 3, 1, 0), 0.002)


def require_close(ours, theirs, share):
    """Requires that two arrays differ by less than a share of their norm."""
    ours, theirs = np.array(ours), theirs.detach().numpy()
    assert np.linalg.norm(ours - theirs) < share * np.linalg.norm(theirs)
