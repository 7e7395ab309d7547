"""DALI executor: the same graph on the CPU and on the GPU, fed with the drawn parameters.

The graph holds no random number and no reader, so there is no DALI state to save. It decodes each
image once and cuts every view from it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode as Node
from nvidia.dali.pipeline import Pipeline, pipeline_def
from nvidia.dali.plugin.pytorch import feed_ndarray
from torch import Tensor

from . import ops, ops_strong
from .buffers import U8, fresh
from .colour import window_px
from .decode import DecodeError, Encoded, decode_grey, decode_rgb
from .executor import HW_DECODER_FRAC, BadImages, Fault, Image, Pending, Work
from .parameters import ViewParameters
from .timing import Stopwatch
from .views import ViewRecipe, ViewSpec

F32 = npt.NDArray[np.float32]

# Where each number lies in a sample's packed parameters.
CROP, RESIZE, WINDOW, FLIP, JITTER, ORDER, FACTORS = 0, 4, 6, 8, 9, 10, 14
GREY, SIGMA, TAPS, SOLARIZE, MASK, BACKGROUND, STRONG = 18, 19, 20, 21, 22, 23, 24

QUEUE_DEPTH = 2
_DTYPES = {torch.float32: types.FLOAT, torch.float16: types.FLOAT16}


def pack(drawn: ViewParameters) -> F32:
    """All numbers of a view, float32 (B, 24 + 2 S): one input of the graph rather than twenty."""
    columns = [
        drawn.crop_xywh,
        drawn.resize_wh,
        drawn.window_xy,
        drawn.flip,
        drawn.jitter,
        drawn.order,
        drawn.brightness,
        drawn.contrast,
        drawn.saturation,
        drawn.hue,
        drawn.grey,
        drawn.blur_sigma,
        np.array([window_px(float(s)) for s in drawn.blur_sigma]),
        drawn.solarize,
        drawn.mask,
        drawn.background,
        np.stack([drawn.strong_op, drawn.strong_level], axis=2).reshape(len(drawn), -1),
    ]
    flat = [np.asarray(c, np.float32).reshape(len(drawn), -1) for c in columns]
    return np.ascontiguousarray(np.concatenate(flat, axis=1))


@pipeline_def(enable_conditionals=True)
def view_graph(
    recipe: ViewRecipe,
    device: str,
    dtype: Any,  # noqa: ANN401
    hw_decoder_frac: float = HW_DECODER_FRAC,
) -> tuple[Any, ...]:
    """The graph of a recipe: one output (S, S, 3) per view, in recipe order."""
    encoded = fn.external_source(name="images", dtype=types.UINT8, ndim=1)
    images = {"self": decode(encoded, device, hw_decoder_frac)}
    if recipe.needs_partner:
        partners = fn.external_source(name="partner_images", dtype=types.UINT8, ndim=1)
        images["partner"] = decode(partners, device, hw_decoder_frac)
    mask = None
    if recipe.needs_mask:
        mask = fn.external_source(name="masks", dtype=types.UINT8, ndim=3, layout="HWC")
        # From the header, because the size must be known on the host wherever the pixels are.
        mask = Mask(mask, fn.cast(fn.peek_image_shape(encoded), dtype=types.FLOAT))
    outputs = []
    for name, spec in recipe.views.items():
        packed = fn.external_source(name=f"view:{name}", dtype=types.FLOAT, ndim=1)
        pixels = view(images[spec.source], mask, packed, spec, device)
        outputs.append(ops.normalise(pixels, recipe, dtype))
    return tuple(outputs)


def decode(encoded: Node, device: str, hw_decoder_frac: float) -> Node:
    """RGB image (H, W, 3); an EXIF orientation was dealt with when the shards were made.

    Without `jpeg_fancy_upsampling` a GPU repeats each chroma sample where every decoder of a CPU
    interpolates: coloured edges would be others than torchvision's.
    """
    where = "mixed" if device == "gpu" else "cpu"
    return fn.decoders.image(
        encoded,
        device=where,
        output_type=types.RGB,
        adjust_orientation=False,
        hw_decoder_load=hw_decoder_frac,
        jpeg_fancy_upsampling=True,
    )


class Mask(NamedTuple):
    """Saliency masks as they are stored, and the sizes of the images that they belong to."""

    pixels: Node  # (h, w, 1)
    shape: Node  # H, W, 3 as floats


def view(image: Node, mask: Mask | None, packed: Node, spec: ViewSpec, device: str) -> Node:
    """One view of an image, uint8 (S, S, 3). What a recipe never does is not in the graph."""
    piece = ops.cut(image, ops.pair(packed, CROP), ops.pair(packed, CROP + 2))
    if mask is not None and spec.mask_prob > 0:
        piece = without_background(piece, mask, packed, device)
    tile = ops.resize(piece, packed[RESIZE], packed[RESIZE + 1], spec.interpolation)
    if spec.keeps_centre:
        tile = ops.cut(tile, ops.pair(packed, WINDOW), [spec.size_px, spec.size_px])
    if spec.flip_prob > 0:
        tile = fn.flip(tile, horizontal=ops.whole(packed, FLIP))
    if spec.jitter_prob > 0:
        tile = jitter(tile, packed)
    return filters(tile, packed, spec)


def without_background(piece: Node, mask: Mask, packed: Node, device: str) -> Node:
    """The piece with one grey level outside the mask, for the samples that want it."""
    if ops.whole(packed, MASK) == 1:
        whole = ops.resize(mask.pixels, mask.shape[1], mask.shape[0], "bilinear")
        inside = ops.cut(whole, ops.pair(packed, CROP), ops.pair(packed, CROP + 2))
        if device == "gpu":
            inside = inside.gpu()
        piece = ops.replace_background(piece, inside, ops.whole(packed, BACKGROUND))
    return piece


def jitter(tile: Node, packed: Node) -> Node:
    """Colour jitter in the drawn order, for the samples that want it."""
    if ops.whole(packed, JITTER) == 1:
        tile = ops.jitter(
            tile,
            [ops.whole(packed, ORDER + i) for i in range(4)],
            [packed[FACTORS + i] for i in range(4)],
        )
    return tile


def filters(tile: Node, packed: Node, spec: ViewSpec) -> Node:
    """Grey, blur, solarize and the strong set, each for the samples that want it."""
    if spec.grey_prob > 0:
        if ops.whole(packed, GREY) == 1:
            tile = ops.grey(tile)
    if spec.blur_prob > 0:
        if packed[SIGMA] > 0:
            tile = ops.blur(tile, packed[SIGMA], ops.whole(packed, TAPS))
    if spec.solarize_prob > 0:
        if ops.whole(packed, SOLARIZE) == 1:
            tile = ops.solarize(tile, spec.solarize_threshold, spec.solarize_kind)
    for slot in range(spec.strong_ops):
        kind = ops.whole(packed, STRONG + 2 * slot)
        tile = ops_strong.apply(tile, kind, packed[STRONG + 2 * slot + 1], spec.size_px)
    return tile


class DaliExecutor:
    """Runs the graph, one batch after another.

    Args:
        recipe: views to make.
        device: where the graph runs and the views are.
        max_batch_size: largest batch that will be submitted.
        threads: CPU threads of DALI.
        dtype: of the views; bfloat16 is cast from DALI's float32.
        hw_decoder_frac: share of the JPEGs for a GPU's decoder units, [0, 1]; its cores and the
            CPU's decode the others.
    """

    def __init__(
        self,
        recipe: ViewRecipe,
        *,
        device: torch.device,
        max_batch_size: int,
        threads: int,
        dtype: torch.dtype = torch.float32,
        hw_decoder_frac: float = HW_DECODER_FRAC,
    ) -> None:
        self.recipe = recipe
        self.device = device
        self._hw_decoder_frac = hw_decoder_frac
        self.dtype = dtype
        self._graph_dtype = dtype if dtype in _DTYPES else torch.float32
        self._options = {"batch_size": max_batch_size, "num_threads": threads}
        # Views live on a stream of their own: memory that training still reads on another one must
        # not be handed out again for the next batch (`Transfer` tells the allocator who reads).
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._running: deque[_Running] = deque()
        self._pipeline = self._build()
        self.stopwatch = Stopwatch()  # stays empty: a graph does all of it out of sight

    def _build(self) -> Pipeline:
        on_gpu = self.device.type == "cuda"
        pipeline = view_graph(
            self.recipe,
            "gpu" if on_gpu else "cpu",
            _DTYPES[self._graph_dtype],
            self._hw_decoder_frac,
            device_id=(self.device.index or 0) if on_gpu else None,
            prefetch_queue_depth=QUEUE_DEPTH,
            **self._options,
        )
        pipeline.build()
        self._fresh, self._skip = True, 0
        return pipeline

    def allocate(self, num_bytes: int) -> U8:
        """See `executor.Executor`."""
        return fresh(num_bytes)

    def submit(self, work: Work) -> Pending:
        """Start on a batch; see `executor.Executor`."""
        try:
            inputs = self._inputs(work)
        except BadImages as bad:
            return _raiser(bad)
        batch = _Running(work, inputs)
        self._running.append(batch)
        self._start(batch)
        return lambda: self._collect(batch)

    def _start(self, batch: _Running) -> None:
        """Feed a batch and run the graph on it.

        A pipelined DALI graph starts with as many runs as its queue is deep, so a fresh one gets
        its first batch that often and all results but the last are dropped.
        """
        times = QUEUE_DEPTH if self._fresh else 1
        for _ in range(times):
            for name, values in batch.inputs.items():
                self._pipeline.feed_input(name, values)
        self._pipeline.schedule_run()
        self._fresh = False
        self._skip += times - 1

    def _inputs(self, work: Work) -> dict[str, Any]:
        """What the graph is fed.

        Raises:
            BadImages: some could not be read, or masks not decoded. A graph that meets such a
                sample must be built again, which takes seconds on a GPU.
        """
        if unread := _unread(work):
            raise BadImages(unread)
        inputs: dict[str, Any] = {"images": _encoded(work.images)}
        if self.recipe.needs_partner:
            inputs["partner_images"] = _encoded(work.partner_images or ())
        if self.recipe.needs_mask:
            inputs["masks"] = _mask_pixels(work.masks or [None] * len(work.images))
        for name in self.recipe.views:
            inputs[f"view:{name}"] = pack(work.parameters[name])
        return inputs

    def _collect(self, batch: _Running) -> dict[str, Tensor]:
        """Results of a batch; those of older ones are kept until they are asked for."""
        while batch.result is None:
            self._finish(self._running[0])
            self._running.popleft()
        if isinstance(batch.result, Exception):
            raise batch.result
        return batch.result

    def _finish(self, batch: _Running) -> None:
        """Wait for the oldest batch.

        DALI gives up a graph whose decoder fails. A new one is built then, which goes on with the
        batches that were on their way behind the bad one.
        """
        try:
            for _ in range(self._skip):
                self._pipeline.share_outputs()
                self._pipeline.release_outputs()
            self._skip = 0
            batch.result = self._copy(self._pipeline.share_outputs())
            self._pipeline.release_outputs()
        except RuntimeError as error:
            batch.result = _explain(batch.work, error)
            self._pipeline = self._build()
            for later in list(self._running)[1:]:
                self._start(later)

    def _copy(self, outputs: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Views of their own, because DALI writes the next batch where the outputs are."""
        views = {}
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            for (name, spec), output in zip(self.recipe.views.items(), outputs, strict=True):
                shape = (len(output), spec.size_px, spec.size_px, 3)
                view = torch.empty(shape, dtype=self._graph_dtype, device=self.device)
                feed_ndarray(output.as_tensor(), view, cuda_stream=self._stream)
                views[name] = view.permute(0, 3, 1, 2).to(self.dtype)
        if self._stream is not None:
            self._stream.synchronize()  # this thread waits, training does not
        return views

    def close(self) -> None:
        """Drop the graph and what is under way in it."""
        self._running.clear()
        del self._pipeline


@dataclass(eq=False)
class _Running:
    """A batch that the graph works on, with its inputs in case they must be fed again."""

    work: Work
    inputs: dict[str, Any]
    result: dict[str, Tensor] | Exception | None = None


def _explain(work: Work, error: RuntimeError) -> Exception:
    """Which rows made DALI fail, found with the host's decoder; the error itself if none.

    What only a GPU's decoders refuse DALI names by its row, but not whether it is the partner.
    """
    faults: dict[int, Fault] = {}
    for row, data in enumerate(work.images):
        _note_fault(faults, row, "image", data)
    for row, data in enumerate(work.partner_images or ()):
        _note_fault(faults, row, "partner", data)
    named = re.search(r"Failed to decode sample #(\d+)", str(error))
    if named and not faults and work.partner_images is None:
        faults[int(named[1])] = Fault("image", "DALI cannot decode it")
    return BadImages(faults) if faults else error


def _raiser(error: Exception) -> Pending:
    def pending() -> dict[str, Tensor]:
        raise error

    return pending


def _encoded(images: Sequence[Image]) -> list[U8]:
    return [np.frombuffer(data, np.uint8) for data in images]


def _unread(work: Work) -> dict[int, Fault]:
    """Rows whose image or partner came as no bytes at all."""
    faults = {}
    parts: dict[Literal["image", "partner"], Sequence[Image]]
    parts = {"partner": work.partner_images or (), "image": work.images}
    for part, images in parts.items():
        for row in (row for row, data in enumerate(images) if len(data) == 0):
            faults[row] = Fault(part, "no bytes")
    return faults


_NO_MASK = np.zeros((1, 1, 1), np.uint8)


def _mask_pixels(masks: Sequence[Encoded | None]) -> list[U8]:
    """Masks (h, w, 1); a single pixel for samples that keep their background.

    Raises:
        BadImages: some cannot be decoded.
    """
    pixels, faults = [], {}
    for row, png in enumerate(masks):
        try:
            pixels.append(_NO_MASK if png is None else decode_grey(png)[..., None])
        except DecodeError as error:
            faults[row] = Fault("mask", str(error))
    if faults:
        raise BadImages(faults)
    return pixels


def _note_fault(
    faults: dict[int, Fault], row: int, part: Literal["image", "partner"], data: Image
) -> None:
    try:
        decode_rgb(bytes(data))
    except DecodeError as error:
        faults[row] = Fault(part, str(error))
