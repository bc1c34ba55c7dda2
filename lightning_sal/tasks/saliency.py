"""The saliency tasks: SOD, SIS and CoSOD, answered by referring expressions in tags."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_sal.samples import InstancePhrase
from lightning_sal.tasks.masks import InstanceTask, RegionTask
from lightning_sal.tasks.registry import register
from lightning_sal.tasks.tags import Expressions, TagTask


@dataclass(frozen=True, kw_only=True)
class TagRegions(TagTask, RegionTask):
    """Each expression names a part of one salient region, its mask the union of theirs."""


@dataclass(frozen=True, kw_only=True)
class TagInstances(TagTask, InstanceTask):
    """Each expression names an instance, with a mask of its own."""

    def prompts(self, answer: Expressions, size: tuple[int, int]) -> tuple[InstancePhrase, ...]:
        """The expressions, each of which means one object."""
        return tuple(map(InstancePhrase, super().prompts(answer, size)))


_SOD = """\
What in this image catches the eye before everything else? Name the salient region, or regions, in words from which a \
segmentation model that sees the image can find it.
First reason between <think> and </think>, in three steps. Scene: what the image shows, and where. Analysis: which \
objects stand out from their surroundings by colour, contrast, size, sharpness, position or meaning, and which are \
background. Conclusion: what is salient.
Then answer between <answer> and </answer>, with <rg> and </rg> around each region. Describe a region by a short \
phrase that fits nothing else in the image; or, where everything of one category is salient, write [semantic] and the \
name of the category. Add nothing before, between or after. The form is:
<think>scene, analysis, conclusion</think><answer><rg>phrase</rg><rg>[semantic] name</rg></answer>"""

_SIS = """\
Which single objects in this image catch the eye before everything else? Tell them apart: describe every salient \
instance in words from which a segmentation model that sees the image can find this one and no other.
First reason between <think> and </think>, in three steps. Scene: what the image shows, and where. Analysis: which \
objects stand out from their surroundings, how many there are, and what tells each from its neighbours, such as place, \
colour, size, pose or action. Conclusion: which instances are salient.
Then answer between <answer> and </answer>, with <ins> and </ins> around a short phrase for each instance, one phrase \
an instance. Add nothing before, between or after. The form is:
<think>scene, analysis, conclusion</think><answer><ins>phrase</ins><ins>phrase</ins></answer>"""

_COSOD = """\
These images belong together: salient objects of one category occur in all of them. Name it, so that a segmentation \
model can find its objects in every image.
First reason between <think> and </think>, in three steps. Objects: what stands out in each image. Analysis: compare \
the images, and drop what is not in every one, however striking it may be. Conclusion: the category that all share.
Then answer between <answer> and </answer> with exactly one <rg> and </rg>, which holds [semantic] and the name of the \
category, as specific as fits all images. Add nothing before or after. The form is:
<think>objects, analysis, conclusion</think><answer><rg>[semantic] name</rg></answer>"""

_SOD_BRIEF = """\
What in this image catches the eye before everything else? Name the salient region, or regions, in words from which a \
segmentation model that sees the image can find it.
Answer at once between <answer> and </answer>, with <rg> and </rg> around each region. Describe a region by a short \
phrase that fits nothing else in the image; or, where everything of one category is salient, write [semantic] and the \
name of the category. Add nothing before, between or after. The form is:
<answer><rg>phrase</rg><rg>[semantic] name</rg></answer>"""

_SIS_BRIEF = """\
Which single objects in this image catch the eye before everything else? Tell them apart: describe every salient \
instance in words from which a segmentation model that sees the image can find this one and no other.
Answer at once between <answer> and </answer>, with <ins> and </ins> around a short phrase for each instance, one phrase \
an instance. Add nothing before, between or after. The form is:
<answer><ins>phrase</ins><ins>phrase</ins></answer>"""

_COSOD_BRIEF = """\
These images belong together: salient objects of one category occur in all of them. Name it, so that a segmentation \
model can find its objects in every image.
Answer at once between <answer> and </answer> with exactly one <rg> and </rg>, which holds [semantic] and the name of the \
category, as specific as fits all images. Add nothing before or after. The form is:
<answer><rg>[semantic] name</rg></answer>"""

SOD = register(
    TagRegions(
        name="sod",
        title="salient object detection",
        instruction=_SOD,
        brief=_SOD_BRIEF,
        tag="rg",
        semantic="optional",
        layout="lightning_sal.datasets.sod.LAYOUT",
    )
)
SIS = register(
    TagInstances(
        name="sis",
        title="salient instance segmentation",
        instruction=_SIS,
        brief=_SIS_BRIEF,
        tag="ins",
        layout="lightning_sal.datasets.sis.LAYOUT",
    )
)
COSOD = register(
    TagRegions(
        name="cosod",
        title="co-salient object detection",
        instruction=_COSOD,
        brief=_COSOD_BRIEF,
        tag="rg",
        semantic="required",
        single=True,
        several=True,
        layout="lightning_sal.datasets.cosod.LAYOUT",
    )
)
