"""Other libraries' programs for the same workloads, each as its library's documentation recommends.

They run in an environment of their own (requirements.txt), where they are imported by `benchmarks.worker`.
"""
