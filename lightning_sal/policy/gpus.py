"""What data sheets of GPUs state, and which share of it is reached."""

from __future__ import annotations

from dataclasses import dataclass

REACHED_ARITHMETIC = 0.4  # of a data sheet's FLOP/s: an assumption, as training of models of this size reports it
REACHED_BANDWIDTH = 0.7  # of its bandwidth, likewise


@dataclass(frozen=True)
class GPU:
    """One GPU as its data sheet has it.

    Args:
        tflops: Dense bfloat16 arithmetic with float32 sums, without sparsity, in 10^12 operations a second.
        bandwidth: Of its memory, in 10^12 bytes a second.
        memory: In GB of 10^9 bytes; None where it is not known.
    """

    tflops: float
    bandwidth: float
    memory: float | None = None


GPUS = {
    "B200": GPU(2250, 8.0, 180),
    "H200": GPU(989, 4.8, 141),
    "H100": GPU(989, 3.35, 80),  # SXM
    "H100-PCIe": GPU(756, 2.0, 80),
    "A100": GPU(312, 2.039, 80),  # SXM
    "A100-40GB": GPU(312, 1.555, 40),
    "L40S": GPU(362, 0.864, 48),
    "RTX-6000-Ada": GPU(364, 0.96, 48),
    "A6000": GPU(155, 0.768, 48),
    "RTX-5090": GPU(209.5, 1.792, 32),
    "RTX-4090": GPU(165.2, 1.008, 24),
}
