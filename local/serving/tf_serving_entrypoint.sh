#!/bin/bash
# The entrypoint of the stand-in's image, like that of tensorflow/serving: extra arguments of the container come last.
# It does not use `exec`, so that as in the real image the shell is PID 1, which ignores SIGTERM.
tensorflow_model_server --port=8500 --rest_api_port=8501 \
    --model_name="${MODEL_NAME}" --model_base_path="${MODEL_BASE_PATH}/${MODEL_NAME}" \
    "$@"
exit $?
