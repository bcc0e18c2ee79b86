"""Torsos: the papers' counts, independent computations of their parts, and what must not matter."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from agents.alphago.network import PolicyNetwork, ValueNetwork
from rlkit.bf16 import kernels_for
from rlkit.nn.board import BOARD_BACKBONES, PlainTower, ResidualTower
from rlkit.nn.convolution import BACKBONES, VGG, VGG_LAYERS, Impala, Residual, ResNet
from rlkit.nn.dense import Dense
from rlkit.nn.heads import Classifier, DuelingHead, LinearHead
from rlkit.nn.mlp import ACTIVATIONS, MLP
from rlkit.nn.nature import NatureCNN

IMAGENET, CIFAR, ATARI = (3, 224, 224), (3, 32, 32), (4, 84, 84)
VGG_COUNTS = {
    "A": 132_863_336,
    "A-LRN": 132_863_336,
    "B": 133_047_848,
    "C": 133_638_952,
    "D": 138_357_544,
    "E": 143_667_240,
}
VGG_DEPTHS = {"A": 11, "A-LRN": 11, "B": 13, "C": 16, "D": 16, "E": 19}
RESNET_COUNTS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
CIFAR_COUNTS = {20: 269_722, 56: 853_018, 110: 1_727_962}

# A narrow one of each kind; images are neither square nor a multiple of the strides.
IN_SHAPE = (3, 37, 42)
TORSOS = {
    "nature": lambda: NatureCNN(IN_SHAPE, width=0.25),
    "nature without dense": lambda: NatureCNN(IN_SHAPE, width=0.25, dense=0),
    "impala": lambda: Impala(IN_SHAPE, width=0.25),
    "vgg": lambda: VGG(IN_SHAPE, "A", width=1 / 16, dense=(256, 256)),
    "vgg lrn": lambda: VGG(IN_SHAPE, "8 L M 16 16/1 M", dense=(), activation="gelu"),
    "vgg batch norm": lambda: VGG(IN_SHAPE, "B", width=1 / 16, dense=(256,), norm="batch"),
    "resnet without norm": lambda: ResNet(IN_SHAPE, 18, width=1 / 16, norm="none", pooled=False),
    "resnet bottleneck": lambda: ResNet(IN_SHAPE, 50, width=1 / 16),
    "resnet cifar": lambda: ResNet(IN_SHAPE, 14, width=0.5, form="cifar"),
    "resnet cifar without norm": lambda: ResNet(IN_SHAPE, 8, width=0.5, form="cifar", norm="none"),
}
every_torso = pytest.mark.parametrize("name", TORSOS)


def count(model):
    return sum(p.numel() for p in model.parameters())


def lively(model):
    """Zeros become small numbers: what begins at zero lets no gradient through."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def photos(*lead, shape=IN_SHAPE):
    return torch.randint(0, 256, (*lead, *shape), dtype=torch.uint8)


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# -- counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", VGG_LAYERS)
def test_vgg_counts_and_depths(letter):
    with torch.device("meta"):
        model = Classifier(VGG(IMAGENET, letter), 1000)
    assert count(model) == VGG_COUNTS[letter]
    assert sum(isinstance(part, (nn.Conv2d, nn.Linear)) for part in model.modules()) == VGG_DEPTHS[letter]


@pytest.mark.parametrize("depth", RESNET_COUNTS)
def test_resnet_counts_and_depths(depth):
    with torch.device("meta"):
        torso = ResNet(IMAGENET, depth)
        model = Classifier(torso, 1000)
    assert count(model) == RESNET_COUNTS[depth]
    assert 2 + sum(len(block.convs) for block in torso.blocks) == depth


@pytest.mark.parametrize("depth", CIFAR_COUNTS)
def test_cifar_counts_and_depths(depth):
    with torch.device("meta"):
        torso = ResNet(CIFAR, depth, form="cifar")
        model = Classifier(torso, 10)
    assert count(model) == CIFAR_COUNTS[depth]
    assert 2 + sum(len(block.convs) for block in torso.blocks) == depth
    assert not any(block.shortcut for block in torso.blocks)


def test_impala_count():
    with torch.device("meta"):
        assert count(Impala(ATARI)) == 1_089_232


def test_alphago_counts():
    with torch.device("meta"):
        assert count(PolicyNetwork(19, channels=192, layers=12, has_pass=False)) == 3_882_793
        assert count(ValueNetwork(19, channels=192, layers=12)) == 3_980_162
        assert count(BOARD_BACKBONES["alphago"](48, 192, 3)) == count(PlainTower(48, 192, 7))


def test_alphago_zero_count():
    """A batch normalisation has two numbers where ours has a bias; every third block of ours has a dense layer more."""
    with torch.device("meta"):
        tower = ResidualTower(17, 256, 19)
    pooled = sum(count(block.pooled) for block in tower.blocks if block.pooled is not None)
    policy = 256 * 2 + 2 * 2 + (722 * 362 + 362)
    value = 256 + 2 + (361 * 256 + 256) + (256 + 1)
    assert count(tower) - pooled + 39 * 256 + policy + value == 22_827_877


# -- what all torsos keep ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [(36, 36), (37, 58), (84, 84)])
@pytest.mark.parametrize("channels", [1, 4])
def test_backbones_by_name_give_out_features(name, size, channels):
    torso = BACKBONES[name]((channels, *size), width=1 / 16)
    out = torso(photos(2, shape=(channels, *size)))
    assert out.shape == (2, torso.out_features) and out.dtype == torch.float32


@every_torso
def test_every_parameter_receives_a_gradient(name):
    torso = lively(TORSOS[name]())
    torso(photos(8)).square().sum().backward()
    without = [key for key, p in torso.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert all(p.grad.isfinite().all() for p in torso.parameters())


@every_torso
def test_images_do_not_depend_on_the_batch(name):
    torso = lively(TORSOS[name]())
    x = photos(5)
    torso(x)  # moves the running statistics
    torso.eval()
    whole = torso(x)
    close(torch.cat([torso(one[None]) for one in x]), whole, tolerance=1e-4)
    assert (whole[0] - whole[1]).abs().max() > 1e-3  # and they do depend on the image


@every_torso
def test_bytes_are_read_as_fractions(name):
    torso = lively(TORSOS[name]()).eval()
    x = photos(3)
    close(torso(x), torso(x.float() / 255), tolerance=1e-4)
    close(torso(x.to(memory_format=torch.channels_last)), torso(x), tolerance=1e-4)


@every_torso
def test_leading_dimensions(name):
    torso = lively(TORSOS[name]()).eval()
    x = photos(2, 3)
    out = torso(x)
    assert out.shape == (2, 3, torso.out_features)
    for t in range(3):
        close(out[:, t], torso(x[:, t]), tolerance=1e-4)
    close(torso(x[:, :, None]), out[:, :, None], tolerance=1e-4)
    assert torso(x[:0]).shape == (0, 3, torso.out_features)


@every_torso
def test_bf16_forward_and_backward(name):
    torso = lively(TORSOS[name]()).eval()
    x = photos(4)
    exact = torso(x)
    with kernels_for("bf16", x.device), torch.autocast("cpu", torch.bfloat16):
        out = torso(x)
        out.float().square().sum().backward()
    assert (out.float() - exact).norm() < 0.05 * exact.norm()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in torso.parameters())


@every_torso
def test_copies_and_saved_weights_give_the_same(name):
    torso = lively(TORSOS[name]())
    x = photos(2)
    torso(x)
    torso.eval()
    other = TORSOS[name]().eval()
    assert not torch.equal(other(x), torso(x))
    other.load_state_dict({k: v.clone().contiguous() for k, v in torso.state_dict().items()})
    copied = copy.deepcopy(torso)
    for one in (other, copied):
        assert torch.equal(one(x), torso(x))
        convs = [part.weight for part in one.modules() if isinstance(part, nn.Conv2d)]
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convs)
    nn.init.zeros_(next(copied.parameters()))
    assert next(torso.parameters()).any()


@every_torso
def test_nothing_is_written_over_the_images(name):
    x = photos(2).float() / 255
    before = x.clone()
    TORSOS[name]()(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "linear"])
def test_width_scales_every_layer(name):
    def sizes(width):
        with torch.device("meta"):
            torso = BACKBONES[name]((4, 64, 64), width=width)
        return [len(part.weight) for part in torso.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]

    paper = sizes(1)
    assert sizes(0.5) == [n // 2 for n in paper] and sizes(2) == [2 * n for n in paper]
    assert set(sizes(1e-6)) == {1}


# -- sizes and names that do not work ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build, least",
    [
        (lambda shape: NatureCNN(shape, width=0.1), 36),
        (lambda shape: VGG(shape, "A", width=1 / 64, dense=(8,)), 32),
        (lambda shape: VGG(shape, "4 M 4 M", dense=()), 4),
        (lambda shape: VGG(shape, "4", dense=()), 1),
        (lambda shape: Impala(shape, width=0.1), 1),
        (lambda shape: ResNet(shape, 18, width=1 / 64, norm="none", pooled=False), 1),
        (lambda shape: ResNet(shape, 8, width=1 / 16, form="cifar", norm="none"), 1),
    ],
)
def test_the_least_size(build, least):
    for height, width in ((least, least), (least, least + 3), (least + 1, least)):
        torso = build((2, height, width))
        assert torso(torch.randn(3, 2, height, width)).shape == (3, torso.out_features)
    if least > 1:
        for height, width in ((least - 1, least), (least + 9, least - 1)):
            with pytest.raises(ValueError, match=f"at least {least} x {least}, not {height} x {width}"):
                build((2, height, width))


@pytest.mark.parametrize("layers", ["F", "a", "64 N", "64/2 M", "64 -3", "3.5", "M 64", "L 64", "M", "", " "])
def test_vgg_refuses_what_are_no_layers(layers):
    with pytest.raises(ValueError, match=r"VGG.*D's"):
        VGG(CIFAR, layers, dense=())


@pytest.mark.parametrize(
    "depth, form", [(19, "imagenet"), (20, "imagenet"), (18, "cifar"), (2, "cifar"), (0, "cifar"), (-4, "cifar")]
)
def test_resnet_refuses_depths_that_do_not_exist(depth, form):
    with pytest.raises(ValueError, match=f"{form} form has .*, not {depth}"):
        ResNet(CIFAR, depth, form=form)


# -- parts, computed another way ---------------------------------------------------------------------------------------


def test_response_normalisation_of_the_paper():
    """Krizhevsky et al. 2012, section 3.3: b_i = a_i / (k + alpha sum_j a_j^2)^beta over the n = 5 nearest channels."""
    torso = VGG((3, 4, 5), "7 L", dense=())
    x = 300 * torch.randn(2, 3, 4, 5)
    a = torch.relu(F.conv2d(x, torso.conv1.weight, torso.conv1.bias, padding=1))
    expected = torch.empty_like(a)
    for i in range(7):
        near = a[:, max(0, i - 2) : i + 3]
        expected[:, i] = a[:, i] / (2 + 1e-4 * near.square().sum(1)) ** 0.75
    assert (expected / a.clamp(min=1e-9)).min() < 0.1  # else the sum did not matter
    close(torso(x), expected.flatten(1), tolerance=1e-4)


def test_vgg_line_by_hand():
    torso = VGG((3, 6, 7), "4 5/1 M 6", dense=(9,))
    x = torch.randn(2, 3, 6, 7)
    convs = [part for part in torso.modules() if isinstance(part, nn.Conv2d)]
    assert [conv.kernel_size for conv in convs] == [(3, 3), (1, 1), (3, 3)]
    (dense,) = [part for part in torso.modules() if isinstance(part, nn.Linear)]
    y = F.conv2d(x, convs[0].weight, convs[0].bias, padding=1).relu()
    y = F.max_pool2d(F.conv2d(y, convs[1].weight, convs[1].bias).relu(), 2)
    y = F.conv2d(y, convs[2].weight, convs[2].bias, padding=1).relu()
    close(torso(x), F.linear(y.flatten(1), dense.weight, dense.bias).relu())


def test_vgg_dropout_only_in_training():
    torso = VGG((3, 8, 8), "8 M", dense=(512,), dropout=0.5)
    x = torch.rand(4, 3, 8, 8)
    dropped, kept = torso(x), torso.eval()(x)
    alive = kept > 0
    assert torch.equal(torso(x), kept)
    assert 0.35 < (dropped[alive] == 0).float().mean() < 0.65
    close(dropped[alive & (dropped > 0)], 2 * kept[alive & (dropped > 0)])


def test_impala_by_hand():
    """Espeholt et al. 2018, figure 3: conv, max 3x3 stride 2, two residual blocks; three times; ReLU, dense, ReLU."""
    torso = Impala((3, 17, 20), width=0.5)
    x = torch.randn(2, 3, 17, 20)

    def conv(layer, y):
        return F.conv2d(y, layer.weight, layer.bias, padding=1)

    y = x
    for first, rest in zip([torso.conv1, *torso.convs], torso.residuals, strict=True):
        y = F.max_pool2d(conv(first, y), 3, stride=2, padding=1)
        for one, two in ((rest[0], rest[1]), (rest[2], rest[3])):
            y = y + conv(two, conv(one, y.relu()).relu())
    assert y.shape == (2, 16, 3, 3)
    close(torso(x), F.linear(y.relu().flatten(1), torso.dense.weight, torso.dense.bias).relu())


def silent(block):
    """A block whose own convolutions say nothing: the shortcut is what is left."""
    for parameter in block.convs[-1].parameters():
        nn.init.zeros_(parameter)
    return block


def test_padding_shortcut_by_hand():
    block = silent(Residual(2, 5, stride=2, bottleneck=False, norm="none", shortcut="pad"))
    x = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    expected = torch.zeros(1, 5, 2, 2)
    expected[0, 0] = torch.tensor([[0.0, 2.0], [8.0, 10.0]])
    expected[0, 1] = torch.tensor([[12.0, 14.0], [20.0, 22.0]])
    assert torch.equal(block(x), expected)
    assert torch.equal(block(-x - 1), torch.zeros_like(expected))  # the ReLU comes after the sum


def test_projecting_shortcut_by_hand():
    block = silent(Residual(2, 3, stride=2, bottleneck=False, norm="none", shortcut="project"))
    x = torch.randn(1, 2, 4, 4)
    weight, bias = block.shortcut[0].weight[:, :, 0, 0], block.shortcut[0].bias
    expected = torch.einsum("oc,bcij->boij", weight, x[:, :, ::2, ::2]) + bias[:, None, None]
    close(block(x), expected.relu())


def test_residual_block_with_norms_by_hand():
    block = Residual(4, 4, stride=1, bottleneck=False, norm="batch", shortcut="project").eval()
    assert block.shortcut is None
    for norm in block.norms:
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(3, 4, 5, 6)

    def part(i, y):
        y, norm = F.conv2d(y, block.convs[i].weight, padding=1), block.norms[i]
        y = (y - norm.running_mean[:, None, None]) / (norm.running_var + norm.eps).sqrt()[:, None, None]
        return y * norm.weight[:, None, None] + norm.bias[:, None, None]

    close(block(x), (x + part(1, part(0, x).relu())).relu())


def test_bottleneck_strides_in_its_3x3():
    block = Residual(8, 4, stride=2, bottleneck=True, norm="batch", shortcut="project")
    assert [conv.kernel_size[0] for conv in block.convs] == [1, 3, 1]
    assert [conv.stride[0] for conv in block.convs] == [1, 2, 1]
    assert [conv.out_channels for conv in block.convs] == [4, 4, 16]
    assert block(torch.randn(2, 8, 7, 6)).shape == (2, 16, 4, 3)


@pytest.mark.parametrize("form, depth", [("imagenet", 18), ("imagenet", 50), ("cifar", 20)])
def test_new_blocks_without_norm_are_the_identity(form, depth):
    torso = ResNet(IN_SHAPE, depth, width=1 / 16, form=form, norm="none")
    assert all(part.bias is not None for part in torso.modules() if isinstance(part, nn.Conv2d))
    same = [block for block in torso.blocks if block.shortcut is None and not block.more and block.stride == 1]
    assert len(same) >= 4
    for block in same:
        x = torch.rand(2, block.convs[0].in_channels, 5, 5)
        assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    "build", [lambda: VGG(IN_SHAPE, "E", width=0.25, dense=()), lambda: ResNet(IN_SHAPE, 34, 0.5, norm="none")]
)
def test_first_weights_keep_the_signal(build):
    """He et al. 2015: the mean square of what leaves a deep network is about that of what comes in."""
    torso = build()
    x = torch.randn(8, *IN_SHAPE)
    ratio = torso(x).square().mean() / x.square().mean()
    assert 0.02 < ratio < 50
    for part in torso.modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() > 4000 and part.weight.any():
            assert part.weight.std().item() == pytest.approx((2 / part.weight[0].numel()) ** 0.5, rel=0.1)


def test_pooled_resnet_is_the_mean_of_the_map():
    torch.manual_seed(1)
    pooled = ResNet(IN_SHAPE, 18, width=1 / 16).eval()
    whole = ResNet(IN_SHAPE, 18, width=1 / 16, pooled=False).eval()
    whole.load_state_dict(pooled.state_dict())
    x = photos(2)
    assert whole.out_features == 4 * pooled.out_features
    close(whole(x).unflatten(1, (-1, 2, 2)).mean((2, 3)), pooled(x))


# -- dense layers and heads --------------------------------------------------------------------------------------------


@pytest.fixture
def by_onednn(monkeypatch):
    """Products of any size, not only large ones."""
    monkeypatch.setattr("rlkit.nn.dense.SMALL", 0)


def products(layer, x, grad_of):
    x = x.clone().requires_grad_()
    y = layer(x)
    grad_of(y).backward()
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("grad_of", [torch.sum, lambda y: (2 * y[:, ::2]).sum()], ids=["expanded", "strided"])
def test_dense_equals_linear_for_odd_gradients(bias, batch, grad_of, by_onednn):
    dense, linear = Dense(6, 4, bias=bias), nn.Linear(6, 4, bias=bias)
    linear.load_state_dict(dense.state_dict())
    x = torch.randn(6, batch).t()  # not contiguous
    for a, b in zip(products(dense, x, grad_of), products(linear, x, grad_of), strict=True):
        close(a, b)


def test_dense_that_is_frozen_passes_the_gradient_on(by_onednn):
    dense = Dense(6, 4).requires_grad_(False)
    x = torch.randn(3, 6, requires_grad=True)
    dense(x).sum().backward()
    close(x.grad, dense.weight.sum(0).expand(3, 6))
    assert dense.weight.grad is None


def test_dense_has_no_second_derivative_and_says_so(by_onednn):
    dense, x = Dense(6, 4), torch.randn(3, 6, requires_grad=True)
    (grad,) = torch.autograd.grad(dense(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.square().sum().backward()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_by_hand(activation):
    model = MLP((2, 3, 4), hidden=(32, 15), activation=activation)
    x = photos(6, shape=(2, 3, 4))
    function = {"gelu": F.gelu, "none": lambda y: y}.get(activation) or getattr(torch, activation)
    y = x.flatten(1) / 255
    for layer in (part for part in model.layers if isinstance(part, nn.Linear)):
        y = function(y @ layer.weight.t() + layer.bias)
    assert y.shape == (6, model.out_features) == (6, 15)
    close(model(x), y)
    close(model(x.float() / 255), y)
    model(x).square().sum().backward()
    assert all(p.grad.any() for p in model.parameters())


def test_mlp_without_layers_and_with_dropout():
    x = torch.randn(4, 6)
    assert torch.equal(MLP((6,), hidden=())(x), x)
    model = MLP((6,), hidden=(200,), dropout=0.5)
    assert torch.equal(model.eval()(x), model(x))
    assert (model.train()(x) == 0).float().mean() > 0.6  # a half by the ReLU, and half of the others


@pytest.mark.parametrize("head", [LinearHead, DuelingHead])
def test_heads_give_fp32(head):
    model = nn.Sequential(NatureCNN(IN_SHAPE, width=0.1), head(51, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(photos(2, 2)).shape == (2, 2, 3)
        assert model(photos(2)).dtype == torch.float32


def test_a_classifier_gives_its_torso_to_an_agent():
    torso = NatureCNN(IN_SHAPE, width=0.1)
    model = Classifier(torso, 10)
    x = photos(2)
    assert model(x).shape == (2, 10)
    other = NatureCNN(IN_SHAPE, width=0.1)
    weights = {k.removeprefix("torso."): v for k, v in model.state_dict().items() if k.startswith("torso.")}
    other.load_state_dict(weights)
    assert torch.equal(other(x), torso(x))
