import pytest

from imagegen_dist.shape import SampleShape


def test_an_image_a_video_and_voxels_have_their_dims():
    assert SampleShape(3, (32, 48)).dims == (3, 32, 48)
    assert SampleShape(1, (8, 16, 24)).dims == (1, 8, 16, 24)


def test_ndim_counts_spatial_axes_alone():
    assert [SampleShape(3, extents).ndim for extents in [(5,), (5, 6), (5, 6, 7)]] == [1, 2, 3]


def test_numel_is_the_product_of_all_extents():
    assert SampleShape(3, (5, 7)).numel == 105


def test_equal_shapes_are_one_key():
    assert {SampleShape(1, (2, 2)): "a"}[SampleShape(1, (2, 2))] == "a"


def test_text_names_the_extents_before_the_channels():
    assert str(SampleShape(3, (28, 32))) == "28 × 32 × 3"


@pytest.mark.parametrize(("channels", "spatial"), [(0, (4, 4)), (3, ()), (3, (4, 0)), (-1, (4,)), (1, (4, -4))])
def test_an_empty_sample_is_refused(channels, spatial):
    with pytest.raises(ValueError, match="is empty"):
        SampleShape(channels, spatial)
