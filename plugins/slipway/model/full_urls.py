"""The URLs of a model file with their queries, for the moment at which they are fetched.

A query may be a signature. A Release has the URL without it, and so have XComs, records, logs, labels and the model card.
"""

from __future__ import annotations

from slipway.errors import InputRefused
from slipway.model.model_file import ModelFile
from slipway.model.served import read_model_file
from slipway.model.source_settings import ArchiveSource
from slipway.paths import model_file
from slipway.urls import plain_url, query_of


def full_url(model: str, plain: str, sha256: str | None) -> str:
    """The URL as the model file has it on this worker, found by its plain form and by the hash of what it leads to.

    If the model file no longer has it: the plain URL. The query is masked in this process's logs.
    """
    from airflow.sdk.log import mask_secret

    try:
        file = read_model_file(model_file(model))
    except InputRefused:
        return plain
    url = find_full_url(file, plain, sha256)
    if query := query_of(url):
        mask_secret(url)
        mask_secret(query)
    return url


def find_full_url(file: ModelFile, plain: str, sha256: str | None) -> str:
    """The URL of a model file that has this plain form and leads to this hash; the plain URL if there is none."""
    named = [(case.image, case.sha256) for case in file.gate.golden]
    if isinstance(file.source, ArchiveSource):
        named.append((file.source.savedmodel, file.source.sha256))
    return next((url for url, digest in named if plain_url(url) == plain and digest == sha256), plain)
