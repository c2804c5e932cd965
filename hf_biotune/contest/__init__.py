"""The contest of methods: the same data, budget and seeds for each, and what their scores allow."""
