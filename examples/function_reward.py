"""A reward of your own in three lines: a function.

    PYTHONPATH=examples lightning fit --config conf/quickstart.yaml --config examples/function_reward.yaml

It gets one response with its image group, text, answer and masks, and gives a number in [0, 1], or None where there is
nothing to judge. As the whole reward it is one option: `--model.init_args.reward function_reward.brief`.
"""

from lightning_sal.rewards import Response


def brief(response: Response) -> float:
    """1 for a reasoning of at most 40 words, and less for a longer one."""
    return min(1.0, 40 / max(1, len(response.answer.reasoning.split())))
