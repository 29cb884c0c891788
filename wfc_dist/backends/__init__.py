"""Where the verbs of the algorithm are carried out: in this process, on Ray, or as Slurm jobs."""
