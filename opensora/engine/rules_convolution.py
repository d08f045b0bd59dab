"""Gradients of OpenVINO's convolutions and of what resizes images."""

from opensora.engine.rules import Rule

CONVOLUTION_RULES: dict[str, Rule] = {}
