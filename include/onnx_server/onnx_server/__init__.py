"""A model server for image classifiers on ONNX Runtime, with TensorFlow Serving's protocol."""
