"""Place models on shared GPUs: the published baseline, a rule of one's own, and the optimum."""

from cloudchamber import study
from cloudchamber.placement import Instance, Placement


class LargestFirst:
    """Large models first, each to the GPU with the most free memory."""

    def reset(self, spec, rng) -> None: ...

    def place(self, instance: Instance) -> Placement:
        free_gb = [instance.gpu_memory_gb] * instance.gpus
        gpu_of = [0] * len(instance.models)
        for i in sorted(range(len(gpu_of)), key=lambda i: -instance.models[i].size_gb):
            gpu_of[i] = free_gb.index(max(free_gb))
            free_gb[gpu_of[i]] -= instance.models[i].size_gb
        return Placement(tuple(gpu_of))


if __name__ == "__main__":
    print(study("placement", policies=["PrismGreedy", LargestFirst, "Multifit", "ExactPacking"], workloads=["smoke"], seeds=12).table())
