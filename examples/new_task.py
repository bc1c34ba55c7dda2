"""A task of your own: camouflaged object detection, the objects that one overlooks.

    lightning fit --config conf/real/sod.yaml --config examples/new_task.yaml
    lightning-sal segment photographs --task examples/new_task.py:COD

A task is one object. It is named by its file wherever a task is named: in the folders of a datamodule, and as `--task` of
the commands. Instruction, format reward, correctness, metrics (`val/cod/s_measure` and the like), logs and panels follow
from the object; so do folders of images and masks, by the layout that it names. An answer of another kind is a subclass of
`Task`: see new_answer.py and new_question.py.
"""

from lightning_sal.tasks import TagRegions

FORM = "<answer><rg>phrase</rg></answer>"
COD = TagRegions(  # each expression a part of one region; TagInstances would make each an instance
    name="cod",
    title="camouflaged object detection",
    instruction=f"What hides in this image? Say why it is hard to see, then name it: <think>reasons</think>{FORM}",
    brief=f"What hides in this image? Name it: {FORM}",
    tag="rg",
    semantic="forbidden",  # what hides is described, since its category alone finds what is easily seen
    layout="lightning_sal.datasets.sod.LAYOUT",  # a folder Imgs beside a folder GT, as CAMO, COD10K and NC4K have them
)
