"""The INT8 file of a trained net, with ranges from its training images and its figures on the validation images."""

from pathlib import Path

from timm_attn.data.datasets import Subset
from timm_attn.data.folders import split_in
from timm_attn.deploy.int8 import MOST_LOST, Int8, check_most_lost, check_output, quantize, require_onnxruntime
from timm_attn.reports.dataset import Pictures, batches_of
from timm_attn.reports.net import load_net
from timm_attn.training.loaders import eval_loader
from timm_attn.weights.metadata import class_names
from timm_attn.weights.trained import read_training_file

CALIBRATION = 300  # images
_BATCH = 10  # onnxruntime holds the maps of a batch


def int8(
    checkpoint: Path, data: Path, output: Path, *, images: int = CALIBRATION, most_lost: float = MOST_LOST
) -> Int8:
    """Quantizes a checkpoint of `timm-attn train` for onnxruntime; see deploy.int8.quantize.

    Args:
        data: the folder of its training, with train and validation, folders or tars of class folders.
        images: how many of the training images give the ranges, evenly spread over them.

    Raises:
        FileNotFoundError: the checkpoint or a folder of images is not there.
        ValueError: the checkpoint does not say its classes, or the images have others; or as quantize has it.
        RuntimeError: onnx or onnxruntime is not installed.
    """
    require_onnxruntime()
    check_output(output)
    check_most_lost(most_lost)
    if images < 1:
        raise ValueError(f'The ranges need at least one image, but got {images}.')
    names = class_names(read_training_file(checkpoint).get('options', {}).get('class_names'), checkpoint)
    if names is None:
        raise ValueError(f'{checkpoint} does not name its classes: take a file of `timm-attn train`.')
    net = load_net(None, checkpoint, 'cpu')
    trained, validated = (Pictures(data / split_in(data, split)) for split in ('train', 'validation'))
    for split in (trained, validated):
        if split.classes != names:
            differing = sorted({*split.classes} ^ {*names}) or 'their order'
            raise ValueError(f'{data} has other classes than {checkpoint} was trained on: {differing}.')
    count = min(images, len(trained))
    chosen = Subset(trained, [i * len(trained) // count for i in range(count)])
    trained.input_img_mode = net.image_mode
    calibration = (batch for batch, _ in eval_loader(chosen, net.data_config, _BATCH))
    return quantize(net.model, calibration, batches_of(validated, net, _BATCH), output, most_lost)
