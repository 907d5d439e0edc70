"""What the cases time: operations, nets, a training step; and their peak memory."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from benchmarks import cases, nets, operations
from benchmarks.formula import paper_simam
from benchmarks.peak_memory import peak_mib
from timm_attn import ops


def test_the_formula_is_simam() -> None:
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    ours, theirs = ops.simam_reference(x, 0.1), paper_simam(twin, 0.1)
    torch.testing.assert_close(ours, theirs)
    for y in (ours, theirs):
        y.square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
    assert paper_simam(torch.ones(1, 1, 1, 1), 0.1).isnan()  # as it is printed, and not our definition


@pytest.mark.parametrize('work', ['forward', 'backward', 'training'])
def test_operations(work: str) -> None:
    runners = operations.simam_runners(work, (2, 3, 4, 5), 'cpu', memory_format=torch.channels_last, copy=True)
    assert list(runners) == ['formula', 'reference', 'blocks', 'simam', 'copy']
    found = {}
    for name, runner in runners.items():
        with runner.around():
            found[name] = torch.as_tensor(runner.call()[0] if work != 'forward' and name != 'copy' else runner.call())
    for name in ('reference', 'blocks', 'simam'):
        if work == 'forward':  # the gradient that comes in is random
            torch.testing.assert_close(found[name], found['formula'])
        assert found[name].requires_grad is False and found[name].shape == (2, 3, 4, 5)
    assert runners['blocks'].work / runners['copy'].work == {'forward': 1, 'backward': 1.5, 'training': 2.5}[work]
    saved = {name: runner.memory()['saved_inputs'] for name, runner in runners.items() if name != 'copy'}
    assert saved['formula'] >= 4 and saved['blocks'] == pytest.approx(1 + 2 / 20)


def test_peak_memory() -> None:
    kept = torch.zeros(2**18)

    def run() -> None:
        first = torch.empty(2**18)  # 1 MiB
        second = kept + first  # 2
        del first
        torch.cat([second, second])  # 3

    assert peak_mib(run, torch.device('cpu')) == pytest.approx(3, abs=0.01)


def small(**changed: nets.Variant) -> dict[str, nets.Variant]:
    return {'plain': nets.named('resnet18'), 'simam': nets.named('resnet18_simam'), **changed}


def test_a_training_step_and_its_memory() -> None:
    runners = nets.training_runners(small(formula=nets.with_formula('resnet18', 0.1)), 2, 'cpu', size=64)
    memory = {}
    for name, runner in runners.items():
        with runner.around():
            runner.call()
        memory[name] = runner.memory()
    maps = sum(c * s * s for c, s in ((64, 16), (64, 16), (128, 8), (128, 8), (256, 4), (256, 4), (512, 2), (512, 2)))
    unit = 2 * 4 * maps / 2**20  # the maps that SimAM sees
    saved = {name: m['saved_mib'] for name, m in memory.items()}
    assert 2.9 < (saved['formula'] - saved['simam']) / unit < 3.1
    gradients = 4 * 11_689_512 / 2**20
    assert gradients < memory['plain']['peak_mib'] <= memory['simam']['peak_mib'] < memory['formula']['peak_mib']
    assert runners['simam'].work == 2


def test_the_nets_of_a_case_share_their_trunk_and_images() -> None:
    variants = small(formula=nets.with_formula('resnet18', 0.1))
    runners = nets.inference_runners(variants, 2, 'cpu', size=64)
    logits = {}
    for name, runner in runners.items():
        with runner.around():
            logits[name] = runner.call()
    torch.testing.assert_close(logits['simam'], logits['formula'], rtol=1e-3, atol=1e-3)
    assert (logits['simam'] - logits['plain']).abs().max() > 0.1 and logits['plain'].is_inference()


@pytest.mark.parametrize('layer', ['se', 'eca', 'cbam'])
def test_timms_layers_have_the_options_of_ours(layer: str) -> None:
    with torch.device('meta'):
        ours, theirs = (cases.RESNET50[name].build() for name in (layer, f'{layer}, timm'))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    kernels = [[m.kernel_size for m in net.modules() if isinstance(m, nn.Conv1d)] for net in (ours, theirs)]
    assert kernels[0] == kernels[1]


@pytest.mark.parametrize('name', ['resnet50_simam', 'resnet50_cbam', 'mobilenetv2_se'])
def test_no_map_is_so_small_or_large_that_it_costs_time(name: str) -> None:
    torch.manual_seed(0)
    net = timm.create_model(name).eval()
    nets.randomise_norms(net)
    seen = []

    def check(module: nn.Module, inputs: Any, output: Any) -> None:
        if output.dim() == 4:
            seen.append(output.abs().max().item())
            assert 1e-3 < seen[-1] < 1e9, module
            assert not ((output != 0) & (output.abs() < torch.finfo(torch.float32).tiny)).any(), module

    for module in net.modules():
        module.register_forward_hook(check)
    with torch.inference_mode():
        net(torch.randn(1, 3, 96, 96))
    assert len(seen) > 50


def test_fused_and_compiled_nets() -> None:
    variants = small(fused=nets.fused('resnet18'), fused_simam=nets.fused('resnet18_simam'))
    logits = {name: r.call() for name, r in nets.inference_runners(variants, 1, 'cpu', size=64).items()}
    for name, fused in (('plain', 'fused'), ('simam', 'fused_simam')):
        torch.testing.assert_close(logits[fused], logits[name], rtol=1e-3, atol=1e-3)
    compiled = nets.compiled(nets.named('resnet18'))
    assert compiled.change is not None
    assert type(compiled.change(nn.Identity())).__name__ == 'OptimizedModule'
