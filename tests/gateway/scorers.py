"""What the gateway of the tests plugs into its ranking."""

from vitrine.ranking.preferences import Preferences


def create_taste():
    return Preferences({"ann": {"brand": {"B": 2.0}}})


def create_nothing():
    return None
