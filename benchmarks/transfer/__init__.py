"""What merging brings to a new task with few labels: targets x label budgets x seeds x methods."""
