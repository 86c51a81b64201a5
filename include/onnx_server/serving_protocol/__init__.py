"""TensorFlow Serving's protocol in Python, without TensorFlow: for the ONNX server, and for the stand-in for TensorFlow Serving."""
