"""The messages of TensorFlow Serving's APIs, made from descriptors.bin (../write_descriptors.py): no TensorFlow is needed for them."""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVING = "tensorflow.serving"
_FILES = Path(__file__).with_name("descriptors.bin")


def _read_pool() -> descriptor_pool.DescriptorPool:
    """A pool of its own: in a process with TensorFlow the default one has other copies of these files."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(_FILES.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _read_pool()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


TensorProto = _message("tensorflow.TensorProto")
SignatureDef = _message("tensorflow.SignatureDef")
TensorInfo = _message("tensorflow.TensorInfo")
PredictRequest = _message(f"{SERVING}.PredictRequest")
PredictResponse = _message(f"{SERVING}.PredictResponse")
PredictionLog = _message(f"{SERVING}.PredictionLog")
SignatureDefMap = _message(f"{SERVING}.SignatureDefMap")
GetModelMetadataRequest = _message(f"{SERVING}.GetModelMetadataRequest")
GetModelMetadataResponse = _message(f"{SERVING}.GetModelMetadataResponse")
GetModelStatusRequest = _message(f"{SERVING}.GetModelStatusRequest")
GetModelStatusResponse = _message(f"{SERVING}.GetModelStatusResponse")
STATES = _POOL.FindEnumTypeByName(f"{SERVING}.ModelVersionStatus.State").values_by_name
STATE_NAMES = {value.number: name for name, value in STATES.items()}
