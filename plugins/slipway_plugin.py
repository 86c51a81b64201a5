"""Registers what Slipway adds to Airflow's UI; of an installed package, the provider's metadata registers it."""

from slipway.plugin import SlipwayPlugin

__all__ = ["SlipwayPlugin"]
