"""What other libraries call our functions, for the hints in errors."""

from types import MappingProxyType

ELSEWHERE = MappingProxyType(
    {
        "jensenshannon": "js_distance",
        "jensen_shannon": "js_divergence",
        "jsd": "js_divergence",
        "js": "js_divergence",
        "kl": "kl_divergence",
        "kullbackleibler": "kl_divergence",
        "kullback-leibler": "kl_divergence",
        "kl_div": "kl_divergence",
        "rel_entr": "kl_divergence",
        "entropy": "cross_entropy",
        "hellinger": "hellinger_distance",
        "jeffreys": "jeffreys_divergence",
        "symmetric_kl": "jeffreys_divergence",
        "renyi": "renyi_divergence",
        "bhattacharyya": "bhattacharyya_distance",
        "tv": "total_variation",
        "tvd": "total_variation",
    }
)
