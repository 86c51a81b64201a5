#!/bin/sh
# The entrypoint of the image, with the variables of TensorFlow Serving's: extra arguments of the container come last.
# `exec`: the server itself is process 1 and gets SIGTERM.
exec onnx_model_server --port=8500 --rest_api_port=8501 \
    --model_name="${MODEL_NAME}" --model_base_path="${MODEL_BASE_PATH}/${MODEL_NAME}" \
    "$@"
