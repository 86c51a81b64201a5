# Airflow with Slipway, and the environments of the exporter and of the load test.
#   docker build -t slipway-airflow .
# The same with the exporter of ONNX Runtime, for model files with `serving.runtime: onnxruntime` (docs/runtimes.md):
#   docker build -t slipway-airflow --target onnx .
# The same without any exporter, for model files with `export.run_in: pod` (docs/model-file.md#exports-in-the-cluster):
#   docker build -t slipway-airflow --target slim .
# Behind a proxy that re-signs certificates, pass the CA bundle: --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt
ARG BASE=apache/airflow:3.3.2-python3.11
FROM ${BASE} AS airflow

# The official image's user. The base image needs python, pip and this user, nothing else.
ARG AIRFLOW_UID=50000
ENV AIRFLOW_HOME=/opt/airflow

USER root
RUN install -d -o ${AIRFLOW_UID} /opt/airflow /opt/slipway
USER ${AIRFLOW_UID}

COPY local/builds/uv.txt /opt/slipway/uv.txt
COPY requirements.txt /opt/slipway/airflow.txt
COPY include/load/requirements.txt /opt/slipway/load.txt

# uv has its own environment, so that Airflow's has only the packages in its lock file.
RUN --mount=type=secret,id=ca,mode=0444 \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi \
    && export UV_NO_CACHE=1 \
    && python3 -m venv /opt/slipway/uv \
    && /opt/slipway/uv/bin/pip install --no-cache-dir --require-hashes -r /opt/slipway/uv.txt \
    && /opt/slipway/uv/bin/uv pip install --python "$(command -v python3)" --require-hashes -r /opt/slipway/airflow.txt \
    && /opt/slipway/uv/bin/uv venv --python "$(command -v python3)" /opt/slipway/load \
    && /opt/slipway/uv/bin/uv pip sync --compile-bytecode --python /opt/slipway/load/bin/python --require-hashes /opt/slipway/load.txt \
    && rm -rf /opt/slipway/uv

FROM airflow AS slim
ARG AIRFLOW_UID=50000
COPY --chown=${AIRFLOW_UID} dags /opt/airflow/dags
COPY --chown=${AIRFLOW_UID} plugins /opt/airflow/plugins
COPY --chown=${AIRFLOW_UID} include /opt/airflow/include

FROM airflow AS environments
COPY include/model/requirements.txt /opt/slipway/model.txt
RUN --mount=type=secret,id=ca,mode=0444 \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi \
    && export UV_NO_CACHE=1 \
    && python3 -m venv /opt/slipway/uv \
    && /opt/slipway/uv/bin/pip install --no-cache-dir --require-hashes -r /opt/slipway/uv.txt \
    && /opt/slipway/uv/bin/uv venv --python "$(command -v python3)" /opt/slipway/model \
    && /opt/slipway/uv/bin/uv pip sync --compile-bytecode --python /opt/slipway/model/bin/python --require-hashes /opt/slipway/model.txt \
    && rm -rf /opt/slipway/uv

FROM environments AS onnx
ARG AIRFLOW_UID=50000
# A lock with a smaller PyTorch, such as the one without CUDA of https://download.pytorch.org/whl/cpu, and the index that has it.
ARG ONNX_LOCK=include/onnx_model/requirements.txt
ARG TORCH_INDEX=
COPY ${ONNX_LOCK} /opt/slipway/onnx.txt
RUN --mount=type=secret,id=ca,mode=0444 \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi \
    && export UV_NO_CACHE=1 UV_INDEX="${TORCH_INDEX}" UV_INDEX_STRATEGY=unsafe-best-match \
    && python3 -m venv /opt/slipway/uv \
    && /opt/slipway/uv/bin/pip install --no-cache-dir --require-hashes -r /opt/slipway/uv.txt \
    && /opt/slipway/uv/bin/uv venv --python "$(command -v python3)" /opt/slipway/onnx \
    && /opt/slipway/uv/bin/uv pip sync --compile-bytecode --python /opt/slipway/onnx/bin/python --require-hashes /opt/slipway/onnx.txt \
    && rm -rf /opt/slipway/uv
COPY --chown=${AIRFLOW_UID} dags /opt/airflow/dags
COPY --chown=${AIRFLOW_UID} plugins /opt/airflow/plugins
COPY --chown=${AIRFLOW_UID} include /opt/airflow/include

# What is built without --target.
FROM environments
ARG AIRFLOW_UID=50000
COPY --chown=${AIRFLOW_UID} dags /opt/airflow/dags
COPY --chown=${AIRFLOW_UID} plugins /opt/airflow/plugins
COPY --chown=${AIRFLOW_UID} include /opt/airflow/include
