"""What a run of `tlbook.finetune` is made of, and what comes out of it."""
