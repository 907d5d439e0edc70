"""State dicts of the authors' repositories, of torchvision, pytorchcv and timm, as state dicts of our models."""

import re
import reprlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from timm_attn.attention import ATTENTION, attention_layers
from timm_attn.weights.layouts import LAYOUTS, Rule
from timm_attn.weights.pytorchcv import NETS, is_of_pytorchcv

# What training scripts wrap a state dict in, and what data-parallel and compiled models prefix its keys with.
AVERAGED = ('state_dict_ema', 'model_ema')
_WRAPPERS = (*AVERAGED, 'state_dict', 'model_state_dict', 'model', 'net')
_PREFIX = re.compile(r'^(module\.|_orig_mod\.)+')
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LONGEST_KEY = 200
_COUNTERS = re.compile(r'(^|\.)total_(ops|params)$')  # thop leaves these buffers in a profiled model


def convert_state_dict(state_dict: Mapping[str, Any], model_name: str, **model_args: Any) -> dict[str, Tensor]:
    """A state dict in any of the known layouts, with keys that load strictly into `timm.create_model(model_name)`.

    Known are the layouts of the SimAM, ECANet and attention-module (BAM, CBAM) repositories, of torchvision, of timm,
    and of those nets of pytorchcv that are exactly ours, with or without a training script's wrapper dict and
    `module.` prefixes; thop's counters are dropped. The numbers of classes and of input channels are the file's. The
    sizes of attention layers are options (kernel_size, reduction): the model checks them when it loads. A file that
    may be of another net of pytorchcv with the same keys is taken with a warning that names it.

    Args:
        model_args: other arguments of the model, such as attn_kwargs=dict(bias=True), which adds keys.

    Raises:
        ValueError: the keys, or the shapes outside of the attention layers, are not those of the model; the message
            names the first ones, and the model that they fit, if it is one of the same backbone. Or a tensor's values
            are of another kind than the model's (integers for floats), or not finite.
        TypeError: the model does not take model_args.
    """
    tensors = converted(state_dict, model_name, model_args)
    net = NETS.get(model_name)
    if net and net.twin and is_of_pytorchcv(_without_prefixes(_unwrap(state_dict))):
        warnings.warn(
            f"The state dict is taken for pytorchcv's {net.name}: its keys and shapes are also those of {net.twin}, "
            f'which computes something else.',
            stacklevel=2,
        )
    return tensors


def converted(state_dict: Mapping[str, Any], model_name: str, model_args: Mapping[str, Any]) -> dict[str, Tensor]:
    """As convert_state_dict, for a file that is known by its digest: without the warning of what keys do not tell."""
    if not timm.is_model(model_name):
        raise ValueError(f'Unknown model {model_name!r}: timm.list_models() shows the names.')
    tensors = _without_prefixes(_unwrap(state_dict))
    tensors = {k: v for k, v in tensors.items() if not _COUNTERS.search(k)}
    try:
        return _fitted(tensors, model_name, model_args)
    except _Misfit as misfit:
        fits = [n for n in siblings(model_name) if timm.is_model(n) and _fits(tensors, n)]
        hint = f' These are the keys of {", ".join(fits)}.' if fits else ''
        raise ValueError(f'The state dict does not fit {model_name}: {misfit}.{hint}') from None


class _Misfit(ValueError):
    """Why tensors do not fit a model, in the file's own keys."""


def _fits(tensors: Mapping[str, Tensor], model_name: str) -> bool:
    try:
        _fitted(tensors, model_name, {})
    except ValueError:
        return False
    return True


def _fitted(tensors: Mapping[str, Tensor], model_name: str, model_args: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by the model's keys.

    Raises:
        _Misfit: they do not fit it.
        ValueError: two of them have one key.
    """
    rules = _rules(tensors, model_name)
    renamed = _distinct((_rename(k, rules), (k, v)) for k, v in tensors.items())
    for key in [k for k in renamed if k.endswith('.running_var')]:  # files of torch < 0.4.1 count no batches
        renamed.setdefault(key.replace('running_var', 'num_batches_tracked'), (key, torch.tensor(0)))
    model = _empty_model(renamed, model_name, model_args)
    slots = _slots(model)
    given = _distinct((_resolve(key, slots), row) for key, row in renamed.items())
    complaint = _complaint(given, model)
    if complaint:
        raise _Misfit(complaint)
    wanted = model.state_dict()
    return {key: _as_linear(value, wanted[key]) for key, (_, value) in given.items()}


def _rules(tensors: Mapping[str, Tensor], model_name: str) -> list[Rule]:
    """The rules of every layout that the keys show.

    Raises:
        _Misfit: they are pytorchcv's, but no net of its has this name here.
    """
    if not is_of_pytorchcv(tensors):
        return [rule for sign, rules in LAYOUTS if any(re.search(sign, k) for k in tensors) for rule in rules]
    if model_name not in NETS:
        raise _Misfit(
            f"its keys, such as {short(next(iter(tensors)))}, are pytorchcv's, which do not tell where a net has its "
            f'strides and are taken only as {", ".join(NETS)}'
        )
    return list(NETS[model_name].rules)


def _as_linear(value: Tensor, target: Tensor) -> Tensor:
    """The weight of a 1x1 convolution, (O, I, 1, 1), as (O, I) where the model has a linear layer (SE)."""
    is_1x1 = value.dim() == 4 and value.shape[2:] == (1, 1)
    return value.flatten(1) if is_1x1 and target.dim() == 2 else value


def _distinct(rows: Iterable[tuple[str, tuple[str, Tensor]]]) -> dict[str, tuple[str, Tensor]]:
    """The key in the file and the tensor, by the key in the model.

    Raises:
        ValueError: two keys of the file become one.
    """
    found: dict[str, tuple[str, Tensor]] = {}
    for key, (source, value) in rows:
        if key in found:
            raise ValueError(f'The state dict has {key} twice, as {short(found[key][0])} and as {short(source)}.')
        found[key] = (source, value)
    return found


def _unwrap(state_dict: Mapping[str, Any]) -> Mapping[str, Tensor]:
    if not isinstance(state_dict, Mapping):
        raise ValueError(f'A state dict maps keys to tensors, but got {type(state_dict).__name__}.')
    wrappers = [
        wrapper for wrapper in _WRAPPERS if wrapper in state_dict and not isinstance(state_dict[wrapper], Tensor)
    ]
    plain = [wrapper for wrapper in wrappers if wrapper not in AVERAGED]
    if len(plain) > 1:
        raise ValueError(f'The file has {" and ".join(plain)}, and which of them is meant it does not say.')
    if wrappers:
        state_dict = state_dict[wrappers[0]]
        if not isinstance(state_dict, Mapping):
            raise ValueError(f'{wrappers[0]} must map keys to tensors, but is {short(state_dict)}.')
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f'A state dict maps texts to tensors, but {short(key)} is {type(value).__name__}.')
    return state_dict


def _without_prefixes(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        bare = _PREFIX.sub('', key)
        if bare in tensors:
            raise ValueError(
                f'The state dict has {short(bare)} twice, with different prefixes, such as in {short(key)}.'
            )
        tensors[bare] = value
    return tensors


def _rename(key: str, rules: Iterable[Rule]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _complaint(given: Mapping[str, tuple[str, Tensor]], model: nn.Module) -> str:
    """Why tensors, by the model's keys, do not fit it, in the file's own keys; '' if they fit."""
    wanted = model.state_dict()
    unknown = [source for key, (source, _) in given.items() if key not in wanted]
    if unknown:
        return f'it has keys that the model lacks, such as {", ".join(map(short, unknown[:3]))}'
    missing = [key for key in wanted if key not in given]
    layers = tuple(f'{path}.' for path in attention_layers(model))
    if missing:
        are_plain = all(key.startswith(layers) for key in missing) if layers else False
        hint = ' (a net without attention: timm_attn.warm_start starts from its weights)' if are_plain else ''
        return f'it lacks {", ".join(missing[:3])}{hint}'
    for key, target in wanted.items():
        source, value = given[key]
        if value.shape != target.shape and not key.startswith(layers):
            return f'{short(source)} has shape {tuple(value.shape)} instead of {tuple(target.shape)}'
        if fault := fault_of(key, value, target):
            return f'{short(source)} {fault}'
    return ''


def short(value: Any) -> str:
    """A key or value of a file in a message: without control characters, and of bounded length."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    return text if text.isprintable() and len(text) <= _LONGEST_KEY else reprlib.repr(text)


def fault_of(key: str, value: Any, target: Tensor) -> str:
    """Why a value does not fit a model's key, in words; '' if it fits."""
    if not isinstance(value, Tensor):
        return f'is {short(value)}, but must be a tensor'
    if target.is_floating_point() and value.dtype not in _FLOATS:
        return f'is {value.dtype}, but must be one of {", ".join(map(str, _FLOATS))}'
    if value.is_complex() or value.dtype == torch.bool:  # scripts that halve a net halve its counters, too
        return f'is {value.dtype}, but must be {target.dtype}'
    if value.device.type == 'meta':
        return ''
    if not value.isfinite().all() or not value.to(target.dtype).isfinite().all():
        return f'has values that are not finite in {target.dtype}'
    if key.endswith('running_var') and (value < 0).any():
        return 'has values below 0, but is a variance'
    return ''


def sizes_of(tensors: Mapping[str, Tensor], model_name: str) -> dict[str, int]:
    """num_classes and in_chans, from the shapes of tensors in the model's own keys."""
    cfg = timm.get_pretrained_cfg(model_name, allow_unregistered=False)
    assert cfg is not None
    found = {}
    for size, paths, dim in ('num_classes', cfg.classifier, 0), ('in_chans', cfg.first_conv, 1):
        path = paths if isinstance(paths, str) else next(iter(paths or ()), '')  # the first of several heads or stems
        weight = tensors.get(f'{path}.weight')
        if weight is not None and weight.dim() > 1:
            found[size] = weight.shape[dim]
    return found


def _empty_model(
    renamed: Mapping[str, tuple[str, Tensor]], model_name: str, model_args: Mapping[str, Any]
) -> nn.Module:
    """The model without storage, with the file's numbers of classes and input channels."""
    tensors = {key: value for key, (_, value) in renamed.items()}
    sizes = sizes_of(tensors, model_args.get('backbone', model_name))  # of with_attention
    return timm.create_model(model_name, device='meta', **{**sizes, **model_args})


def _slots(model: nn.Module) -> dict[str, str]:
    """The path of the attention layer by the path of the block or stage it belongs to."""
    return {path.rpartition('.')[0]: path for path in attention_layers(model)}


def _resolve(key: str, slots: Mapping[str, str]) -> str:
    owner, _, rest = key.partition('.@.')
    return f'{slots.get(owner, owner)}.{rest}' if rest else key


def siblings(model_name: str) -> list[str]:
    """The other names of the same backbone, registered or not."""
    stems = [model_name.removesuffix(f'_{key}') for key in ATTENTION if model_name.endswith(f'_{key}')]
    stem = min(stems, key=len, default=model_name)
    names = [stem, *(f'{stem}_{key}' for key in ATTENTION)]
    return [n for n in names if n != model_name]
