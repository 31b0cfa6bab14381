"""Our FCN-32s against d2l's, written in PyTorch."""

import json

import numpy as np
import pytest
from support.d2l_reference import d2l_kernel

from fcn_keras.models.fcn import build_fcn

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


def test_logits_agree(torch_fcn, tmp_path):
    backbone, score, upscore = torch_fcn
    write_timm_folder(backbone, tmp_path)
    ours = build_fcn("resnet18", CLASSES, weights=str(tmp_path))
    weights = {"score_32": score, "upscore_32": upscore}
    for name, layer in weights.items():
        kernel = layer.weight.detach().numpy().transpose(2, 3, 1, 0)
        ours.get_layer(name).set_weights([kernel, layer.bias.detach().numpy()])

    image = np.random.default_rng(0).uniform(0, 255, (2, 320, 480, 3)).astype("float32")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = ((image / 255 - mean) / std).transpose(0, 3, 1, 2).astype("float32")
    with torch.no_grad():
        theirs = torch_fcn(torch.from_numpy(normalised)).numpy().transpose(0, 2, 3, 1)
    assert theirs.shape == (2, 320, 480, CLASSES)
    assert theirs.std() > 0.1  # logits that differ from pixel to pixel
    assert np.abs(ours(image) - theirs).max() < 1e-3
