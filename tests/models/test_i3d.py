import mindspore as ms
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from opensora.models.i3d import BRANCHES, CHAIN, I3D

CLASSES = 5


def random_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The published names in small: two to four channels a branch, norms that are no identity."""
    weights: dict[str, np.ndarray] = {}

    def unit(name: str, channels_in: int, channels_out: int, size: int) -> None:
        weights[f"{name}.conv3d.weight"] = rng.normal(
            0, (channels_in * size**3) ** -0.5, (channels_out, channels_in, *[size] * 3)
        )
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.bn.{part}"] = rng.uniform(0.5, 1.5, channels_out)
        weights[f"{name}.bn.num_batches_tracked"] = np.array(7)

    width = 3
    for name, layer in CHAIN.items():
        if name.startswith("Conv"):
            assert layer is not None and isinstance(layer[0], int)
            unit(name, width, 4, layer[0])
            width = 4
        elif name.startswith("Mixed"):
            inner = {"b1b": 2, "b2b": 3}
            for branch, size in BRANCHES.items():
                channels = {"b0": 2, "b1a": 2, "b1b": 4, "b2a": 3, "b2b": 2, "b3b": 2}[branch]
                unit(f"{name}.{branch}", inner.get(branch, width), channels, size)
            width = 10
    weights["logits.conv3d.weight"] = rng.normal(size=(CLASSES, width, 1, 1, 1))
    weights["logits.conv3d.bias"] = rng.normal(size=CLASSES)
    return {name: value.astype(np.float32) if value.ndim else value for name, value in weights.items()}


def padded(x: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    """Zeros as TensorFlow's "same": enough for ceil(length / stride) outputs, the odd one at the end."""
    margins = []
    for length, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((-(-length // s) - 1) * s + k - length, 0)
        margins.append((total // 2, total - total // 2))
    return np.pad(x, ((0, 0), (0, 0), *margins))


def windows(x: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    view = sliding_window_view(padded(x, kernel, stride), kernel, (2, 3, 4))  # type: ignore[call-overload]
    return np.asarray(view[:, :, :: stride[0], :: stride[1], :: stride[2]])


def unit(w: dict[str, np.ndarray], name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
    kernel = w[f"{name}.conv3d.weight"]
    y = np.einsum("nctxyijk,ocijk->notxy", windows(x, kernel.shape[2:], (stride,) * 3), kernel, optimize=True)
    norm = {
        part: w[f"{name}.bn.{part}"][:, None, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    y = (y - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
    return np.maximum(y, 0)


def by_definition(w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    for name, layer in CHAIN.items():
        if layer is None:
            pooled = windows(x, (3, 3, 3), (1, 1, 1)).max((-3, -2, -1))
            branches = [unit(w, f"{name}.b0", x), unit(w, f"{name}.b1b", unit(w, f"{name}.b1a", x))]
            branches += [unit(w, f"{name}.b2b", unit(w, f"{name}.b2a", x)), unit(w, f"{name}.b3b", pooled)]
            x = np.concatenate(branches, 1)
        elif name.startswith("MaxPool"):
            assert isinstance(layer[0], tuple) and isinstance(layer[1], tuple)
            x = windows(x, layer[0], layer[1]).max((-3, -2, -1))
        else:
            assert isinstance(layer[1], int)
            x = unit(w, name, x, layer[1])
    # The published head: averages over 2 x h x w windows, a 1x1x1 convolution, then the mean over time.
    pairs = sliding_window_view(x.mean((3, 4)), 2, axis=2).mean(-1)  # type: ignore[call-overload]
    scores = (
        np.einsum("nct,oc->not", pairs, w["logits.conv3d.weight"][:, :, 0, 0, 0])
        + w["logits.conv3d.bias"][:, None]
    )
    return np.asarray(scores.mean(2))


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return random_weights(np.random.default_rng(0))


def test_scores_by_an_independent_formula(weights: dict[str, np.ndarray]) -> None:
    # Odd and even lengths, so that the padding is uneven somewhere; three frames are left at the head.
    video = np.random.default_rng(1).uniform(-1, 1, (2, 3, 18, 34, 45)).astype(np.float32)
    expected = by_definition(
        {name: value.astype(np.float64) for name, value in weights.items()}, video.astype(np.float64)
    )
    assert expected.std() > 0.01
    np.testing.assert_allclose(
        I3D.from_weights(weights)(ms.Tensor(video)).asnumpy(), expected, rtol=0, atol=2e-5
    )


def test_names_are_the_published() -> None:
    names = [name for name in random_weights(np.random.default_rng(0)) if not name.endswith("tracked")]
    # 57 convolutions, each with a norm of four vectors, and the classifier, as in pytorch-i3d's state dict.
    assert len(names) == 57 * 5 + 2
    assert {
        "Conv3d_1a_7x7.conv3d.weight",
        "Mixed_4f.b2b.bn.running_var",
        "Mixed_5c.b3b.conv3d.weight",
        "logits.conv3d.bias",
    } <= set(names)


def test_what_is_missing_or_of_another_network_is_named(weights: dict[str, np.ndarray]) -> None:
    lacking = {
        name: value
        for name, value in weights.items()
        if name not in ("Mixed_4b.b1a.bn.bias", "logits.conv3d.bias")
    }
    with pytest.raises(ValueError, match=r"lack 2 tensors \(Mixed_4b\.b1a\.bn\.bias, logits\.conv3d\.bias\)"):
        I3D.from_weights(lacking)
    flow = weights["Conv3d_1a_7x7.conv3d.weight"][:, :2]
    with pytest.raises(
        ValueError, match=r"Conv3d_1a_7x7\.conv3d\.weight of I3D has the shape \[4, 2, 7, 7, 7\]"
    ):
        I3D.from_weights({**weights, "Conv3d_1a_7x7.conv3d.weight": flow})
