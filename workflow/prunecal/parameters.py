"""The base of every block of settings: typed, described, unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class Parameters(BaseModel):
    """Settings that are checked when made and never change after."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
