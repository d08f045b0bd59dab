"""The blocks of AMT, pure functions of their weights.

A flow (B, 4, H, W) holds two motions, each as x and y in pixels of its own size: from the wanted frame to the
first frame, then to the second. Frames and their features are stacked on the batch axis: those of the first
frames, then those of the second.
"""

from opensora.engine.block import Block, Weights
from opensora.nn import F, Tensor
from opensora.nn.window import around


def convolve(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """A convolution whose padding keeps the size, up to its stride."""
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w[f"{name}.bias"], around(weight.shape[2], stride))


def convolve_prelu(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    return F.prelu(convolve(w, f"{name}.0", x, stride), w[f"{name}.1.weight"])


def scaled(x: Tensor, numerator: int, denominator: int = 1) -> Tensor:
    """The image or features at another size."""
    height, width = x.shape[2:]
    return F.resize(x, height * numerator // denominator, width * numerator // denominator)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """The features (B, C, H, W) at the end of the flow (B, 2, H, W)."""
    places = F.pixel_grid(*image.shape[2:]) + flow
    return F.sample(image, places[:, 0], places[:, 1], border=True)


def warp_pair(pair: Tensor, flow: Tensor) -> Tensor:
    """Both frames (2B, C, H, W) warped by a flow (B, 4, H, W): (B, 2C, H, W)."""
    batch = flow.shape[0]
    return F.concat((warp(pair[:batch], flow[:, :2]), warp(pair[batch:], flow[:, 2:])), 1)


def residual_block(w: Weights, name: str, x: Tensor, side: int) -> Tensor:
    """The last `side` channels take two convolutions more (IFRNet, arXiv:2205.14620)."""
    y = x
    for wide, narrow in (("conv1", "conv2"), ("conv3", "conv4")):
        y = convolve_prelu(w, f"{name}.{wide}", y)
        main = y.shape[1] - side
        y = F.concat((y[:, :main], convolve_prelu(w, f"{name}.{narrow}", y[:, main:])), 1)
    return F.prelu(x + convolve(w, f"{name}.conv5", y), w[f"{name}.prelu.weight"])


def decode(w: Weights, x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C', 2H, 2W)."""
    x = residual_block(w, "convblock.1", convolve_prelu(w, "convblock.0", x), side)
    return F.upconv2d(x, w["convblock.2.weight"], w["convblock.2.bias"])


# --- encoders ---


@Block
def centre(w: Weights, frame0: Tensor, frame1: Tensor) -> tuple[Tensor, Tensor]:
    """The frames, stacked, without their mean: (2B, 3, H, W), and the mean (B, 1, 1, 1)."""
    mean = F.mean(F.concat((frame0, frame1), 2), (1, 2, 3), True)
    return F.concat((frame0 - mean, frame1 - mean), 0), mean


@Block
def resized(w: Weights, x: Tensor, height: int, width: int) -> Tensor:
    return F.resize(x, height, width)


@Block
def matching_features(w: Weights, x: Tensor) -> Tensor:
    """(2B, 3, H, W) -> (2B, 128, H/8, W/8), the features that are correlated."""
    x = F.relu(instance_norm(convolve(w, "conv1", x, 2)))
    for layer, stride in (("layer1", 1), ("layer2", 2), ("layer3", 2), ("layer3_2", 1)):
        x = matching_residual(w, f"{layer}.0", x, stride)
        x = matching_residual(w, f"{layer}.1", x, 1)
    return convolve(w, "conv2", x)


def matching_residual(w: Weights, name: str, x: Tensor, stride: int) -> Tensor:
    y = F.relu(instance_norm(convolve(w, f"{name}.conv1", x, stride)))
    y = F.relu(instance_norm(convolve(w, f"{name}.conv2", y)))
    if f"{name}.downsample.0.weight" in w:
        x = instance_norm(convolve(w, f"{name}.downsample.0", x, stride))
    return F.relu(x + y)


def instance_norm(x: Tensor) -> Tensor:
    """Every channel of every image has mean 0 and variance 1 (arXiv:1607.08022)."""
    rows, channels, height, width = x.shape
    return F.reshape(F.layer_norm(F.reshape(x, (rows * channels, height * width)), 1e-5), x.shape)


@Block
def context_features(w: Weights, x: Tensor) -> tuple[Tensor, ...]:
    """(2B, 3, H, W) -> features at 1/2, 1/4, 1/8 and 1/16 of the size."""
    levels = []
    for level in (1, 2, 3, 4):
        x = convolve_prelu(w, f"pyramid{level}.0", x, 2)
        x = convolve_prelu(w, f"pyramid{level}.1", x)
        levels.append(x)
    return tuple(levels)


# --- correlation ---


@Block
def correlate(w: Weights, features: Tensor, levels: int) -> tuple[Tensor, ...]:
    """All products of the first frame's features with the second's, then the reverse; features (2B, C, h, w).

    Each direction is a pyramid of `levels` tensors (RAFT, arXiv:2003.12039). At level i the other frame's
    features are averaged, and the products are (B*h*w, 1, h / 2**i, w / 2**i).
    """
    batch = features.shape[0] // 2
    first, second = features[:batch], features[batch:]
    return *pyramid(first, second, levels), *pyramid(second, first, levels)


def pyramid(queries: Tensor, keys: Tensor, levels: int) -> tuple[Tensor, ...]:
    batch, channels, height, width = queries.shape
    rows = matrices(queries) * channels**-0.5
    found = []
    for _ in range(levels):
        columns = matrices(keys)
        products = [F.product(rows[i], columns[i]) for i in range(batch)]
        found.append(F.reshape(F.concat(products, 0), (batch * height * width, 1, *keys.shape[2:])))
        keys = F.halve(keys)
    return tuple(found)


def matrices(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h*w, C)."""
    batch, channels, height, width = x.shape
    return F.reshape(F.transpose(x, (0, 2, 3, 1)), (batch, height * width, channels))


@Block
def look_up(
    w: Weights, flow: Tensor, time: Tensor, radius: int, reduction: int, *pyramids: Tensor
) -> tuple[Tensor, Tensor]:
    """The correlations (B, lookup_channels, h, w) around the place to which a flow leads, and the flow there.

    flow: (B, 4, reduction * h, reduction * w) for correlated features of size (h, w). time: (B, 1, 1, 1),
    between 0 and 1. Motion is taken as straight: that from the wanted frame is scaled up to that between the
    two frames. The factors are those of the published weights, and exact in the middle.
    """
    if reduction > 1:
        flow = scaled(flow, 1, reduction) / reduction
    grid, levels = F.pixel_grid(*flow.shape[2:]), len(pyramids) // 2
    to_second, to_first = grid + flow[:, 2:] / time, grid + flow[:, :2] / (1 - time)
    found = (*window(pyramids[:levels], to_second, radius), *window(pyramids[levels:], to_first, radius))
    return F.concat(found, 1), flow


def window(levels: tuple[Tensor, ...], places: Tensor, radius: int) -> list[Tensor]:
    """Correlations (B, (2 * radius + 1)**2, h, w) at each level, around the places (B, 2, h, w) of level 0.

    The first index of the window moves x.
    """
    batch, _, height, width = places.shape
    side = 2 * radius + 1
    offsets = F.transpose(F.pixel_grid(side, side) - radius, (0, 1, 3, 2))  # (1, 2, side, side)
    centres = F.reshape(F.transpose(places, (0, 2, 3, 1)), (batch * height * width, 2, 1, 1))
    found = []
    for level, correlation in enumerate(levels):
        around = centres / 2**level + offsets
        values = F.sample(correlation, around[:, 0], around[:, 1])  # (B*h*w, 1, side, side)
        values = F.reshape(values, (batch, height, width, side * side))
        found.append(F.transpose(values, (0, 3, 1, 2)))
    return found


# --- decoders: from coarse to fine, each doubles the size ---


@Block
def first_decoder(w: Weights, pair: Tensor, time: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Features of both frames at 1/16 -> flow and features of the wanted frame at 1/8."""
    batch = time.shape[0]
    times = F.broadcast_to(time, (batch, 1, *pair.shape[2:]))
    x = decode(w, F.concat((pair[:batch], pair[batch:], times), 1), side)
    return x[:, :4], x[:, 4:]


@Block
def decoder(w: Weights, features: Tensor, pair: Tensor, flow: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The flow and features of the wanted frame at twice the size. pair: features of both frames."""
    x = decode(w, F.concat((features, warp_pair(pair, flow), flow), 1), side)
    return x[:, :4] + 2 * scaled(flow, 2), x[:, 4:]


@Block
def last_decoder(
    w: Weights, features: Tensor, pair: Tensor, flow: Tensor, side: int, num_flows: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The outputs at full size, for n = num_flows candidates.

    They are the flows to the first and to the second frame (B, 2n, H, W), the masks (B, n, H, W) and the
    colours to add (B, 3n, H, W).
    """
    x = decode(w, F.concat((features, warp_pair(pair, flow), flow), 1), side)
    flow, n = 2 * scaled(flow, 2), num_flows
    flows0 = x[:, : 2 * n] + F.concat((flow[:, :2],) * n, 1)
    flows1 = x[:, 2 * n : 4 * n] + F.concat((flow[:, 2:],) * n, 1)
    return flows0, flows1, F.sigmoid(x[:, 4 * n : 5 * n]), x[:, 5 * n :]


@Block
def refine(
    w: Weights, features: Tensor, flow: Tensor, correlation: Tensor, reduction: int
) -> tuple[Tensor, Tensor]:
    """Corrections of the features (B, C, H, W) and of their flow, from the correlation.

    flow and correlation have the size (H / reduction, W / reduction), at which the block works.
    """
    seen = leaky_convolution(w, "convc2", leaky_convolution(w, "convc1", correlation))
    moved = leaky_convolution(w, "convf2", leaky_convolution(w, "convf1", flow))
    x = leaky_convolution(w, "conv", F.concat((seen, moved), 1))
    small = features if reduction == 1 else scaled(features, 1, reduction)
    x = two_convolutions(w, "gru", F.concat((x, flow, small), 1))
    change, flow_change = two_convolutions(w, "feat_head", x), two_convolutions(w, "flow_head", x)
    if reduction > 1:
        change, flow_change = scaled(change, reduction), reduction * scaled(flow_change, reduction)
    return change, flow_change


def leaky_convolution(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.leaky_relu(convolve(w, name, x), 0.1)


def two_convolutions(w: Weights, name: str, x: Tensor) -> Tensor:
    return convolve(w, f"{name}.2", leaky_convolution(w, f"{name}.0", x))


@Block
def add(
    w: Weights, features: Tensor, flow: Tensor, change: Tensor, flow_change: Tensor
) -> tuple[Tensor, Tensor]:
    return features + change, flow + flow_change


@Block
def enlarged(w: Weights, x: Tensor, factor: int) -> Tensor:
    return scaled(x, factor)


@Block
def full_size(
    w: Weights, flows0: Tensor, flows1: Tensor, masks: Tensor, colours: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The result of `last_decoder` in small frames, for frames of this size."""
    factor = height / masks.shape[2]
    sizes = height, width
    return (
        F.resize(flows0, *sizes) * factor,
        F.resize(flows1, *sizes) * factor,
        F.resize(masks, *sizes),
        F.resize(colours, *sizes),
    )


@Block
def combine(
    w: Weights,
    pair: Tensor,
    mean: Tensor,
    flows0: Tensor,
    flows1: Tensor,
    masks: Tensor,
    colours: Tensor,
) -> Tensor:
    """The frame (B, 3, H, W) in 0..1: the mean of what each pair of flows gives, and a correction."""
    batch, num_flows = masks.shape[:2]
    frames = []
    for n in range(num_flows):
        mask = masks[:, n : n + 1]
        first = warp(pair[:batch], flows0[:, 2 * n : 2 * n + 2])
        second = warp(pair[batch:], flows1[:, 2 * n : 2 * n + 2])
        frames.append(mask * first + (1 - mask) * second + mean + colours[:, 3 * n : 3 * n + 3])
    every = F.concat(frames, 1)
    correction = convolve(w, "2", F.prelu(convolve(w, "0", every), w["1.weight"]))
    return F.clamp(sum(frames[1:], frames[0]) / num_flows + correction, 0.0, 1.0)
