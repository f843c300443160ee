"""What every operator must do, tried on an example of every exported operator."""

import copy
import inspect
import pickle

import pytest
import torch

from disinr_monai import operators
from disinr_monai.operators import LinearOperator
from disinr_monai.operators.linear_operator import Composition, Masked
from tests.operators.helpers import EXAMPLE_OPERATORS, every_operator, random_like, random_range


def real_inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.conj() * b).real.sum()


def dense(operator: LinearOperator) -> torch.Tensor:
    """Real matrix of a double-precision operator: one column per pixel, real above imaginary part."""
    n_pixels = int(torch.tensor(operator.domain_shape).prod())
    measured = operator(torch.eye(n_pixels, dtype=torch.float64).reshape(n_pixels, *operator.domain_shape))
    measured = measured.reshape(n_pixels, -1)
    return torch.cat((measured.real, measured.imag), dim=1).T if measured.is_complex() else measured.T


def test_every_exported_operator_has_an_example():
    exported = {
        value
        for name in operators.__all__
        if inspect.isclass(value := getattr(operators, name)) and issubclass(value, LinearOperator)
    } - {LinearOperator}
    assert exported | {Masked, Composition} == set(EXAMPLE_OPERATORS), "add an example to tests/operators/helpers.py"


@every_operator
@pytest.mark.parametrize("batch", [(), (3,), (2, 1)])
def test_adjoint(make, batch):
    operator = make().double()
    x = random_like((*batch, *operator.domain_shape), False, 0)
    y = random_range(operator, batch)
    left, right = real_inner(operator(x), y), real_inner(x, operator.adjoint(y))
    assert abs(left - right) <= 1e-12 * torch.linalg.vector_norm(operator(x)) * torch.linalg.vector_norm(y)
    assert torch.linalg.vector_norm(operator(x)) > 0


@every_operator
def test_gradient_is_the_adjoint(make):
    operator = make().double()
    x = random_like((2, *operator.domain_shape), False, 0).requires_grad_()
    y = random_range(operator, (2,))
    (gradient,) = torch.autograd.grad(real_inner(operator(x), y), x)
    torch.testing.assert_close(gradient, operator.adjoint(y), rtol=1e-10, atol=1e-10)


@every_operator
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_shapes_and_batches(make, batch):
    operator = make()
    x = torch.randn((*batch, *operator.domain_shape))
    y = operator(x)
    assert y.shape == (*batch, *operator.range_shape)
    for method in (operator.adjoint, operator.direct_inverse):
        assert method(y).shape == x.shape
        assert method(y).dtype == torch.float32
    assert operator.precondition(y).shape == y.shape
    if batch:
        one = (1,) * len(batch)
        torch.testing.assert_close(operator(x)[one], operator(x[one]))
        torch.testing.assert_close(operator.direct_inverse(y)[one], operator.direct_inverse(y[one]))


@every_operator
def test_wrong_shapes_are_named(make):
    operator = make()
    name = type(operator).__name__
    with pytest.raises(ValueError, match=f"{name}: image must have shape"):
        operator(torch.zeros((*operator.domain_shape[:-1], operator.domain_shape[-1] + 1)))
    with pytest.raises(ValueError, match=f"{name}: measurement must have shape"):
        operator.adjoint(torch.zeros((operator.range_shape[0] + 1, *operator.range_shape[1:])))


@every_operator
def test_norm_squared(make):
    operator = make().double()
    largest = float(torch.linalg.matrix_norm(dense(operator), ord=2)) ** 2
    assert operator.norm_squared(n_iterations=60) == pytest.approx(largest, rel=0.01)


@every_operator
def test_move(make):
    operator = make()
    x = torch.randn(operator.domain_shape)
    y = operator(x)
    moved = copy.deepcopy(operator).to(torch.float64)
    assert moved(x.double()).dtype.to_real() == torch.float64
    torch.testing.assert_close(moved(x.double()).to(y.dtype), y)
    # The original keeps its own precision although the two may share memory.
    torch.testing.assert_close(operator(x), y)
    torch.testing.assert_close(moved.float()(x), y)
    torch.testing.assert_close(pickle.loads(pickle.dumps(operator))(x), y)


@every_operator
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_move_to_cuda(make):
    operator = make()
    x = torch.randn(operator.domain_shape)
    y = operator(x)
    operator = operator.to("cuda")
    torch.testing.assert_close(operator(x.cuda()).cpu(), y)
    torch.testing.assert_close(operator.direct_inverse(y.cuda()).cpu(), make().direct_inverse(y))


@every_operator
def test_nothing_is_saved_with_a_network(make):
    assert not make().state_dict()
