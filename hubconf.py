"""torch.hub: `torch.hub.load('OWNER/timm-attn', 'resnet50_simam', pretrained=False)`, one entry per model."""

from timm_attn import zoo as _zoo

dependencies = ['torch', 'torchvision', 'timm', 'safetensors', 'huggingface_hub', 'numpy', 'PIL', 'yaml', 'tqdm']

globals().update({_name: getattr(_zoo, _name) for _name in _zoo.names()})
