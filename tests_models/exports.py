"""Which networks are exported how."""

from tests_models.networks import NETWORKS

_USUAL = (("legacy", 17), ("dynamo", 18))
# Other opsets, where exporters write the same network in other operators.
_MORE = (("legacy", 11), ("legacy", 14), ("dynamo", 23))
_IN_ALL = (
    "VGG",
    "MobileNet v3",
    "ConvNeXt",
    "ViT",
    "ViT, mean of tokens",
    "Swin",
    "U-Net, bilinear",
    "YOLO",
    "LSTM",
    "GRU",
)
# Not what torch can export: `aten::hardswish` and the like are newer than opset 11.
_NOT = {("MobileNet v3", "legacy", 11)}

EXPORTS = [
    (name, exporter, opset)
    for name in NETWORKS
    for exporter, opset in (*_USUAL, *(_MORE if name in _IN_ALL else ()))
    if (name, exporter, opset) not in _NOT
]
