"""The autoencoder of Open-Sora-Plan v1.0: other kinds of layers, described by its config.json alone."""

import numpy as np
import pytest

from opensora.engine import open_engine
from opensora.models import CausalVAE
from opensora.models.causal_vae.config import CausalVAEConfig, weight_shapes
from opensora.models.causal_vae.policy import VAEPolicy
from tests import reference
from tests.reference.formula import weights_of

CONFIG = CausalVAEConfig.from_dict(reference.read_json("vae_v10/config"))


@pytest.mark.usefixtures("operator_mode")
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("engine", [pytest.param("mindspore", marks=pytest.mark.slow), "openvino"])
def test_numbers_are_the_reference(engine: str, chunked: bool) -> None:
    opened = open_engine(engine)
    formula = reference.read_json("vae_v10/full")["weights_formula"]
    vae = CausalVAE(CONFIG, opened.weights(weights_of(weight_shapes(CONFIG), formula)), opened)
    vae.policy = VAEPolicy(chunked=chunked)
    expected = reference.load("vae_v10/full")
    posterior = vae.encode(opened.input(expected["video.input"]))
    pixels = vae.decode(opened.input(expected["video.z"]))
    for found, name in ((posterior.moments, "moments"), (pixels, "decoded")):
        np.testing.assert_allclose(opened.output(found), expected[f"video.{name}"], rtol=1e-4, atol=1e-4)


def test_the_release_has_its_parameters() -> None:
    shapes = weight_shapes(CausalVAEConfig.from_dict(RELEASE))
    assert (len(shapes), sum(int(np.prod(shape)) for shape in shapes.values())) == (248, 229_169_895)


RELEASE = {
    **reference.read_json("vae_v10/config"),
    "hidden_size": 128,
    "hidden_size_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
}
