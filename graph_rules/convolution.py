"""Convolution, any rank, group, stride, dilation and padding."""

from graph_rules.phases import in_phases, strided_collapsed, strided_vjp
from graph_rules.registry import cotangent, rule, second, to_first
from graph_rules.taps import conv_taps, folded, narrow_products
from graph_rules.windows import Window, loses_padding, transposed, window_of, window_roles, window_spread
from graph_rules.winograd import by_rows, rows_collapsed
from srd_onnx.apop.replay import again
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, Taps
from srd_onnx.errors import ShapeError
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Roles


def _weights(node: Node) -> Array:
    weights = node.constant(1)
    assert weights is not None
    return weights


def _window(node: Node) -> Window:
    return window_of(node, node.input(1).shape[2:])


def _roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    x, w = node.input(0), node.input(1)
    node.require(w.rank == x.rank, f"its weights {list(w.shape)} do not fit its input {list(x.shape)}")
    wanted = w.shape[1] * node.attrs["group"]
    if x.shape[1] != wanted:
        raise ShapeError(
            f"{node}: takes {wanted} channels, but its input '{x.name}' is {list(x.shape)}; "
            "does the data have the right number of channels?"
        )
    return window_roles(node, roles, mixes_channels=True)


def _is_pointwise(node: Node, _roles: Roles) -> bool:
    return _window(node).is_single


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    window = _window(node)
    if window.is_single and window.source == window.result:
        return to_first(node, shares[0])
    return to_first(node, window_spread(emit, node, shares, window))


def _bias(emit: Emitter, node: Node) -> str | None:
    bias = node.constant(2)
    if bias is None or not bias.any():
        return None
    return emit.const(bias.reshape(1, -1, *[1] * (node.output().rank - 2)))


def _lossy(node: Node) -> bool:
    return loses_padding(_window(node))


def _taps(emit: Emitter, node: Node) -> Taps:
    return conv_taps(emit, node, _window(node), _weights(node), _anew(emit, node) or node.output().name)


def _collapsed(emit: Emitter, node: Node, v: str, scale: str) -> str | None:
    window = _window(node)
    if (products := narrow_products(emit, node, window, _weights(node), v)) is not None:
        return folded(emit, products, scale, window, node.output().dtype)
    if by_rows(emit, node, window):
        return rows_collapsed(emit, node, _weights(node), window, emit.scaled(v, node.output(), scale))
    if in_phases(emit, node, window):
        wide = emit.scaled(v, node.output(), scale)
        return strided_collapsed(emit, node, _weights(node), node.attrs["group"], window, wide)
    return None


def _anew(emit: Emitter, node: Node) -> str | None:
    """A depthwise convolution costs no more than to keep what it computes, and to bring that into blocks again."""
    x, v = node.input(0), node.output()
    if v.name in emit.outputs or not emit.blocked(v) or not node.attrs["group"] == v.shape[1] == x.shape[1]:
        return None
    if len(emit.readers[v.name]) > 1:
        return None
    window, bias = _window(node), node.constant(2)
    weights = [_weights(node)] + ([] if bias is None else [bias])
    return emit(
        "Conv",
        x.name,
        *map(emit.const, weights),
        group=node.attrs["group"],
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=[*window.begins, *window.ends],
    )


@rule(
    "Conv",
    versions=(11, 22),
    roles=_roles,
    routes=_is_pointwise,
    spread=_spread,
    bias=_bias,
    lossy=_lossy,
    taps=_taps,
    collapsed=_collapsed,
    anew=_anew,
    replay=again,
    weights=second,
)
def conv(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = Σ_{o,k: o s + k d - p = i} W_k^T g[o]``: the transposed convolution, weights constant."""
    g, window, group = cotangent(cotangents, node), _window(node), node.attrs["group"]
    if in_phases(emit, node, window):
        return to_first(node, strided_vjp(emit, node, _weights(node), group, window, g))
    return to_first(node, transposed(emit, g, _weights(node), group, window))
