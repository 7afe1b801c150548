"""FGL and FedDDPM for other Flower projects (docs/plug-in.md); light to import.

The factories build the usual callables of :class:`fgl_app.strategies.FGLStrategy` and ``FedDDPMStrategy``.
The ``register_...`` functions add handlers of the set-up round to a ``ClientApp``.
"""

from fgl_app.algorithms.types import LabeledImages, LabeledLatents
from fgl_app.plug_in.auxiliary import sample_with
from fgl_app.plug_in.clients import register_fedddpm, register_fgl
from fgl_app.plug_in.correction import correct_with
from fgl_app.plug_in.local_data import PromptData
from fgl_app.plug_in.synthesis import synthesize_with
from fgl_app.plug_in.training import train_on_synthetic

__all__ = [
    "LabeledImages",
    "LabeledLatents",
    "PromptData",
    "correct_with",
    "register_fedddpm",
    "register_fgl",
    "sample_with",
    "synthesize_with",
    "train_on_synthetic",
]
