"""The model file's `load_test`."""

import pytest
from pydantic import ValidationError

from slipway.model.load_settings import LoadSettings


def test_all_has_a_default():
    """Four rates, then four users that ask again at once: less than two minutes."""
    settings = LoadSettings()
    assert (settings.rates_per_s, settings.closed_users, settings.least_per_s) == ((1, 2, 4, 8), (4,), None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rates_per_s": [2, 2]}, "is not in rising order"),
        ({"rates_per_s": [], "closed_users": []}, "has no step"),
        ({"step_s": 900, "rates_per_s": [1, 2, 3, 4]}, "are more than 3600 s"),
        ({"settle_s": 20}, "settle_s is not below step_s"),
        ({"least_per_s": 3}, "least_per_s is none of rates_per_s"),
        ({"images": "https://x/y"}, "is a URL"),
        ({"schedule": "often"}, "is neither a cron expression nor one of"),
        ({"rates_per_s": [5000]}, "less than or equal to 2000"),
        ({"rates_per_s": [0]}, "greater than 0"),
        ({"closed_users": [0]}, "greater than or equal to 1"),
        ({"keep_s": 0}, "greater than or equal to 1"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"workers": 9}, "less than or equal to 8"),
        ({"most_per_s": 7}, "most_per_s is below the largest of rates_per_s"),
    ],
)
def test_refused(given, said):
    """What cannot run, or would never end, is refused when the model file is read."""
    with pytest.raises(ValidationError, match=said):
        LoadSettings(**given)
