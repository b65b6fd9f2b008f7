"""From a genome to a merged model: what is merged how, in memory and on disk.

``masks`` and ``methods`` are plain functions of tensors, ``parameter_space`` gives genomes a
meaning, ``ingredients`` prepares each tensor once and merges it again and again, ``live`` does so
inside a resident model, ``export`` on the way to disk. Nothing here knows of tasks or optimizers.
"""
