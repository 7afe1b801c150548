"""Server side of FGL: a synthetic set from embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fgl_app.algorithms.synthesis import SynthesisSettings
from fgl_app.algorithms.types import LabeledImages, TextEmbeddings
from fgl_app.models.devices import check_device
from fgl_app.models.generators import generator_source
from fgl_app.models.pipelines import Placement
from fgl_app.plug_in.checks import check_at_least, check_choice, check_integer, require_app_extra
from fgl_app.synthesis.generator import GeneratorSettings, load_generator

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Synthesis:
    """Generate a synthetic set from embeddings; result of ``synthesize_with``.

    Parameters
    ----------
    settings : GeneratorSettings
        The generator and the settings of its images.
    image_size, channels : int
        Side and channels of the returned images.
    class_names : Sequence[str]
        Name of each class; empty for class numbers.
    folder : Path or None
        Folder of the set; None for a temporary one.
    """

    def __init__(
        self,
        settings: GeneratorSettings,
        image_size: int,
        channels: int,
        class_names: Sequence[str],
        folder: Path | None,
    ) -> None:
        self.settings, self.image_size, self.channels = settings, image_size, channels
        self.class_names, self.folder = tuple(class_names), folder

    @cached_property
    def _pipeline(self) -> DiffusionPipeline:
        return load_generator(self.settings)

    @property
    def encoder(self) -> str:
        """Fingerprint of the text encoder, for ``FGLStrategy(encoder=...)``; loads the generator."""
        from fgl_app.models.fingerprints import encoder_fingerprint

        return encoder_fingerprint(self._pipeline)

    @property
    def embedding_shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor shapes of one prompt, for ``FGLStrategy(embedding_shapes=...)``; loads the generator."""
        from fgl_app.algorithms.embedding import encode_texts

        encoded = encode_texts(self._pipeline, [self.settings.negative_prompt])
        return {name: tuple(tensor.shape[1:]) for name, tensor in encoded.items()}

    def __call__(self, embeddings: TextEmbeddings) -> LabeledImages:
        """Generate the set, except for images that its folder already contains.

        Parameters
        ----------
        embeddings : TextEmbeddings
            Merged uploads.

        Returns
        -------
        LabeledImages
            uint8, shape (N, channels, image_size, image_size), ordered by prompt.
        """
        from fgl_app.data.shards import read_shards
        from fgl_app.synthesis.engine import make_set
        from fgl_app.synthesis.job import SynthesisJob

        job = SynthesisJob(self.settings, embeddings, self._names(int(embeddings.labels.max()) + 1))
        with ExitStack() as stack:
            out = self.folder or Path(stack.enter_context(TemporaryDirectory(prefix="fgl-"))) / "synthetic"
            folder = make_set(job, out, self._pipeline)
            # Frees memory for the training that follows.
            del self._pipeline
            return read_shards(folder, self.image_size, self.channels)

    def _names(self, classes: int) -> tuple[str, ...]:
        if not self.class_names:
            return tuple(map(str, range(classes)))
        if len(self.class_names) < classes:
            raise ValueError(
                f"class_names has {len(self.class_names)} names, but class {classes - 1} was uploaded"
            )
        return self.class_names


def synthesize_with(
    generator: str,
    *,
    image_size: int,
    channels: int,
    images_per_class: int = 600,
    num_inference_steps: int = 50,
    guidance_scale: float = 2.0,
    negative_prompt: str = "low quality, low resolution",
    class_names: Sequence[str] = (),
    folder: Path | str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "auto",
) -> Synthesis:
    """Return a ``synthesize_fn`` that draws images with a text-to-image pipeline (arXiv 2306.16064, 3.3).

    Parameters
    ----------
    generator : str
        Hub id or folder of a pipeline, or "embedded" (handwritten digits only).
    image_size, channels : int
        Input of the trained model: side in pixels, and 1 (greyscale) or 3 (colour) channels.
    images_per_class : int, default 600
        Images of each described class, split over its prompts in proportion to their examples.
    num_inference_steps : int, default 50
        Denoising steps (the paper's value).
    guidance_scale : float, default 2.0
        Classifier-free guidance scale w (the paper's value); 1 disables guidance and halves the cost.
    negative_prompt : str, default "low quality, low resolution"
        Negative prompt of the guidance (the paper's value).
    class_names : Sequence[str], default ()
        Label names of the images in the folder; empty for class numbers.
    folder : Path or str or None, default None
        Folder of the images, readable with ``datasets.load_dataset``; existing images of the same set are not
        generated again. None uses a temporary folder, and an interrupted synthesis starts over.
    batch_size : int, default 32
        Maximum number of images per batch; halved when memory runs out.
    seed : int, default 0
        Seed of the initial noise.
    device : str, default "auto"
        Torch device; "auto" is a GPU if there is one.

    Returns
    -------
    Synthesis
        ``TextEmbeddings -> LabeledImages``. The strategy validates uploads with its ``encoder`` and
        ``embedding_shapes``.

    Raises
    ------
    ValueError
        If an argument is invalid.
    ImportError
        If fgl-app is installed without its extra "app".
    """
    require_app_extra("synthesize_with")
    check_integer(
        1,
        image_size=image_size,
        images_per_class=images_per_class,
        num_inference_steps=num_inference_steps,
        batch_size=batch_size,
    )
    check_integer(0, seed=seed)
    check_at_least(1, guidance_scale=guidance_scale)
    check_choice((1, 3), channels=channels)
    check_device(device)
    generator_source(generator)
    synthesis = SynthesisSettings(num_inference_steps, guidance_scale, batch_size, seed)
    settings = GeneratorSettings(generator, images_per_class, synthesis, negative_prompt, Placement(device))
    out = None if folder is None else Path(folder).expanduser().absolute()
    return Synthesis(settings, image_size, channels, class_names, out)
