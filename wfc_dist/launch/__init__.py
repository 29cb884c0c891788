"""Starting runs on clusters from a login node or a laptop: jobs of Ray and Slurm, and the files that a site copies."""
