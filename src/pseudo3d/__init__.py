"""Videos to labels and 2048-number representations with Pseudo-3D Residual Networks (ICCV 2017).

The public names below are imported on first use (PEP 562), so that ``import pseudo3d`` stays cheap and a decoder
process never loads torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Clip": "pseudo3d.clip",
    "FeatureStore": "pseudo3d.features.store",
    "Preprocessing": "pseudo3d.preprocessing",
    "Pseudo3dError": "pseudo3d.errors",
    "VideoError": "pseudo3d.errors",
    "VideoEncoder": "pseudo3d.features.encoder",
    "create_model": "pseudo3d.models",
    "from_pretrained": "pseudo3d.weights",
    "list_models": "pseudo3d.models",
    "load_model": "pseudo3d.weights",
    "load_weights": "pseudo3d.weights",
    "push_to_hub": "pseudo3d.weights",
    "read_video": "pseudo3d.video.decode",
    "sample_clips": "pseudo3d.video.sampling",
    "save_pretrained": "pseudo3d.weights",
}

__all__ = sorted([*_HOME, "__version__"])

if TYPE_CHECKING:
    from pseudo3d.clip import Clip as Clip
    from pseudo3d.errors import Pseudo3dError as Pseudo3dError
    from pseudo3d.errors import VideoError as VideoError
    from pseudo3d.features.encoder import VideoEncoder as VideoEncoder
    from pseudo3d.features.store import FeatureStore as FeatureStore
    from pseudo3d.models import create_model as create_model
    from pseudo3d.models import list_models as list_models
    from pseudo3d.preprocessing import Preprocessing as Preprocessing
    from pseudo3d.video.decode import read_video as read_video
    from pseudo3d.video.sampling import sample_clips as sample_clips
    from pseudo3d.weights import from_pretrained as from_pretrained
    from pseudo3d.weights import load_model as load_model
    from pseudo3d.weights import load_weights as load_weights
    from pseudo3d.weights import push_to_hub as push_to_hub
    from pseudo3d.weights import save_pretrained as save_pretrained


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pseudo3d' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
