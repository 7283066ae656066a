"""A trained generator in use."""

from __future__ import annotations

from torch import Tensor, nn

from imagegen_dist import config
from imagegen_dist.decoding.decoder import DecodingSampler
from imagegen_dist.inference.model import Model
from imagegen_dist.shape import SampleShape


class GeneratorModel(Model):
    """A trained generator of a GAN, with the discriminator if requested. Latents that it generates are decoded."""

    @property
    def generator(self) -> nn.Module:
        """z [B, Z] and labels [B] or None -> samples, or their latents if `latent` is set, [B, C, *S] in [-1, 1]."""
        return self.networks["generator"]

    @property
    def latent(self) -> GeneratorModel | None:
        """The same model without the decoder, whose samples are latents as a dataset stores them.

        None if the model was not trained on latents, or on a dataset that has no decoder.
        """
        if not isinstance(self.sampler, DecodingSampler):
            return None
        shape, discriminator = config.decode(SampleShape, self.facts["data"]["shape"]), "discriminator"
        more = {discriminator: self.networks[discriminator]} if discriminator in self.networks else {}
        known = self.classes, self.images, self.modality, self.facts
        found = GeneratorModel(self.sampler.latent, shape, *known, more=more, known=self.known)
        found.batch, found.numerics = self.batch, self.numerics
        return found

    def encode(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """Raises ValueError: a GAN has no encoder."""
        raise ValueError("a GAN has no encoder: only autoencoders encode samples")

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Samples from latents, [B, Z] -> uint8 [B, C, *S]."""
        return self.generate(z, label)
