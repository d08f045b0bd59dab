import mindspore as ms
import numpy as np

from opensora.nn.flat import Layout, square_sum

ARRAYS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.float32(7.0),
    "c": np.ones((2, 1, 2), np.float32),
}


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


def test_the_sum_of_squares_is_exact_and_the_same_every_time() -> None:
    values = np.random.default_rng(0).standard_normal((3, 2**18 + 1)).astype(np.float32)
    sums = {square_sum(ms.Tensor(values)) for _ in range(20)}
    assert len(sums) == 1
    np.testing.assert_allclose(sums.pop(), np.square(values.astype(np.float64)).sum(), rtol=1e-12)
    assert square_sum(ms.Tensor(np.float32(-3.0))) == 9.0
