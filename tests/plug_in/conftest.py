"""The colours for projects."""

import pytest

from tests.plug_in import projects


@pytest.fixture(autouse=True, scope="session")
def _colours(colours):
    projects.COLOURS.update(colours.fedddpm)
