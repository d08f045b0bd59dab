import mindspore as ms
import numpy as np

from opensora.nn.flat import Layout

ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32(7.0), "c": np.ones((2, 1, 2), np.float32)}


def test_a_vector_holds_the_tensors_in_order_and_gives_them_back() -> None:
    tensors = {name: ms.Tensor(value) for name, value in ARRAYS.items()}
    layout = Layout(tensors)
    vector = layout.pack(tensors)
    assert vector.asnumpy().tolist() == [0, 1, 2, 3, 4, 5, 7, 1, 1, 1, 1]
    for name, value in layout.unpack(vector).items():
        np.testing.assert_array_equal(value.asnumpy(), ARRAYS[name])
    for name, array in layout.unpack_arrays(vector).items():
        assert array.shape == ARRAYS[name].shape and np.array_equal(array, ARRAYS[name])


def test_names_beyond_the_layout_are_left_out() -> None:
    tensors = {name: ms.Tensor(value) for name, value in ARRAYS.items()}
    assert Layout({"c": tensors["c"]}).pack(tensors).shape == (4,)
