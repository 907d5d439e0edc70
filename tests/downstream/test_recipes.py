"""The papers' recipes: they are valid, and their learning rates are mmdetection's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.downstream import tiny
from timm_attn.downstream.detectors import faster_rcnn
from timm_attn.downstream.loop import Loop
from timm_attn.downstream.recipe import RECIPES, load_task_recipe, task_recipe
from timm_attn.downstream.tasks import TASKS, task_of

NAMES = sorted(path.stem for path in RECIPES.glob('*.yaml'))
PAPERS = ['bam_coco', 'simam_coco_faster', 'simam_coco_mask']
NOT_TRAINED = [*PAPERS, 'bam_ade20k', 'bam_sr_coco', 'bam_voc']
NETS = {'bam_sr': 'srresnet_bam', 'bam_sr_coco': 'srresnet_bam', 'bam_voc': 'stairnet300_bam'}  # the others: backbones


@pytest.mark.parametrize('name', NAMES)
def test_valid(name: str) -> None:
    recipe = load_task_recipe(name)
    with torch.device('meta'):
        model = task_of(recipe).build(
            NETS.get(name, 'resnet18'), task_recipe({**vars(recipe), 'pretrained': False}, 'It'), ['a']
        )
    assert isinstance(model, nn.Module)
    text = (RECIPES / f'{name}.yaml').read_text()
    assert ('not trained here' in text) == (name in NOT_TRAINED)


@pytest.mark.parametrize('name', PAPERS)
def test_the_learning_rate_of_mmdetection(name: str) -> None:
    """0.01, over 500 updates from a thousandth; a tenth after epochs 8 and 11."""
    recipe = load_task_recipe(name)
    updates = 1000  # of an epoch

    class Loader:
        dataset: Any = None

        def __len__(self) -> int:
            return updates

    task = TASKS[recipe.task]
    loop = Loop(nn.Linear(1, 1), task, Loader(), recipe)  # type: ignore[arg-type]
    rates = {}
    for update in (
        0,
        1,
        250,
        500,
        4000,
        8 * updates - 2,
        8 * updates,
        11 * updates - 2,
        11 * updates,
        12 * updates - 1,
    ):
        if update:
            loop.scheduler.step_update(num_updates=update)
        rates[update] = loop.optimizer.param_groups[0]['lr']
    assert list(loop.epochs) == [*range(12)]
    assert rates[0] == pytest.approx(1e-5) and rates[250] == pytest.approx(0.005, rel=2e-3)
    assert rates[500] == rates[4000] == rates[7998] == pytest.approx(0.01)
    assert rates[8000] == rates[10998] == pytest.approx(1e-3) and rates[11000] == rates[11999] == pytest.approx(1e-4)


def test_simam_differs_from_torchvision_as_the_paper_does() -> None:
    recipe = load_task_recipe('simam_coco_faster')
    with torch.device('meta'):
        model: Any = faster_rcnn('resnet50_simam', 81, **recipe.task_kwargs)
    assert model.roi_heads.box_roi_pool.sampling_ratio == 0 and model.transform.min_size == (800,)
    assert type(model.rpn).__name__ == 'L1RegionProposalNetwork'
    assert not model.backbone.features.body.layer1[0].conv1.weight.requires_grad
    assert model.rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,), (512,))


REFUSED: list[tuple[dict[str, Any], str]] = [
    (dict(warmup_updates=5), 'warmup_updates: 5, which needs sched_on_updates: true'),
    (dict(warmup_updates='5'), "warmup_updates: '5', but it must be an integer"),
    (dict(no_such=1), 'keys that the runner does not know: no_such'),
]


@pytest.mark.parametrize(('changes', 'message'), REFUSED, ids=[m[:20] for _, m in REFUSED])
def test_values_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


# A value for each key that some tasks read, and for two that none does.
GIVEN: dict[str, Any] = dict(
    train_split='a', val_split='a', train_num_samples=3, val_num_samples=3, input_size=[3, 64, 64], hflip=0.1,
    train_img_sizes=[64], pretrained=True, model_kwargs=dict(drop_rate=0.1), mean=[0.1] * 3, std=[0.1] * 3,
    smoothing=0.3, scale=[0.5, 1.0],
)  # fmt: skip


@pytest.mark.parametrize(('task', 'data'), [(name, data) for name, task in TASKS.items() for data in task.data])
def test_keys_that_do_nothing_are_refused(task: str, data: str) -> None:
    recipe = dict(task=task, dataset=data, lr=0.1)
    read = {*TASKS[task].keys, *TASKS[task].data[data].keys}
    assert read <= GIVEN.keys()
    for key, value in GIVEN.items():
        made = task_recipe({**recipe, key: value}, 'It')
        if key in read:
            assert task_of(made) is TASKS[task]
        else:
            with pytest.raises(ValueError, match=f"has {key}: .*, which does nothing in the task '{task}' on '{data}'"):
                task_of(made)


def test_a_recipe_without_a_task(tmp_path: Path) -> None:
    (tmp_path / 'r.yaml').write_text('lr: 0.1\n')
    with pytest.raises(ValueError, match='r.yaml has no task'):
        load_task_recipe(str(tmp_path / 'r.yaml'))
