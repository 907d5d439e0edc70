"""`timm-attn explain`: Grad-CAM and attention of a net, or the stages of two nets, for single pictures."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from timm_attn import figures
from timm_attn.analysis import (
    attention_maps,
    channel_profile,
    grad_cam,
    resized,
    spatial_map,
    stage_layers,
    stage_views,
)
from timm_attn.analysis.hooks import find_layers
from timm_attn.attention import AttentionLayer, attention_layers
from timm_attn.figures.canvas import Array
from timm_attn.images import read_image
from timm_attn.reports.net import Net

# The places of Grad-CAM, and their titles on the sheet
PLACES = {'before': 'before {}', 'after': 'after {}', 'weights': 'on the weights of {}'}


def explain(
    net: Net,
    paths: Sequence[Path],
    out: Path,
    *,
    layer: str | None = None,
    label: int | None = None,
    file_format: str = 'png',
) -> Iterator[tuple[Path, Path, list[tuple[str, float]]]]:
    """One sheet per picture: the net's input, Grad-CAM before and after a layer, the layer's attention, the top 5.

    Yields the picture, its sheet in the folder `out`, and the top 5. Nothing is written if a picture cannot be read.

    Args:
        layer: any layer of the net, by default its last attention layer.
        label: the class of Grad-CAM, by default the predicted one.

    Raises:
        ValueError: a picture cannot be read, there is no such layer or class, or the net has no attention layers and
            no layer is named.
        RuntimeError: matplotlib is missing.
    """
    figures.require_matplotlib()
    if layer is None:
        layer = _last_attention(net)
    pictures = [read_image(path) for path in paths]
    sheets = _sheets(paths, out, f'_{net.name}', file_format)
    for path, images, sheet in zip(paths, net.prepared(pictures), sheets, strict=True):
        probabilities = net.probabilities(images)
        target = int(probabilities.argmax()) if label is None else label
        shown = _explanation(net, path, images, probabilities, layer, target)
        yield path, figures.save(figures.explanation_sheet(shown), sheet), net.ranked(probabilities)


def compare(
    nets: tuple[Net, Net], paths: Sequence[Path], out: Path, *, file_format: str = 'png'
) -> Iterator[tuple[Path, Path | None, list[tuple[str, float]]]]:
    """A sheet for each picture that two nets classify differently: their stages side by side (BAM Figures 5 and 6).

    Yields the picture, its sheet, None where the nets agree, and the top class of both.

    Raises:
        ValueError: a picture cannot be read, or the nets have not the same number of classes.
        RuntimeError: matplotlib is missing.
    """
    figures.require_matplotlib()
    first, second = nets
    if len(first.labels) != len(second.labels):
        counts = f'{first.name} has {len(first.labels)} classes, {second.name} {len(second.labels)}'
        raise ValueError(f'Only nets with the same classes can disagree, but {counts}.')
    pictures = [read_image(path) for path in paths]
    sheets = _sheets(paths, out, f'_{first.name}_{second.name}', file_format)
    inputs = zip(first.prepared(pictures), second.prepared(pictures), strict=True)
    for path, prepared, sheet in zip(paths, inputs, sheets, strict=True):
        seen = [(net, images, net.probabilities(images)) for net, images in zip(nets, prepared, strict=True)]
        best = [net.ranked(probabilities, top=1)[0] for net, _, probabilities in seen]
        if len({int(probabilities.argmax()) for _, _, probabilities in seen}) == 1:
            yield path, None, best
            continue
        answers = {
            net.name: figures.Answer(name, p, stage_views(net.model, images))
            for (net, images, _), (name, p) in zip(seen, best, strict=True)
        }
        title = f'{path.name}: two nets disagree'
        true = class_in_path(path, first.labels)
        figure = figures.comparison_sheet(title, first.shown(seen[0][1]), true, answers)
        yield path, figures.save(figure, sheet), best


def _last_attention(net: Net) -> str:
    layers = list(attention_layers(net.model))
    if not layers:
        stage = list(stage_layers(net.model))[-1]
        raise ValueError(f'{net.name} has no attention layers: name a layer to explain, such as {stage!r}.')
    return layers[-1]


def _explanation(
    net: Net, path: Path, images: Tensor, probabilities: Tensor, layer: str, target: int
) -> figures.Explanation:
    size: tuple[int, int] = (images.shape[2], images.shape[3])

    def cam(place: str) -> Array:
        return resized(grad_cam(net.model, images, layer, place=place, classes=target), size)[0].cpu().numpy()

    module = find_layers(net.model, [layer])[layer]
    factor = attention_maps(net.model, images)[layer] if isinstance(module, AttentionLayer) else None
    varies = factor is not None and factor.shape[2:].numel() > 1
    kind = type(module).__name__
    cams = {PLACES[place].format(kind): cam(place) for place in (PLACES if varies else ('before', 'after'))}
    return figures.Explanation(
        title=f'{net.name}: {path.name}',
        image=net.shown(images),
        target=net.labels[target],
        layer=f'{kind} at {layer}',
        grad_cams=cams,
        attention=resized(spatial_map(factor), size)[0].cpu().numpy() if factor is not None and varies else None,
        gates=channel_profile(factor)[0].cpu().numpy() if factor is not None and not varies else None,
        classes=net.ranked(probabilities),
    )


def class_in_path(path: Path, labels: Sequence[str]) -> str | None:
    """The class that the folder of a picture names, or else its file, such as `8_bag/1.png` or `ankle-boot_0.png`."""
    words = {_words(label): label for label in labels}
    return next((words[w] for text in (path.resolve().parent.name, path.stem) if (w := _words(text)) in words), None)


def _words(text: str) -> tuple[str, ...]:
    """The words of a name in small letters, numbers left out."""
    return tuple(re.findall(r'[a-z]+', text.lower()))


def _sheets(paths: Sequence[Path], out: Path, suffix: str, file_format: str) -> list[Path]:
    """One new file name per picture: none is another sheet's or a picture's."""
    taken = {path.resolve() for path in paths}
    sheets = []
    for path in paths:
        number = 1
        sheet = out / f'{path.stem}{suffix}.{file_format}'
        while sheet.resolve() in taken:
            number += 1
            sheet = out / f'{path.stem}{suffix}-{number}.{file_format}'
        taken.add(sheet.resolve())
        sheets.append(sheet)
    return sheets
