"""The logits of a decoder of a Bernoulli likelihood: behind its sigmoid, or computed from its probabilities."""

import numpy as np
from onnx import TensorProto

from training.importing.onnx_edits.chain import PREFIX, Chain
from training.importing.onnx_edits.decoder_outputs import find_end
from training.importing.options import Answers
from training.importing.source import SourceGraph

EPSILON = np.finfo(np.float32).epsneg
"""Smallest probability, and distance from 1 of the largest, that logits are computed from: both are finite."""


def find_logits(decoder: SourceGraph, answers: Answers) -> Chain | None:
    """Logits float32, in the layout of the decoder's image; None if it is not one of a Bernoulli likelihood.

    They are the input of the decoder's sigmoid, if there is one. If the decoder clamps, reshapes or transposes what the
    sigmoid returns, so are the logits. Without a sigmoid, they are log(p / (1 - p)).
    """
    output = decoder.outputs[answers.image_output]
    if answers.output == "image":
        return None
    if answers.output == "logits":
        return Chain(PREFIX + output, "logits").then("Cast", to=TensorProto.FLOAT)
    end, low, high, moves = find_end(decoder, answers.image_output)
    if end is None or end.op_type != "Sigmoid" or low >= 1 or high <= 0:
        probabilities = Chain(PREFIX + output, "logits").then("Cast", to=TensorProto.FLOAT)
        probabilities.then("Clip", np.float32(EPSILON), np.float32(1 - EPSILON))
        others = Chain(probabilities.tensor, "others").then("Neg").then("Add", np.float32(1)).then("Log")
        return probabilities.then("Log").minus(others)
    logits = Chain(PREFIX + end.input[0], "logits").then("Cast", to=TensorProto.FLOAT)
    if low > 0:
        logits.then("Max", np.float32(_logit(low)))
    if high < 1:
        logits.then("Min", np.float32(_logit(high)))
    for node in moves:
        logits.repeat(node)
    return logits


def _logit(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))
