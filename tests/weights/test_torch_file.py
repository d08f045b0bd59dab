"""PyTorch's files: those of torch.save are read exactly, those of an attacker are rejected and not run."""

import logging
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from opensora.weights import TensorFile, WeightsError
from opensora.weights.torch_file import TorchFile
from tests.weights.crafted import Called, archive, good, pickled, storage, tensor

# Made once with PyTorch 2.13: a state_dict of every type, of views (transposed, rows, every_other, permuted,
# tied) and a Parameter. legacy: without the zip.
# nested.pt: {"epoch": 3, "model": ..., "ema": ..., "opt": None, "lr": 1e-4}.
# nested_twice.pt: {"state_dict": {"model": ...}}.
TORCH = Path(__file__).parent.parent / "reference" / "torch"


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin", "protocol4.bin"])
def test_every_type_and_view(name: str) -> None:
    file, expected = TorchFile(TORCH / name), TensorFile(TORCH / "expected.safetensors")
    assert set(file.entries) == set(expected.entries)
    for tensor_name, entry in expected.entries.items():
        loaded, wanted = file.read(tensor_name), expected.read(tensor_name)
        assert (
            file.entries[tensor_name][:2] == entry[:2]
            and loaded.dtype == wanted.dtype
            and loaded.shape == wanted.shape
        )
        np.testing.assert_array_equal(loaded, wanted, err_msg=tensor_name)
        if entry.shape and entry.shape[0] > 1:
            np.testing.assert_array_equal(file.read_rows(tensor_name, np.array([1, 0])), wanted[[1, 0]])


def test_the_moving_average_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "opensora"):
        average = TorchFile(TORCH / "nested.pt")
    assert "using the weights under ema" in caplog.text
    plain = TorchFile(TORCH / "nested_twice.pt")
    assert list(average.entries) == list(plain.entries) and "0.weight" in average.entries
    np.testing.assert_array_equal(average.read("0.weight"), plain.read("0.weight"))


def test_a_file_put_together_by_hand_is_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(TorchFile(good(tmp_path / "x.bin")).read("x"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"x": Called("os", "system", "touch {}")}, r"the global 'os\.system'"),
        ({"x": Called("builtins", "eval", "open('{}', 'w')")}, r"the global 'builtins\.eval'"),
        (
            {"x": Called("torch._utils", "_rebuild_device_tensor_from_numpy", 1)},
            "the global 'torch._utils._rebuild_device",
        ),
        ({"x": Called("torch", "FloatStorage", 9)}, r"a call of torch\.FloatStorage"),
        ({"x": Called("collections", "OrderedDict", ((1, 2),))}, "an OrderedDict with arguments"),
        (b"cposix\nsystem\nX\x05\x00\x00\x00lstest\x85R", r"the global 'posix\.system'"),
        (b"X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93", r"the global 'posix\.system'"),
        (b"(X\x02\x00\x00\x00lsios\nsystem\n", "the pickle instruction b'i'"),
        ({("a",): 1}, "a dict with a tuple for a key"),
        ({"x": tensor(storage(), shape=(2, 4))}, "reaches beyond its storage of 6 items"),
        ({"x": tensor(storage(), offset=1)}, "reaches beyond its storage"),
        ({"x": tensor(storage(), shape=(1000000, 1000000), strides=(0, 0))}, "reaches beyond its storage"),
        ({"x": tensor(storage(), strides=(-3, 1))}, "a size that is not one"),
        ({"x": tensor(storage(), shape=(6,))}, "strides do not fit"),
        ({"x": tensor("0")}, "a tensor without a storage"),
        ({"x": tensor(storage(kind=b"ctorch\nfloat32\n"))}, r"a storage of torch\.float32"),
    ],
)
def test_anything_but_tensors_is_refused_and_never_run(tmp_path: Path, content: object, fault: str) -> None:
    archive(tmp_path / "x.bin", content)
    with pytest.raises(WeightsError, match=fault):
        TorchFile(tmp_path / "x.bin")
    assert os.listdir(tmp_path) == ["x.bin"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({}, "holds no tensors under names"),
        ([1, 2], "holds no tensors under names"),
        ({"x": tensor(storage(count=7))}, "the values of x are missing"),
        ({"x": tensor(storage(key="../0"))}, "the values of x are missing"),
        (b"h\x07", "its pickle cannot be followed"),
        (b"T\xff\xff\xff\xff", "its pickle cannot be followed"),
        (b"\x85", "its pickle cannot be followed"),
        (b"]q\x00" + b"h\x00h\x00\x86q\x00" * 200 + b"h\x00\x93", "its pickle cannot be followed"),
        # Lists that hold one another: endless to print or to walk through, and must be neither.
        (b"]q\x00h\x00a", "holds no tensors"),
        (b"}q\x00X\x03\x00\x00\x00emah\x00s", "holds no tensors"),
    ],
)
def test_damaged_content(tmp_path: Path, content: object, fault: str) -> None:
    archive(tmp_path / "x.bin", content)
    with pytest.raises(WeightsError, match=fault):
        TorchFile(tmp_path / "x.bin")


def test_a_pickle_of_nothing_but_instructions_is_not_followed_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opensora.weights.pickled.LONGEST", 2**12)
    archive(tmp_path / "x.bin", b"}" * 2**13)
    with pytest.raises(WeightsError, match="its pickle cannot be followed"):
        TorchFile(tmp_path / "x.bin")


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "model/../../outside", "model\\..\\outside"])
def test_a_path_outside(tmp_path: Path, name: str) -> None:
    archive(tmp_path / "x.bin", {"x": tensor(storage())}, **{name: b""})
    with pytest.raises(WeightsError, match="a path outside of it"):
        TorchFile(tmp_path / "x.bin")


def test_a_zip_bomb(tmp_path: Path) -> None:
    """A million zeros deflate to a thousand bytes; overlapping members make a file seem larger."""
    archive(tmp_path / "x.bin", {"x": tensor(storage())}, bytes(10**6), zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="is compressed or encrypted"):
        TorchFile(tmp_path / "x.bin")

    data = good(tmp_path / "y.bin").read_bytes()
    central = data.index(b"PK\x01\x02")
    (tmp_path / "y.bin").write_bytes(_with_size(data, data.index(b"PK\x01\x02", central + 4), 10**9))
    with pytest.raises(WeightsError, match="truncated or damaged"):
        TorchFile(tmp_path / "y.bin")


def _with_size(data: bytes, record: int, size: int) -> bytes:
    """The archive with another size, packed and unpacked, in this record of its list of members."""
    return data[: record + 20] + size.to_bytes(4, "little") * 2 + data[record + 28 :]


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_truncated(tmp_path: Path, name: str, part: float) -> None:
    data = (TORCH / name).read_bytes()
    (tmp_path / "x.bin").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(WeightsError, match=r"x\.bin"):
        TorchFile(tmp_path / "x.bin")


def test_other_archives_and_machines(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as file:
        file.writestr("a/readme.txt", "")
    with pytest.raises(WeightsError, match=r"has no data\.pkl"):
        TorchFile(tmp_path / "x.bin")
    archive(tmp_path / "y.bin", {"x": tensor(storage())}, **{"model/byteorder": b"big"})
    with pytest.raises(WeightsError, match="big-endian"):
        TorchFile(tmp_path / "y.bin")
    (tmp_path / "z.bin").write_bytes(pickled({"x": 1}))
    with pytest.raises(WeightsError, match="not a file of PyTorch that can be read"):
        TorchFile(tmp_path / "z.bin")


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin", "protocol4.bin"])
def test_flipped_bytes_load_or_are_refused(tmp_path: Path, name: str) -> None:
    original = (TORCH / name).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        data = bytearray(original)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] = rng.integers(256)
        (tmp_path / "x.bin").write_bytes(data)
        try:
            file = TorchFile(tmp_path / "x.bin")
            for tensor_name in file.entries:
                assert file.read(tensor_name).nbytes <= 8 * len(data)
        except WeightsError:
            refused += 1
    assert 0 < refused < 40
