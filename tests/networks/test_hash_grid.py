import math
from functools import partial

import pytest
import torch

from disinr_monai.networks import MLP, HashGrid, HashGridEncoder, Strainer, tcnn_backend
from disinr_monai.networks.hash_grid import cell_corners, weighted_sums

PRIMES = (1, 2654435761, 805459861, 3674653429)


def corners_by_hand(grid: HashGrid, point: list[float]) -> list[list[tuple[int, float]]]:
    """Row and weight of one point's corners, level by level, in Python integers: the definition without tensors."""
    levels = []
    offset = 0
    for level in range(grid.n_levels):
        scale = grid.base_resolution * grid.per_level_scale**level - 1
        resolution = math.ceil(scale) + 1
        size = min(-(-(resolution**grid.in_dim) // 8) * 8, 2**grid.log2_hashmap_size)
        position = [(x + 1) / 2 * scale + 0.5 for x in point]
        cell = [math.floor(p) for p in position]
        corners = []
        for corner in range(2**grid.in_dim):
            weight, at = 1.0, []
            for d in range(grid.in_dim):
                up = corner >> d & 1
                fraction = position[d] - cell[d]
                weight *= fraction if up else 1 - fraction
                at.append(cell[d] + up)
            if resolution**grid.in_dim <= size:
                index = sum(a * resolution**d for d, a in enumerate(at))
            else:
                index = 0
                for d, a in enumerate(at):
                    index ^= (a * PRIMES[d]) % 2**32
            corners.append((offset + index % size, weight))
        levels.append(corners)
        offset += size
    return levels


def encode_by_hand(grid: HashGrid, point: list[float]) -> list[float]:
    features = []
    for corners in corners_by_hand(grid, point):
        features += sum(weight * grid.table[row].detach() for row, weight in corners).tolist()
    return features


@pytest.mark.parametrize("in_dim", [2, 3, 4])
@pytest.mark.parametrize("fixed_points", [True, False])
def test_equals_the_definition(in_dim, fixed_points, rng):
    grid = HashGrid(
        in_dim,
        n_levels=5,
        n_features_per_level=2,
        log2_hashmap_size=8,
        base_resolution=3,
        per_level_scale=1.7,
        fixed_points=fixed_points,
    )
    points = torch.rand(17, in_dim, generator=rng) * 2 - 1
    expected = torch.tensor([encode_by_hand(grid, p.tolist()) for p in points])
    torch.testing.assert_close(grid(points), expected, rtol=1e-3, atol=1e-9)


def test_sparse_and_gathered_gradients_agree(rng):
    points = torch.rand(50, 2, generator=rng) * 2 - 1
    upstream = torch.rand(50, 80, generator=rng)
    gradients = []
    for fixed_points in (True, False):
        grid = HashGrid(2, fixed_points=fixed_points, seed=5)
        (grid(points) * upstream).sum().backward()
        gradients.append(grid.table.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("in_dim", [2, 3, 4])
def test_corners_by_the_definition(in_dim, rng):
    """Also where 32-bit products of coordinates and primes wrap around."""
    grid = HashGrid(in_dim, n_levels=14, log2_hashmap_size=12)
    points = torch.rand(100, in_dim, generator=rng) * 2 - 1
    rows, weights = cell_corners(points, grid.levels)
    found = torch.stack((rows.double(), weights.double()), -1)
    expected = torch.tensor([corners_by_hand(grid, point.tolist()) for point in points], dtype=torch.float64)
    assert (found[..., 0] == expected[..., 0]).double().mean() > 0.99, "all but points at the border of a cell"
    same = (found[..., 0] == expected[..., 0]).all(-1)
    torch.testing.assert_close(found[same], expected[same], rtol=0, atol=0.02)  # float32 positions on 8192 cells


def test_streamed_sums_have_the_right_derivatives(rng):
    """First and second, in double precision (MAML differentiates twice)."""
    rows = torch.randint(0, 9, (7, 4), generator=rng, dtype=torch.int32)
    weights = torch.rand(7, 4, generator=rng, dtype=torch.float64)
    table = torch.randn(9, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    expected = (weights.unsqueeze(-1) * table[rows.long()]).sum(1)
    torch.testing.assert_close(weighted_sums(rows, weights, table), expected)
    assert torch.autograd.gradcheck(lambda t: weighted_sums(rows, weights, t), table)
    assert torch.autograd.gradgradcheck(lambda t: weighted_sums(rows, weights, t).square(), table)


def test_streamed_points_that_changed_in_place_are_encoded_anew(rng):
    grid = HashGrid(3, n_levels=4, fixed_points=False)
    points = torch.rand(20, 3, generator=rng) * 2 - 1
    first = grid(points)
    points.mul_(0.5)
    assert not torch.equal(grid(points), first)
    torch.testing.assert_close(grid(points), HashGrid(3, n_levels=4)(points))


def test_a_compact_grid_expands_to_what_was_fitted(rng):
    points, elsewhere = torch.rand(2, 50, 2, generator=rng) * 2 - 1
    grid = HashGrid(log2_hashmap_size=12)
    untouched = grid(elsewhere).detach()
    grid.compact(points)
    with torch.no_grad():
        grid.table.mul_(3)
    fitted = grid(points).detach()
    grid.expand()
    torch.testing.assert_close(grid(points), fitted)
    assert grid(elsewhere).shape == untouched.shape
    assert len(grid.table) == len(HashGrid(log2_hashmap_size=12).table)


def test_other_points_of_the_same_shape_are_not_taken_from_the_cache(rng):
    grid = HashGrid(2, n_levels=4)
    first, second = torch.rand(2, 30, 2, generator=rng) * 2 - 1
    grid(first)
    torch.testing.assert_close(grid(second), HashGrid(2, n_levels=4, fixed_points=False)(second))


def test_features_start_near_zero():
    assert 0 < HashGrid(seed=0).table.abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("kwargs", "message"), [({"in_dim": 5}, "in_dim must be 2, 3 or 4, found 5"), ({"n_levels": 0}, "at least 1")]
)
def test_bad_sizes_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        HashGrid(**kwargs)


def test_wrong_points_are_refused():
    with pytest.raises(ValueError, match=r"points must have shape \(n, 2\), found \(4, 3\)"):
        HashGrid(2)(torch.zeros(4, 3))


def padded(mlp: MLP) -> int:
    """Parameters of an MLP as tiny-cuda-nn counts them, matrices padded to multiples of 16."""
    return tcnn_backend.flat_parameters(mlp.weights).numel()


def encoder_size(encoder: HashGridEncoder) -> int:
    return encoder.grid.table.numel() + padded(encoder.mlp)


def strainer_size(network: Strainer) -> int:
    return encoder_size(network.shared["encoder"]) + sum(padded(head) for head in network.subjects)


def levels_of_16(method: partial) -> int:
    return strainer_size(method(partial(HashGridEncoder, 3, n_levels=16), out_channels=1))


@pytest.mark.parametrize(
    ("size", "published"),
    [
        (lambda: encoder_size(HashGridEncoder(2)), 4_936_384),  # DisINR's subject encoder in 2D, 4.94 M
        (lambda: encoder_size(HashGridEncoder(3)), 10_828_352),  # in 3D, 10.83 M
        (lambda: 2 * encoder_size(HashGridEncoder(3)) + padded(MLP(256, 1, 128, 2)), 21_707_904),  # all of it, 21.71 M
        (lambda: encoder_size(HashGridEncoder(2, out_dim=2)), 4_922_048),  # NGP in 2D, 4.92 M
        (lambda: HashGrid(3, n_levels=16).table.numel() + padded(MLP(128, 1, 128, 2)), 23_403_072),  # in 3D, 23.40 M
        (lambda: strainer_size(Strainer(HashGridEncoder, out_channels=2)), 4_971_200),  # Strainer in 2D, 4.97 M
        (lambda: levels_of_16(partial(Strainer, n_subjects=6)), 23_626_304),  # in 3D with six heads, 23.63 M
    ],
)
def test_published_parameter_counts(size, published):
    """arXiv 2605.04234, tables 1 and 5, in millions to two decimals; the exact numbers follow from the layout."""
    assert size() == published


@pytest.mark.cuda
@pytest.mark.parametrize("in_dim", [2, 3])
def test_parity_with_tiny_cuda_nn(in_dim, rng):
    if not tcnn_backend.is_available():
        pytest.skip("tinycudann is not installed")
    encoder = HashGridEncoder(in_dim, fixed_points=False)
    with torch.no_grad():
        encoder.grid.table.uniform_(-1, 1, generator=rng)
    points = torch.rand(1024, in_dim, generator=rng) * 2 - 1
    expected = encoder(points)
    encoder.cuda()
    encoder.mlp.amp = True
    torch.testing.assert_close(encoder.grid(points.cuda()).cpu(), encoder.cpu().grid(points), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(encoder.cuda()(points.cuda()).cpu(), expected, rtol=2e-2, atol=2e-2)


def test_a_compact_grid_is_fitted_to_the_same_values():
    """Adam on the rows that the points touch gives bit for bit what Adam on the whole table gives."""
    points = torch.rand(50, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
    target = torch.randn(50, 80, generator=torch.Generator().manual_seed(4))
    whole, compact = HashGrid(log2_hashmap_size=12, seed=5), HashGrid(log2_hashmap_size=12, seed=5)
    compact.compact(points)
    assert len(compact.table) < 0.2 * len(whole.table)
    fitted = []
    for grid in (whole, compact):
        optimizer = torch.optim.Adam(grid.parameters(), lr=1e-2, fused=True)
        for _ in range(5):
            optimizer.zero_grad()
            (grid(points) - target).abs().mean().backward()
            optimizer.step()
        fitted.append(grid(points).detach())
    assert torch.equal(*fitted)
    with pytest.raises(ValueError, match="only the points that it was made compact for"):
        compact(points.flip(0))
