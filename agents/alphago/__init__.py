"""AlphaGo (Silver et al. 2016): four learners, and the search that combines what they learned."""
