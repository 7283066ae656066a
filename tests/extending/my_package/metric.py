"""A metric of one's own: how far the means of generated and of real samples are apart in the features of a network."""

from imagegen_dist import metric_table
from imagegen_dist.evaluation.figures import Comparison, Figure, register_metric
from imagegen_dist.metric_table import Metric

metric_table.register(Metric("eval/mean_distance", "distance of the means", "lower", meaning="||mu - mu_real||"))


@register_metric("mean-distance", "distance of the mean features of generated and real samples")
def mean_distance(comparison: Comparison) -> list[Figure]:
    """From the sums over all samples, which any number of workers or tasks has added up."""
    gap = comparison.generated.moments.mean - comparison.real.moments.mean
    return [Figure("mean_distance", float(gap.norm()))]


metric_table.register(Metric("eval/feature_distance", "distance of the means of the features", "lower"))
metric_table.register(Metric("eval/real_features", "real samples whose features are compared"))


@register_metric("feature-distance", "the same from every sample's features", of_each_sample=True)
def feature_distance(comparison: Comparison) -> list[Figure]:
    """From the features themselves, which all workers have collected."""
    generated, real = comparison.generated.features(), comparison.real.features()
    gap = generated.double().mean(0) - comparison.real.moments.mean.cpu()
    return [Figure("feature_distance", float(gap.norm())), Figure("real_features", float(len(real)))]
