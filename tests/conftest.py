import numpy as np
import pytest


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def global_dtype(request):
    """The dtype of scikit-learn's own mixture tests, which ask for it under this name."""
    return request.param


@pytest.fixture(params=[42])
def global_random_seed(request):
    """The seed of scikit-learn's own mixture tests, which ask for it under this name."""
    return request.param


@pytest.fixture
def steps_from_python(monkeypatch):
    """Make all EM steps from Python, also on few rows."""
    monkeypatch.setattr("fastgmm.fitting.em.CompiledSteps.for_run", lambda *_: None)
