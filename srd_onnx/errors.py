"""Every error that srd-onnx raises on purpose: what happened, where, and what to do about it."""


class SrdOnnxError(Exception):
    """Base of all errors that a caller may want to catch; the CLI prints it and exits with 2."""


class ModelError(SrdOnnxError):
    """The model file cannot be used."""


class NotAnOnnxFileError(ModelError):
    """The bytes are not a complete ONNX model (wrong format, truncated, empty)."""


class InvalidModelError(ModelError):
    """It parses, but `onnx.checker` or ONNX Runtime refuses it."""


class EmptyGraphError(ModelError):
    """The graph has no node, no input or no output: there is nothing to explain."""


class ModelTooLargeError(ModelError):
    """The model with its weights passes the 2 GB limit of a protobuf message."""


class ExternalDataError(ModelError):
    """External data is missing, too short, or lies outside the model's folder."""


class OpsetError(ModelError):
    """The opset cannot be brought to one that this installation runs."""


class UnsupportedOpError(SrdOnnxError):
    """Relevance would reach nodes for which there is no rule; the message lists them all."""


class UnsupportedCaseError(SrdOnnxError):
    """There is a rule for the operator, but not for this use of it."""


class LayoutError(SrdOnnxError):
    """The axes of the input or of an inner tensor are not known to be batch, position or channel."""


class OptionError(SrdOnnxError):
    """An option has a value that means nothing here."""


class UnknownTargetError(OptionError):
    """The target index or label does not exist in this model."""


class UnknownTensorError(OptionError):
    """No tensor or node of that name is in the graph."""


class UnreachableTargetError(OptionError):
    """No path of relevance leads from the target to the input."""


class InputError(SrdOnnxError):
    """The data to be explained does not fit the model."""


class ShapeError(InputError):
    """An array has another shape or dtype than the model declares."""


class ImageError(InputError):
    """The file is missing, is not an image, or is one that cannot be read."""


class NonFiniteError(InputError):
    """NaN or infinity in the input, or in a tensor computed from it."""


class ProviderError(SrdOnnxError):
    """The execution provider that was asked for does not work here."""


class OutputError(SrdOnnxError):
    """A result could not be written; nothing half-written was left behind."""


class AuditError(SrdOnnxError):
    """An audit cannot go on where it was, or a report cannot be checked."""
