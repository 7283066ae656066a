"""A trained autoencoder in use: encoding and decoding, of long clips in pieces and of large volumes in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from math import prod
from typing import cast

import torch
from torch import Tensor

from imagegen_dist.data.modality import to_float, to_stored
from imagegen_dist.inference.extent import (
    Rows,
    Scales,
    Spatial,
    causal,
    extents_of,
    in_pieces_of,
    spatial,
    with_time_of,
)
from imagegen_dist.inference.inputs import check_latents, check_samples
from imagegen_dist.inference.model import Model
from imagegen_dist.nn.causal import stream
from imagegen_dist.nn.tiles import Tiling, tiled, tilings
from imagegen_dist.objectives.variational import VariationalModel
from imagegen_dist.shape import PerAxis, SampleShape


class AutoencoderModel(Model):
    """A trained VAE: samples of its prior, encoding and decoding.

    Latents are [B, Z, *s]; those of several levels are concatenated to [B, all], the highest level first. `latents`
    then draws the noise of all levels, which each level's prior maps to latents.
    """

    @property
    def autoencoder(self) -> VariationalModel:
        """Its networks together."""
        return cast(VariationalModel, self.sampler)

    @property
    def frames_of_a_latent(self) -> int:
        """Frames of a clip for each latent position in time if the networks are causal, else 0."""
        encoder = self.networks["encoder"]
        return causal(encoder).factors[0] if getattr(encoder, "causal", False) else 0

    def encodes(self, shape: SampleShape) -> bool:
        """True if `encode` takes samples of this shape: that of training, or of clips of another length."""
        first = shape.spatial[0]
        if self.frames_of_a_latent and first % self.frames_of_a_latent == 0:
            shape = replace(shape, spatial=(self.shape.spatial[0], *shape.spatial[1:]))
        return shape == self.shape

    def encodes_in_tiles(self, shape: SampleShape) -> bool:
        """True if `encode_tiled` takes samples of this shape: that of training, or of other extents."""
        factors = getattr(self.networks["encoder"], "factors", ())
        if replace(shape, spatial=self.shape.spatial) != self.shape or len(factors) != shape.ndim:
            return False
        return not any(size % factor for size, factor in zip(shape.spatial, factors, strict=True))

    @property
    def tiles_are_exact(self) -> bool:
        """True if what `encode_tiled` makes is that of whole samples, up to rounding; False if tiles are blended."""
        return not any(cut.blend for cut in self._cuts(spatial(self.networks["encoder"]), None, None))

    @torch.inference_mode()
    def encode(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """Latents without noise of samples, uint8 [B, C, *S] -> [B, Z, *s]: the posterior's mean, or the code.

        If the networks are causal, clips may have any number of frames that is a multiple of those of a latent; long
        ones are seen in pieces. label: int64 [B] or weights [B, K] if the model is conditional. Raises ValueError for
        samples of another dtype or shape than `sample` returns, and for labels that do not fit.
        """
        self._check_samples(samples)
        self._check_label(label, len(samples))
        return self._in_batches(in_pieces_of(self.shape.spatial[0], self._encoded), samples, label)

    @torch.inference_mode()
    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Samples from latents, [B, Z, *s] -> uint8 [B, C, *S]; of several levels, lower ones may be omitted.

        If the networks are causal, clips may have any length. Raises ValueError for latents of another dtype or shape,
        and for labels that do not fit.
        """
        self._check_codes(z)
        self._check_label(label, len(z))
        frames = self.latent_dims[0][1] if z.ndim > 2 else 1
        return self._in_batches(in_pieces_of(frames, self._decoded), z, label)

    def stream_encode(self, pieces: Iterable[Tensor], label: Tensor | None = None) -> Iterator[Tensor]:
        """Latents of clips of any length, piece by piece: uint8 [B, C, T, H, W] -> [B, Z, t, h, w] for each piece.

        Together they are the latents of the whole clips, up to rounding, in the memory of one piece. Raises ValueError
        if the networks are not causal, and for each piece as `encode`.
        """
        causal(self.networks["encoder"])
        return self._stream(self._encoded, self._check_samples, pieces, label)

    def stream_decode(self, pieces: Iterable[Tensor], label: Tensor | None = None) -> Iterator[Tensor]:
        """Clips from consecutive pieces of their latents, [B, Z, t, h, w] -> uint8 [B, C, T, H, W] for each piece.

        Raises ValueError if the networks are not causal, and for each piece as `decode`.
        """
        causal(self.networks["decoder"])
        return self._stream(self._decoded, self._check_codes, pieces, label)

    @torch.inference_mode()
    def encode_tiled(
        self, samples: Tensor, label: Tensor | None = None, tile: PerAxis | None = None, halo: PerAxis | None = None
    ) -> Tensor:
        """Latents of samples of any extent, uint8 [B, C, *S] -> [B, Z, *s], in overlapping tiles.

        tile: extent of a tile in latent positions, by default that of the samples trained on. halo: positions that are
        discarded at each cut. With a halo of the encoder's `reach` the latents are those of the whole, up to rounding.
        Networks that look at whole samples, by attention or normalisation, have no reach: their tiles are blended, and
        the result differs slightly from the whole. Raises ValueError for networks that take samples of one extent, for
        extents that are no multiples of a latent's, and if nothing of a tile is left beside the halo.
        """
        network = spatial(self.networks["encoder"])
        check_samples(samples, replace(self.shape, spatial=extents_of(samples, self.shape.dims, network.factors)))
        scales = network.factors, (1,) * len(network.factors)
        return self._in_tiles(self._encoded, samples, label, self._cuts(network, tile, halo), scales)

    @torch.inference_mode()
    def decode_tiled(
        self, z: Tensor, label: Tensor | None = None, tile: PerAxis | None = None, halo: PerAxis | None = None
    ) -> Tensor:
        """Samples from latents of any extent, [B, Z, *s] -> uint8 [B, C, *S], in overlapping tiles.

        Arguments and errors as for `encode_tiled`; the halo is compared with the decoder's `reach`.
        """
        network = spatial(self.networks["decoder"])
        dims, ones = self.latent_dims[0], (1,) * len(network.factors)
        check_latents(z, [(dims[0], *extents_of(z, dims, ones))], codes=not self.gaussian)
        cuts, scales = self._cuts(network, tile, halo), (ones, network.factors)
        return to_stored(self._in_tiles(self.autoencoder.decode, z, label, cuts, scales), self.shape.bits)

    def reconstruct(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """Samples decoded from the latents of samples, uint8 [B, C, *S] -> [B, C, *S]. Raises as `encode`."""
        return self.decode(self.encode(samples, label), label)

    def _encoded(self, x: Tensor, label: Tensor | None) -> Tensor:
        return self.autoencoder.infer(to_float(x), label).code()

    def _decoded(self, z: Tensor, label: Tensor | None) -> Tensor:
        return to_stored(self.autoencoder.decode(z, label), self.shape.bits)

    def _check_samples(self, samples: Tensor) -> None:
        _, *extents = with_time_of(samples, self.shape.dims, self.networks["encoder"], encodes=True)
        check_samples(samples, replace(self.shape, spatial=tuple(extents)))

    def _check_codes(self, z: Tensor) -> None:
        first, *more = self.latent_dims
        first = with_time_of(z, first, self.networks["decoder"], encodes=False)
        check_latents(z, [first, *more], codes=not self.gaussian)

    @torch.inference_mode()
    def _stream(
        self, function: Rows, check: Callable[[Tensor], None], pieces: Iterable[Tensor], label: Tensor | None
    ) -> Iterator[Tensor]:
        given = None if label is None else label.to(self.device)

        def checked() -> Iterator[Tensor]:
            for piece in pieces:
                check(piece)
                self._check_label(label, len(piece))
                yield piece.to(self.device)

        def compute(piece: Tensor) -> Tensor:
            with self.numerics.applied():
                return function(piece, given)

        yield from stream(compute, checked())

    def _cuts(self, network: Spatial, tile: PerAxis | None, halo: PerAxis | None) -> list[Tiling]:
        return tilings(self.latent_dims[0][1:], tile, halo, network.reach)

    def _in_tiles(
        self, function: Rows, rows: Tensor, label: Tensor | None, cuts: Sequence[Tiling], scales: Scales
    ) -> Tensor:
        """Apply a function of rows in tiles, a row at a time."""
        self._check_label(label, len(rows))
        found = []
        for at in range(len(rows)):
            one, given = (
                rows[at : at + 1].to(self.device),
                None if label is None else label[at : at + 1].to(self.device),
            )
            with self.numerics.applied():
                found.append(tiled(partial(_told, function, given), one, cuts, *scales))
        return torch.cat(found)

    @property
    def latent_dims(self) -> list[tuple[int, ...]]:
        """Shapes of a sample's latents; with several levels, of every number of complete levels from the highest."""
        levels = self.autoencoder.group_dims
        return [levels[0]] if len(levels) == 1 else [(size,) for size in accumulate(prod(dims) for dims in levels)]


def _told(function: Rows, label: Tensor | None, x: Tensor) -> Tensor:
    return function(x, label)
