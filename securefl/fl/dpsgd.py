"""Example-level DP-SGD: the sum of clipped per-example gradients in one backward pass.

Legend: B batch, a the input of a layer, g the gradient of Σ losses at its output, C clip norm, c_i = min(1, C/‖∇_i‖).

For the usual layers a per-example gradient is a product of what the forward and the backward pass already computed, so
its norm needs no second pass and no [B, parameters] buffer, and the clipped sum is one weighted product
[Li et al. 2022 (ghost norm); Bu et al. 2023 (book-keeping)]:

    Linear      ∇_i = Σ_t g_it a_itᵀ      Conv2d     the same on unfolded patches
    Embedding   rows g_it at the tokens   LayerNorm, GroupNorm   Σ g·x̂ and Σ g per channel

Everything else with parameters is done by ``torch.func`` (vmap of grad), parameter by parameter at once. A layer that
mixes examples (BatchNorm) has no per-example gradient and is refused. Loss: *sum* over examples, never the mean.

Noise: the sum is put on a public grid and gets exact discrete Gaussian integers there (securefl.dp.sampler), so
floating-point low-order bits carry nothing [Mironov 2012]. The guarantee is for Poisson-sampled batches and the
*expected* batch size as the divisor: the realised size would leak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from securefl.dp.cohort import poisson_cohort
from securefl.dp.events import DiscreteGaussian, PoissonSampled, positive
from securefl.dp.sampler import LOG2_DISTANCE, WIDE_STDDEV, wide_gaussian
from securefl.errors import ConfigurationError, InvalidInputError, UnsupportedEventError
from securefl.primitives.entropy import Entropy, SystemEntropy

__all__ = ["ClippedGradients", "add_noise", "poisson_batch", "step_event"]

_BOOKKEPT = (nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm, nn.GroupNorm)


class ClippedGradients:
    """Clipped sums for one model; make it once, use it every step.

    ``model``: in training mode as you like; examples along dimension 0 of its input. ``clip_norm``: C.
    Raises :class:`ConfigurationError` for layers that mix examples.
    """

    def __init__(self, model: nn.Module, clip_norm: float) -> None:
        positive("clip_norm", clip_norm)
        self.model, self.clip_norm = model, clip_norm
        for name, module in model.named_modules():
            if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.SyncBatchNorm)):
                raise ConfigurationError(
                    f"{name or 'the model'} is a {type(module).__name__}: it mixes examples, so no single example's "
                    "gradient exists. Use torch.nn.GroupNorm instead"
                )
        owners: dict[int, list[nn.Module]] = {}
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append(module)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        if not self._parameters:
            raise ConfigurationError("the model has no parameter that requires a gradient")
        trainable = {id(p) for p in self._parameters}
        own = [m for m in model.modules() if any(id(p) in trainable for p in m.parameters(recurse=False))]
        tied = any(len(users) > 1 for users in owners.values())
        self._layers = [m for m in own if isinstance(m, _BOOKKEPT) and _plain(m)]
        #: whether every layer is book-kept; otherwise the whole model goes through torch.func
        self.one_pass = len(self._layers) == len(own) and not tied

    def accumulate(
        self, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """(clipped sums, one per trainable parameter in ``model.parameters()`` order; norms [B] before clipping).

        ``loss(outputs, targets)`` gives one loss per example, shape [B]. The parameters' ``grad`` is not touched.
        Raises :class:`InvalidInputError` for a batch that is empty or whose gradients are not finite.
        """
        if inputs.shape[0] == 0 or inputs.shape[0] != targets.shape[0]:
            raise InvalidInputError("a batch needs at least one example and one target for each")
        if self.one_pass:
            try:
                return self._bookkeeping(inputs, targets, loss)
            except _UsedTwiceError:
                self.one_pass = False
        return self._functional(inputs, targets, loss)

    # -- one pass

    def _bookkeeping(
        self, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

        def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if module in seen:
                raise _UsedTwiceError
            seen[module] = (args[0].detach(), output)

        handles = [layer.register_forward_hook(keep) for layer in self._layers]
        try:
            losses = loss(self.model(inputs), targets)
        finally:
            for handle in handles:
                handle.remove()
        batch = inputs.shape[0]
        if losses.shape != (batch,):
            raise InvalidInputError(f"the loss must give one value per example, shape ({batch},)")
        used = [layer for layer in self._layers if layer in seen]
        if any(seen[layer][1].shape[0] != batch for layer in used):
            raise _UsedTwiceError  # examples were folded into another dimension
        # gradients at the outputs only: the weight gradients are formed once, already clipped
        gradients = torch.autograd.grad(losses.sum(), [seen[layer][1] for layer in used], allow_unused=True)
        squared = torch.zeros(batch, device=losses.device, dtype=losses.dtype)
        weighers: dict[int, Callable[[Tensor], Tensor]] = {}
        with torch.no_grad():
            for layer, gradient in zip(used, gradients, strict=True):
                if gradient is None:
                    continue  # type: ignore[unreachable]  # torch's stubs do not know allow_unused
                for parameter, norm_squared, weigh in _layer_gradients(layer, seen[layer][0], gradient):
                    squared += norm_squared
                    weighers[id(parameter)] = weigh
            norms, factors = self._factors(squared)
            sums = [
                weighers[id(p)](factors).reshape(p.shape) if id(p) in weighers else torch.zeros_like(p)
                for p in self._parameters
            ]
        return sums, norms

    def _factors(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        norms = squared.clamp_min(0.0).sqrt()
        if not bool(torch.isfinite(norms).all()):
            raise InvalidInputError("an example's gradient is not finite: lower the learning rate or drop the example")
        # a norm is trusted to 1e-6; the factor errs on the small side, so no example exceeds the clip norm
        return norms, (self.clip_norm * (1 - 1e-6) / norms.clamp_min(1e-30)).clamp_max(1.0)

    # -- torch.func

    def _functional(
        self, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        trainable = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        fixed = {name: p.detach() for name, p in self.model.named_parameters() if not p.requires_grad}
        fixed |= {name: b.detach() for name, b in self.model.named_buffers()}

        def one(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            output = torch.func.functional_call(self.model, (parameters, fixed), (x.unsqueeze(0),))
            return loss(output, y.unsqueeze(0)).sum()

        try:
            each = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0), randomness="different")(
                trainable, inputs, targets
            )
        except RuntimeError as error:
            raise UnsupportedEventError(
                "a layer of this model has no per-example gradient by hooks or torch.func: replace it"
            ) from error
        squared = sum((each[n].flatten(1).square().sum(1) for n in names), start=torch.zeros(inputs.shape[0]))
        norms, factors = self._factors(squared)
        return [torch.tensordot(factors, each[name], dims=1) for name in names], norms


class _UsedTwiceError(Exception):
    """A layer ran twice in one forward pass: its two gradients belong together."""


def _plain(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if isinstance(layer, nn.Embedding):
        return layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
    return True


_Part = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]


def _layer_gradients(layer: nn.Module, a: Tensor, g: Tensor) -> Iterator[_Part]:
    """(parameter, squared norms [B], factors ↦ weighted sum) for each trainable parameter of a layer."""
    if isinstance(layer, nn.Linear):
        yield from _matrix(layer.weight, layer.bias, a.flatten(1, -2) if a.dim() > 2 else a, g)
    elif isinstance(layer, nn.Conv2d):
        yield from _convolution(layer, a, g)
    elif isinstance(layer, nn.Embedding):
        yield from _embedding(layer, a, g)
    elif isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
        yield from _normalisation(layer, a, g)


def _matrix(weight: Tensor, bias: Tensor | None, a: Tensor, g: Tensor) -> Iterator[_Part]:
    if a.dim() == 2:  # ‖g aᵀ‖ = ‖g‖ ‖a‖
        g_squared = g.square().sum(1)
        if weight.requires_grad:
            yield weight, g_squared * a.square().sum(1), lambda c: (g * c[:, None]).T @ a
        if bias is not None and bias.requires_grad:
            yield bias, g_squared, lambda c: c @ g
        return
    h = g.flatten(1, -2)  # [B, t, out], a: [B, t, in]
    if weight.requires_grad:
        steps, wide = a.shape[1], a.shape[2] * h.shape[2]
        if 2 * steps * steps <= wide:  # ghost norm: Σ_{t,u} (a_t·a_u)(g_t·g_u)
            gram = torch.bmm(a, a.mT).mul_(torch.bmm(h, h.mT))
            yield weight, gram.sum((1, 2)), lambda c: (h * c[:, None, None]).flatten(0, 1).T @ a.flatten(0, 1)
        else:
            each = torch.bmm(h.mT, a)
            yield weight, each.square().sum((1, 2)), lambda c: torch.tensordot(c, each, dims=1)
    if bias is not None and bias.requires_grad:
        summed = h.sum(1)
        yield bias, summed.square().sum(1), lambda c: c @ summed


def _convolution(layer: nn.Conv2d, a: Tensor, g: Tensor) -> Iterator[_Part]:
    batch, groups = a.shape[0], layer.groups
    h = g.flatten(2)  # [B, out, t]
    if layer.weight.requires_grad:
        padding, stride, dilation = layer.padding, layer.stride, layer.dilation
        patches = F.unfold(a, layer.kernel_size, dilation=dilation, padding=padding, stride=stride)  # type: ignore[arg-type]
        outs, ins = h.shape[1] // groups, patches.shape[1] // groups
        left = h.reshape(batch * groups, outs, -1)
        each = torch.bmm(left, patches.reshape(batch * groups, ins, -1).mT).reshape(batch, -1)
        yield layer.weight, each.square().sum(1), lambda c: c @ each
    if layer.bias is not None and layer.bias.requires_grad:
        summed = h.sum(2)
        yield layer.bias, summed.square().sum(1), lambda c: c @ summed


def _embedding(layer: nn.Embedding, a: Tensor, g: Tensor) -> Iterator[_Part]:
    if not layer.weight.requires_grad:
        return
    batch = a.shape[0]
    tokens, h = a.reshape(batch, -1), g.reshape(batch, -1, g.shape[-1])
    if layer.padding_idx is not None:
        h = h * (tokens != layer.padding_idx).unsqueeze(-1)
    same = (tokens.unsqueeze(2) == tokens.unsqueeze(1)).to(h.dtype)  # equal tokens share a row

    def weigh(c: Tensor) -> Tensor:
        rows = torch.zeros_like(layer.weight)
        return rows.index_add_(0, tokens.flatten(), (h * c[:, None, None]).flatten(0, 1))

    yield layer.weight, (torch.bmm(h, h.mT) * same).sum((1, 2)), weigh


def _normalisation(layer: nn.LayerNorm | nn.GroupNorm, a: Tensor, g: Tensor) -> Iterator[_Part]:
    if isinstance(layer, nn.LayerNorm):
        normal = F.layer_norm(a, layer.normalized_shape, eps=layer.eps)
        extra = tuple(range(1, a.dim() - len(layer.normalized_shape)))
    else:
        normal = F.group_norm(a, layer.num_groups, eps=layer.eps)
        extra = tuple(range(2, a.dim()))
    for parameter, each in ((layer.weight, g * normal), (layer.bias, g)):
        if parameter is not None and parameter.requires_grad:
            flat = (each.sum(extra) if extra else each).flatten(1)
            yield parameter, flat.square().sum(1), lambda c, flat=flat: c @ flat  # type: ignore[misc]


def add_noise(
    sums: list[Tensor], *, clip_norm: float, noise_multiplier: float, entropy: Entropy | None = None
) -> list[Tensor]:
    """The clipped sums plus discrete Gaussian noise of multiplier ``noise_multiplier``, on a public grid.

    Stddev s = z (C + √d·grid): rounding the sum to the grid moves it by at most one step per coordinate between
    neighbors, which the noise pays for (0.1 % for a million parameters). Charge :func:`step_event`.
    """
    positive("clip_norm", clip_norm)
    positive("noise_multiplier", noise_multiplier)
    count = sum(s.numel() for s in sums)
    room = 1 - noise_multiplier * math.sqrt(count) / WIDE_STDDEV
    if room < 0.5:
        raise ConfigurationError("the model is too large for this noise multiplier: rounding would dominate")
    grid = noise_multiplier * clip_norm / room / WIDE_STDDEV
    source = entropy if entropy is not None else SystemEntropy()
    noise = wide_gaussian(source.token(32), count)
    flat = torch.cat([s.detach().flatten() for s in sums])
    noisy = torch.round(flat.double() / grid).add_(torch.from_numpy(noise).to(flat.device)).mul_(grid).to(flat.dtype)
    pieces: tuple[Tensor, ...] = torch.split(noisy, [s.numel() for s in sums])
    return [piece.reshape(s.shape) for piece, s in zip(pieces, sums, strict=True)]


def step_event(noise_multiplier: float, dimension: int, sampling_probability: float) -> PoissonSampled:
    """What one step with :func:`add_noise` on a Poisson-sampled batch releases; compose it over the steps."""
    positive("noise_multiplier", noise_multiplier)
    noise = DiscreteGaussian(
        l2_sensitivity=WIDE_STDDEV / noise_multiplier,
        variance=WIDE_STDDEV**2,
        dimension=dimension,
        statistical_distance=min(1.0, dimension * 2.0 ** (LOG2_DISTANCE + 2)),
    )
    return PoissonSampled(noise, sampling_probability)


def poisson_batch(examples: int, sampling_probability: float, entropy: Entropy | None = None) -> Tensor:
    """int64 indices of a Poisson-sampled batch (possibly empty): the sampling that the accountant amplifies."""
    return torch.tensor(poisson_cohort(range(examples), sampling_probability, entropy), dtype=torch.int64)
