"""The server's part of FGL: a synthetic set out of embeddings."""

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
from fgl_app.models.pipelines import generator_source
from fgl_app.plug_in.checks import check_at_least, check_choice, check_integer, require_app_extra
from fgl_app.synthesis.generator import GeneratorSettings, load_generator

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Synthesis:
    """Makes a synthetic set out of embeddings; ``synthesize_with`` makes one.

    Parameters
    ----------
    recipe : GeneratorSettings
        The generator and its settings.
    image_size, channels : int
        Of the returned images.
    class_names : Sequence[str]
        Name of each class; empty for their numbers.
    folder : Path or None
        Where the set is kept; None keeps it in memory alone.
    """

    def __init__(
        self,
        recipe: GeneratorSettings,
        image_size: int,
        channels: int,
        class_names: Sequence[str],
        folder: Path | None,
    ) -> None:
        self.recipe, self.image_size, self.channels = recipe, image_size, channels
        self.class_names, self.folder = tuple(class_names), folder

    @cached_property
    def _pipeline(self) -> DiffusionPipeline:
        return load_generator(self.recipe)

    @property
    def encoder(self) -> str:
        """Fingerprint of the generator's text encoder, for ``FGLStrategy(encoder=...)``; loads it."""
        from fgl_app.models.fingerprints import encoder_fingerprint

        return encoder_fingerprint(self._pipeline)

    @property
    def embedding_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one prompt's tensors, for ``FGLStrategy(embedding_shapes=...)``; loads the generator."""
        from fgl_app.algorithms.embedding import encode_texts

        encoded = encode_texts(self._pipeline, [self.recipe.negative_prompt])
        return {name: tuple(tensor.shape[1:]) for name, tensor in encoded.items()}

    def __call__(self, embeddings: TextEmbeddings) -> LabeledImages:
        """Make the set, or what its folder lacks of it.

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

        job = SynthesisJob(self.recipe, embeddings, self._names(int(embeddings.labels.max()) + 1))
        with ExitStack() as stack:
            place = self.folder or Path(stack.enter_context(TemporaryDirectory(prefix="fgl-"))) / "synthetic"
            folder = make_set(job, place, self._pipeline)
            # The training that follows may need its memory.
            del self._pipeline
            return read_shards(folder, self.image_size, self.channels)

    def _names(self, classes: int) -> tuple[str, ...]:
        if not self.class_names:
            return tuple(map(str, range(classes)))
        if len(self.class_names) < classes:
            raise ValueError(f"class_names has {len(self.class_names)} names, but class {classes - 1} came")
        return self.class_names


def synthesize_with(
    generator: str,
    *,
    image_size: int,
    channels: int,
    images_per_class: int = 600,
    steps: int = 50,
    guidance: float = 2.0,
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
        Hub id or folder of a pipeline, or "embedded": handwritten digits only.
    image_size, channels : int
        What the trained model takes: side in pixels, and 1 (grey) or 3 (colour).
    images_per_class : int, default 600
        Images of each class that was described, shared among its prompts in proportion to their examples.
    steps : int, default 50
        Denoising steps (paper: 50).
    guidance : float, default 2.0
        Classifier-free guidance w (paper: 2); 1 is none and costs half.
    negative_prompt : str, default "low quality, low resolution"
        What guidance leads away from (paper's).
    class_names : Sequence[str], default ()
        Names that the folder's images are labelled with; empty: their numbers.
    folder : Path or str or None, default None
        Where the images are kept, as ``datasets.load_dataset`` opens them; what is there already is not made
        again. None keeps nothing, and an interrupted synthesis starts over.
    batch_size : int, default 32
        Images denoised at a time at most; halved when memory runs out.
    seed : int, default 0
        Seed of the images' noise.
    device : str, default "auto"
        Torch device; "auto" is a GPU if there is one.

    Returns
    -------
    Synthesis
        ``TextEmbeddings -> LabeledImages``. Its ``encoder`` and ``embedding_shapes`` tell the strategy what
        a good upload looks like.

    Raises
    ------
    ValueError
        When an argument breaks its rule.
    ImportError
        When fgl-app is installed without its extra "app".
    """
    require_app_extra("synthesize_with")
    check_integer(
        1, image_size=image_size, images_per_class=images_per_class, steps=steps, batch_size=batch_size
    )
    check_integer(0, seed=seed)
    check_at_least(1, guidance=guidance)
    check_choice((1, 3), channels=channels)
    check_device(device)
    generator_source(generator)
    settings = SynthesisSettings(steps, guidance, batch_size, seed)
    recipe = GeneratorSettings(generator, images_per_class, settings, negative_prompt, device=device)
    place = None if folder is None else Path(folder).expanduser().absolute()
    return Synthesis(recipe, image_size, channels, class_names, place)
