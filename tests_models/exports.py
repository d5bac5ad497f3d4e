"""Which networks are exported how."""

from tests_models.networks import NETWORKS

_USUAL = (("legacy", 17), ("dynamo", 18))
# Other opsets, where exporters write the same network in other operators.
_MORE = (("legacy", 14), ("dynamo", 23))
_IN_ALL = ("MobileNet v3", "ConvNeXt", "ViT", "Swin", "U-Net, bilinear", "LSTM", "GRU")

EXPORTS = [
    (name, exporter, opset)
    for name in NETWORKS
    for exporter, opset in (*_USUAL, *(_MORE if name in _IN_ALL else ()))
]
