#!/bin/bash
# What the stand-in's image runs, shaped like tensorflow/serving's own: extra arguments of the container come last.
# There is no `exec` on purpose: the shell stays PID 1, which ignores SIGTERM, as in the real image.
tensorflow_model_server --port=8500 --rest_api_port=8501 \
    --model_name="${MODEL_NAME}" --model_base_path="${MODEL_BASE_PATH}/${MODEL_NAME}" \
    "$@"
exit $?
