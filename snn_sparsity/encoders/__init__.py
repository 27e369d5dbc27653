"""Spike codes: images [N,C,H,W] in, spikes [T,N,C,H,W] out."""

from snn_sparsity.encoders.base import Encoder
from snn_sparsity.encoders.direct import DirectEncoder
from snn_sparsity.encoders.latency import LatencyEncoder
from snn_sparsity.encoders.phase import PhaseEncoder
from snn_sparsity.encoders.quantised import QuantisedEncoder
from snn_sparsity.encoders.rate import RateEncoder

__all__ = ["DirectEncoder", "Encoder", "LatencyEncoder", "PhaseEncoder", "QuantisedEncoder", "RateEncoder"]
